package check

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew"
	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

// inMemory serves a handler to a client without a network.
type inMemory struct{ http.Handler }

func (h inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	w, in := httptest.NewRecorder(), r.Clone(r.Context())
	if in.Body == nil {
		in.Body = http.NoBody
	}
	h.ServeHTTP(w, in)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return w.Result(), nil
}

// untrusted is the way to a provider whose certificate is not trusted.
type untrusted struct{}

func (untrusted) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}
}

// look is one line of a report that is expected.
type look struct{ check, status, detail, do string }

func (l look) fits(f Finding) bool {
	return f.Check == l.check && f.Status == l.status && strings.Contains(f.Detail, l.detail) && strings.Contains(f.Do,
		l.do)
}

func TestCheckTellsWhatIsWrongWithAProvider(t *testing.T) {
	t.Parallel()
	const issuer, redirect = "https://id.example.com", "https://app.example.com/auth/callback"
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	html := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, "<html>Sign in")
	}
	loop := func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }
	override := func(endpoint string, h http.HandlerFunc) func(*oidctest.Provider) {
		return func(op *oidctest.Provider) { op.Override(endpoint, h) }
	}
	discovery := func(name string, v any) func(*oidctest.Provider) {
		return func(op *oidctest.Provider) {
			op.Mangle(func(m *oidctest.Mangle) { m.Discovery = func(d map[string]any) { d[name] = v } })
		}
	}
	// home answers at the redirect URI.
	home := func(change func(url.Values)) func(*oidctest.Provider) {
		return override(oidctest.Authorize, func(w http.ResponseWriter, r *http.Request) {
			q := url.Values{"error": {"login_required"}, "state": {r.URL.Query().Get("state")}, "iss": {issuer}}
			change(q)
			http.Redirect(w, r, redirect+"?"+q.Encode(), http.StatusSeeOther)
		})
	}
	// bySecret is a token endpoint that says one thing to the right secret and another to a wrong one.
	bySecret := func(right, wrong http.HandlerFunc) func(*oidctest.Provider) {
		return override(oidctest.Token, func(w http.ResponseWriter, r *http.Request) {
			if _, secret, _ := r.BasicAuth(); secret == "s3cret" {
				right(w, r)
			} else {
				wrong(w, r)
			}
		})
	}
	always := func(h http.HandlerFunc) func(*oidctest.Provider) { return bySecret(h, h) }
	said := oidctest.OAuthError
	revalidate := func(ways ...string) func(*oidc.Config) {
		return func(c *oidc.Config) { c.Revalidate, c.RevalidateBy = time.Minute, ways }
	}
	clientOK := look{"client", "ok", "and not a client that cannot be", ""}
	for name, row := range map[string]struct {
		broken  func(*oidctest.Provider)
		want    []look
		notOK   []string // checks that must not be ok
		changed func(*oidc.Config)
	}{
		"all is well": {func(*oidctest.Provider) {},
			[]look{clientOK, {"redirect URI", "ok", "is registered", ""},
				{"iss parameter", "ok", "sent, and right", ""},
				{"back-channel URL", "not checked", "", "look for backchannel_logout"}, {"clock", "not checked",
					"does not tell its time", "NTP"}}, nil, nil},

		"discovery is a page": {override(oidctest.Discovery, html), []look{
			{"discovery", "fault", `not a JSON object (its type is "text/html")`, "open " + issuer}, {"all else",
				"not checked", "", "run this again"}}, []string{"keys", "client", "redirect URI"}, nil},
		"discovery leads in a circle": {override(oidctest.Discovery, loop),
			[]look{{"discovery", "fault", "answered 302: redirects are not followed", "moved"}}, []string{"client"},
			nil},
		"discovery hangs": {override(oidctest.Discovery, hang),
			[]look{{"discovery", "fault", "deadline exceeded",
				"see that this machine reaches " + issuer}}, []string{"client"}, nil},
		"discovery is not there": {override(oidctest.Discovery, oidctest.Status(404)),
			[]look{{"discovery", "fault", "answered 404", "written exactly"}}, []string{"client"}, nil},
		"discovery of another issuer": {discovery("issuer", "https://evil.example.com"), []look{
			{"discovery", "fault", `speaks for the issuer "https://evil.example.com", not for`,
				"written exactly"}}, []string{"client"}, nil},
		"discovery without a token endpoint": {discovery("token_endpoint", nil),
			[]look{{"discovery", "fault", "`token_endpoint` is missing", ""}}, []string{"client"}, nil},
		"an endpoint that cannot be used": {discovery("end_session_endpoint", "http://id.example.com/out"),
			[]look{{"metadata", "warning", "`end_session_endpoint`", "correct it"}}, []string{"end_session_endpoint"},
			nil},

		"no keys": {override(oidctest.JWKS,
			func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[]}`) }), []look{{"keys", "fault",
			"holds none", "signing key"}}, []string{"keys"}, nil},
		"keys are a page": {override(oidctest.JWKS, html),
			[]look{{"keys", "fault", `text/html`, "open " + issuer + "/jwks"}}, []string{"keys"}, nil},
		"keys hang": {override(oidctest.JWKS, hang),
			[]look{{"keys", "fault", "deadline exceeded", "reaches " + issuer + "/jwks"}}, []string{"keys"}, nil},
		"keys are none": {override(oidctest.JWKS,
			func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":null}`) }), []look{{"keys", "fault",
			"no array `keys`", ""}}, []string{"keys"}, nil},
		"algorithms unsaid": {discovery("id_token_signing_alg_values_supported", nil),
			[]look{{"signing algorithm", "not checked", "does not say whether it offers RS256",
				"sign in"}}, []string{"signing algorithm"}, nil},
		"scopes unsaid": {discovery("scopes_supported", nil),
			[]look{{"scopes", "not checked", "does not say", "sign in"}}, []string{"scopes"}, nil},

		"token endpoint: 500": {override(oidctest.Token, oidctest.Status(500)),
			[]look{{"client", "not checked", "/token: it answered 500", "provider's log"}}, []string{"client"}, nil},
		"token endpoint: a page": {override(oidctest.Token, html),
			[]look{{"client", "fault", "answered 200, and not with a JSON object",
				"open " + issuer + "/token"}}, []string{"client"}, nil},
		"token endpoint: 404": {override(oidctest.Token, oidctest.Status(404)),
			[]look{{"client", "fault", "answered 404",
				"nobody can sign in: open " + issuer + "/token"}}, []string{"client"}, nil},
		"token endpoint: a circle": {override(oidctest.Token, loop),
			[]look{{"client", "fault", "answered 302", "nobody can sign in"}}, []string{"client"}, nil},
		"token endpoint: hangs": {override(oidctest.Token, hang),
			[]look{{"client", "fault", "deadline exceeded", "reaches " + issuer + "/token"}}, []string{"client"}, nil},
		"token endpoint: tokens for anybody": {always(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"access_token":"a","id_token":"b","token_type":"Bearer"}`)
		}), []look{{"client", "fault", "a code that it has never issued", "see that"}}, []string{"client"}, nil},
		"token endpoint: busy": {always(said(400, "temporarily_unavailable")),
			[]look{{"client", "not checked", "temporarily", "later"}}, []string{"client"}, nil},
		"token endpoint: invalid_request": {always(said(400, "invalid_request")),
			[]look{{"client", "not checked", "invalid_request", "sign in"}}, []string{"client"}, nil},
		"a wrong secret": {func(*oidctest.Provider) {},
			[]look{{"client", "fault", "invalid_client",
				"id, secret and method"}}, []string{"client"}, func(c *oidc.Config) { c.ClientSecret = "other" }},
		"an unknown client": {func(*oidctest.Provider) {},
			[]look{{"client", "fault", "invalid_client", ""},
				{"redirect URI", "fault", "answers 400",
					"there is such a client"}}, []string{"client", "redirect URI"}, func(c *oidc.Config) { c.ClientID = "other" }},
		"a wrong secret, at Keycloak": {always(said(401, "unauthorized_client")),
			[]look{{"client", "fault", "unauthorized_client", "id, secret and method"}}, []string{"client"}, nil},
		"a client without the code grant": {always(said(400, "unauthorized_client")),
			[]look{{"client", "fault", "unauthorized_client", "authorization code grant"}}, []string{"client"}, nil},
		"a 401 that says nothing": {always(oidctest.Status(401)),
			[]look{{"client", "fault", "answered 401", "id, secret and method"}}, []string{"client"}, nil},
		// RFC 6749 §5.2 has 401 for invalid_client alone; some answer it for a code that they do not take.
		"401 and invalid_grant, client first": {bySecret(said(401, "invalid_grant"), said(401, "invalid_client")),
			[]look{clientOK}, nil, nil},
		"401 and invalid_grant, to anybody": {always(said(401, "invalid_grant")),
			[]look{{"client", "not checked", "the same to a client that cannot be", "sign in"}}, []string{"client"},
			nil},
		"the code is looked at first": {always(said(400, "invalid_grant")),
			[]look{{"client", "not checked", "the same to a client that cannot be", "sign in"}}, []string{"client"},
			nil},
		"another answer to another status": {bySecret(said(400, "invalid_grant"), said(403, "invalid_grant")),
			[]look{clientOK}, nil, nil},
		"it breaks when it is asked again": {bySecret(said(400, "invalid_grant"), oidctest.Status(500)),
			[]look{{"client", "ok", "", ""}}, nil, nil},
		"a public client": {func(op *oidctest.Provider) {
			op.SetClient(oidctest.Client{ID: "app", RedirectURIs: []string{redirect}})
		}, []look{clientOK}, nil, func(c *oidc.Config) { c.ClientSecret = "" }},

		"authorization endpoint: 404": {override(oidctest.Authorize, oidctest.Status(404)),
			[]look{{"redirect URI", "fault", "/authorize answers 404", "such an address"},
				{"iss parameter", "not checked", "", "sign in"}}, []string{"redirect URI", "iss parameter"}, nil},
		"authorization endpoint: 403": {override(oidctest.Authorize, oidctest.Status(403)),
			[]look{{"redirect URI", "not checked", "answers 403", "sign in"}}, []string{"redirect URI"}, nil},
		"authorization endpoint: 500": {override(oidctest.Authorize, oidctest.Status(500)),
			[]look{{"redirect URI", "not checked", "answers 500", "sign in"}}, []string{"redirect URI"}, nil},
		"authorization endpoint: a page": {override(oidctest.Authorize, html),
			[]look{{"redirect URI", "not checked", "answers 200", "sign in"}}, []string{"redirect URI"}, nil},
		"authorization endpoint: hangs": {override(oidctest.Authorize, hang),
			[]look{{"redirect URI", "not checked", "deadline exceeded", "browsers reach it"}}, []string{"redirect URI"},
			nil},
		"authorization endpoint: a loop": {override(oidctest.Authorize, loop),
			[]look{{"redirect URI", "not checked", "answers 302", ""}}, []string{"redirect URI"}, nil},
		"another redirect URI than ours": {override(oidctest.Authorize, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://app.example.com/auth/callback/x?error=login_required", http.StatusFound)
		}), []look{{"redirect URI", "not checked", "answers 302", ""}}, []string{"redirect URI"}, nil},
		"a redirect URI of somebody else": {func(op *oidctest.Provider) {
			op.SetClient(oidctest.Client{ID: "app",
				Secret: "s3cret"})
		}, []look{{"redirect URI", "fault", "answers 400", "register exactly"}}, []string{"redirect " +
			"URI"}, nil},
		"the client may not": {home(func(q url.Values) { q.Set("error", "unauthorized_client") }),
			[]look{{"sign-in", "fault", "unauthorized_client", "code flow"}}, []string{"sign-in"}, nil},
		"the scopes may not": {home(func(q url.Values) { q.Set("error", "invalid_scope") }),
			[]look{{"sign-in", "fault", "invalid_scope", "scopes"}}, []string{"sign-in"}, nil},
		"an error that may be of prompt": {home(func(q url.Values) {
			q.Set("error",
				"invalid_request")
			q.Set("error_description", "no\n\u202esuch")
		}), []look{{"sign-in", "warning", `"invalid_request": "no\n\u202esuch"`, "sign in"}}, []string{"sign-in"}, nil},
		"the state does not come back": {home(func(q url.Values) { q.Set("state", "x") }),
			[]look{{"sign-in", "fault", "does not send the state back", ""}}, []string{"sign-in"}, nil},
		"the iss that it promised is not": {home(func(q url.Values) { q.Del("iss") }),
			[]look{{"iss parameter", "fault", "promises", "not promise"}}, []string{"iss parameter"}, nil},
		"the iss is empty": {home(func(q url.Values) { q.Set("iss", "") }),
			[]look{{"iss parameter", "fault", "promises", ""}}, []string{"iss parameter"}, nil},
		"the iss of another": {home(func(q url.Values) { q.Set("iss", "https://evil.example.com") }),
			[]look{{"iss parameter", "fault", "evil", ""}}, []string{"iss parameter"}, nil},
		"another algorithm": {discovery("id_token_signing_alg_values_supported", []any{"ES256"}),
			[]look{{"signing algorithm", "fault", "RS256 is registered here, and the provider offers ES256",
				"set id_token_signed_response_alg"}}, []string{"signing algorithm"}, nil},
		"a clock that is five minutes off": {func(op *oidctest.Provider) {
			h := oidctest.New(oidctest.Config{Issuer: issuer}).Handler()
			op.Override(oidctest.Discovery, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", time.Now().Add(5*time.Minute).UTC().Format(http.TimeFormat))
				h.ServeHTTP(w, r)
			})
		}, []look{{"clock", "fault", "5m0s ahead of ours", "set both clocks by NTP"}}, []string{"clock"}, nil},
		"a certificate that is not trusted": {func(*oidctest.Provider) {},
			[]look{{"discovery", "fault", "certificate signed by unknown authority", "set as ca_file"}},
			[]string{"client"}, func(c *oidc.Config) {
				c.HTTPClient = &http.Client{Transport: untrusted{}}
			}},
		"bearer": {func(*oidctest.Provider) {}, []look{{"bearer", "ok", "access tokens for api, signed with RS256", ""}},
			nil, func(c *oidc.Config) { c.Bearer = &oidc.Bearer{Audiences: []string{"api"}} }},
		"bearer, with an algorithm that there is no key for": {func(*oidctest.Provider) {},
			[]look{{"bearer", "fault", "no key for ES256", "every access token is refused"}}, []string{"bearer"},
			func(c *oidc.Config) {
				c.Bearer = &oidc.Bearer{Audiences: []string{"api"}, SigningAlgs: []string{"ES256"}}
			}},
		"bearer, by an introspection that is not there": {discovery("introspection_endpoint", nil),
			[]look{{"bearer", "fault", "no introspection_endpoint", "take introspection out"}}, []string{"bearer"},
			func(c *oidc.Config) {
				c.Bearer = &oidc.Bearer{Audiences: []string{"api"}, Introspection: true}
			}},
		"revalidate, by what there is": {func(*oidctest.Provider) {},
			[]look{{"revalidate", "ok", "once in 1m0s, by refresh, or without a refresh token by introspection",
				""}}, nil, revalidate()},
		"revalidate, where refresh tokens live on": {func(*oidctest.Provider) {},
			[]look{{"revalidate", "ok", "once in 1m0s, by userinfo", ""}}, nil, revalidate("userinfo")},
		"revalidate, of sessions with a refresh token alone": {func(*oidctest.Provider) {},
			[]look{{"revalidate", "warning", "by a refresh; the others end", "refresh tokens"}}, []string{"revalidate"},
			revalidate("refresh")},
		"revalidate, by what is not there": {discovery("introspection_endpoint", nil),
			[]look{{"revalidate", "fault", "cannot be asked about by introspection",
				"every session ends"}}, []string{"revalidate"}, revalidate("introspection")},
		"revalidate, by what is not allowed": {override(oidctest.Introspect, said(403, "access_denied")),
			[]look{{"revalidate", "fault", "answered 403", "allow this client to introspect"}}, []string{"revalidate"},
			revalidate()},
		"revalidate, where all is active": {override(oidctest.Introspect, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"active":true}`)
		}), []look{{"revalidate", "fault", "never issued", "without introspection"}}, []string{"revalidate"},
			revalidate()},
		"no key for logout tokens": {func(*oidctest.Provider) {},
			[]look{{"keys", "fault", "none can be used for EdDSA (logout_token_signed_response_alg)",
				"set logout_token_signed_response_alg"}, {"signing algorithm", "ok", "RS256", ""},
				{"signing algorithm", "not checked", "logout tokens with EdDSA", "backchannel_logout"}}, nil,
			func(c *oidc.Config) { c.Quirks.LogoutSigningAlg = "EdDSA" }},
		"a prompt that is not offered": {discovery("prompt_values_supported", []any{"none"}),
			[]look{{"prompt", "warning", "does not offer login, but none",
				"set prompt"}}, []string{"prompt"}, func(c *oidc.Config) { c.Prompt = "login" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				op := oidctest.New(oidctest.Config{Issuer: issuer,
					Clients: []oidctest.Client{{ID: "app", Secret: "s3cret", RedirectURIs: []string{redirect}}}})
				row.broken(op)
				c := oidc.Config{Issuer: issuer, ClientID: "app", ClientSecret: "s3cret",
					HTTPClient: &http.Client{Transport: inMemory{op.Handler()}}}
				if row.changed != nil {
					row.changed(&c)
				}
				p, err := oidc.New(c)
				if err != nil {
					t.Fatal(err)
				}
				r := &Report{about: "provider main"}
				checkProvider(context.Background(), r, p,
					curfew.Registration{ClientID: c.ClientID, RedirectURI: redirect,
						BackchannelURI: "https://app.example.com/auth/backchannel-logout"})
				for _, want := range row.want {
					n := 0
					for _, f := range r.Findings {
						if want.fits(f) {
							n++
						}
					}
					if n != 1 {
						t.Errorf("%d lines are %+v, want one, in %+v", n, want, r.Findings)
					}
				}
				for _, f := range r.Findings {
					for _, check := range row.notOK {
						if f.Check == check && f.Status == "ok" {
							t.Errorf("ok, though nobody can know: %+v", f)
						}
					}
					if f.Status != "ok" && f.Do == "" || strings.Contains(f.Detail+f.Do, "s3cret") {
						t.Errorf("it does not say what to do, or a secret: %+v", f)
					}
				}
				if name == "all is well" && (r.Count("fault") > 0 || r.Count("warning") > 0) {
					t.Errorf("%+v", r.Findings)
				}
			})
		})
	}
}

func TestCheckLooksAtOurOwnCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	site, _ := url.Parse("https://app.example.com")
	hour := time.Hour
	// make writes a certificate, for a time from now until then, and its key.
	make := func(name string, from, until time.Duration, hosts ...string) (certFile, keyFile string) {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app.example.com"},
			NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(until)}
		if name == "client" {
			template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}
		for _, h := range hosts {
			if ip := net.ParseIP(h); ip != nil {
				template.IPAddresses = append(template.IPAddresses, ip)
			} else {
				template.DNSNames = append(template.DNSNames, h)
			}
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
		for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der},
			keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
			if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return certFile, keyFile
	}
	good, goodKey := make("good", -hour, 1000*hour, "app.example.com")
	old, oldKey := make("old", -2*hour, -hour, "app.example.com")
	early, earlyKey := make("early", hour, 1000*hour, "app.example.com")
	soon, soonKey := make("soon", -hour, 24*hour, "app.example.com")
	other, otherKey := make("other", -hour, 1000*hour, "*.app.example.com", "127.0.0.1")
	nameless, namelessKey := make("nameless", -hour, 1000*hour)
	wild, wildKey := make("wild", -hour, 1000*hour, "*.example.com")
	twice, twiceKey := make("twice", -hour, 24*hour, "other.example.com")
	client, clientKey := make("client", -hour, 1000*hour, "app.example.com")
	// The file of a certificate holds those of its issuers too, which run out by themselves.
	chain, begins := filepath.Join(dir, "chain.pem"), filepath.Join(dir, "begins.pem")
	empty := filepath.Join(dir, "empty.pem")
	for name, parts := range map[string][]string{chain: {good, old}, begins: {good, early}, empty: nil} {
		var text []byte
		for _, part := range parts {
			more, err := os.ReadFile(part)
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, more...)
		}
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, row := range map[string]struct {
		cert, key string
		want      look
		hosts     []string
	}{
		"right":               {good, goodKey, look{"certificate", "ok", good + ", until ", ""}, nil},
		"right by a wildcard": {wild, wildKey, look{"certificate", "ok", "until", ""}, nil},
		"expired":             {old, oldKey, look{"certificate", "fault", old + " ran out at", "renew it"}, nil},
		"expired further up":  {chain, goodKey, look{"certificate", "fault", chain + " ran out at", "renew it"}, nil},
		"not yet valid further up": {begins, goodKey, look{"certificate", "fault",
			begins + " is not valid before", "clock"}, nil},
		"for clients": {client, clientKey, look{"certificate", "warning",
			client + " is for something else: its extended key usage lacks serverAuth", "get one with serverAuth"}, nil},
		"not yet valid": {early, earlyKey, look{"certificate", "fault", "is not valid before", "clock"}, nil},
		"right for all hosts": {wild, wildKey, look{"certificate", "ok", "until", ""}, []string{"wiki.example.com",
			"*.example.com"}},
		"for one host of four": {wild, wildKey, look{"certificate", "warning",
			"is not for *.apps.example.com, wiki.example.org, of hosts", "these names too"},
			[]string{"*.apps.example.com", "wiki.example.org:8443", "wiki.example.com"}},
		"soon expired": {soon, soonKey, look{"certificate", "warning", "runs out at", "renew it"}, nil},
		"for another host": {other, otherKey,
			look{"certificate", "warning", "is not for app.example.com", "get one for that name"}, nil},
		"for no host but a name": {nameless, namelessKey,
			look{"certificate", "warning", "is not for app.example.com", "get one for that name"}, nil},
		"a key that does not fit": {good, oldKey,
			look{"certificate", "fault", good + " with the key " + oldKey + ": tls: private key does not match",
				"its private key"}, nil},
		"the two files exchanged": {goodKey, good,
			look{"certificate", "fault", "PEM inputs may have been switched", "tls_cert_file needs the certificate"}, nil},
		"an empty certificate": {empty, goodKey,
			look{"certificate", "fault", "failed to find any PEM data", "tls_cert_file"}, nil},
		"an empty key": {good, empty,
			look{"certificate", "fault", "failed to find any PEM data", "tls_key_file"}, nil},
		"a key that is not there": {good, filepath.Join(dir, "none.key"),
			look{"certificate", "fault", "none.key: no such file", "tls_key_file"}, nil},
		"a certificate that is not": {filepath.Join(dir, "none.pem"), goodKey,
			look{"certificate", "fault", "none.pem: no such file", "tls_cert_file"}, nil},
		"a folder for a certificate": {dir, goodKey, look{"certificate", "fault", "is a directory", "tls_cert_file"}, nil},
	} {
		r := &Report{about: "this gateway"}
		checkCertificate(r, &config.Config{TLSCert: row.cert, TLSKey: row.key, URL: site, Hosts: row.hosts})
		if len(r.Findings) != 1 || !row.want.fits(r.Findings[0]) {
			t.Errorf("%s: got %+v, want %+v", name, r.Findings, row.want)
		}
	}
	// One that has two faults shows both.
	r := &Report{about: "this gateway"}
	checkCertificate(r, &config.Config{TLSCert: twice, TLSKey: twiceKey, URL: site})
	want := []look{{"certificate", "warning", twice + " runs out at", "renew it"},
		{"certificate", "warning", twice + " is not for app.example.com, the host of url", "get one for that name"}}
	if !slices.EqualFunc(want, r.Findings, look.fits) {
		t.Errorf("soon expired, for another host: got %+v, want %+v", r.Findings, want)
	}
}

