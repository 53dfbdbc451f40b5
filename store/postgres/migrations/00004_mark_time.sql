-- +goose Up

-- +goose StatementBegin
-- An end mark bars the logins that began before it. A caller of End knows this server's time only approximately. So the
-- mark is never earlier than the server's time, read after every wait for a lock.
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
