-- +goose Up
-- The sids that a session had before its present one: a JSON array, or empty.
ALTER TABLE sessions ADD COLUMN former TEXT NOT NULL DEFAULT '';

-- +goose StatementBegin
-- The sessions by each of these sids. Triggers maintain the table.
CREATE TABLE former_sids (
	issuer  TEXT    NOT NULL,
	client  TEXT    NOT NULL,
	sid     TEXT    NOT NULL,
	session INTEGER NOT NULL,
	PRIMARY KEY (issuer, client, sid, session)
) STRICT, WITHOUT ROWID;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER former_inserted AFTER INSERT ON sessions WHEN new.former <> '' BEGIN
	INSERT INTO former_sids SELECT new.issuer, new.client, value, new.id FROM json_each(new.former);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER former_deleted AFTER DELETE ON sessions WHEN old.former <> '' BEGIN
	DELETE FROM former_sids WHERE issuer = old.issuer AND client = old.client AND session = old.id
		AND sid IN (SELECT value FROM json_each(old.former));
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER former_updated AFTER UPDATE OF former ON sessions BEGIN
	DELETE FROM former_sids WHERE old.former <> '' AND issuer = old.issuer AND client = old.client AND session = old.id
		AND sid IN (SELECT value FROM json_each(old.former));
	INSERT INTO former_sids
		SELECT new.issuer, new.client, value, new.id FROM json_each(new.former) WHERE new.former <> '';
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER former_updated;
DROP TRIGGER former_deleted;
DROP TRIGGER former_inserted;
DROP TABLE former_sids;
ALTER TABLE sessions DROP COLUMN former;
