-- +goose Up

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
	payload      BLOB    NOT NULL,
	former       TEXT    NOT NULL DEFAULT '' -- the sids before the present one: a JSON array, or empty
) STRICT;
CREATE UNIQUE INDEX sessions_by_key ON sessions (key);
-- The sessions of a subject, the newest last: those beyond the cap are found without reading the others, and those with
-- one sid without reading the table.
CREATE INDEX sessions_by_newest ON sessions (issuer, client, subject, created, sid);
CREATE INDEX sessions_by_sid ON sessions (issuer, client, sid) WHERE sid <> '';
CREATE INDEX sessions_by_until ON sessions (until);

-- The sessions by each of their former sids. Triggers maintain the table.
CREATE TABLE former_sids (
	issuer  TEXT    NOT NULL,
	client  TEXT    NOT NULL,
	sid     TEXT    NOT NULL,
	session INTEGER NOT NULL,
	PRIMARY KEY (issuer, client, sid, session)
) STRICT, WITHOUT ROWID;
-- +goose StatementBegin
CREATE TRIGGER former_inserted AFTER INSERT ON sessions WHEN new.former <> '' BEGIN
	INSERT INTO former_sids SELECT new.issuer, new.client, value, new.id FROM json_each(new.former);
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER former_deleted AFTER DELETE ON sessions WHEN old.former <> '' BEGIN
	DELETE FROM former_sids WHERE issuer = old.issuer AND client = old.client AND session = old.id
		AND sid IN (SELECT value FROM json_each(old.former));
END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER former_updated AFTER UPDATE OF former ON sessions BEGIN
	DELETE FROM former_sids WHERE old.former <> '' AND issuer = old.issuer AND client = old.client AND session = old.id
		AND sid IN (SELECT value FROM json_each(old.former));
	INSERT INTO former_sids
		SELECT new.issuer, new.client, value, new.id FROM json_each(new.former) WHERE new.former <> '';
END;
-- +goose StatementEnd

-- End marks. A mark bars the subject, the sid, or, if both are set, the sessions of the subject without a sid.
CREATE TABLE marks (
	issuer  TEXT    NOT NULL,
	client  TEXT    NOT NULL,
	subject TEXT    NOT NULL,
	sid     TEXT    NOT NULL,
	at      INTEGER NOT NULL,
	PRIMARY KEY (issuer, client, subject, sid)
) STRICT, WITHOUT ROWID;
CREATE INDEX marks_by_at ON marks (at);

CREATE TABLE jtis (
	issuer  TEXT    NOT NULL,
	client  TEXT    NOT NULL,
	jti     TEXT    NOT NULL,
	expires INTEGER NOT NULL,
	PRIMARY KEY (issuer, client, jti)
) STRICT, WITHOUT ROWID;
CREATE INDEX jtis_by_expires ON jtis (expires);

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
CREATE INDEX notices_by_target ON notices (given_up, kind, target, due);

-- Small sealed values that are found by name.
CREATE TABLE shared_values (
	name     TEXT    NOT NULL PRIMARY KEY,
	value    BLOB    NOT NULL,
	revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The values of store.Attempts, sealed: which logins have been carried out, and with what result.
CREATE TABLE attempts (
	id      BLOB    NOT NULL PRIMARY KEY,
	expires INTEGER NOT NULL,
	value   BLOB    NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_by_expires ON attempts (expires);
