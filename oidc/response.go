package oidc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
)

// The values of [Config.ResponseMode] (OAuth 2.0 Multiple Response Types §2.1, Form Post §2, JARM §2.3).
const (
	ModeQuery       = "query"
	ModeFormPost    = "form_post"
	ModeJWT         = "jwt"
	ModeQueryJWT    = "query.jwt"
	ModeFormPostJWT = "form_post.jwt"
)

func responseModes() []string {
	return []string{ModeQuery, ModeFormPost, ModeJWT, ModeQueryJWT, ModeFormPostJWT}
}

// PostsResponse reports whether the provider's answer comes as a form, by a POST from its own site.
func (c *Config) PostsResponse() bool { return strings.HasPrefix(c.ResponseMode, ModeFormPost) }

// SignsResponse reports whether the provider's answer comes as a JWT (JARM).
func (c *Config) SignsResponse() bool { return strings.HasSuffix(c.ResponseMode, ModeJWT) }

// SignedResponse is an authorization response as a JWT (JARM §2.1), decrypted, and not verified yet.
type SignedResponse struct {
	signed *signed
	claims claims
}

// OpenResponse takes apart the `response` parameter of an authorization response (JARM §4.4 steps 1 and 2). Only its
// `state` is of use before [Provider.VerifyResponse]. The error is an [Error].
func (p *Provider) OpenResponse(raw string) (*SignedResponse, error) {
	parts, err := splitCompact(raw)
	if err != nil {
		return nil, err
	}
	switch {
	case len(parts) == 5:
		if raw, err = p.cfg.ResponseEncryption.decrypt(raw, parts); err != nil {
			return nil, err
		}
		if parts, err = splitCompact(raw); err != nil {
			return nil, err
		}
	case p.cfg.ResponseEncryption != nil:
		return nil, failed("jwe", "the answer is not encrypted, and `authorization_encrypted_response_alg` is set")
	}
	t, err := parseSigned(parts, raw)
	if err != nil {
		return nil, err
	}
	// Keycloak (26.7) writes the issuer into it twice: as JARM §2.1 and as RFC 9207 say.
	c, err := decodeObject(t.payload, "iss")
	if err != nil {
		return nil, failed("json", "the payload is %w", err)
	}
	return &SignedResponse{t, c}, nil
}

// Param returns a parameter of the response; empty when it is not there.
func (r *SignedResponse) Param(name string) string {
	s, _ := r.claims[name].(string)
	return s
}

// VerifyResponse verifies a response (JARM §4.4 steps 3 to 7). The error is an [Error] of the check "response", or an
// [ErrUnavailable] when the keys could not be had.
func (p *Provider) VerifyResponse(ctx context.Context, r *SignedResponse, now time.Time) error {
	err := p.verifyResponse(ctx, r, now)
	if e, ok := errors.AsType[*Error](err); ok {
		return failed("response", "the answer is a JWT that is refused: %w", e)
	}
	return err
}

func (p *Provider) verifyResponse(ctx context.Context, r *SignedResponse, now time.Time) error {
	if alg := canonicalAlg(r.signed.header.alg); alg != p.responseAlg.name {
		return failed("alg", "it is signed with %s; registered is %s (authorization_signed_response_alg)", quote(alg),
			p.responseAlg.name)
	}
	c := r.claims
	if iss, _ := c["iss"].(string); iss != p.cfg.Issuer {
		return failed("iss", "it is of %s, not of %s", quote(iss), quote(p.cfg.Issuer))
	}
	aud, err := c.audience()
	if err != nil {
		return err
	}
	if !slices.Contains(aud, p.cfg.ClientID) {
		return failed("aud", "it is for %s, not for %s", quoteAll(aud), quote(p.cfg.ClientID))
	}
	exp, err := c.time("exp")
	if err != nil {
		return err
	}
	if !now.Before(exp.Add(skew)) {
		return failed("exp", "it ran out at %v, and it is %v; do the clocks agree?", exp.UTC(), now.UTC())
	}
	for _, name := range []string{"code", "state", "error", "error_description"} {
		if _, ok := c[name].(string); c[name] != nil && !ok {
			return failed("json", "`%s` is not a string", name)
		}
	}
	iat, _ := c.time("iat") // which it may lack
	return p.keys.verify(ctx, r.signed, p.responseAlg, iat, p.keys.provider)
}
