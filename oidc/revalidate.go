package oidc

import (
	"context"
	"net/http"
	"net/url"
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
// the provider has no such endpoint, [ErrUnavailable] when it cannot be asked, else an [Error].
func (p *Provider) Introspect(ctx context.Context, accessToken string) error {
	m, err := p.meta.get(ctx)
	if err != nil {
		return err
	}
	if m.IntrospectionEndpoint == "" {
		return ErrUnsupported
	}
	a, err := p.post(ctx, m.IntrospectionEndpoint, url.Values{
		"token": {accessToken}, "token_type_hint": {"access_token"},
	})
	switch {
	case err != nil:
		return err
	case a.status >= 400:
		_, sentence := a.oauthError(accessToken, p.cfg.ClientSecret)
		return failed("introspection", "the introspection endpoint: %s: allow this client to ask there, or set "+
			"revalidate_by without introspection", sentence)
	case a.status != http.StatusOK:
		return unavailable("the introspection endpoint: %s", a.describe())
	}
	c, err := decodeObject(a.body)
	active, isBool := c["active"].(bool)
	switch {
	case err != nil || !isBool:
		return unavailable("the introspection endpoint answered 200, and not with a JSON object that says `active`")
	case !active:
		return failed("introspection", "%w", ErrInvalidToken)
	}
	return nil
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
