-- +goose Up

-- Sessions that stand for access tokens are told by their time of creation: it is in 1970, later for a later one.
DROP TRIGGER curfew_token_ended ON curfew_sessions;
CREATE TRIGGER curfew_token_ended AFTER DELETE ON curfew_sessions
	FOR EACH ROW WHEN (OLD.created < 31536000000000) EXECUTE FUNCTION curfew_token_ended();

-- +goose Down
DROP TRIGGER curfew_token_ended ON curfew_sessions;
CREATE TRIGGER curfew_token_ended AFTER DELETE ON curfew_sessions
	FOR EACH ROW WHEN (OLD.created = 0) EXECUTE FUNCTION curfew_token_ended();
