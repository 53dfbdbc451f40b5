package oidc_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"

	jose "github.com/go-jose/go-jose/v4"
)

const longSecret = "a-secret-of-more-than-sixty-four-bytes-for-whoever-signs-with-it-0123456789"

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// jwt checks a signature and returns header and claims.
func jwt(t testing.TB, raw string, alg string, key any) (jose.Header, map[string]any) {
	t.Helper()
	jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := jws.Verify(key)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	return jws.Signatures[0].Protected, c
}

// recorder answers an endpoint in the provider's place and keeps what it was asked.
type recorder struct {
	mu    sync.Mutex
	asked []*http.Request
}

func (rec *recorder) answer(status int, body string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		rec.mu.Lock()
		rec.asked = append(rec.asked, r)
		rec.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func TestAClientAssertionIsSignedAsConfigured(t *testing.T) {
	t.Parallel()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p256, p384, p521 := newKey(t, elliptic.P256()), newKey(t, elliptic.P384()), newKey(t, elliptic.P521())
	public, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := func(all ...any) func(*oidc.Config) {
		return func(c *oidc.Config) {
			c.ClientSecret = ""
			for i, k := range all {
				c.Keys = append(c.Keys, oidc.PrivateKey{ID: fmt.Sprint("key", i), Key: k})
			}
		}
	}
	for _, row := range []struct {
		name   string
		change func(*oidc.Config)
		alg    string
		key    any
		kid    string
	}{
		{"RSA", keys(r), "RS256", r.Public(), "key0"},
		{"the first of two signs", keys(p256, r), "ES256", p256.Public(), "key0"},
		{"the first that goes with the algorithm", func(c *oidc.Config) {
			keys(p256, r)(c)
			c.AuthSigningAlg = "PS256"
		}, "PS256", r.Public(), "key1"},
		{"P-384", keys(p384), "ES384", p384.Public(), "key0"},
		{"P-521", keys(p521), "ES512", p521.Public(), "key0"},
		{"Ed25519", keys(ed), "EdDSA", public, "key0"},
		{"a key that is for encryption is passed over", func(c *oidc.Config) {
			keys(p256, p384)(c)
			c.Keys[0].Use = "enc"
		}, "ES384", p384.Public(), "key1"},
		{"the algorithm of the JWK", func(c *oidc.Config) {
			keys(r)(c)
			c.Keys[0].Alg = "PS384"
		}, "PS384", r.Public(), "key0"},
		{"a secret", func(c *oidc.Config) { c.ClientSecret, c.AuthMethod = longSecret, oidc.AuthSecretJWT }, "HS256",
			[]byte(longSecret), ""},
		{"a secret, with HS512", func(c *oidc.Config) {
			c.ClientSecret, c.AuthMethod, c.AuthSigningAlg = longSecret, oidc.AuthSecretJWT, "HS512"
		}, "HS512", []byte(longSecret), ""},
		{"to the token endpoint", func(c *oidc.Config) {
			keys(p256)(c)
			c.AssertionAudience = oidc.AudienceTokenEndpoint
		}, "ES256", p256.Public(), "key0"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := build(t, func(_ *oidctest.Client, c *oidc.Config) { row.change(c) })
			var rec recorder
			h.op.Override(oidctest.Token, rec.answer(400, `{"error": "invalid_grant"}`))
			h.op.Override(oidctest.Revoke, rec.answer(200, ""))
			if _, err := h.rp.Exchange(t.Context(), "c", verifier, callback); !errors.Is(err, oidc.ErrInvalidGrant) {
				t.Fatal(err)
			}
			if err := h.rp.Revoke(t.Context(), "token", ""); err != nil {
				t.Fatal(err)
			}
			audience := h.op.Issuer()
			if h.rp.Config().AssertionAudience == oidc.AudienceTokenEndpoint {
				audience = h.op.URL(oidctest.Token)
			}
			seen := map[any]bool{}
			for _, r := range rec.asked {
				if r.Header.Get("Authorization") != "" || r.PostForm.Has("client_secret") ||
					r.PostForm.Get("client_id") != "app" || r.PostForm.Get("client_assertion_type") !=
					"urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
					t.Errorf("it authenticates with %v, %v", r.Header, r.PostForm)
				}
				header, c := jwt(t, r.PostForm.Get("client_assertion"), row.alg, row.key)
				now := float64(h.Now().Unix())
				if header.KeyID != row.kid || c["iss"] != "app" || c["sub"] != "app" || c["aud"] != audience ||
					c["iat"] != now || c["exp"] != now+60 || len(c) != 6 {
					t.Errorf("the assertion is %+v, %v", header, c)
				}
				seen[c["jti"]] = true
			}
			if len(rec.asked) != 2 || len(seen) != 2 {
				t.Errorf("%d requests, with %d values of jti", len(rec.asked), len(seen))
			}
		})
	}
}

