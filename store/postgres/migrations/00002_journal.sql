-- +goose Up

-- The newest entries of store.Journal, sealed.
CREATE TABLE curfew_journal (
	position bigint NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	added    bigint NOT NULL,
	entry    bytea  NOT NULL
);
ALTER TABLE curfew_journal ALTER COLUMN entry SET STORAGE EXTERNAL;
CREATE INDEX curfew_journal_by_added ON curfew_journal (added);

-- +goose Down
DROP TABLE curfew_journal;
