package oidc_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

func TestAnIDTokenIsRefusedByTheCheckThatItFails(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.op.AddKey(oidctest.NewKey("EdDSA"))
	h.settle(t)
	now := h.Now()
	stranger := oidctest.NewKey("ES256")
	for _, row := range []struct {
		name   string
		lie    func(*oidctest.JWT)
		check  string
		reason string
	}{
		{"alg none", func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "none", "none" }, "alg", "registered is ES256"},
		{"alg HS256 under the public key", func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "HS256", "HS256" }, "alg",
			"registered is ES256"},
		{"another algorithm by a published key", func(j *oidctest.JWT) {
			k := h.op.Key("EdDSA")
			j.Header["alg"], j.Header["kid"], j.Alg, j.Key = "EdDSA", k.KID, "EdDSA", k
		}, "alg", "registered is ES256"},
		{"crit", head("crit", []string{"exp"}), "crit", "`crit`"},
		{"typ of a logout token", head("typ", "logout+jwt"), "typ", "not the type of an ID Token"},
		{"typ of an access token", head("typ", "at+jwt"), "typ", "not the type of an ID Token"},
		{"iss another", claim("iss", h.op.Issuer()+"INVALID"), "iss", "not of"},
		{"iss missing", claim("iss", nil), "iss", "not of"},
		{"iss in the wrong case", func(j *oidctest.JWT) { j.Claims["Iss"] = j.Claims["iss"]; delete(j.Claims, "iss") },
			"iss", "not of"},
		{"aud another", claim("aud", "appINVALID"), "aud", "not for"},
		{"aud missing", claim("aud", nil), "aud", "missing"},
		{"aud of several without azp", claim("aud", []string{"app", "other"}), "azp", "does not say"},
		{"azp another", claim("azp", "other"), "azp", "another client"},
		{"azp not a string", claim("azp", map[string]any{}), "azp", "another client"},
		{"azp another, aud of several", func(j *oidctest.JWT) {
			j.Claims["aud"],
				j.Claims["azp"] = []string{"app", "other"}, "other"
		}, "azp", "another client"},
		{"exp missing", claim("exp", nil), "exp", "missing"},
		{"exp past", claim("exp", now.Add(-time.Minute).Unix()), "exp", "ran out"},
		{"exp null", claim("exp", null{}), "exp", "missing"},
		{"exp a string", claim("exp", "99999999999"), "exp", "not a number"},
		{"iat null", claim("iat", null{}), "iat", "missing"},
		{"iat a string", claim("iat", "123"), "iat", "not a number"},
		{"aud null", claim("aud", null{}), "aud", "missing"},
		{"aud empty", claim("aud", []any{}), "aud", "empty"},
		{"nonce null", claim("nonce", null{}), "nonce", "not the answer"},
		{"nonce empty", claim("nonce", ""), "nonce", "not the answer"},
		{"sub null", claim("sub", null{}), "sub", "missing"},
		{"iss null", claim("iss", null{}), "iss", "not of"},
		{"iss empty", claim("iss", ""), "iss", "not of"},
		{"azp empty", claim("azp", ""), "azp", "another client"},
		{"events with a logout that is null", claim("events", map[string]any{oidctest.LogoutEvent: null{}}), "events",
			"logout token"},
		{"exp 1e300", claim("exp", literal("1e300")), "exp", "not a date"},
		{"iat missing", claim("iat", nil), "iat", "missing"},
		{"iat in the future", claim("iat", now.Add(2*time.Minute).Unix()), "iat", "do the clocks agree"},
		{"iat of last week", claim("iat", now.Add(-7*24*time.Hour).Unix()), "iat", "more than 24h"},
		{"nbf in the future", claim("nbf", now.Add(2*time.Minute).Unix()), "nbf", "not valid before"},
		{"auth_time a string", claim("auth_time", "1"), "auth_time", "not a number"},
		{"nonce another", claim("nonce", "m"), "nonce", "not the answer to this sign-in"},
		{"nonce missing", claim("nonce", nil), "nonce", "not the answer to this sign-in"},
		{"nonce in the wrong case", func(j *oidctest.JWT) { j.Claims["Nonce"] = "n"; delete(j.Claims, "nonce") },
			"nonce", "not the answer"},
		{"sub missing", claim("sub", nil), "sub", "missing"},
		{"sub empty", claim("sub", ""), "sub", "empty"},
		{"sub too long", claim("sub", strings.Repeat("a", 256)), "sub", "more than 255"},
		{"sub with NUL", claim("sub", "a\x00"), "sub", "control character"},
		{"sid empty", claim("sid", ""), "sid", "empty"},
		{"sid a number", claim("sid", 1), "sid", "not a string"},
		{"at_hash of another access token", claim("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"), "at_hash",
			"not the one that came"},
		{"at_hash a number", claim("at_hash", 1), "at_hash", "not the one that came"},
		{"a logout token without typ", func(j *oidctest.JWT) {
			delete(j.Header, "typ")
			j.Claims["events"] = map[string]any{oidctest.LogoutEvent: map[string]any{}}
		}, "events", "logout token"},
		{"sub twice", func(j *oidctest.JWT) { j.ClaimsJSON = `{"sub":"a","sub":"b"}` }, "json", "duplicate"},
		{"an array", func(j *oidctest.JWT) { j.ClaimsJSON = `[]` }, "json", "not a JSON object"},
		{"signed by a stranger", func(j *oidctest.JWT) { j.Key = stranger }, "signature", "not the signature"},
		{"a key that the provider does not have", head("kid", "made up"), "kid", "no key"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			raw := h.op.SignIDToken("app", "alice", "s", "n", "access", row.lie)
			_, err := h.rp.VerifyIDToken(t.Context(), raw, oidc.Expect{Nonce: "n", AccessToken: "access"}, now)
			wantCheck(t, err, row.check, row.reason)
		})
	}
}

