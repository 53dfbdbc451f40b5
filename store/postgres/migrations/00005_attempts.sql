-- +goose Up

-- The values of store.Attempts, sealed: which logins have been carried out, and with what result. An unlogged table
-- needs no flush of the write-ahead log, is not in its archive, and is empty after a crash, which store.Attempts
-- allows.
CREATE UNLOGGED TABLE curfew_attempts (
	id      bytea  NOT NULL PRIMARY KEY,
	expires bigint NOT NULL,
	value   bytea  NOT NULL
);
ALTER TABLE curfew_attempts ALTER COLUMN value SET STORAGE EXTERNAL;
CREATE INDEX curfew_attempts_by_expires ON curfew_attempts (expires);

-- +goose Down
DROP TABLE curfew_attempts;
