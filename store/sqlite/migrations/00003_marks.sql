-- +goose Up
-- Until when a mark is kept. Where access tokens are taken, that is longer than store.MarkLifetime.
ALTER TABLE marks ADD COLUMN kept_until INTEGER NOT NULL DEFAULT 0;
UPDATE marks SET kept_until = at + 1800000000;
DROP INDEX marks_by_at;
CREATE INDEX marks_by_kept_until ON marks (kept_until);

-- +goose Down
DROP INDEX marks_by_kept_until;
ALTER TABLE marks DROP COLUMN kept_until;
CREATE INDEX marks_by_at ON marks (at);