func TestAnIDTokenIsTaken(t *testing.T) {
	t.Parallel()
	h := build(t)
	now := h.Now()
	verify := func(e oidc.Expect, lies ...func(*oidctest.JWT)) (*oidc.IDToken, error) {
		return h.rp.VerifyIDToken(t.Context(), h.op.SignIDToken("app", "alice", "s", "n", "access", lies...), e, now)
	}
	expect := oidc.Expect{Nonce: "n", AccessToken: "access"}
	for name, lie := range map[string]func(*oidctest.JWT){
		"as the provider sends it": func(*oidctest.JWT) {},
		"without typ":              head("typ", nil),
		"typ application/jwt":      head("typ", "application/JWT"),
		"without kid":              head("kid", nil),
		"without at_hash":          claim("at_hash", nil),
		"for several, with azp": func(j *oidctest.JWT) {
			j.Claims["aud"],
				j.Claims["azp"] = []string{"x", "app"}, "app"
		},
		"without sid":                   claim("sid", nil),
		"exp within the skew":           claim("exp", now.Add(-59*time.Second).Unix()),
		"typ: null":                     head("typ", null{}),
		"kid: null":                     head("kid", null{}),
		"kid: empty":                    head("kid", ""),
		"events: null":                  claim("events", null{}),
		"events: empty":                 claim("events", map[string]any{}),
		"azp: null":                     claim("azp", null{}),
		"nbf: null":                     claim("nbf", null{}),
		"auth_time: null":               claim("auth_time", null{}),
		"sid: null":                     claim("sid", null{}),
		"at_hash: null":                 claim("at_hash", null{}),
		"a number beyond any of Go":     claim("x", literal("1e400")),
		"a claim that differs in case":  claim("SUB", "mallory"),
		"events of other kinds":         claim("events", map[string]any{"urn:x": 1}),
		"numbers that are not integers": claim("x", literal("1.5")),
	} {
		if id, err := verify(expect, lie); err != nil || id.Subject != "alice" {
			t.Errorf("%s: %+v, %v", name, id, err)
		}
	}
	id, err := verify(expect, claim("big", literal("9007199254740993")), claim("deep", []any{map[string]any{"n": 2}}))
	if err != nil {
		t.Fatal(err)
	}
	if id.SID != "s" || id.Issuer != h.op.Issuer() || id.ClientID != "app" || !id.IssuedAt.Equal(now) ||
		!id.AuthTime.Equal(now) || !id.Expiry.Equal(now.Add(5*time.Minute)) {
		t.Fatalf("got %#v", *id)
	}
	if id.Claims["big"] != json.Number("9007199254740993") ||
		id.Claims["deep"].([]any)[0].(map[string]any)["n"] != json.Number("2") {
		t.Fatalf("numbers arrived as %#v", id.Claims)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", id, *id, *id, id); strings.Contains(s, "ey") {
		t.Fatalf("prints as %s", s)
	}
	// No nonce to compare with is no reason to compare with none.
	_, err = verify(oidc.Expect{}, claim("nonce", nil))
	wantCheck(t, err, "nonce", "not the answer")
	if _, err = verify(oidc.Expect{NoNonce: true}); err != nil {
		t.Fatal(err)
	}
	age := 30
	if _, err = verify(oidc.Expect{Nonce: "n", MaxAge: &age},
		claim("auth_time", now.Add(-90*time.Second).Unix())); err != nil {
		t.Fatal(err)
	}
	_, err = verify(oidc.Expect{Nonce: "n", MaxAge: &age}, claim("auth_time", now.Add(-91*time.Second).Unix()))
	wantCheck(t, err, "auth_time", "within the last 30 seconds")
	_, err = verify(oidc.Expect{Nonce: "n", MaxAge: &age}, claim("auth_time", nil))
	wantCheck(t, err, "auth_time", "within the last 30 seconds")
}

