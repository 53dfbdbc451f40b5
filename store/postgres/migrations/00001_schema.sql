-- +goose Up

-- Times are microseconds since 1970. An empty sid means that the ID Token had none. The hashes are the first 64 bits of
-- a SHA-256 over issuer, client and name: as short in an index as a number, however long the names are. Every query by
-- a hash compares the names too.
CREATE TABLE curfew_sessions (
	key          bytea    NOT NULL PRIMARY KEY,
	subject_hash bigint   NOT NULL,
	sid_hash     bigint,   -- null without a sid
	created      bigint   NOT NULL,
	last_seen    bigint   NOT NULL,
	idle_expires bigint   NOT NULL,
	expires      bigint   NOT NULL,
	revision     bigint   NOT NULL,
	-- When the session may be pruned, in units of five minutes. A session in use changes its idle_expires every minute.
	-- If that column were in an index, each change would write to every index of the table.
	slot         bigint   NOT NULL GENERATED ALWAYS AS (least(idle_expires, expires) / 300000000) STORED,
	refresh      smallint NOT NULL,
	former_hash  bigint[], -- null without former sids
	issuer       text     NOT NULL COLLATE "C",
	client       text     NOT NULL COLLATE "C",
	subject      text     NOT NULL COLLATE "C",
	sid          text     NOT NULL COLLATE "C",
	former       text[]   NOT NULL COLLATE "C" DEFAULT '{}', -- the sids before the present one
	payload      bytea    NOT NULL
) WITH (fillfactor = 90);
-- A payload is sealed, so it cannot be compressed.
ALTER TABLE curfew_sessions ALTER COLUMN payload SET STORAGE EXTERNAL;
-- The sessions of a subject, the newest last: those beyond the cap are found without reading the others.
CREATE INDEX curfew_sessions_by_newest ON curfew_sessions (subject_hash, created);
CREATE INDEX curfew_sessions_by_sid ON curfew_sessions (sid_hash) WHERE sid_hash IS NOT NULL;
-- Few sessions have any. With fastupdate each search would read the whole list of pending entries.
CREATE INDEX curfew_sessions_by_former ON curfew_sessions USING gin (former_hash) WITH (fastupdate = off)
	WHERE former_hash IS NOT NULL;
CREATE INDEX curfew_sessions_by_slot ON curfew_sessions (slot);

-- End marks. A mark bars the subject, the sid, or, if both are set, the subject with that sid and the subject without a
-- sid. A sid that begins with "key:" is none: it stands for a key (store.Key.MarkSID).
CREATE TABLE curfew_marks (
	issuer     text   NOT NULL COLLATE "C",
	client     text   NOT NULL COLLATE "C",
	subject    text   NOT NULL COLLATE "C",
	sid        text   NOT NULL COLLATE "C",
	at         bigint NOT NULL,
	kept_until bigint NOT NULL,
	PRIMARY KEY (issuer, client, subject, sid)
);
CREATE INDEX curfew_marks_by_kept_until ON curfew_marks (kept_until);

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
-- The notices of one target, the longest due first. Stats reads only this index.
CREATE INDEX curfew_notices_by_target ON curfew_notices (given_up, kind, target, due, id) INCLUDE (created);

-- Small sealed values that are found by name.
CREATE TABLE curfew_shared_values (
	name     text   NOT NULL COLLATE "C" PRIMARY KEY,
	value    bytea  NOT NULL,
	revision bigint NOT NULL
);
ALTER TABLE curfew_shared_values ALTER COLUMN value SET STORAGE EXTERNAL;

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

-- The newest entries of store.Journal, sealed.
CREATE TABLE curfew_journal (
	position bigint NOT NULL GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	added    bigint NOT NULL,
	entry    bytea  NOT NULL
);
ALTER TABLE curfew_journal ALTER COLUMN entry SET STORAGE EXTERNAL;
CREATE INDEX curfew_journal_by_added ON curfew_journal (added);

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

