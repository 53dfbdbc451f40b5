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

-- +goose Down
DROP FUNCTION curfew_create;