func TestNeitherKindOfTokenPassesForTheOther(t *testing.T) {
	t.Parallel()
	h := build(t)
	for _, typ := range []any{"JWT", nil, "logout+jwt"} {
		_, err := h.rp.VerifyIDToken(t.Context(), h.op.SignLogoutToken("app", "alice", "s", head("typ", typ)),
			oidc.Expect{NoNonce: true}, h.Now())
		if err == nil {
			t.Fatalf("a logout token of typ %v passes for an ID Token", typ)
		}
		_, err = h.verify(t, h.op.SignIDToken("app", "alice", "s", "", "", head("typ", typ), claim("jti", "j")))
		wantCheck(t, err, "events", "missing")
	}
}

func TestLogoutTokensMayComeUnencryptedBesideEncryptedIDTokens(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const alg, enc = "ECDH-ES", "A128GCM"
	encrypted := &oidctest.Encryption{Alg: alg, Enc: enc, Key: &key.PublicKey}
	for _, allowed := range []bool{false, true} {
		h := build(t, func(c *oidctest.Client, cfg *oidc.Config) {
			c.Encryption, c.PlainLogoutTokens = encrypted, true // as Keycloak does
			cfg.Encryption = &oidc.Encryption{Alg: alg, Enc: enc, Key: key}
			cfg.Quirks.PlainLogoutTokens = allowed
		})
		h.settle(t)
		other := build(t, func(_ *oidctest.Client, cfg *oidc.Config) {
			cfg.Encryption = &oidc.Encryption{Alg: alg, Enc: enc, Key: key}
		})
		plain := h.op.SignLogoutToken("app", "alice", "s")
		_, err := h.verify(t, plain)
		steps := oidc.ExplainLogoutToken(t.Context(), []*oidc.Provider{h.rp}, plain, h.Now())
		if !allowed {
			wantCheck(t, err, "jwe", "`allow_unencrypted_logout_tokens: true`")
			if steps[1].Status != "failed" || !strings.Contains(steps[1].Detail, "allow_unencrypted_logout_tokens") {
				t.Errorf("explained as %+v", steps[1])
			}
			continue
		}
		if err != nil || steps[1].Status != "ok" {
			t.Fatalf("%v, explained as %+v", err, steps[1])
		}
		if _, err := h.verify(t, oidctest.Encrypt(plain, encrypted)); err != nil {
			t.Errorf("an encrypted one: %v", err)
		}
		// It is verified like any other.
		_, err = h.verify(t, h.op.SignLogoutToken("app", "alice", "s",
			func(j *oidctest.JWT) { j.Key = oidctest.NewKey("ES256") }))
		wantCheck(t, err, "signature", "not the signature")
		_, err = h.verify(t, h.op.SignLogoutToken("app", "alice", "s",
			func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "none", "none" }))
		wantCheck(t, err, "alg", "none")
		// It is for logout tokens alone, and for this provider alone.
		h.op.SetClient(oidctest.Client{ID: "app", SigningAlg: "ES256"})
		_, err = h.rp.VerifyIDToken(t.Context(), h.op.SignIDToken("app", "alice", "s", "n", ""),
			oidc.Expect{Nonce: "n"}, h.Now())
		wantCheck(t, err, "jwe", "not encrypted")
		both := []*oidc.Provider{h.rp, other.rp}
		_, err = oidc.VerifyLogoutToken(t.Context(), both, other.op.SignLogoutToken("app", "alice", "s"), h.Now())
		wantCheck(t, err, "jwe", "allow_unencrypted_logout_tokens")
	}
}

