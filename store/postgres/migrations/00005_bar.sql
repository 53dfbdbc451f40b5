-- +goose Up

-- +goose StatementBegin
-- curfew_bar leaves the end mark of a key, for an ending that bars it: p_sid stands for the key, and is no sid. Admit takes
-- the lock of that name, shared, so of an Admit of the key and an ending of it one comes first, as for a sid. p_life is
-- curfew.mark_life, which has to be set before.
CREATE FUNCTION curfew_bar(
	p_issuer text, p_client text, p_sid text, p_sid_hash bigint, p_now bigint, p_life text
) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM pg_advisory_xact_lock(p_sid_hash # 'curfew_sessions'::regclass::oid::bigint);
	INSERT INTO curfew_marks AS m (issuer, client, subject, sid, at)
		VALUES (p_issuer, p_client, '', p_sid, greatest(p_now, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint))
		ON CONFLICT (issuer, client, subject, sid) DO UPDATE SET at = excluded.at WHERE m.at < excluded.at;
	RETURN true;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION curfew_bar;
