package oidc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

func TestAConfigurationIsRefusedWithEveryFault(t *testing.T) {
	t.Parallel()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		change func(*oidc.Config)
		faults []string // none: it is taken
	}{
		{"as little as possible", func(*oidc.Config) {}, nil},
		{"http on loopback", func(c *oidc.Config) { c.Issuer = "http://127.0.0.1:8080/op" }, nil},
		{"http on localhost", func(c *oidc.Config) { c.Issuer = "http://localhost:8080" }, nil},
		{"http on ::1", func(c *oidc.Config) { c.Issuer = "http://[::1]:8080" }, nil},
		{"http elsewhere", func(c *oidc.Config) { c.Issuer = "http://id.example.com" },
			[]string{"issuer", "not https"}},
		{"http on a name that begins like loopback", func(c *oidc.Config) { c.Issuer = "http://127.0.0.1.example.com" },
			[]string{"not https"}},
		{"issuer with a query", func(c *oidc.Config) { c.Issuer += "?a=b" }, []string{"no query"}},
		{"issuer with a fragment", func(c *oidc.Config) { c.Issuer += "#a" }, []string{"fragment"}},
		{"issuer with a user", func(c *oidc.Config) { c.Issuer = "https://a:b@id.example.com" }, []string{"user name"}},
		{"nothing", func(c *oidc.Config) { *c = oidc.Config{} }, []string{"issuer is missing", "client_id is missing"}},
		{"name", func(c *oidc.Config) { c.Name = "a/b" }, []string{"name: letters"}},
		{"alg none", func(c *oidc.Config) { c.SigningAlg = "none" },
			[]string{"id_token_signed_response_alg", "no signature"}},
		{"alg HS256", func(c *oidc.Config) { c.SigningAlg = "HS256" },
			[]string{"id_token_signed_response_alg", "secret"}},
		{"logout alg none", func(c *oidc.Config) { c.Quirks.LogoutSigningAlg = "none" },
			[]string{"logout_token_signed_response_alg"}},
		{"a secret is needed", func(c *oidc.Config) { c.AuthMethod = "client_secret_post" },
			[]string{"needs a client secret"}},
		{"a secret too many", func(c *oidc.Config) { c.AuthMethod, c.ClientSecret = "none", "x" },
			[]string{"remove one"}},
		{"a method nobody knows", func(c *oidc.Config) { c.AuthMethod = "tls" },
			[]string{"token_endpoint_auth_method"}},
		{"a scope with a space", func(c *oidc.Config) { c.Scopes = []string{"openid profile"} }, []string{"scope"}},
		{"logout_scope", func(c *oidc.Config) { c.Quirks.LogoutScope = "everybody" }, []string{"logout_scope"}},
		{"userinfo without a signature", func(c *oidc.Config) { c.UserinfoSigningAlg = "none" },
			[]string{"userinfo_signed_response_alg: `none` is no signature"}},
		{"userinfo signed with the secret", func(c *oidc.Config) { c.UserinfoSigningAlg = "HS256" },
			[]string{"userinfo_signed_response_alg: \"HS256\" needs a secret"}},
		{"encryption of userinfo", func(c *oidc.Config) { c.UserinfoEncryption = &oidc.Encryption{Alg: "dir"} },
			[]string{"encryption of userinfo: alg \"dir\""}},
		{"lifetime", func(c *oidc.Config) { c.AccessTokenLifetime = -1 },
			[]string{"access_token_lifetime"}},
		{"encryption", func(c *oidc.Config) { c.Encryption = &oidc.Encryption{Alg: "RSA1_5", Enc: "x"} },
			[]string{"alg", "enc", "key"}},
		{"a small key", func(c *oidc.Config) { c.Encryption = &oidc.Encryption{Alg: "RSA-OAEP", Key: small} },
			[]string{"less than 2048"}},
		{"a key of another kind", func(c *oidc.Config) { c.Encryption = &oidc.Encryption{Alg: "RSA-OAEP", Key: ec} },
			[]string{"does not go with"}},
		{"several", func(c *oidc.Config) { c.Name, c.SigningAlg, c.AuthMethod = "ä", "none", "x" },
			[]string{"name", "id_token_signed", "auth_method"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := oidc.Config{Issuer: "https://id.example.com", ClientID: "app"}
			row.change(&c)
			_, err := oidc.New(c)
			if (err == nil) != (row.faults == nil) {
				t.Fatalf("got %v", err)
			}
			for _, f := range row.faults {
				if !strings.Contains(err.Error(), f) {
					t.Errorf("%v\ndoes not say: %s", err, f)
				}
			}
		})
	}
}

