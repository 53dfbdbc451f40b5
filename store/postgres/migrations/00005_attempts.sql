-- +goose Up

-- Which logins have been carried out, and what came of them, sealed. Unlogged: it costs no flush of the log, is in no
-- archive of it, and is empty after a crash, which session.Attempts allows.
CREATE UNLOGGED TABLE curfew_attempts (
	id      bytea  NOT NULL PRIMARY KEY,
	expires bigint NOT NULL,
	value   bytea  NOT NULL
);
ALTER TABLE curfew_attempts ALTER COLUMN value SET STORAGE EXTERNAL;
CREATE INDEX curfew_attempts_by_expires ON curfew_attempts (expires);

-- +goose Down
DROP TABLE curfew_attempts;
