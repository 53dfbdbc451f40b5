-- +goose Up

-- Create and End are functions, since under READ COMMITTED each statement in a function sees what was committed before
-- that statement began: what they read after they have waited for a lock is what is there, not what was there before.
--
-- They meet at locks on names, one for each subject and one for each sid: not rows, since what they are about is not there
-- yet. Create holds those of its session, shared; End holds the one of its subject, or of its sid if it names no subject,
-- alone. That is enough: an ending of a subject, with or without a sid, names sessions of that subject only. A
-- lock is given back after the commit can be seen, so of a Create and an End that names its session one comes first:
--
--   Create has the lock first: End waits, then reads the sessions, finds the new one, and removes it.
--   End has the lock first: Create waits, then reads the marks, finds the new one, and keeps nothing.
--
-- An End of a key needs no lock, as it leaves no mark: a session that is not there yet is not what it names.
--
-- Nobody waits in a circle. Everybody takes what he takes in this order: the jti; the subject's lock; the sid's lock;
-- the mark; the sessions, in the order of their keys. Whoever holds a session only (Update, an End of a key) waits for nothing
-- more, and Prune passes by what others hold.
--
-- An index is always there to be used, and a plan that was made while the tables were empty might not use it: so
-- enable_seqscan is off. And the plan is the same for whatever names: to make it anew each time takes twice as long as to
-- carry it out.

-- +goose StatementBegin
-- curfew_create keeps a session. It returns 'created', 'ended' (a mark bars it) or 'exists' (the key does).
CREATE FUNCTION curfew_create(
	p_key bytea, p_issuer text, p_client text, p_subject text, p_sid text, p_subject_hash bigint, p_sid_hash bigint,
	p_created bigint, p_last_seen bigint, p_idle_expires bigint, p_expires bigint, p_refresh smallint, p_payload bytea,
	p_began bigint
) RETURNS text LANGUAGE plpgsql
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
	-- In any other, what is read after a lock is what was there before it.
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE 'curfew needs the isolation level READ COMMITTED, not %', current_setting('transaction_isolation');
	END IF;
	-- The number of the table keeps apart those who share a database.
	PERFORM pg_advisory_xact_lock_shared(p_subject_hash # 'curfew_sessions'::regclass::oid::bigint);
	IF p_sid_hash IS NOT NULL THEN
		PERFORM pg_advisory_xact_lock_shared(p_sid_hash # 'curfew_sessions'::regclass::oid::bigint);
	END IF;

	-- Of a session without a sid it cannot be known whether it has the sid of a mark with both; so each of them bars it.
	IF EXISTS (SELECT FROM curfew_marks m WHERE m.issuer = p_issuer AND m.client = p_client AND m.subject = p_subject
			AND (m.sid = '' OR m.sid = p_sid OR p_sid = '') AND m.at >= p_began)
		OR p_sid <> '' AND EXISTS (SELECT FROM curfew_marks m WHERE m.issuer = p_issuer AND m.client = p_client
			AND m.subject = '' AND m.sid = p_sid AND m.at >= p_began)
	THEN
		RETURN 'ended';
	END IF;

	INSERT INTO curfew_sessions (key, subject_hash, sid_hash, created, last_seen, idle_expires, expires, revision, refresh,
			issuer, client, subject, sid, payload)
		VALUES (p_key, p_subject_hash, p_sid_hash, p_created, p_last_seen, p_idle_expires, p_expires, 1, p_refresh,
			p_issuer, p_client, p_subject, p_sid, p_payload)
		ON CONFLICT (key) DO NOTHING;
	RETURN CASE WHEN FOUND THEN 'created' ELSE 'exists' END;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- curfew_end carries out an ending and returns the sessions that lived; or one row of nulls: the jti is known, and nothing
-- was done. p_key, or p_hash (of the subject, or else of the sid), is null.
CREATE FUNCTION curfew_end(
	p_issuer text, p_client text, p_subject text, p_sid text, p_key bytea, p_hash bigint, p_cause text,
	p_jti bytea, p_jti_expires bigint, p_now bigint,
	p_kinds text[], p_targets text[], p_offline boolean[], p_deadlines bigint[]
) RETURNS TABLE (ended_key bytea, ended_subject text, ended_sid text) LANGUAGE plpgsql
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
	whole_subject boolean := p_key IS NULL AND p_sid = '';
	named         bytea[];
BEGIN
	-- In any other, what is read after a lock is what was there before it.
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

	IF p_key IS NOT NULL THEN
		named := ARRAY(SELECT s.key FROM curfew_sessions s
			WHERE s.key = p_key AND s.issuer = p_issuer AND s.client = p_client FOR UPDATE);
	ELSE
		PERFORM pg_advisory_xact_lock(p_hash # 'curfew_sessions'::regclass::oid::bigint);
		INSERT INTO curfew_marks AS m (issuer, client, subject, sid, at) VALUES (p_issuer, p_client, p_subject, p_sid, p_now)
			ON CONFLICT (issuer, client, subject, sid) DO UPDATE SET at = excluded.at WHERE m.at < excluded.at;
		IF p_subject <> '' THEN
			named := ARRAY(SELECT s.key FROM curfew_sessions s
				WHERE s.subject_hash = p_hash AND s.issuer = p_issuer AND s.client = p_client AND s.subject = p_subject
					AND (p_sid = '' OR s.sid = '' OR s.sid = p_sid)
				ORDER BY s.key FOR UPDATE);
		ELSE
			named := ARRAY(SELECT s.key FROM curfew_sessions s
				WHERE s.sid_hash = p_hash AND s.issuer = p_issuer AND s.client = p_client AND s.sid = p_sid
				ORDER BY s.key FOR UPDATE);
		END IF;
	END IF;

	RETURN QUERY
	WITH gone AS (
		DELETE FROM curfew_sessions s WHERE s.key = ANY (named)
		RETURNING s.key, s.subject, s.sid, s.idle_expires, s.expires, s.refresh, s.payload
	), lived AS MATERIALIZED (
		SELECT g.* FROM gone g WHERE g.expires > p_now AND g.idle_expires > p_now
	), told AS (
		INSERT INTO curfew_notices (created, due, deadline, kind, target, issuer, client, subject, sid, cause, key, payload)
		SELECT p_now, p_now, t.deadline, t.kind, t.target, p_issuer, p_client, l.subject, l.sid, p_cause, l.key,
				CASE t.kind WHEN 'revoke' THEN l.payload ELSE '' END
			FROM unnest(p_kinds, p_targets, p_offline, p_deadlines) AS t (kind, target, offline, deadline) CROSS JOIN lived l
			WHERE t.kind = 'tell' AND NOT whole_subject
				OR t.kind = 'revoke' AND (l.refresh = 1 OR l.refresh = 2 AND t.offline)
		UNION ALL
		SELECT p_now, p_now, t.deadline, t.kind, t.target, p_issuer, p_client, p_subject, '', p_cause, '', ''
			FROM unnest(p_kinds, p_targets, p_deadlines) AS t (kind, target, deadline)
			WHERE t.kind = 'tell' AND whole_subject
	), heard AS (
		INSERT INTO curfew_ended (xid, at, key, issuer, client, subject, sid, cause)
		SELECT pg_current_xact_id(), p_now, l.key, p_issuer, p_client, l.subject, l.sid, p_cause FROM lived l
	)
	SELECT l.key, l.subject, l.sid FROM lived l;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION curfew_end;
DROP FUNCTION curfew_create;
