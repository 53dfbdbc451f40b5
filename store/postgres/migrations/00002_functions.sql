-- +goose Up

-- Create and End are functions. Under READ COMMITTED each statement in a function sees what was committed before that
-- statement began, so what a function reads after it has waited for a lock is up to date.
--
-- They exclude each other by advisory locks, one for each subject and one for each sid. Row locks would not do, since
-- the session of a Create does not exist yet. Create takes the locks of its session, shared. End takes the lock of its
-- subject, or of its sid if it names no subject, exclusively. That is enough: an ending of a subject, with or without a
-- sid, names only sessions of that subject. A lock is released after the commit is visible. So of a Create and an End
-- that names its session, one comes first:
--
--   Create has the lock first: End waits, then reads the sessions, finds the new one, and removes it.
--   End has the lock first: Create waits, then reads the marks, finds the new one, and inserts nothing.
--
-- An End of a key needs no lock, since it leaves no mark: a session that does not exist yet has no key to name.
--
-- There is no deadlock. All locks are taken in this order: the jti; the subject's lock; the sid's lock; the mark; the
-- sessions, in the order of their keys. A statement that locks a session only (Update, an End of a key) waits for
-- nothing more, and Prune skips locked rows.
--
-- There is an index for every query, but a plan that was made while the tables were empty might not use it, so
-- enable_seqscan is off. The plan is the same for all names, so it is made once (force_generic_plan): to make it takes
-- twice as long as to execute it.

-- +goose StatementBegin
-- curfew_create inserts a session. It returns 'created', 'ended' (a mark bars it) or 'exists' (the key does).
CREATE FUNCTION curfew_create(
	p_key bytea, p_issuer text, p_client text, p_subject text, p_sid text, p_subject_hash bigint, p_sid_hash bigint,
	p_created bigint, p_last_seen bigint, p_idle_expires bigint, p_expires bigint, p_refresh smallint, p_payload bytea,
	p_began bigint
) RETURNS text LANGUAGE plpgsql
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
	-- At any other level, a statement after a lock does not see what was committed while it waited.
	IF current_setting('transaction_isolation') <> 'read committed' THEN
		RAISE 'curfew needs the isolation level READ COMMITTED, not %', current_setting('transaction_isolation');
	END IF;
	-- The OID of the table separates several installations in one database.
	PERFORM pg_advisory_xact_lock_shared(p_subject_hash # 'curfew_sessions'::regclass::oid::bigint);
	IF p_sid_hash IS NOT NULL THEN
		PERFORM pg_advisory_xact_lock_shared(p_sid_hash # 'curfew_sessions'::regclass::oid::bigint);
	END IF;

	-- A session without a sid may be any session of its subject, so a mark with subject and sid bars it whatever the
	-- sid.
	IF EXISTS (SELECT FROM curfew_marks m WHERE m.issuer = p_issuer AND m.client = p_client AND m.subject = p_subject
			AND (m.sid = '' OR m.sid = p_sid OR p_sid = '') AND m.at >= p_began)
		OR p_sid <> '' AND EXISTS (SELECT FROM curfew_marks m WHERE m.issuer = p_issuer AND m.client = p_client
			AND m.subject = '' AND m.sid = p_sid AND m.at >= p_began)
	THEN
		RETURN 'ended';
	END IF;

	INSERT INTO curfew_sessions (key, subject_hash, sid_hash, created, last_seen, idle_expires, expires, revision,
			refresh, issuer, client, subject, sid, payload)
		VALUES (p_key, p_subject_hash, p_sid_hash, p_created, p_last_seen, p_idle_expires, p_expires, 1, p_refresh,
			p_issuer, p_client, p_subject, p_sid, p_payload)
		ON CONFLICT (key) DO NOTHING;
	RETURN CASE WHEN FOUND THEN 'created' ELSE 'exists' END;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION curfew_create;
