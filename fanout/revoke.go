package fanout

import (
	"context"
	"errors"
	"time"

	"example.com/curfew/internal/wait"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

// keyPatience is how long a token may be sealed with a key that this replica does not have: a new key file comes to one
// replica after the other.
const keyPatience = time.Hour

// revoke has the provider revoke the refresh token of a session (RFC 7009; Back-Channel Logout §2.7).
func (s *Sender) revoke(ctx context.Context, p *oidc.Provider, n store.Notice) result {
	if p == nil {
		return result{verdict: internal, name: "internal", reason: "the provider is no longer configured"}
	}
	tokens, err := session.NoticeTokens(s.cfg.Keyring, n)
	switch {
	case errors.Is(err, session.ErrAltered):
		return result{verdict: permanent, name: "impossible",
			reason: "the notice was altered in the store: its token belongs to another session"}
	case err != nil && s.cfg.Now().Before(n.Created.Add(keyPatience)):
		return result{verdict: internal, name: "internal", reason: "the token was sealed with a key that is not known here"}
	case err != nil:
		return result{verdict: permanent, name: "impossible", reason: "the token was sealed with a key that is gone"}
	}
	for _, token := range tokens.Inherited {
		err := p.Revoke(ctx, token, "refresh_token")
		if errors.Is(err, oidc.ErrUnsupportedTokenType) {
			break // the same will be said of the last one
		}
		if r := revoked(err); r.verdict == temporary {
			return r
		}
	}
	err = p.Revoke(ctx, tokens.RefreshToken, "refresh_token")
	if !errors.Is(err, oidc.ErrUnsupportedTokenType) {
		return revoked(err)
	}
	// Revoke the access token instead: some providers then end the whole grant.
	const alone = "the provider does not revoke refresh tokens"
	switch err := p.Revoke(ctx, tokens.AccessToken, "access_token"); {
	case tokens.AccessToken == "" || errors.Is(err, oidc.ErrUnsupportedTokenType):
		return result{verdict: permanent, name: "unsupported", reason: alone + ", nor access tokens"}
	case err == nil:
		return result{verdict: permanent, name: "unsupported", reason: alone + "; the access token is revoked"}
	default:
		return revoked(err)
	}
}

// revoked returns the result of a request to revoke a token.
func revoked(err error) result {
	final, isFinal := errors.AsType[*oidc.Error](err)
	switch {
	case err == nil:
		return result{verdict: done, name: "ok"}
	case errors.Is(err, oidc.ErrUnsupported):
		return result{verdict: done, name: "dropped", reason: "the provider has no revocation endpoint"}
	case isFinal:
		return result{verdict: refused, name: "refused", reason: clip(final.Error())}
	default:
		return result{verdict: temporary, name: "unreachable", reason: clip(err.Error())}
	}
}

// warnUnrevocable logs once for each provider without a revocation endpoint that refresh tokens stay valid there.
func (s *Sender) warnUnrevocable(ctx context.Context) {
	for _, p := range s.cfg.Providers {
		for pause := retryFirst; ctx.Err() == nil; pause = min(2*pause, retryMost) {
			m, err := p.Metadata(ctx)
			if err != nil {
				wait.Sleep(ctx, pause)
				continue
			}
			if m.RevocationEndpoint == "" {
				s.cfg.Log.WarnContext(ctx, "the provider has no revocation endpoint: refresh tokens of sessions "+
					"that end stay valid there until they expire",
					"event", "revocation_unsupported", "provider", p.Name())
			}
			break
		}
	}
}