// Keycloak makes the key for another algorithm when it first signs with it.
func TestAKeyThatKeycloakHasNotMadeYetIsNoFault(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ issuer, authorize, status string }{
		{"https://id.example.com/realms/main", "/protocol/openid-connect/auth", "not checked"},
		{"https://id.example.com", "/authorize", "fault"},
	} {
		synctest.Test(t, func(t *testing.T) {
			op := oidctest.New(oidctest.Config{Issuer: row.issuer, Clients: []oidctest.Client{{ID: "app"}}})
			op.Mangle(func(m *oidctest.Mangle) {
				m.Discovery = func(d map[string]any) {
					d["id_token_signing_alg_values_supported"] = []any{"RS256", "PS256"}
					d["authorization_endpoint"] = row.issuer + row.authorize
				}
			})
			p, err := oidc.New(oidc.Config{Issuer: row.issuer, ClientID: "app", SigningAlg: "PS256",
				HTTPClient: &http.Client{Transport: inMemory{op.Handler()}}})
			if err != nil {
				t.Fatal(err)
			}
			m, err := p.Metadata(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			r := &Report{}
			checkKeys(t.Context(), r, p, kindOf(row.issuer, m), m)
			want := look{"keys", row.status, "none can be used for PS256 (id_token_signed_response_alg)", ""}
			if !slices.ContainsFunc(r.Findings, want.fits) {
				t.Errorf("%s: want %+v, in %+v", row.issuer, want, r.Findings)
			}
		})
	}
}

