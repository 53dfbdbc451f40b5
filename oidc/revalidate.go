package oidc

import (
	"context"
	"regexp"
	"slices"
	"strings"
)

// RevalidationWay returns the way in which to ask whether a session goes on, with or without a refresh token: the first
// of [Config.RevalidateBy] that the provider offers. [ErrUnsupported] when it offers none, [ErrUnavailable] when its
// metadata cannot be had.
func (p *Provider) RevalidationWay(ctx context.Context, refreshToken bool) (string, error) {
	for _, way := range p.cfg.RevalidateBy {
		if way == ByRefresh {
			if refreshToken {
				return way, nil
			}
			continue
		}
		m, err := p.meta.get(ctx)
		switch {
		case err != nil:
			return "", err
		// RFC 7662 §2.1: the endpoint requires some form of authorization, which a public client does not have.
		case way == ByIntrospection && m.IntrospectionEndpoint != "" && p.cfg.AuthMethod != AuthNone,
			way == ByUserinfo && m.UserinfoEndpoint != "":
			return way, nil
		}
	}
	return "", failed("revalidate", "%w: the session cannot be asked about by %s: have the provider issue refresh "+
		"tokens, or set revalidate_by", ErrUnsupported, strings.Join(p.cfg.RevalidateBy, ", "))
}

// ConfirmsByRefresh reports whether a refresh says that the session goes on. It does not at a provider whose refresh
// tokens outlive its sessions; there [Config.RevalidateBy] names other ways.
func (c *Config) ConfirmsByRefresh() bool { return slices.Contains(c.RevalidateBy, ByRefresh) }

// Introspect asks whether an access token is active (RFC 7662). [ErrInvalidToken] when it is not, [ErrUnsupported] when
// the provider has no such endpoint, [ErrUnavailable] when it does not say.
func (p *Provider) Introspect(ctx context.Context, accessToken string) error {
	_, err := p.introspect(ctx, accessToken)
	return err
}

var invalidTokenChallenge = regexp.MustCompile(`(?i)(^|[\s,])error="?invalid_token"?([\s,]|$)`)

// invalidToken reports whether an answer has the error invalid_token, in the header of RFC 6750 §3 or as JSON.
func (a *answer) invalidToken() bool {
	if invalidTokenChallenge.MatchString(a.challenge) {
		return true
	}
	code, _ := a.oauthError()
	return a.media == "application/json" && code == "invalid_token"
}
