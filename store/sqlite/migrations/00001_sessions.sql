-- +goose Up
-- +goose StatementBegin
-- Times are microseconds since 1970. An empty sid means that the ID Token had none.
CREATE TABLE sessions (
	id           INTEGER PRIMARY KEY,
	key          BLOB    NOT NULL,
	issuer       TEXT    NOT NULL,
	client       TEXT    NOT NULL,
	subject      TEXT    NOT NULL,
	sid          TEXT    NOT NULL,
	created      INTEGER NOT NULL,
	last_seen    INTEGER NOT NULL,
	idle_expires INTEGER NOT NULL,
	expires      INTEGER NOT NULL,
	until        INTEGER NOT NULL GENERATED ALWAYS AS (min(idle_expires, expires)) VIRTUAL,
	revision     INTEGER NOT NULL,
	refresh      INTEGER NOT NULL,
	payload      BLOB    NOT NULL
) STRICT;
-- +goose StatementEnd
CREATE UNIQUE INDEX sessions_by_key ON sessions (key);
CREATE INDEX sessions_by_subject ON sessions (issuer, client, subject, sid);
CREATE INDEX sessions_by_sid ON sessions (issuer, client, sid) WHERE sid <> '';
CREATE INDEX sessions_by_until ON sessions (until);

-- +goose StatementBegin
-- End marks. A mark bars the subject, the sid, or, if both are set, the subject with that sid and the subject without a
-- sid.
CREATE TABLE marks (
	issuer  TEXT    NOT NULL,
	client  TEXT    NOT NULL,
	subject TEXT    NOT NULL,
	sid     TEXT    NOT NULL,
	at      INTEGER NOT NULL,
	PRIMARY KEY (issuer, client, subject, sid)
) STRICT, WITHOUT ROWID;
-- +goose StatementEnd
CREATE INDEX marks_by_at ON marks (at);

-- +goose StatementBegin
CREATE TABLE jtis (
	issuer  TEXT    NOT NULL,
	client  TEXT    NOT NULL,
	jti     TEXT    NOT NULL,
	expires INTEGER NOT NULL,
	PRIMARY KEY (issuer, client, jti)
) STRICT, WITHOUT ROWID;
-- +goose StatementEnd
CREATE INDEX jtis_by_expires ON jtis (expires);

-- +goose StatementBegin
CREATE TABLE notices (
	id          INTEGER PRIMARY KEY AUTOINCREMENT,
	kind        TEXT    NOT NULL,
	target      TEXT    NOT NULL,
	issuer      TEXT    NOT NULL,
	client      TEXT    NOT NULL,
	subject     TEXT    NOT NULL,
	sid         TEXT    NOT NULL,
	key         BLOB    NOT NULL,
	cause       TEXT    NOT NULL,
	payload     BLOB    NOT NULL,
	created     INTEGER NOT NULL,
	due         INTEGER NOT NULL,
	deadline    INTEGER NOT NULL,
	attempts    INTEGER NOT NULL DEFAULT 0,
	lease       TEXT    NOT NULL DEFAULT '',
	leased_till INTEGER NOT NULL DEFAULT 0,
	given_up    INTEGER NOT NULL DEFAULT 0,
	reason      TEXT    NOT NULL DEFAULT ''
) STRICT;
-- +goose StatementEnd

-- +goose Down
DROP TABLE notices;
DROP TABLE jtis;
DROP TABLE marks;
DROP TABLE sessions;