func TestCheckSaysWhatEveryHostNeeds(t *testing.T) {
	t.Parallel()
	const known = "url: https://auth.example.com\nproviders: [{issuer: 'https://id.example.com', client_id: app}]\n" +
		"hosts: [wiki.example.com, '*.apps.example.com']\n"
	routed := func(hosts ...string) string {
		return "routes:\n- {upstream: 'http://127.0.0.1:1', host: '" +
			strings.Join(hosts, "'}\n- {upstream: 'http://127.0.0.1:1', host: '") + "'}\n"
	}
	for name, row := range map[string]struct {
		more string
		want []string // what is said of hosts without a route
	}{
		"forward-auth":            {"trusted_proxies: [127.0.0.1]\n", nil},
		"one app for all":         {"upstream: http://127.0.0.1:1\n", nil},
		"a route for each":        {routed("wiki.example.com", "*.apps.example.com"), nil},
		"a route for a part":      {routed("wiki.example.com", "one.apps.example.com"), nil},
		"a host without a route":  {routed("*.apps.example.com"), []string{"wiki.example.com has no route"}},
		"a route for nobody else": {routed("auth.example.com"), []string{"wiki.example.com has", "*.apps.example.com has"}},
	} {
		file := filepath.Join(t.TempDir(), "curfew.yaml")
		if err := os.WriteFile(file, []byte(known+row.more), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(map[string]string{"config": file}, nil)
		if err != nil {
			t.Fatal(name, err)
		}
		r := &Report{about: "this gateway"}
		checkHosts(r, c)
		if len(r.Findings) != 1+len(row.want) || !(look{"hosts", "ok",
			"wiki.example.com, *.apps.example.com: people sign in at auth.example.com", ""}).fits(r.Findings[0]) {
			t.Errorf("%s: %+v", name, r.Findings)
			continue
		}
		for i, want := range row.want {
			if !(look{"hosts", "warning", want, "add a route"}).fits(r.Findings[i+1]) {
				t.Errorf("%s: %+v, want %s", name, r.Findings[i+1], want)
			}
		}
	}
}
