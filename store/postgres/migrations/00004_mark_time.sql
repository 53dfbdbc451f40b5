-- +goose Up

-- +goose StatementBegin
-- An end mark bars the logins that began before it. Whoever ends sessions only has bounds of this server's time, so the mark
-- is made no earlier than that time, taken when all locks have been waited for.
CREATE FUNCTION curfew_mark_time() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.at := greatest(NEW.at, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
	RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER curfew_mark_time BEFORE INSERT ON curfew_marks FOR EACH ROW EXECUTE FUNCTION curfew_mark_time();

-- +goose Down
DROP TRIGGER curfew_mark_time ON curfew_marks;
DROP FUNCTION curfew_mark_time;
