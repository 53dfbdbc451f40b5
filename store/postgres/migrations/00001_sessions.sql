-- +goose Up

-- Times are microseconds since 1970. An empty sid means that the ID Token had none. The hashes are the first 64 bits of
-- a SHA-256 over issuer, client and name: as short in an index as a number, however long the names are. Every query by
-- a hash compares the names too.
CREATE TABLE curfew_sessions (
	key          bytea    NOT NULL PRIMARY KEY,
	subject_hash bigint   NOT NULL,
	sid_hash     bigint,  -- null without a sid
	created      bigint   NOT NULL,
	last_seen    bigint   NOT NULL,
	idle_expires bigint   NOT NULL,
	expires      bigint   NOT NULL,
	revision     bigint   NOT NULL,
	-- When the session may be pruned, in units of five minutes. A session in use changes its idle_expires every minute.
	-- If that column were in an index, each change would write to every index of the table.
	slot         bigint   NOT NULL GENERATED ALWAYS AS (least(idle_expires, expires) / 300000000) STORED,
	refresh      smallint NOT NULL,
	issuer       text     NOT NULL COLLATE "C",
	client       text     NOT NULL COLLATE "C",
	subject      text     NOT NULL COLLATE "C",
	sid          text     NOT NULL COLLATE "C",
	payload      bytea    NOT NULL
) WITH (fillfactor = 90);
-- A payload is sealed, so it cannot be compressed.
ALTER TABLE curfew_sessions ALTER COLUMN payload SET STORAGE EXTERNAL;
CREATE INDEX curfew_sessions_by_subject ON curfew_sessions (subject_hash);
CREATE INDEX curfew_sessions_by_sid ON curfew_sessions (sid_hash) WHERE sid_hash IS NOT NULL;
CREATE INDEX curfew_sessions_by_slot ON curfew_sessions (slot);

-- End marks. A mark bars the subject, the sid, or, if both are set, the subject with that sid and the subject without a
-- sid.
CREATE TABLE curfew_marks (
	issuer  text   NOT NULL COLLATE "C",
	client  text   NOT NULL COLLATE "C",
	subject text   NOT NULL COLLATE "C",
	sid     text   NOT NULL COLLATE "C",
	at      bigint NOT NULL,
	PRIMARY KEY (issuer, client, subject, sid)
);
CREATE INDEX curfew_marks_by_at ON curfew_marks (at);

-- A jti may be longer than an index can hold; its digest covers issuer and client too.
CREATE TABLE curfew_jtis (
	digest  bytea  NOT NULL PRIMARY KEY,
	expires bigint NOT NULL
);
CREATE INDEX curfew_jtis_by_expires ON curfew_jtis (expires);

CREATE TABLE curfew_notices (
	id          bigint   NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	created     bigint   NOT NULL,
	due         bigint   NOT NULL,
	deadline    bigint   NOT NULL,
	leased_till bigint   NOT NULL DEFAULT 0,
	attempts    integer  NOT NULL DEFAULT 0,
	given_up    boolean  NOT NULL DEFAULT false,
	kind        text     NOT NULL COLLATE "C",
	target      text     NOT NULL COLLATE "C",
	issuer      text     NOT NULL COLLATE "C",
	client      text     NOT NULL COLLATE "C",
	subject     text     NOT NULL COLLATE "C",
	sid         text     NOT NULL COLLATE "C",
	cause       text     NOT NULL COLLATE "C",
	key         bytea    NOT NULL, -- empty when the notice is about a whole subject
	payload     bytea    NOT NULL,
	lease       text     NOT NULL COLLATE "C" DEFAULT '',
	reason      text     NOT NULL COLLATE "C" DEFAULT ''
);
ALTER TABLE curfew_notices ALTER COLUMN payload SET STORAGE EXTERNAL;

-- The sessions that ended lately, for the feeds, by the transaction that ended them.
CREATE TABLE curfew_ended (
	xid     xid8   NOT NULL,
	at      bigint NOT NULL,
	key     bytea  NOT NULL,
	issuer  text   NOT NULL COLLATE "C",
	client  text   NOT NULL COLLATE "C",
	subject text   NOT NULL COLLATE "C",
	sid     text   NOT NULL COLLATE "C",
	cause   text   NOT NULL COLLATE "C"
);
CREATE INDEX curfew_ended_by_xid ON curfew_ended (xid);

-- The newest transaction whose endings have been pruned. A feed that has not read since then has a gap.
CREATE TABLE curfew_ended_pruned (xid xid8 NOT NULL);
INSERT INTO curfew_ended_pruned VALUES ('0');

-- +goose Down
DROP TABLE curfew_ended_pruned;
DROP TABLE curfew_ended;
DROP TABLE curfew_notices;
DROP TABLE curfew_jtis;
DROP TABLE curfew_marks;
DROP TABLE curfew_sessions;
