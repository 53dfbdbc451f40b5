package oidc_test

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

// FuzzLogoutToken: what is accepted is, to the letter, a token that the provider signed as a logout token for us. The
// input is a token, or a payload to be put under a genuine header and signature.
func FuzzLogoutToken(f *testing.F) {
	h := build(f, func(c *oidctest.Client, cfg *oidc.Config) { c.SigningAlg, cfg.SigningAlg = "EdDSA", "EdDSA" })
	h.op.SetClient(oidctest.Client{ID: "other", SigningAlg: "EdDSA"})
	h.settle(f)
	good := map[string]bool{}
	for range 3 {
		good[h.op.SignLogoutToken("app", "alice", "s")] = true
	}
	good[h.op.SignLogoutToken("app", "", "s")] = true
	good[h.op.SignLogoutToken("app", "alice", "")] = true
	for raw := range good {
		f.Add(raw)
	}
	for _, raw := range []string{
		h.op.SignLogoutToken("other", "alice", "s"),
		h.op.SignIDToken("app", "alice", "s", "n", "a"),
		h.op.SignIDToken("app", "alice", "s", "", ""),
		h.op.SignLogoutToken("app", "alice", "s", claim("nonce", "n")),
		h.op.SignLogoutToken("app", "alice", "s", claim("events", map[string]any{})),
		h.op.SignLogoutToken("app", "alice", "s", claim("exp", literal("1e300"))),
		h.op.SignLogoutToken("app", "alice", "s", claim("exp", nil)),
		h.op.SignLogoutToken("app", "alice", "s", head("crit", []string{"b64"}), head("b64", false)),
		h.op.SignLogoutToken("app", "alice", "s", func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "none", "none" }),
		h.op.SignLogoutToken("app", "alice", "s", func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "HS256", "HS256" }),
		h.op.SignLogoutToken("app", "alice", "s", func(j *oidctest.JWT) { j.Key = oidctest.NewKey("EdDSA") }),
		h.op.SignLogoutToken("app", "alice", "s", func(j *oidctest.JWT) {
			j.Key = oidctest.NewKey("EdDSA")
			delete(
				j.Header, "kid")
		}),
		strings.Repeat(".", 4), "a.b.c", "a.b.c.d.e", "", `{"iss":"x"}`, `{"iss":"x","iss":"y"}`, "\xff",
		`{"a":` + strings.Repeat("[", 5000),
	} {
		f.Add(raw)
	}
	providers := []*oidc.Provider{h.rp}
	check := func(t *testing.T, raw string) {
		got, err := oidc.VerifyLogoutToken(context.Background(), providers, raw, h.Now())
		var e *oidc.Error
		switch {
		case err == nil && !good[raw]:
			t.Fatalf("accepted %q, which was never signed as a logout token for us", raw)
		case err == nil && (got.Provider != h.rp || got.JTI == "" || got.Subject == "" && got.SID == ""):
			t.Fatalf("accepted, and yet: %+v", got)
		case err != nil && good[raw]:
			t.Fatalf("refused a good token: %v", err)
		case err != nil && !errors.As(err, &e) && !errors.Is(err, oidc.ErrUnavailable):
			t.Fatalf("%v is neither a refusal nor a reason to try again", err)
		case err != nil && len(err.Error()) > 2000:
			t.Fatalf("an error of %d bytes", len(err.Error()))
		}
	}
	var genuine []string
	for raw := range good {
		genuine = strings.Split(raw, ".")
		break
	}
	f.Fuzz(func(t *testing.T, raw string) {
		check(t, raw)
		// The same bytes where the decoders are: as the payload, and as the header, of an otherwise genuine token.
		inner := base64.RawURLEncoding.EncodeToString([]byte(raw))
		check(t, genuine[0]+"."+inner+"."+genuine[2])
		check(t, inner+"."+genuine[1]+"."+genuine[2])
	})
}

// FuzzAccessToken: what is accepted is, to the letter, a token that the provider signed as an access token for us, and
// is as it says.
func FuzzAccessToken(f *testing.F) {
	h := build(f, func(c *oidctest.Client, cfg *oidc.Config) {
		c.SigningAlg, cfg.SigningAlg = "ES256", "ES256"
		cfg.Bearer = &oidc.Bearer{Audiences: []string{"api"}}
	})
	h.settle(f)
	sign := func(aud, sub, sid string, lies ...func(*oidctest.JWT)) string {
		es256 := func(j *oidctest.JWT) { j.Key, j.Alg = h.op.Key("ES256"), "ES256" }
		kid := func(j *oidctest.JWT) { j.Header["alg"], j.Header["kid"] = "ES256", j.Key.KID }
		return h.op.SignAccessToken(aud, "script", sub, sid, append([]func(*oidctest.JWT){es256, kid}, lies...)...)
	}
	good := map[string]bool{sign("api", "alice", "s"): true, sign("api", "alice", ""): true}
	for raw := range good {
		f.Add(raw)
	}
	for _, raw := range []string{
		sign("other", "alice", "s"), sign("api", "", ""), sign("api", "alice", "", claim("exp", nil)),
		sign("api", "alice", "", head("typ", "JWT")), sign("api", "alice", "", claim("cnf", map[string]any{})),
		sign("api", "alice", "", claim("exp", literal("1e300"))),
		sign("api", "alice", "", func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "none", "none" }),
		sign("api", "alice", "", func(j *oidctest.JWT) { j.Key = oidctest.NewKey("ES256") }),
		h.op.SignIDToken("app", "alice", "s", "n", "a"), h.op.SignLogoutToken("app", "alice", "s"),
		"a.b.c", "", "....", "ey.ey.ey", "opaque",
	} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		got, err := oidc.VerifyAccessToken(context.Background(), []*oidc.Provider{h.rp}, raw, time.Hour, h.Now())
		_, final := errors.AsType[*oidc.Error](err)
		switch {
		case err == nil && !good[raw]:
			t.Fatalf("accepted %q, which was never signed as an access token for us", raw)
		case err == nil && (got.Provider != h.rp || got.Subject != "alice" || !got.Expiry.After(h.Now())):
			t.Fatalf("accepted, and yet: %+v", got)
		case err != nil && good[raw]:
			t.Fatalf("refused a good token: %v", err)
		case err != nil && !final && !errors.Is(err, oidc.ErrUnavailable):
			t.Fatalf("an error of no kind: %v", err)
		}
	})
}