func TestTheKeysOfAClientArePublishedWithoutTheirSecrets(t *testing.T) {
	t.Parallel()
	a, b, c := newKey(t, elliptic.P256()), newKey(t, elliptic.P256()), newKey(t, elliptic.P256())
	p, err := oidc.New(oidc.Config{Issuer: "https://id.example.com", ClientID: "app",
		Keys:               []oidc.PrivateKey{{ID: "new", Key: a}, {ID: "old", Key: b}},
		Encryption:         &oidc.Encryption{Alg: "ECDH-ES", Keys: []oidc.PrivateKey{{ID: "enc", Key: c}}},
		UserinfoEncryption: &oidc.Encryption{Alg: "ECDH-ES", Keys: []oidc.PrivateKey{{ID: "enc", Key: c}}}})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(p.ClientKeys())
	if err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal(data, &set); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range set.Keys {
		got = append(got, fmt.Sprint(k["kid"], " ", k["use"], " ", k["alg"]))
		if len(k) != 7 || k["d"] != nil || k["x"] == nil || k["y"] == nil {
			t.Errorf("a key is published as %v", k)
		}
	}
	if want := []string{"new sig ES256", "old sig ES256", "enc enc ECDH-ES"}; !slices.Equal(got, want) {
		t.Errorf("published are %q; want %q", got, want)
	}
	if p, _ := oidc.New(oidc.Config{Issuer: "https://id.example.com", ClientID: "app"}); p.HasClientKeys() ||
		len(p.ClientKeys().Keys) > 0 {
		t.Error("a client without keys publishes some")
	}
	if again, err := oidc.New(p.Config()); err != nil || len(again.ClientKeys().Keys) != 3 {
		t.Errorf("a configuration that was taken is refused: %v", err)
	}
}