func TestTheDefaultsOfAConfiguration(t *testing.T) {
	t.Parallel()
	p, err := oidc.New(oidc.Config{Issuer: "https://id.example.com/r", ClientID: "app", ClientSecret: "x",
		Scopes: []string{"email"}})
	if err != nil {
		t.Fatal(err)
	}
	c := p.Config()
	if p.Name() != "main" || c.Label != "id.example.com" || c.AuthMethod != "client_secret_basic" ||
		c.SigningAlg != "RS256" ||
		!slices.Equal(c.Scopes, []string{"openid", "email"}) || c.Quirks.LogoutSigningAlg != "RS256" ||
		c.Quirks.LogoutScope != "session" {
		t.Fatalf("got %q %q %q %q %q %+v", p.Name(), c.Label, c.AuthMethod, c.SigningAlg, c.Scopes, c.Quirks)
	}
	p, err = oidc.New(oidc.Config{Issuer: "https://id.example.com/r", ClientID: "app"})
	if err != nil || p.Config().AuthMethod != "none" ||
		!slices.Equal(p.Config().Scopes, []string{"openid", "profile", "email"}) {
		t.Fatalf("got %q, %v", p.Config().AuthMethod, err)
	}
}

func TestMetadataIsTakenOnlyFromTheIssuerItself(t *testing.T) {
	t.Parallel()
	set := func(name string, v any) func(map[string]any) { return func(d map[string]any) { d[name] = v } }
	for _, row := range []struct {
		name   string
		lie    func(map[string]any)
		reason string
	}{
		{"another issuer", set("issuer", "https://evil.example.com"), "it speaks for the issuer"},
		{"a slash more", func(d map[string]any) { d["issuer"] = d["issuer"].(string) + "/" }, "identical"},
		{"no issuer", func(d map[string]any) { delete(d, "issuer") }, "it speaks for the issuer"},
		{"Issuer for issuer", func(d map[string]any) { d["Issuer"] = d["issuer"]; delete(d, "issuer") },
			"it speaks for the issuer"},
		{"no jwks_uri", func(d map[string]any) { delete(d, "jwks_uri") }, "`jwks_uri` is missing"},
		{"jwks_uri without https", set("jwks_uri", "http://id.example.com/jwks"), "`jwks_uri`"},
		{"token_endpoint without https", set("token_endpoint", "http://id.example.com/token"), "`token_endpoint`"},
		{"authorization_endpoint a script", set("authorization_endpoint", "javascript:alert(1)"),
			"`authorization_endpoint`"},
		{"token_endpoint a number", set("token_endpoint", 1), "not a string"},
		{"token_endpoint empty", set("token_endpoint", ""), "`token_endpoint` is empty"},
		{"token_endpoint null", set("token_endpoint", nil), "`token_endpoint` is missing"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := build(t)
			h.op.Mangle(func(m *oidctest.Mangle) { m.Discovery = row.lie })
			_, err := h.rp.AuthURL(t.Context(), oidc.AuthRequest{RedirectURI: callback, State: "s", Nonce: "n",
				Verifier: verifier})
			wantUnavailable(t, err, row.reason)
			wantUnavailable(t, h.try(t), row.reason)
		})
	}
	h := build(t)
	h.op.Override(oidctest.Discovery, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, h.op.Issuer()+"/elsewhere", http.StatusFound)
	})
	wantUnavailable(t, h.rp.Ready(t.Context()), "redirects are not followed")
}

