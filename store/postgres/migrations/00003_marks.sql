-- +goose Up

-- Until when a mark is kept. Where access tokens are taken, that is longer than store.MarkLifetime: an ending then sets
-- curfew.mark_life, in microseconds, for its transaction. A trigger sets the column, so that curfew_end stays as
-- replicas of the release before know it.
ALTER TABLE curfew_marks ADD COLUMN kept_until bigint NOT NULL DEFAULT 0;
UPDATE curfew_marks SET kept_until = at + 1800000000;
DROP INDEX curfew_marks_by_at;
CREATE INDEX curfew_marks_by_kept_until ON curfew_marks (kept_until);

-- +goose StatementBegin
CREATE FUNCTION curfew_mark_kept() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	NEW.kept_until := greatest(NEW.kept_until, NEW.at
		+ coalesce(nullif(current_setting('curfew.mark_life', true), '')::bigint, 1800000000));
	RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER curfew_mark_kept BEFORE INSERT OR UPDATE ON curfew_marks
	FOR EACH ROW EXECUTE FUNCTION curfew_mark_kept();

-- +goose Down
DROP TRIGGER curfew_mark_kept ON curfew_marks;
DROP FUNCTION curfew_mark_kept;
ALTER TABLE curfew_marks DROP COLUMN kept_until;
CREATE INDEX curfew_marks_by_at ON curfew_marks (at);
