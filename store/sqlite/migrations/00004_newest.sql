-- +goose Up
-- The sessions of a subject, the newest last: those beyond the cap are found without reading the others, and those with
-- one sid without reading the table.
CREATE INDEX sessions_by_newest ON sessions (issuer, client, subject, created, sid);
DROP INDEX sessions_by_subject;

-- +goose Down
CREATE INDEX sessions_by_subject ON sessions (issuer, client, subject, sid);
DROP INDEX sessions_by_newest;
