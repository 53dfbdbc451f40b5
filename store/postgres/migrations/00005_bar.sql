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

-- +goose StatementBegin
-- A session that stands for an access token (created is 0) leaves the end mark of its key when an ending removes it, and
-- not when it makes room or is pruned: then curfew.mark_life is not set. The name is that of store.Key.MarkSID.
CREATE FUNCTION curfew_token_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF coalesce(current_setting('curfew.mark_life', true), '') <> '' THEN
		INSERT INTO curfew_marks AS m (issuer, client, subject, sid, at)
			VALUES (OLD.issuer, OLD.client, '', 'key:' || rtrim(translate(encode(OLD.key, 'base64'), '+/', '-_'), '='),
				(extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
			ON CONFLICT (issuer, client, subject, sid) DO UPDATE SET at = excluded.at WHERE m.at < excluded.at;
	END IF;
	RETURN NULL;
END $$;
-- +goose StatementEnd
CREATE TRIGGER curfew_token_ended AFTER DELETE ON curfew_sessions
	FOR EACH ROW WHEN (OLD.created = 0) EXECUTE FUNCTION curfew_token_ended();

-- +goose Down
DROP TRIGGER curfew_token_ended ON curfew_sessions;
DROP FUNCTION curfew_token_ended;
DROP FUNCTION curfew_bar;