func TestHowAClientSpeaksIsRefusedWithEveryFault(t *testing.T) {
	t.Parallel()
	ec := oidc.PrivateKey{Key: newKey(t, elliptic.P256())}
	certificate := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }
	for _, row := range []struct {
		name   string
		change func(*oidc.Config)
		fault  string // none: it is taken
	}{
		{"keys alone", func(c *oidc.Config) { c.Keys = []oidc.PrivateKey{ec} }, ""},
		{"no key", func(c *oidc.Config) { c.AuthMethod = oidc.AuthPrivateJWT }, "private_key_jwt needs a private key"},
		{"a key and a secret", func(c *oidc.Config) {
			c.AuthMethod, c.Keys, c.ClientSecret = oidc.AuthPrivateJWT, []oidc.PrivateKey{ec}, "x"
		}, "remove one of the two"},
		{"a key for nothing", func(c *oidc.Config) { c.Keys, c.ClientSecret = []oidc.PrivateKey{ec}, "x" },
			"nothing is signed with them"},
		{"a key that does not fit", func(c *oidc.Config) {
			c.Keys, c.AuthSigningAlg = []oidc.PrivateKey{ec}, "RS256"
		}, "token_endpoint_auth_signing_alg: none of the private keys signs with RS256; they sign with: ES256"},
		{"an algorithm nobody knows", func(c *oidc.Config) {
			c.Keys, c.AuthSigningAlg = []oidc.PrivateKey{ec}, "none"
		}, "token_endpoint_auth_signing_alg: `none` is no signature"},
		{"a key for encryption", func(c *oidc.Config) {
			c.Keys = []oidc.PrivateKey{{Key: ec.Key, Use: "enc"}}
		}, "they sign with: nothing"},
		{"two keys of one name", func(c *oidc.Config) { c.Keys = []oidc.PrivateKey{ec, ec} }, "has the same `kid`"},
		{"no key at all in it", func(c *oidc.Config) { c.Keys = []oidc.PrivateKey{{}} }, "key 1: it is a <nil>"},
		{"nine keys", func(c *oidc.Config) { c.Keys = slices.Repeat([]oidc.PrivateKey{ec}, 9) }, "9 keys, more than 8"},
		{"no secret to sign with", func(c *oidc.Config) { c.AuthMethod = oidc.AuthSecretJWT },
			"client_secret_jwt needs a client secret"},
		{"a short secret", func(c *oidc.Config) { c.AuthMethod, c.ClientSecret = oidc.AuthSecretJWT, "0123456789abcdef" },
			"HS256 needs a client secret of at least 32 bytes (RFC 7518 §3.2); it has 16"},
		{"a secret that signs ES256", func(c *oidc.Config) {
			c.AuthMethod, c.ClientSecret, c.AuthSigningAlg = oidc.AuthSecretJWT, longSecret, "ES256"
		}, "with a client secret it is HS256, HS384 or HS512"},
		{"an algorithm for nothing", func(c *oidc.Config) { c.AuthSigningAlg, c.ClientSecret = "ES256", "x" },
			"token_endpoint_auth_signing_alg is for private_key_jwt and client_secret_jwt"},
		{"an audience for nothing", func(c *oidc.Config) { c.AssertionAudience = oidc.AudienceTokenEndpoint },
			"client_assertion_audience is for private_key_jwt"},
		{"an audience", func(c *oidc.Config) { c.AssertionAudience = "everybody" }, "it is issuer or token_endpoint"},
		{"a signed request", func(c *oidc.Config) {
			c.RequestObjectSigningAlg, c.Keys, c.ClientSecret = "ES256", []oidc.PrivateKey{ec}, "x"
		}, ""},
		{"a signed request without a key", func(c *oidc.Config) { c.RequestObjectSigningAlg = "ES256" },
			"ES256 needs a private key"},
		{"a request signed with no secret", func(c *oidc.Config) { c.RequestObjectSigningAlg = "HS256" },
			"request_object_signing_alg HS256 needs a client secret"},
		{"a request signed with a secret", func(c *oidc.Config) {
			c.RequestObjectSigningAlg, c.ClientSecret = "HS256", longSecret
		}, ""},
		{"an unsigned request object", func(c *oidc.Config) {
			c.RequestObjectSigningAlg, c.Keys = "none", []oidc.PrivateKey{ec}
		}, "request_object_signing_alg: `none` is no signature"},
		{"no certificate", func(c *oidc.Config) { c.AuthMethod = oidc.AuthTLS },
			"tls_client_auth needs a client certificate and its key"},
		{"a certificate and a secret as well", func(c *oidc.Config) {
			c.AuthMethod, c.GetClientCertificate, c.ClientSecret = oidc.AuthSelfSignedTLS, certificate, "x"
		}, "remove one of the two"},
		{"a certificate, and a transport of another kind", func(c *oidc.Config) {
			c.GetClientCertificate, c.HTTPClient = certificate, &http.Client{Transport: transport(nil)}
		}, "whose Transport is an *http.Transport"},
		{"a response mode", func(c *oidc.Config) { c.ResponseMode = "fragment" },
			"response_mode: \"fragment\": it is one of query, form_post"},
		{"an algorithm of no JWT", func(c *oidc.Config) { c.ResponseSigningAlg = "ES256" }, "need response_mode jwt"},
		{"a JWT that is not signed", func(c *oidc.Config) {
			c.ResponseMode, c.ResponseSigningAlg = oidc.ModeJWT, "none"
		}, "authorization_signed_response_alg: `none`"},
		{"a JWT that is encrypted to nobody", func(c *oidc.Config) {
			c.ResponseMode, c.ResponseEncryption = oidc.ModeJWT, &oidc.Encryption{Alg: "ECDH-ES"}
		}, "encryption of authorization responses: the private key to decrypt with is missing"},
		{"decryption with a key for signing", func(c *oidc.Config) {
			c.Encryption = &oidc.Encryption{Alg: "ECDH-ES", Keys: []oidc.PrivateKey{{Key: ec.Key, Use: "sig"}}}
		}, "encryption: key 1 is for signing"},
		{"decryption with a key for another alg", func(c *oidc.Config) {
			c.Encryption = &oidc.Encryption{Alg: "ECDH-ES", Keys: []oidc.PrivateKey{{Key: ec.Key, Alg: "ECDH-ES+A128KW"}}}
		}, `key 1 is for alg "ECDH-ES+A128KW"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := oidc.Config{Issuer: "https://id.example.com", ClientID: "app"}
			row.change(&c)
			_, err := oidc.New(c)
			if row.fault == "" && err != nil || row.fault != "" &&
				(err == nil || !strings.Contains(err.Error(), row.fault)) {
				t.Errorf("got %v; want %q", err, row.fault)
			}
		})
	}
}

// parEndpoint has the metadata name an endpoint for pushed requests: that of another one, which the test answers.
func parEndpoint(h *fixture, more map[string]any) {
	h.op.Mangle(func(m *oidctest.Mangle) {
		m.Discovery = func(d map[string]any) {
			d["pushed_authorization_request_endpoint"] = h.op.URL(oidctest.Revoke)
			for name, v := range more {
				d[name] = v
			}
		}
	})
}

func (h *fixture) authURL(t testing.TB) (url.Values, error) {
	t.Helper()
	where, err := h.rp.AuthURL(t.Context(), oidc.AuthRequest{RedirectURI: callback, State: "st", Nonce: "n",
		Verifier: verifier, MaxAge: new(int), Extra: url.Values{"claims": {`{"id_token": {"acr": null}}`}}})
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(where)
	if err != nil {
		t.Fatal(err)
	}
	if u.Host != strings.TrimPrefix(h.op.Issuer(), "http://") {
		t.Errorf("sent to %s", u)
	}
	return u.Query(), nil
}

// RFC 9126 §2.1, §2.2 and §4.
func TestARequestIsPushed(t *testing.T) {
	t.Parallel()
	const uri = "urn:ietf:params:oauth:request_uri:6esc_11ACC5bwc014ltc14eY22c"
	for name, row := range map[string]struct {
		push bool
		more map[string]any
	}{
		"by setting":                     {push: true},
		"where the provider requires it": {more: map[string]any{"require_pushed_authorization_requests": true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := build(t, func(_ *oidctest.Client, c *oidc.Config) { c.PushRequests = row.push })
			parEndpoint(h, row.more)
			var rec recorder
			h.op.Override(oidctest.Revoke, rec.answer(201, `{"request_uri": "`+uri+`", "expires_in": 60}`))
			q, err := h.authURL(t)
			if err != nil || len(q) != 2 || q.Get("client_id") != "app" || q.Get("request_uri") != uri {
				t.Fatalf("the browser carries %v, %v", q, err)
			}
			form := rec.asked[0].PostForm
			if user, _, _ := rec.asked[0].BasicAuth(); user != "app" || form.Get("state") != "st" ||
				form.Get("redirect_uri") != callback || form.Get("code_challenge") == "" || form.Get("nonce") != "n" ||
				form.Get("response_type") != "code" || form.Get("max_age") != "0" || form.Has("request_uri") {
				t.Errorf("pushed is %v by %q", form, user)
			}
		})
	}
}

// Anybody can have a request pushed, by opening the login route, so the provider is asked for no more than it bears.
func TestPushedRequestsAreLimited(t *testing.T) {
	t.Parallel()
	for name, signed := range map[string]bool{"plain": false, "signed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := build(t, func(_ *oidctest.Client, c *oidc.Config) {
				if c.PushRequests = true; signed {
					c.Keys = []oidc.PrivateKey{{ID: "ours", Key: newKey(t, elliptic.P256())}}
					c.RequestObjectSigningAlg = "ES256"
				}
			})
			parEndpoint(h, nil)
			var rec recorder
			h.op.Override(oidctest.Revoke, rec.answer(201, `{"request_uri": "urn:x", "expires_in": 60}`))
			push := func() error { _, err := h.authURL(t); return err }
			for n := range 100 {
				if err := push(); err != nil {
					t.Fatalf("request %d: %v", n+1, err)
				}
			}
			err := push()
			if !errors.Is(err, oidc.ErrTooMany) || !errors.Is(err, oidc.ErrUnavailable) || len(rec.asked) != 100 {
				t.Errorf("request 101 of one moment: %v, and the provider was asked %d times", err, len(rec.asked))
			}
			h.Add(time.Second)
			for n := range 50 {
				if err := push(); err != nil {
					t.Fatalf("request %d after a second: %v", n+1, err)
				}
			}
			if err := push(); !errors.Is(err, oidc.ErrTooMany) {
				t.Errorf("request 51 after a second: %v", err)
			}
		})
	}
}

func TestAPushThatFailsSendsNobodyAway(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		status int
		body   string
		is     error
		says   string
	}{
		{"a wrong client", 401, `{"error": "invalid_client"}`, oidc.ErrInvalidClient, "client_secret"},
		{"a redirect URI that is not registered (RFC 9126 §2.3)", 400, `{"error": "invalid_request",
			"error_description": "The redirect_uri is not valid for the given client"}`, nil,
			`par: it answered 400: "invalid_request", "The redirect_uri is not valid for the given client"`},
		{"a provider that is away", 503, ``, oidc.ErrUnavailable, "503"},
		{"a redirect", 302, ``, oidc.ErrUnavailable, "redirects are not followed"},
		{"a page", 201, `<html>`, oidc.ErrUnavailable, "JSON object"},
		{"no reference", 201, `{}`, nil, "no `request_uri`"},
		{"a reference that is none", 201, `{"request_uri": 1}`, nil, "no `request_uri`"},
		{"a huge one", 201, `{"request_uri": "` + strings.Repeat("a", 5000) + `"}`, nil, "no `request_uri`"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := build(t, func(_ *oidctest.Client, c *oidc.Config) { c.PushRequests = true })
			parEndpoint(h, nil)
			var rec recorder
			h.op.Override(oidctest.Revoke, rec.answer(row.status, row.body))
			q, err := h.authURL(t)
			e, refused := errors.AsType[*oidc.Error](err)
			if err == nil || row.is != nil && !errors.Is(err, row.is) || !strings.Contains(err.Error(), row.says) ||
				!errors.Is(row.is, oidc.ErrUnavailable) && (!refused || e.Check != "par") {
				t.Errorf("got %v, %v; want %q", q, err, row.says)
			}
		})
	}
	h := build(t, func(_ *oidctest.Client, c *oidc.Config) { c.PushRequests = true })
	if _, err := h.authURL(t); err == nil || !strings.Contains(err.Error(), "par: ") {
		t.Errorf("a provider without such an endpoint: %v", err)
	}
}

// RFC 9101 §4, §5 and RFC 9126 §3.
func TestARequestIsSigned(t *testing.T) {
	t.Parallel()
	key := newKey(t, elliptic.P256())
	for name, push := range map[string]bool{"in the browser": false, "and pushed": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := build(t, func(_ *oidctest.Client, c *oidc.Config) {
				c.Keys, c.RequestObjectSigningAlg = []oidc.PrivateKey{{ID: "ours", Key: key}}, "ES256"
				c.PushRequests = push
			})
			parEndpoint(h, nil)
			var rec recorder
			h.op.Override(oidctest.Revoke, rec.answer(201, `{"request_uri": "urn:x", "expires_in": 60}`))
			q, err := h.authURL(t)
			if err != nil {
				t.Fatal(err)
			}
			outside := []string{"client_id", "request", "response_type", "scope"}
			if push {
				q, outside = rec.asked[0].PostForm, outside[:2]
			}
			var got []string
			for name := range q {
				got = append(got, name)
			}
			if slices.Sort(got); !slices.Equal(got, outside) {
				t.Errorf("outside are %q; want %q", got, outside)
			}
			header, c := jwt(t, q.Get("request"), "ES256", key.Public())
			now := float64(h.Now().Unix())
			if header.ExtraHeaders[jose.HeaderType] != "oauth-authz-req+jwt" || header.KeyID != "ours" ||
				c["iss"] != "app" || c["client_id"] != "app" || c["aud"] != h.op.Issuer() || c["exp"] != now+300 ||
				c["nbf"] != now || c["state"] != "st" || c["nonce"] != "n" || c["redirect_uri"] != callback ||
				c["response_type"] != "code" || c["max_age"] != 0.0 || c["code_challenge_method"] != "S256" ||
				fmt.Sprint(c["claims"]) != "map[id_token:map[acr:<nil>]]" {
				t.Errorf("signed is %+v, %v", header, c)
			}
		})
	}
	h := build(t, func(_ *oidctest.Client, c *oidc.Config) {
		c.Keys, c.RequestObjectSigningAlg = []oidc.PrivateKey{{Key: key}}, "ES256"
	})
	if _, err := h.rp.AuthURL(t.Context(), oidc.AuthRequest{RedirectURI: callback, State: "s", Nonce: "n",
		Verifier: verifier, Extra: url.Values{"iss": {"https://other.example.com"}}}); err == nil {
		t.Error("a parameter replaces a claim of the request object")
	}
}

// Keycloak's answer has the issuer twice. Nothing else may be there twice, and not with another value.
func TestASignedAnswerMayNameItsIssuerTwice(t *testing.T) {
	t.Parallel()
	h := build(t, func(_ *oidctest.Client, c *oidc.Config) { c.ResponseMode = "jwt" })
	for payload, taken := range map[string]bool{
		`{"iss": "https://id", "code": "c", "iss": "https://id"}`:                         true,
		`{"iss": "https:\u002f/id", "code": "c", "iss": "https://id"}`:                    true, // the same string
		`{"iss": "https://id", "code": "c", "iss": "https://other"}`:                      false,
		`{"iss": "https://id", "iss": "https://id", "code": "c", "iss": "https://other"}`: false,
		`{"iss": "https://id", "code": "c", "code": "c"}`:                                 false,
		`{"iss": 1, "code": "c", "iss": 1}`:                                               false,
		`{"iss": null, "code": "c", "iss": null}`:                                         false,
		`{"iss": "https://id", "code": "c", "x": {"iss": "a", "iss": "a"}}`:               false,
		`{"iss": "https://id", "code": "c", "x": [{"iss": "a", "iss": "a"}]}`:             false,
		`{"iss": "https://id", "code": "c", "Iss": "https://id"}`:                         true, // another name
	} {
		part := base64.RawURLEncoding.EncodeToString
		r, err := h.rp.OpenResponse(part([]byte(`{"alg": "ES256"}`)) + "." + part([]byte(payload)) + ".AAAA")
		switch {
		case taken && (err != nil || r.Param("iss") != "https://id" || r.Param("code") != "c"):
			t.Errorf("%s: %v", payload, err)
		case !taken && (err == nil || !strings.Contains(err.Error(), "duplicate name")):
			t.Errorf("%s: %v; want that it has a duplicate name", payload, err)
		}
	}
}

// JARM §4.4.
func TestASignedAnswerIsVerified(t *testing.T) {
	t.Parallel()
	secret, other := newKey(t, elliptic.P256()), newKey(t, elliptic.P256())
	for _, row := range []struct {
		name      string
		encrypted bool // registered
		lie       func(h *fixture, t *oidctest.JWT)
		wrap      func(raw string) string
		opens     string // why it cannot be taken apart
		refused   string
	}{
		{name: "as it should be"},
		{name: "encrypted", encrypted: true, wrap: func(raw string) string {
			return oidctest.Encrypt(raw, &oidctest.Encryption{Alg: "ECDH-ES", Enc: "A128GCM", Key: secret.Public()})
		}},
		{name: "not encrypted", encrypted: true, opens: "is not encrypted"},
		{name: "encrypted to another", encrypted: true, opens: "cannot be decrypted", wrap: func(raw string) string {
			return oidctest.Encrypt(raw, &oidctest.Encryption{Alg: "ECDH-ES", Enc: "A128GCM", Key: other.Public()})
		}},
		{name: "encrypted, and not registered so", opens: "no key to decrypt it", wrap: func(raw string) string {
			return oidctest.Encrypt(raw, &oidctest.Encryption{Alg: "ECDH-ES", Enc: "A128GCM", Key: secret.Public()})
		}},
		{name: "no JWT", opens: "three parts", wrap: func(string) string { return "code" }},
		{name: "another issuer", refused: "response: the answer is a JWT that is refused: iss",
			lie: func(_ *fixture, t *oidctest.JWT) { t.Claims["iss"] = "https://evil.example.com" }},
		{name: "no issuer", refused: "iss", lie: func(_ *fixture, t *oidctest.JWT) { delete(t.Claims, "iss") }},
		{name: "another client", refused: "aud", lie: func(_ *fixture, t *oidctest.JWT) { t.Claims["aud"] = "other" }},
		{name: "no audience", refused: "aud", lie: func(_ *fixture, t *oidctest.JWT) { delete(t.Claims, "aud") }},
		{name: "run out", refused: "exp", lie: func(h *fixture, t *oidctest.JWT) {
			t.Claims["exp"] = h.Now().Add(-time.Minute).Unix()
		}},
		{name: "for ever", refused: "exp", lie: func(_ *fixture, t *oidctest.JWT) { delete(t.Claims, "exp") }},
		{name: "a code that is no text", refused: "`code` is not a string",
			lie: func(_ *fixture, t *oidctest.JWT) { t.Claims["code"] = 1 }},
		{name: "another key", refused: "signature", lie: func(h *fixture, t *oidctest.JWT) {
			k := *h.op.Key("ES256")
			k.Private = other
			t.Key = &k
		}},
		{name: "another algorithm", refused: "alg", lie: func(_ *fixture, t *oidctest.JWT) { t.Header["alg"] = "none" }},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := build(t, func(_ *oidctest.Client, c *oidc.Config) {
				c.ResponseMode = oidc.ModeJWT
				if row.encrypted {
					c.ResponseEncryption = &oidc.Encryption{Alg: "ECDH-ES", Enc: "A128GCM", Key: secret}
				}
			})
			h.settle(t)
			k := h.op.Key("ES256")
			token := oidctest.JWT{Header: map[string]any{"alg": "ES256", "kid": k.KID}, Key: k, Alg: "ES256",
				Claims: map[string]any{"iss": h.op.Issuer(), "aud": "app", "exp": h.Now().Add(time.Minute).Unix(),
					"code": "the code", "state": "the state"}}
			if row.lie != nil {
				row.lie(h, &token)
			}
			raw := oidctest.Sign(token)
			if row.wrap != nil {
				raw = row.wrap(raw)
			}
			r, err := h.rp.OpenResponse(raw)
			if row.opens != "" {
				if err == nil || !strings.Contains(err.Error(), row.opens) {
					t.Errorf("got %v; want %q", err, row.opens)
				}
				return
			}
			if err != nil || r.Param("state") != "the state" {
				t.Fatal(err)
			}
			err = h.rp.VerifyResponse(t.Context(), r, h.Now())
			if row.refused == "" && (err != nil || r.Param("code") != "the code") || row.refused != "" &&
				(err == nil || !strings.Contains(err.Error(), row.refused)) {
				t.Errorf("got %v; want %q", err, row.refused)
			}
		})
	}
}

// RFC 9449 §5, §7.1, §8 and §9.
func TestTokensAreBoundToAKeyOfTheSession(t *testing.T) {
	t.Parallel()
	h := build(t, func(_ *oidctest.Client, c *oidc.Config) { c.DPoP = true })
	h.op.Mangle(func(m *oidctest.Mangle) {
		m.Tokens = func(_ string, d map[string]any) { d["token_type"] = "DPoP" }
	})
	b := browser(t)
	tok, err := h.rp.Exchange(t.Context(), h.signIn(t, b), verifier, callback)
	if err != nil {
		t.Fatal(err)
	}
	other, err := h.rp.Exchange(t.Context(), h.signIn(t, b), verifier, callback)
	if err != nil || len(tok.DPoPKey) != 32 || slices.Equal(tok.DPoPKey, other.DPoPKey) {
		t.Fatalf("each session has a key of its own: %v", err)
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), tok.DPoPKey)
	if err != nil {
		t.Fatal(err)
	}
	// proofs checks the proofs of what was asked: the first without a nonce, the others with n1, n2, …
	proofs := func(rec *recorder, method, where string, ath bool) {
		t.Helper()
		for i, r := range rec.asked {
			header, c := jwt(t, r.Header.Get("DPoP"), "ES256", key.Public())
			want := any(fmt.Sprint("n", i))
			if i == 0 {
				want = nil
			}
			if c["nonce"] != want || c["htm"] != method || c["htu"] != where || (c["ath"] != nil) != ath ||
				!key.PublicKey.Equal(header.JSONWebKey.Key) {
				t.Errorf("proof %d is %v", i, c)
			}
		}
	}
	var rec recorder
	n := 0
	h.op.Override(oidctest.Token, func(w http.ResponseWriter, r *http.Request) {
		n++
		if n == 1 { // RFC 9449 §8
			rec.answer(400, `{"error": "use_dpop_nonce"}`, "DPoP-Nonce", "n1")(w, r)
			return
		}
		rec.answer(200, `{"access_token": "at`+fmt.Sprint(n)+`", "token_type": "dpop"}`, "DPoP-Nonce",
			fmt.Sprint("n", n))(w, r)
	})
	id := oidc.IDToken{Issuer: h.op.Issuer(), ClientID: "app", Subject: "alice"}
	for range 2 {
		newer, _, err := h.rp.Refresh(t.Context(), tok.RefreshToken, tok.DPoPKey, id, h.Now())
		if err != nil || !slices.Equal(newer.DPoPKey, tok.DPoPKey) || newer.RefreshToken != tok.RefreshToken {
			t.Fatalf("a refresh with the key of the session: %v", err)
		}
	}
	proofs(&rec, "POST", h.op.URL(oidctest.Token), false)
	if len(rec.asked) != 3 {
		t.Errorf("it was asked %d times; want 3: once for a nonce, which is then kept", len(rec.asked))
	}

	var info recorder
	h.op.Override(oidctest.Userinfo, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "DPoP at2" {
			t.Errorf("the access token is sent as %q", r.Header.Get("Authorization"))
		}
		if len(info.asked) == 0 { // RFC 9449 §9
			info.answer(401, "", "WWW-Authenticate", `DPoP error="use_dpop_nonce", error_description="x"`,
				"DPoP-Nonce", "n1")(w, r)
			return
		}
		info.answer(200, `{"sub": "alice"}`)(w, r)
	})
	if _, err := h.rp.Userinfo(t.Context(), "at2", tok.DPoPKey, "alice", h.Now()); err != nil {
		t.Fatal(err)
	}
	proofs(&info, "GET", h.op.URL(oidctest.Userinfo), true)

	// A provider that is never content is asked twice, and not for ever.
	var never recorder
	h.op.Override(oidctest.Token, never.answer(400, `{"error": "use_dpop_nonce"}`, "DPoP-Nonce", "n9"))
	if _, _, err := h.rp.Refresh(t.Context(), tok.RefreshToken, tok.DPoPKey, id, h.Now()); err == nil ||
		errors.Is(err, oidc.ErrInvalidGrant) || len(never.asked) != 2 {
		t.Errorf("asked %d times: %v", len(never.asked), err)
	}
}

func TestATokenThatIsNotBoundAsAskedIsRefused(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		dpop  bool
		typ   any
		taken bool
	}{
		"bound":                      {true, "DPoP", true},
		"not bound":                  {true, "Bearer", false},
		"bound to what is not said":  {true, nil, false},
		"bound, and not asked to be": {false, "DPoP", false},
		"bearer":                     {false, "bearer", true},
		"bearer, not said":           {false, nil, true},
		"a number":                   {false, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := build(t, func(_ *oidctest.Client, c *oidc.Config) { c.DPoP = row.dpop })
			h.op.Mangle(func(m *oidctest.Mangle) {
				m.Tokens = func(_ string, d map[string]any) { d["token_type"] = row.typ }
			})
			tok, err := h.rp.Exchange(t.Context(), h.signIn(t, browser(t)), verifier, callback)
			e, refused := errors.AsType[*oidc.Error](err)
			if (err == nil) != row.taken || !row.taken && (!refused || e.Check != "token_response") ||
				row.taken && (tok.DPoPKey != nil) != row.dpop {
				t.Errorf("got %v", err)
			}
		})
	}
}

// RFC 8705 §2 and §5: the certificate is shown, and the endpoints for it are used.
func TestACertificateIsShownToTheProvider(t *testing.T) {
	t.Parallel()
	key := newKey(t, elliptic.P256())
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "app"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	shown := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	for _, withCertificate := range []bool{true, false} {
		t.Run(fmt.Sprint(withCertificate), func(t *testing.T) {
			t.Parallel()
			var asked recorder
			mux := http.NewServeMux()
			s := httptest.NewUnstartedServer(mux)
			s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
			s.StartTLS()
			t.Cleanup(s.Close)
			mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
				_ = json.NewEncoder(w).Encode(map[string]any{"issuer": s.URL, "authorization_endpoint": s.URL + "/auth",
					"token_endpoint": s.URL + "/token", "jwks_uri": s.URL + "/keys", "userinfo_endpoint": s.URL + "/info",
					"mtls_endpoint_aliases": map[string]any{"token_endpoint": s.URL + "/mtls/token",
						"userinfo_endpoint": "http://elsewhere.example.com/info", "revocation_endpoint": 1}})
			})
			mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
				if (len(r.TLS.PeerCertificates) == 1) != withCertificate {
					t.Errorf("%s: %d certificates", r.URL, len(r.TLS.PeerCertificates))
				}
				asked.answer(400, `{"error": "invalid_grant"}`)(w, r)
			})
			c := oidc.Config{Issuer: s.URL, ClientID: "app", HTTPClient: s.Client()}
			if withCertificate {
				c.AuthMethod = oidc.AuthSelfSignedTLS
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown, nil }
			}
			p, err := oidc.New(c)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Config().HTTPClient.CloseIdleConnections)
			_, err = p.Exchange(t.Context(), "c", verifier, callback)
			if !errors.Is(err, oidc.ErrInvalidGrant) {
				t.Fatal(err)
			}
			m, err := p.Metadata(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			form := asked.asked[0].PostForm
			want := s.URL + "/token"
			if withCertificate {
				want = s.URL + "/mtls/token"
			}
			if got := s.URL + asked.asked[0].URL.Path; got != want || m.UserinfoEndpoint != s.URL+"/info" ||
				form.Get("client_id") != "app" || form.Has("client_assertion") {
				t.Errorf("asked is %s with %v; userinfo is at %s", got, form, m.UserinfoEndpoint)
			}
			keys := p.ClientKeys().Keys
			if withCertificate && (len(keys) != 1 || len(keys[0].Certificates) != 1 || !keys[0].IsPublic()) ||
				!withCertificate && len(keys) > 0 {
				t.Errorf("published are %v", keys)
			}
		})
	}
}
