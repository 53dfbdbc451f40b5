-- +goose Up
CREATE INDEX notices_by_target ON notices (given_up, kind, target, due);

-- +goose StatementBegin
-- Small sealed values that are found by name.
CREATE TABLE vault (
	name     TEXT    NOT NULL PRIMARY KEY,
	value    BLOB    NOT NULL,
	revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- +goose StatementEnd

-- +goose Down
DROP TABLE vault;
DROP INDEX notices_by_target;
