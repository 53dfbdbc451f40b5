package oidc

import (
	"context"
	"time"
)

// neededSettings returns the provider that signed a logout token which failed a check, and the settings with which it
// would have passed; nothing if there are none such. Only what a known key signed counts: anybody can send a token that
// looks as if a setting were missing.
func neededSettings(
	ctx context.Context, providers []*Provider, check, raw string, now time.Time,
) (provider string, settings []string) {
	switch check {
	case "jwe", "alg", "typ", "exp":
	default:
		return "", nil
	}
	v := &logoutVerification{raw: raw, now: now, known: true}
	lenient := make(map[*Provider]*Provider, len(providers))
	for _, p := range providers {
		cfg := p.cfg
		cfg.Quirks.AllowMissingExp, cfg.Quirks.PlainLogoutTokens, cfg.Quirks.RequireTyp = true, true, false
		l := &Provider{cfg: cfg, logoutAlg: p.logoutAlg, keys: p.keys}
		lenient[l] = p
		v.candidates = append(v.candidates, l)
	}
	for _, c := range logoutChecks() {
		if c.name == "alg" {
			a, err := findAlgorithm(canonicalAlg(v.signed.header.alg))
			if err != nil {
				return "", nil
			}
			for _, l := range v.candidates {
				l.logoutAlg = a
			}
		}
		if c.run(v, ctx) != nil {
			return "", nil
		}
	}
	p, h := lenient[v.token.Provider], &v.signed.header
	need := func(missing bool, setting string) {
		if missing {
			settings = append(settings, setting)
		}
	}
	need(!v.encrypted && p.checkPlain() != nil, "allow_unencrypted_logout_tokens: true")
	need(p.checkLogoutAlg(h.alg) != nil, "logout_token_signed_response_alg: "+canonicalAlg(h.alg))
	need((!h.hasTyp || mediaType(h.typ) == "jwt") && p.checkUntyped() != nil, "require_typ: false")
	need(!v.claims.has("exp") && !p.cfg.Quirks.AllowMissingExp, "allow_missing_exp: true")
	return p.cfg.Name, settings
}
