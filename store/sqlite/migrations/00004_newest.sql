-- +goose Up
-- The sessions of a subject, the newest last: those beyond the cap are found without looking at the others, and those of one
-- sid without looking at the table.
CREATE INDEX sessions_by_newest ON sessions (issuer, client, subject, created, sid);
DROP INDEX sessions_by_subject;

-- +goose Down
CREATE INDEX sessions_by_subject ON sessions (issuer, client, subject, sid);
DROP INDEX sessions_by_newest;
