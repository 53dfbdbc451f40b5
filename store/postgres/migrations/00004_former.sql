-- +goose Up

-- The index of former sids can only be searched by a bitmap scan, which the connections of Curfew switch off for their
-- other statements. Without it an ending of a sid read all sessions.
ALTER FUNCTION curfew_end SET enable_bitmapscan = on;
