package oidc_test

import (
	"strings"
	"testing"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

func (h *fixture) explain(t testing.TB, lies ...func(*oidctest.JWT)) (failed, skipped []string,
	all map[string]oidc.Step) {
	t.Helper()
	return sum(oidc.ExplainLogoutToken(t.Context(), []*oidc.Provider{h.rp},
		h.op.SignLogoutToken("app", "alice", "s", lies...), h.Now()))
}

func sum(steps []oidc.Step) (failed, skipped []string, all map[string]oidc.Step) {
	all = map[string]oidc.Step{}
	for _, s := range steps {
		all[s.Name] = s
		switch s.Status {
		case "failed":
			failed = append(failed, s.Name)
		case "skipped":
			skipped = append(skipped, s.Name)
		}
	}
	return failed, skipped, all
}

func TestAnExplanationTellsEveryStepAndGoesOnAfterAFault(t *testing.T) {
	t.Parallel()
	h := build(t)
	for _, row := range []struct {
		name    string
		lie     func(*oidctest.JWT)
		failed  string
		skipped string
	}{
		{"good", func(*oidctest.JWT) {}, "", ""},
		{"several faults", func(j *oidctest.JWT) {
			claim("nonce", "n")(j)
			claim("exp", 1)(j)
			claim("jti", nil)(j)
		}, "exp jti nonce", ""},
		{"alg", func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "none", "none" }, "alg registration", "signature"},
		{"iss", claim("iss", "https://evil.example.com"), "iss", "aud registration signature"},
		{"aud", claim("aud", "x"), "aud", "registration signature"},
		{"header", func(j *oidctest.JWT) { j.HeaderJSON = "{" }, "header",
			"alg typ json iss aud registration iat exp nbf jti events nonce sub signature"},
		{"payload", func(j *oidctest.JWT) { j.ClaimsJSON = "{" }, "json",
			"iss aud registration iat exp nbf jti events nonce sub signature"},
		{"signature", func(j *oidctest.JWT) { j.Key = oidctest.NewKey("ES256") }, "signature", ""},
	} {
		failed, skipped, all := h.explain(t, row.lie)
		if strings.Join(failed, " ") != row.failed || strings.Join(skipped, " ") != row.skipped || len(all) != 17 {
			t.Errorf("%s: failed %v, skipped %v; want failed %s, skipped %s\n%v", row.name, failed, skipped, row.failed,
				row.skipped, all)
		}
		for _, s := range all {
			if s.Section == "" || s.Detail == "" {
				t.Errorf("%s: the step %q says nothing", row.name, s.Name)
			}
		}
	}
	_, _, all := h.explain(t, claim("exp", nil))
	if !strings.Contains(all["exp"].Detail, "allow_missing_exp: true") {
		t.Errorf("exp: %s", all["exp"].Detail)
	}
	_, skipped, _ := sum(oidc.ExplainLogoutToken(t.Context(), []*oidc.Provider{h.rp}, "not a token", h.Now()))
	if len(skipped) != 16 {
		t.Errorf("skipped %v; want all but the first", skipped)
	}
	failed, _, _ := sum(oidc.ExplainLogoutToken(t.Context(), nil, h.op.SignLogoutToken("app", "alice", "s"), h.Now()))
	if len(failed) == 0 {
		t.Error("a token passes where no provider is configured")
	}
}

// The two ways to judge a token are one list of steps. Should somebody part them, this says so.
func TestAnExplanationAgreesWithTheVerdict(t *testing.T) {
	t.Parallel()
	h := build(t)
	for i, lie := range []func(*oidctest.JWT){
		func(*oidctest.JWT) {}, head("typ", "x"), claim("aud", "x"), claim("iat", h.Now().Add(time.Hour).Unix()),
		claim("sub", 1), claim("events", 1),
		head("kid", "x"), head("crit", 1), claim("nbf", "x"),
	} {
		raw := h.op.SignLogoutToken("app", "alice", "s", lie)
		_, err := h.verify(t, raw)
		failed, _, _ := sum(oidc.ExplainLogoutToken(t.Context(), []*oidc.Provider{h.rp}, raw, h.Now()))
		if (err == nil) != (len(failed) == 0) {
			t.Errorf("%d: the verdict is %v, the explanation %v", i, err, failed)
		}
	}
}