func TestEncryptedTokens(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		alg, enc string
		private  any
		public   any
	}{
		{"RSA-OAEP", "A128CBC-HS256", rsaKey, &rsaKey.PublicKey},
		{"RSA-OAEP-256", "A256GCM", rsaKey, &rsaKey.PublicKey},
		{"ECDH-ES", "A128GCM", ecKey, &ecKey.PublicKey},
		{"ECDH-ES+A128KW", "A256CBC-HS512", ecKey, &ecKey.PublicKey},
		{"ECDH-ES+A256KW", "A128CBC-HS256", ecKey, &ecKey.PublicKey},
	} {
		t.Run(row.alg+" "+row.enc, func(t *testing.T) {
			t.Parallel()
			h := build(t, func(c *oidctest.Client, cfg *oidc.Config) {
				c.Encryption = &oidctest.Encryption{Alg: row.alg, Enc: row.enc, Key: row.public}
				cfg.Encryption = &oidc.Encryption{Alg: row.alg, Enc: row.enc, Key: row.private}
			})
			raw := h.op.SignLogoutToken("app", "alice", "s")
			if _, err := h.verify(t, raw); err != nil {
				t.Fatal(err)
			}
			id, err := h.rp.VerifyIDToken(t.Context(), h.op.SignIDToken("app", "alice", "s", "n", ""),
				oidc.Expect{Nonce: "n"}, h.Now())
			if err != nil {
				t.Fatal(err)
			}
			if strings.Count(id.Raw, ".") != 2 {
				t.Fatalf("Raw has %d parts; id_token_hint takes the decrypted token", strings.Count(id.Raw, ".")+1)
			}
			// One that was kept encrypted is sent as the provider can read it, and not at all if we cannot.
			encrypted := oidctest.Encrypt(id.Raw, &oidctest.Encryption{Alg: row.alg, Enc: row.enc, Key: row.public})
			other := oidctest.Encrypt(id.Raw, &oidctest.Encryption{Alg: "ECDH-ES", Enc: "A256GCM",
				Key: &ecKey.PublicKey})
			for hint, want := range map[string]string{encrypted: id.Raw, id.Raw: id.Raw, other: "", "a.b": ""} {
				where, err := h.rp.EndSessionURL(t.Context(), oidc.EndSessionRequest{IDTokenHint: hint})
				if err != nil {
					t.Fatal(err)
				}
				if u, _ := url.Parse(where); u.Query().Get("id_token_hint") != want {
					t.Errorf("the hint %s became %s", hint, u.Query().Get("id_token_hint"))
				}
				_, form, err := h.rp.EndSessionForm(t.Context(), oidc.EndSessionRequest{IDTokenHint: hint})
				if err != nil || form.Get("id_token_hint") != want {
					t.Errorf("the hint %s became %v, %v", hint, form, err)
				}
			}
			_, err = h.rp.VerifyIDToken(t.Context(), id.Raw, oidc.Expect{Nonce: "n"}, h.Now())
			wantCheck(t, err, "jwe", "not encrypted")

			at := strings.LastIndexByte(raw, '.') + 1 // where the authentication tag begins
			turned := "A"
			if raw[at] == 'A' {
				turned = "B"
			}
			_, err = h.verify(t, raw[:at]+turned+raw[at+1:])
			wantCheck(t, err, "jwe", "cannot be decrypted")
			_, err = h.verify(t, raw+"=")
			wantCheck(t, err, "shape", "not base64url")
			_, rest, _ := strings.Cut(raw, ".")
			for _, bad := range []struct{ header, check, reason string }{
				{`{"alg":"dir","enc":"` + row.enc + `"}`, "jwe", "registered is " + row.alg},
				{`{"alg":"RSA1_5","enc":"` + row.enc + `"}`, "jwe", "registered is " + row.alg},
				{`{"alg":"` + row.alg + `","enc":"A192GCM"}`, "jwe", "not the registered " + row.enc},
				{`{"alg":"` + row.alg + `","enc":"` + row.enc + `","zip":"DEF"}`, "crit", "`zip`"},
				{`{"alg":"` + row.alg + `","enc":"` + row.enc + `","crit":["x"],"x":1}`, "crit", "`crit`"},
			} {
				_, err = h.verify(t, base64.RawURLEncoding.EncodeToString([]byte(bad.header))+"."+rest)
				wantCheck(t, err, bad.check, bad.reason)
			}

			// Signed by nobody, encrypted for us: anybody can do that.
			_, err = h.verify(t, h.op.SignLogoutToken("app", "alice", "s",
				func(j *oidctest.JWT) { j.Key = oidctest.NewKey("ES256") }))
			wantCheck(t, err, "signature", "not the signature")
			// A JWE in a JWE.
			_, err = h.verify(t, oidctest.Encrypt(raw, &oidctest.Encryption{Alg: row.alg, Enc: row.enc,
				Key: row.public}))
			wantCheck(t, err, "shape", "this has 5")
			// Plain ones are refused.
			h.op.SetClient(oidctest.Client{ID: "app", SigningAlg: "ES256"})
			_, err = h.verify(t, h.op.SignLogoutToken("app", "alice", "s"))
			wantCheck(t, err, "jwe", "not encrypted")
			// Beside a provider that does not encrypt, too.
			plain := build(t)
			_, err = oidc.VerifyLogoutToken(t.Context(), []*oidc.Provider{plain.rp, h.rp},
				h.op.SignLogoutToken("app", "alice", "s"), h.Now())
			wantCheck(t, err, "jwe", "not encrypted")
			if _, err = oidc.VerifyLogoutToken(t.Context(), []*oidc.Provider{plain.rp, h.rp}, raw,
				h.Now()); err != nil {
				t.Fatal(err)
			}
			// What our key opens is ours, not the neighbour's.
			_, err = oidc.VerifyLogoutToken(t.Context(), []*oidc.Provider{plain.rp, h.rp},
				oidctest.Encrypt(plain.op.SignLogoutToken("app", "alice", "s"),
					&oidctest.Encryption{Alg: row.alg, Enc: row.enc, Key: row.public}), h.Now())
			wantCheck(t, err, "iss", "configured are")
		})
	}
}
