package fanout

import (
	"context"
	"errors"

	"example.com/curfew/internal/wait"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

// revoke has the provider forget the refresh token that a session held (RFC 7009; Back-Channel Logout §2.7).
func (s *Sender) revoke(ctx context.Context, p *oidc.Provider, n store.Notice) result {
	if p == nil {
		return result{verdict: ours, name: "internal", reason: "the provider is no longer configured"}
	}
	tokens, err := session.NoticeTokens(s.cfg.Keyring, n)
	switch {
	case errors.Is(err, session.ErrAltered):
		return result{verdict: never, name: "impossible",
			reason: "the notice was altered in the store: it names another session than its token is of"}
	case err != nil:
		return result{verdict: never, name: "impossible", reason: "the token was sealed with a key that is gone"}
	}
	for _, token := range tokens.Inherited {
		if r := revoked(p.Revoke(ctx, token, "refresh_token")); r.verdict == later {
			return r
		}
	}
	err = p.Revoke(ctx, tokens.RefreshToken, "refresh_token")
	if !errors.Is(err, oidc.ErrUnsupportedTokenType) {
		return revoked(err)
	}
	// The nearest thing: some providers end the whole grant with it.
	const alone = "the provider does not revoke refresh tokens"
	switch err := p.Revoke(ctx, tokens.AccessToken, "access_token"); {
	case tokens.AccessToken == "" || errors.Is(err, oidc.ErrUnsupportedTokenType):
		return result{verdict: never, name: "unsupported", reason: alone + ", nor access tokens"}
	case err == nil:
		return result{verdict: never, name: "unsupported", reason: alone + "; the access token is revoked"}
	default:
		return revoked(err)
	}
}

func revoked(err error) result {
	final, isFinal := errors.AsType[*oidc.Error](err)
	switch {
	case err == nil:
		return result{verdict: done, name: "ok"}
	case errors.Is(err, oidc.ErrUnsupported):
		return result{verdict: done, name: "dropped", reason: "the provider has no revocation endpoint"}
	case isFinal:
		return result{verdict: refused, name: "refused", reason: short(final.Error())}
	default:
		return result{verdict: later, name: "unreachable", reason: short(err.Error())}
	}
}

// askProviders says once, of each provider that cannot revoke, that refresh tokens live on there.
func (s *Sender) askProviders(ctx context.Context) {
	for _, p := range s.cfg.Providers {
		for pause := retryFirst; ctx.Err() == nil; pause = min(2*pause, retryMost) {
			m, err := p.Metadata(ctx)
			if err != nil {
				wait.Sleep(ctx, pause)
				continue
			}
			if m.RevocationEndpoint == "" {
				s.cfg.Log.WarnContext(ctx, "the provider has no revocation endpoint: refresh tokens of sessions "+
					"that end live on there until they run out",
					"event", "revocation_unsupported", "provider", p.Name())
			}
			break
		}
	}
}
