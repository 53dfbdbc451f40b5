package curfew_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/oidc/oidctest"
)

func TestABrokenProviderIsOneLineOfTheLog(t *testing.T) {
	t.Parallel()
	html := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Write([]byte("<html>Sign in"))
	}
	for name, row := range map[string]struct {
		broken func(t *testing.T, a *app)
		config func(t *testing.T, c *curfew.Config)
		says   string // the line, and what to do
		do     string
	}{
		"away at the start": {says: "oidc.discovery.failed", do: "see whether the provider is up",
			broken: func(_ *testing.T, a *app) { a.op.Override(oidctest.Discovery, oidctest.Status(503)) }},
		"another issuer": {says: "speaks for the issuer", do: "set issuer to exactly what",
			broken: func(_ *testing.T, a *app) {
				a.op.Mangle(func(m *oidctest.Mangle) {
					m.Discovery = func(d map[string]any) { d["issuer"] = "https://evil.example" }
				})
			}},
		"discovery is HTML": {says: "oidc.discovery.failed", do: "open the address",
			broken: func(_ *testing.T, a *app) { a.op.Override(oidctest.Discovery, html) }},
		"keys are HTML": {says: "oidc.keys.failed", do: "open the address",
			broken: func(_ *testing.T, a *app) { a.op.Override(oidctest.JWKS, html) }},
		"tokens are HTML": {says: "oidc.token.failed", do: "open the address",
			broken: func(_ *testing.T, a *app) { a.op.Override(oidctest.Token, html) }},
		"userinfo is HTML": {says: "oidc.userinfo.failed", do: "open the address",
			broken: func(_ *testing.T, a *app) { a.op.Override(oidctest.Userinfo, html) }},
		"another algorithm": {says: "ES256", do: "set id_token_signed_response_alg", broken: func(_ *testing.T, a *app) {
			c := oidctest.Client{ID: "app", Secret: "secret", SigningAlg: "ES256",
				RedirectURIs: []string{a.server.URL + "/auth/callback"}}
			a.op.SetClient(c)
		}},
		"clock behind": {says: "do the clocks agree", do: "by NTP",
			broken: func(_ *testing.T, a *app) { a.opSkew.Store(int64(-25 * time.Minute)) }},
		"clock ahead": {says: "do the clocks agree", do: "by NTP",
			broken: func(_ *testing.T, a *app) { a.opSkew.Store(int64(5 * time.Minute)) }},
		"certificate": {says: "unknown authority", do: "set ca_file", config: func(t *testing.T, c *curfew.Config) {
			s := httptest.NewUnstartedServer(http.NotFoundHandler())
			s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
			s.StartTLS()
			t.Cleanup(s.Close)
			c.Providers[0].Issuer = s.URL
		}},
		"token redirect": {says: "oidc.token.failed", do: "the address that answers itself",
			broken: func(_ *testing.T, a *app) { a.op.Override(oidctest.Token, oidctest.Status(302)) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := new(journal)
			prepare := func(a *app) {
				if row.broken != nil {
					row.broken(t, a)
				}
			}
			a := newAppAt(t, prepare, func(c *curfew.Config) {
				c.Log = slog.New(slog.NewTextHandler(log, nil))
				if row.config != nil {
					row.config(t, c)
				}
			})
			for range 3 { // and it is told once
				b := newBrowser(t)
				if _, status, _ := b.open(a.server.URL + "/"); status < 400 {
					t.Errorf("somebody signed in: %d", status)
				}
			}
			if n := log.count("level=WARN", " do="); n != 1 || log.count(row.says, " do=", row.do) != 1 {
				t.Errorf("%d lines say what to do: %s", n, log.text.String())
			}
			if strings.Contains(log.text.String(), "secret") {
				t.Error("a secret is in the log")
			}
		})
	}
}
