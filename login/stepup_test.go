package login_test

import (
	"net/http"
	"net/url"
	"testing"

	"example.com/curfew/login"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/session"
)

// What the configuration or a link asks for stays as it is beside the amr of a step-up, to the digit.
func TestAStepUpAddsItsAMRToTheClaimsThatAreAskedFor(t *testing.T) {
	t.Parallel()
	const amr = `"amr":{"essential":true,"values":["otp"]}`
	for _, row := range []struct{ fixed, link, want string }{
		{"", "", `{"id_token":{` + amr + `}}`},
		{`{"id_token":{"tenant":{"value":12345678901234567890}}}`, "",
			`{"id_token":{` + amr + `,"tenant":{"value":12345678901234567890}}}`},
		{`{"userinfo":{"x":{"value":1.0}}, "id_token":{"amr":{"value":"pwd"}}}`, "",
			`{"id_token":{` + amr + `},"userinfo":{"x":{"value":1.0}}}`},
		{`{"id_token":null}`, "", `{"id_token":{` + amr + `}}`},
		{`{"id_token":{"a":null}}`, `{"id_token":{"b":{"value":1e3}}}`, `{"id_token":{` + amr + `,"b":{"value":1e3}}}`},
		{"", `{"id_token":[1]}`, `{"id_token":{` + amr + `}}`},
		{"", "null", "null"},
		{"", "[]", "[]"},
		{"", "{} x", "{} x"},
	} {
		s := newStage(t, 1, func(h *login.Handler) {
			h.StepUp = func(*http.Request, string, string, string) *session.StepUp {
				return &session.StepUp{AMR: []string{"otp"}}
			}
		}, func(c *oidc.Config) {
			if c.LinkParams = []string{"claims"}; row.fixed != "" {
				c.AuthParams = map[string]string{"claims": row.fixed}
			}
		})
		s.ops[0].Mangle(func(m *oidctest.Mangle) {
			m.Discovery = func(d map[string]any) { d["claims_parameter_supported"] = true }
		})
		p := s.browser().Get("/auth/login?" + url.Values{"claims": {row.link}}.Encode())
		to, err := url.Parse(p.To)
		if err != nil || to.Query().Get("claims") != row.want {
			t.Errorf("%s and %s: %d, asked for %s, want %s", row.fixed, row.link, p.Status, to.Query().Get("claims"), row.want)
		}
	}
}
