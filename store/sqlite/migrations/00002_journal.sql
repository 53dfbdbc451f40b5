-- +goose Up
-- +goose StatementBegin
-- The newest entries of store.Journal, sealed. AUTOINCREMENT: a position is not used again.
CREATE TABLE journal (
	position INTEGER PRIMARY KEY AUTOINCREMENT,
	added    INTEGER NOT NULL,
	entry    BLOB    NOT NULL
) STRICT;
-- +goose StatementEnd
CREATE INDEX journal_by_added ON journal (added);

-- +goose Down
DROP TABLE journal;