-- Create, Rename and End are functions. Under READ COMMITTED each statement in a function sees what was committed
-- before that statement began, so what a function reads after it has waited for a lock is up to date.
--
-- They exclude each other by advisory locks, one for each subject and one for each sid. Row locks would not do, since
-- the session of a Create does not exist yet. Create takes the locks of its session, shared. End takes the locks of its
-- subject and its sid, as far as it names them, exclusively. A lock is released after the commit is visible. So of a
-- Create and an End that names its session, one comes first:
--
--   Create has the lock first: End waits, then reads the sessions, finds the new one, and removes it.
--   End has the lock first: Create waits, then reads the marks, finds the new one, and inserts nothing.
--
-- An End of a key needs no lock, since it leaves no mark: a session that does not exist yet has no key to name. An
-- access token has one before, so an End that bars it takes the lock of the key's name, and so does Admit.
--
-- Locks are taken in this order: the jti; the subject's lock; the sid's lock, or that of the key; the mark; the
-- sessions, in the order of their keys. A statement that locks a session only (Update, an End of a key) waits for
-- nothing more, and Prune skips locked rows. One deadlock is left: a session that stands for an access token leaves a
-- mark when it is locked already, and an ending of that token by its key locks the two in the other order. What the
-- server undoes then is done again.
--
-- There is an index for every query, but a plan that was made while the tables were empty might not use it, so
-- enable_seqscan is off. The plan is the same for all names, so it is made once (force_generic_plan): to make it takes
-- twice as long as to execute it.

