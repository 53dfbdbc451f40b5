-- +goose Up

-- The sessions of a subject, the newest last: those beyond the cap are found without reading the others.
CREATE INDEX curfew_sessions_by_newest ON curfew_sessions (subject_hash, created);
DROP INDEX curfew_sessions_by_subject;

DROP FUNCTION curfew_end(
	text, text, text, text, bytea, bigint, text, bytea, bigint, bigint, text[], text[], bigint[], boolean[], integer[]);

-- +goose StatementBegin
-- curfew_end carries out one batch of an ending: up to p_limit sessions; if p_spare is not 0, of those beyond the
-- p_spare newest. It returns the sessions that lived, and a row with an empty key if there may be another batch; or one
-- row of nulls if the jti is known and nothing was done. Either p_key or p_hash (of the subject, or else of the sid) is
-- null. For each of p_kinds and p_targets it adds one notice about the whole subject (p_whole), or one for each session
-- whose kind of refresh token is a bit of p_each.
CREATE FUNCTION curfew_end(
	p_issuer text, p_client text, p_subject text, p_sid text, p_key bytea, p_hash bigint, p_cause text,
	p_jti bytea, p_jti_expires bigint, p_now bigint,
	p_kinds text[], p_targets text[], p_deadlines bigint[], p_whole boolean[], p_each integer[],
	p_spare integer, p_limit integer
) RETURNS TABLE (ended_key bytea, ended_subject text, ended_sid text) LANGUAGE plpgsql
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
	batch bytea[];
	named bytea[];
	more boolean;
	-- Payloads are read only where a notice needs them.
	revoked integer := coalesce(
		(SELECT bit_or(t.each) FROM unnest(p_kinds, p_each) AS t (kind, each) WHERE t.kind = 'revoke'), 0);
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

	-- First find a batch, then lock it in the order of its keys: to sort all sessions would cost each batch too much.
	IF p_key IS NOT NULL THEN
		batch := ARRAY[p_key];
	ELSIF p_spare > 0 THEN
		-- No lock and no mark: further logins may begin, and each of them removes old sessions itself.
		batch := ARRAY(SELECT s.key FROM curfew_sessions s
			WHERE s.subject_hash = p_hash AND s.issuer = p_issuer AND s.client = p_client AND s.subject = p_subject
			ORDER BY s.created DESC OFFSET p_spare LIMIT p_limit);
	ELSE
		PERFORM pg_advisory_xact_lock(p_hash # 'curfew_sessions'::regclass::oid::bigint);
		INSERT INTO curfew_marks AS m (issuer, client, subject, sid, at)
			VALUES (p_issuer, p_client, p_subject, p_sid, p_now)
			ON CONFLICT (issuer, client, subject, sid) DO UPDATE SET at = excluded.at WHERE m.at < excluded.at;
		IF p_subject <> '' THEN
			batch := ARRAY(SELECT s.key FROM curfew_sessions s
				WHERE s.subject_hash = p_hash AND s.issuer = p_issuer AND s.client = p_client AND s.subject = p_subject
					AND (p_sid = '' OR s.sid = '' OR s.sid = p_sid)
				LIMIT p_limit);
		ELSE
			batch := ARRAY(SELECT s.key FROM curfew_sessions s
				WHERE s.sid_hash = p_hash AND s.issuer = p_issuer AND s.client = p_client AND s.sid = p_sid
				LIMIT p_limit);
		END IF;
	END IF;
	more := p_key IS NULL AND p_spare = 0 AND cardinality(batch) = p_limit;
	named := ARRAY(SELECT s.key FROM curfew_sessions s
		WHERE s.key = ANY (batch) AND s.issuer = p_issuer AND s.client = p_client
			AND (p_key IS NOT NULL OR (p_subject = '' OR s.subject = p_subject)
				AND (p_sid = '' OR s.sid = p_sid OR p_subject <> '' AND s.sid = ''))
		ORDER BY s.key FOR UPDATE);
	IF more AND p_jti IS NOT NULL THEN
		DELETE FROM curfew_jtis WHERE digest = p_jti; -- it is recorded with the last batch
	END IF;

	RETURN QUERY
	WITH gone AS (
		DELETE FROM curfew_sessions s WHERE s.key = ANY (named)
		RETURNING s.key, s.subject, s.sid, s.idle_expires, s.expires, s.refresh,
			CASE WHEN revoked >> s.refresh & 1 = 1 THEN s.payload ELSE '' END AS payload
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
	SELECT l.key, l.subject, l.sid FROM lived l;
	IF more THEN
		RETURN QUERY SELECT ''::bytea, '', '';
	END IF;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION curfew_end;
CREATE INDEX curfew_sessions_by_subject ON curfew_sessions (subject_hash);
DROP INDEX curfew_sessions_by_newest;
