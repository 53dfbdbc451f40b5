-- +goose Up
-- +goose StatementBegin
-- Which logins have been carried out, and what came of them, sealed.
CREATE TABLE attempts (
	id      BLOB    NOT NULL PRIMARY KEY,
	expires INTEGER NOT NULL,
	value   BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
-- +goose StatementEnd
CREATE INDEX attempts_by_expires ON attempts (expires);

-- +goose Down
DROP TABLE attempts;