-- +goose StatementBegin
-- curfew_barred takes the locks of a session that is to be written, and returns whether a mark bars it. p_sids are the
-- sid and then the former ones, p_sid_hashes their hashes; both are empty for a session without a sid.
CREATE FUNCTION curfew_barred(
	p_issuer text, p_client text, p_subject text, p_sids text[], p_subject_hash bigint, p_sid_hashes bigint[],
	p_began bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	-- At any other level, a statement after a lock does not see what was committed while it waited.
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE 'curfew needs the isolation level READ COMMITTED, not %', current_setting('transaction_isolation');
	END IF;
	-- The OID of the table separates several installations in one database.
	PERFORM pg_advisory_xact_lock_shared(h # 'curfew_sessions'::regclass::oid::bigint)
		FROM unnest(p_subject_hash || p_sid_hashes) AS h;

	-- A session without a sid may be any session of its subject, so a mark with subject and sid bars it whatever the
	-- sid.
	RETURN EXISTS (SELECT FROM curfew_marks m
			WHERE m.issuer = p_issuer AND m.client = p_client AND m.subject = p_subject
			AND (m.sid = '' OR p_sids = '{}') AND m.at >= p_began)
		OR EXISTS (SELECT FROM curfew_marks m WHERE m.issuer = p_issuer AND m.client = p_client
			AND m.subject = '' AND m.sid = ANY (p_sids) AND m.at >= p_began);
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- curfew_create inserts a session. It returns 'created', 'ended' (a mark bars it) or 'exists' (the key does).
CREATE FUNCTION curfew_create(
	p_key bytea, p_issuer text, p_client text, p_subject text, p_sids text[], p_subject_hash bigint,
	p_sid_hashes bigint[], p_created bigint, p_last_seen bigint, p_idle_expires bigint, p_expires bigint,
	p_refresh smallint, p_payload bytea, p_began bigint
) RETURNS text LANGUAGE plpgsql
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
	IF curfew_barred(p_issuer, p_client, p_subject, p_sids, p_subject_hash, p_sid_hashes, p_began) THEN
		RETURN 'ended';
	END IF;
	INSERT INTO curfew_sessions (key, subject_hash, sid_hash, former_hash, created, last_seen, idle_expires, expires,
			revision, refresh, issuer, client, subject, sid, former, payload)
		VALUES (p_key, p_subject_hash, p_sid_hashes[1], nullif(p_sid_hashes[2:], '{}'), p_created, p_last_seen,
			p_idle_expires, p_expires, 1, p_refresh, p_issuer, p_client, p_subject, coalesce(p_sids[1], ''), p_sids[2:],
			p_payload)
		ON CONFLICT (key) DO NOTHING;
	RETURN CASE WHEN FOUND THEN 'created' ELSE 'exists' END;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- curfew_rename updates a session and its sids. It returns 'renamed', 'not found', 'ended' (a mark bars it) or
-- 'conflict' (its revision is another).
CREATE FUNCTION curfew_rename(
	p_key bytea, p_issuer text, p_client text, p_subject text, p_sids text[], p_subject_hash bigint,
	p_sid_hashes bigint[], p_last_seen bigint, p_idle_expires bigint, p_expires bigint,
	p_refresh smallint, p_payload bytea, p_began bigint, p_revision bigint, p_now bigint
) RETURNS text LANGUAGE plpgsql
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
	barred boolean := curfew_barred(p_issuer, p_client, p_subject, p_sids, p_subject_hash, p_sid_hashes, p_began);
BEGIN
	IF NOT EXISTS (SELECT FROM curfew_sessions s
		WHERE s.key = p_key AND s.expires > p_now AND s.idle_expires > p_now) THEN
		RETURN 'not found';
	END IF;
	IF barred THEN
		RETURN 'ended';
	END IF;
	UPDATE curfew_sessions s SET last_seen = p_last_seen, idle_expires = p_idle_expires, expires = p_expires,
			refresh = p_refresh, payload = p_payload, revision = s.revision + 1, sid = coalesce(p_sids[1], ''),
			former = p_sids[2:], sid_hash = p_sid_hashes[1], former_hash = nullif(p_sid_hashes[2:], '{}')
		WHERE s.key = p_key AND s.revision = p_revision AND s.expires > p_now AND s.idle_expires > p_now;
	-- An ending of the key, or of a former sid, may have removed the session since. The caller finds out when it reads
	-- the session again.
	RETURN CASE WHEN FOUND THEN 'renamed' ELSE 'conflict' END;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- curfew_mark leaves an end mark for p_life. It returns true.
CREATE FUNCTION curfew_mark(
	p_issuer text, p_client text, p_subject text, p_sid text, p_at bigint, p_life bigint
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO curfew_marks AS m (issuer, client, subject, sid, at, kept_until)
		VALUES (p_issuer, p_client, p_subject, p_sid, p_at, p_at + p_life)
		ON CONFLICT (issuer, client, subject, sid) DO UPDATE
			SET at = excluded.at, kept_until = greatest(m.kept_until, excluded.kept_until) WHERE m.at < excluded.at;
	RETURN true;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- curfew_end carries out one batch of an ending: up to p_limit sessions; if p_spare is not 0, of those beyond the
-- p_spare newest. It returns the sessions that lived, and a row with an empty key if there may be another batch; or one
-- row of nulls if the jti is known and nothing was done. p_key, p_subject_hash and p_sid_hash are null for what the
-- ending does not name. p_bar is the name of the end mark of p_key, if there is to be one.
--
-- For each of p_kinds and p_targets it adds one notice about the whole subject (p_whole), or one for each session whose
-- kind of refresh token is a bit of p_each. p_about has the bits of all of them, p_revoked those of the kind revoke.
--
-- A sid also names the sessions that had it before. An ending of a sid that a session has before and after a rename
-- needs no further lock: every visible version of the row has that sid, and the row is checked again after a wait for
-- its lock.
--
-- To set up and start a statement takes longer than most of them run. So what can be an expression is one, as the locks
-- are, and one session of which no notice tells has its own two statements. The index of former sids can only be
-- searched by a bitmap scan, which the connections of Curfew switch off for their other statements.
CREATE FUNCTION curfew_end(
	p_issuer text, p_client text, p_subject text, p_sid text, p_key bytea, p_subject_hash bigint, p_sid_hash bigint,
	p_cause text, p_jti bytea, p_jti_expires bigint, p_now bigint, p_mark_life bigint, p_bar text, p_bar_hash bigint,
	p_kinds text[], p_targets text[], p_deadlines bigint[], p_whole boolean[], p_each integer[],
	p_about integer, p_revoked integer, p_spare integer, p_limit integer
) RETURNS TABLE (ended_key bytea, ended_subject text, ended_sid text, ended_refresh smallint) LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = on SET plan_cache_mode = force_generic_plan AS $$
DECLARE
	place CONSTANT bigint := 'curfew_sessions'::regclass::oid; -- see curfew_barred
	done boolean; -- the result of a function that is called for what it does
	marked bigint;
	batch bytea[];
	named bytea[];
	tokens bytea[];
	held integer;
	lived boolean;
	more boolean;
BEGIN
	-- At any other level, a statement after a lock does not see what was committed while it waited.
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE 'curfew needs the isolation level READ COMMITTED, not %', current_setting('transaction_isolation');
	END IF;
	IF p_jti IS NOT NULL THEN
		INSERT INTO curfew_jtis AS j (digest, expires) VALUES (p_jti, p_jti_expires)
			ON CONFLICT (digest) DO UPDATE SET expires = excluded.expires WHERE j.expires <= p_now;
		IF NOT FOUND THEN
			RETURN NEXT;
			RETURN;
		END IF;
	END IF;

	-- To spare sessions takes no lock and leaves no mark: further logins may begin, and each of them removes old
	-- sessions itself.
	IF p_spare = 0 THEN
		IF p_subject_hash IS NOT NULL THEN
			done := pg_advisory_xact_lock(p_subject_hash # place) IS NOT NULL;
		END IF;
		IF p_sid_hash IS NOT NULL THEN
			done := pg_advisory_xact_lock(p_sid_hash # place) IS NOT NULL;
		END IF;
		IF p_bar <> '' THEN
			done := pg_advisory_xact_lock(p_bar_hash # place) IS NOT NULL;
		END IF;
		-- A mark bars the logins that began before it. A caller of End knows this server's time only approximately, so
		-- the mark is never earlier than the server's time, read after the wait for the locks.
		marked := greatest(p_now, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint);
		IF p_bar <> '' THEN
			done := curfew_mark(p_issuer, p_client, '', p_bar, marked, p_mark_life);
		ELSIF p_key IS NULL THEN
			done := curfew_mark(p_issuer, p_client, p_subject, p_sid, marked, p_mark_life);
			IF p_subject <> '' AND p_sid <> '' THEN -- and one for the sid, whatever the subject
				done := curfew_mark(p_issuer, p_client, '', p_sid, marked, p_mark_life);
			END IF;
		END IF;
	END IF;

	-- First find a batch, then lock it in the order of its keys: to sort all sessions would cost each batch too much.
	IF p_key IS NOT NULL THEN
		batch := ARRAY[p_key];
	ELSIF p_spare > 0 THEN
		batch := ARRAY(SELECT s.key FROM curfew_sessions s
			WHERE s.subject_hash = p_subject_hash AND s.issuer = p_issuer AND s.client = p_client
				AND s.subject = p_subject
			ORDER BY s.created DESC OFFSET p_spare LIMIT p_limit);
	ELSIF p_sid_hash IS NULL THEN
		batch := ARRAY(SELECT s.key FROM curfew_sessions s
			WHERE s.subject_hash = p_subject_hash AND s.issuer = p_issuer AND s.client = p_client
				AND s.subject = p_subject
			LIMIT p_limit);
	ELSE
		-- One statement, so that a session that is renamed meanwhile is in one part or another. The last part is the
		-- sessions of the subject that have no sid, if a subject is named.
		batch := ARRAY(
			SELECT s.key FROM curfew_sessions s
			WHERE s.sid_hash = p_sid_hash AND s.issuer = p_issuer AND s.client = p_client AND s.sid = p_sid
			UNION ALL
			SELECT s.key FROM curfew_sessions s
			WHERE s.former_hash @> ARRAY[p_sid_hash] AND s.issuer = p_issuer AND s.client = p_client
				AND p_sid = ANY (s.former)
			UNION ALL
			SELECT s.key FROM curfew_sessions s
			WHERE s.subject_hash = p_subject_hash AND s.issuer = p_issuer AND s.client = p_client
				AND s.subject = p_subject AND s.sid = ''
			LIMIT p_limit);
	END IF;
	more := p_key IS NULL AND p_spare = 0 AND cardinality(batch) = p_limit;
	-- A session that stands for an access token was created in 1970.
	SELECT array_agg(l.key), array_agg(l.key) FILTER (WHERE l.created < 31536000000000), bit_or(1 << l.refresh)
		INTO named, tokens, held
		FROM (SELECT s.key, s.created, s.refresh FROM curfew_sessions s
			WHERE s.key = ANY (batch) AND s.issuer = p_issuer AND s.client = p_client
				AND (p_key IS NOT NULL
					OR p_sid <> '' AND (s.sid = p_sid OR p_sid = ANY (s.former))
					OR p_subject <> '' AND s.subject = p_subject AND (p_sid = '' OR s.sid = ''))
			ORDER BY s.key FOR UPDATE) l;
	-- Such a session leaves the end mark of its key, but not when it makes room.
	IF tokens IS NOT NULL AND p_spare = 0 THEN
		PERFORM curfew_mark(p_issuer, p_client, '', 'key:' || rtrim(translate(encode(k, 'base64'), '+/', '-_'), '='),
			marked, p_mark_life) FROM unnest(tokens) AS k;
	END IF;

	IF cardinality(named) = 1 AND p_about & held = 0 AND NOT true = ANY (p_whole) AND NOT more THEN
		DELETE FROM curfew_sessions s WHERE s.key = named[1]
			RETURNING s.key, s.subject, s.sid, s.refresh, s.expires > p_now AND s.idle_expires > p_now
			INTO ended_key, ended_subject, ended_sid, ended_refresh, lived;
		IF lived THEN
			INSERT INTO curfew_ended (xid, at, key, issuer, client, subject, sid, cause)
				VALUES (pg_current_xact_id(), p_now, ended_key, p_issuer, p_client, ended_subject, ended_sid, p_cause);
			RETURN NEXT;
		END IF;
		RETURN;
	END IF;

	IF more AND p_jti IS NOT NULL THEN
		DELETE FROM curfew_jtis WHERE digest = p_jti; -- it is recorded with the last batch
	END IF;
	RETURN QUERY
	WITH gone AS (
		DELETE FROM curfew_sessions s WHERE s.key = ANY (named)
		RETURNING s.key, s.subject, s.sid, s.idle_expires, s.expires, s.refresh,
			-- Payloads are read only where a notice needs them.
			CASE WHEN p_revoked >> s.refresh & 1 = 1 THEN s.payload ELSE '' END AS payload
	), lived AS MATERIALIZED (
		SELECT g.* FROM gone g WHERE g.expires > p_now AND g.idle_expires > p_now
	), notices AS (
		INSERT INTO curfew_notices
			(created, due, deadline, kind, target, issuer, client, subject, sid, cause, key, payload)
		SELECT p_now, p_now, t.deadline, t.kind, t.target, p_issuer, p_client, l.subject, l.sid, p_cause, l.key,
				CASE t.kind WHEN 'revoke' THEN l.payload ELSE '' END
			FROM unnest(p_kinds, p_targets, p_deadlines, p_each) AS t (kind, target, deadline, each) CROSS JOIN lived l
			WHERE t.each >> l.refresh & 1 = 1
		UNION ALL
		SELECT p_now, p_now, t.deadline, t.kind, t.target, p_issuer, p_client, p_subject, '', p_cause, '', ''
			FROM unnest(p_kinds, p_targets, p_deadlines, p_whole) AS t (kind, target, deadline, whole)
			WHERE t.whole AND NOT more
	), feed AS (
		INSERT INTO curfew_ended (xid, at, key, issuer, client, subject, sid, cause)
		SELECT pg_current_xact_id(), p_now, l.key, p_issuer, p_client, l.subject, l.sid, p_cause FROM lived l
	)
	SELECT l.key, l.subject, l.sid, l.refresh FROM lived l;
	IF more THEN
		RETURN QUERY SELECT ''::bytea, '', '', 0::smallint;
	END IF;
END $$;
-- +goose StatementEnd
