-- +goose Up
-- +goose StatementBegin
-- The values of store.Attempts, sealed: which logins have been carried out, and with what result.
CREATE TABLE attempts (
	id      BLOB    NOT NULL PRIMARY KEY,
	expires INTEGER NOT NULL,
	value   BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
-- +goose StatementEnd
CREATE INDEX attempts_by_expires ON attempts (expires);

-- +goose Down
DROP TABLE attempts;