func TestMetadataIsRenewedDailyBehindTheCallersBack(t *testing.T) {
	t.Parallel()
	h := build(t)
	m, err := h.rp.Metadata(t.Context())
	if err != nil || !m.BackchannelLogout || !m.BackchannelSession || !m.IssParameter || m.Date.IsZero() ||
		!m.At.Equal(h.Now()) {
		t.Fatalf("got %+v, %v", m, err)
	}
	asked := make(chan struct{})
	h.op.Mangle(func(m *oidctest.Mangle) {
		m.Discovery = func(d map[string]any) { d["end_session_endpoint"] = "https://id.example.com/new"; close(asked) }
	})
	h.Add(24*time.Hour - time.Second)
	if _, err := h.rp.Metadata(t.Context()); err != nil || h.op.Count(oidctest.Discovery) != 1 {
		t.Fatalf("fetched %d times, %v", h.op.Count(oidctest.Discovery), err)
	}
	h.Add(time.Second)
	if m, err := h.rp.Metadata(t.Context()); err != nil || m.EndSessionEndpoint == "https://id.example.com/new" {
		t.Fatalf("got %+v, %v; want the old one, at once", m, err)
	}
	rig.Soon(t, "a request for the metadata", asked)
	h.eventually(t, func() bool {
		m, err := h.rp.Metadata(t.Context())
		return err == nil && m.EndSessionEndpoint == "https://id.example.com/new"
	})
}

func TestThePublishedKeysAreShownWithWhatKeepsThemFromUse(t *testing.T) {
	t.Parallel()
	h := build(t, func(c *oidctest.Client, cfg *oidc.Config) { cfg.SigningAlg = "RS256" })
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	large := oidctest.NewKey("RS256")
	h.op.AddKey(large)
	h.op.AddKey(&oidctest.Key{KID: "small", Alg: "RS256", Private: small})
	keys, err := h.rp.Keys(t.Context())
	if err != nil || len(keys) != 3 {
		t.Fatalf("got %+v, %v", keys, err)
	}
	for _, k := range keys {
		got := fmt.Sprintf("%s %s %d %s: %s", k.Kty, k.Crv, k.Bits, k.Alg, k.Problem)
		want := map[string]string{
			large.KID:             "RSA  2048 RS256: ",
			"small":               "RSA  1024 RS256: an RSA key of 1024 bits; it takes 2048 to 8192",
			h.op.Key("ES256").KID: "EC P-256 0 ES256: its `alg` is \"ES256\"",
		}[k.KID]
		if got != want {
			t.Errorf("%s: got %s; want %s", k.KID, got, want)
		}
	}
	wantCheck(t, h.try(t, func(j *oidctest.JWT) {
		j.Key = &oidctest.Key{KID: "small", Alg: "RS256", Private: small}
		j.Alg, j.Header["alg"], j.Header["kid"] = "RS256", "RS256", "small"
	}), "kid", "1024 bits")
}

// The issuer's scheme is that of all: on loopback, too, nothing secret is sent in the clear for an issuer that is
// https.
func TestAnOptionalEndpointThatCannotBeUsedIsAsGoodAsAbsent(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"end_session_endpoint", "revocation_endpoint", "userinfo_endpoint"} {
		for _, v := range []any{"", nil, 1, []any{}, "http://id.example.com/x", "http://127.0.0.1/x",
			"javascript:alert(1)"} {
			inBubble(t, func(t *testing.T, h *fixture) {
				h.op.Mangle(func(m *oidctest.Mangle) { m.Discovery = func(d map[string]any) { d[name] = v } })
				m, err := h.rp.Metadata(t.Context())
				if err != nil {
					t.Fatalf("%s %v: %v", name, v, err)
				}
				got := map[string]string{"end_session_endpoint": m.EndSessionEndpoint,
					"revocation_endpoint": m.RevocationEndpoint, "userinfo_endpoint": m.UserinfoEndpoint}
				for other, where := range got {
					if (where == "") != (other == name) {
						t.Errorf("%s %v: %s is %q", name, v, other, where)
					}
				}
			})
		}
	}
	for _, name := range []string{"authorization_endpoint", "token_endpoint", "jwks_uri"} {
		inBubble(t, func(t *testing.T, h *fixture) {
			h.op.Mangle(func(m *oidctest.Mangle) {
				m.Discovery = func(d map[string]any) { d[name] = "http://127.0.0.1:1/x" }
			})
			wantUnavailable(t, h.rp.Ready(t.Context()), "`"+name+"`")
			wantUnavailable(t, h.rp.Ready(t.Context()), "in the clear")
		})
	}
}
