package oidc_test

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

// claim sets a claim; nil removes it.
func claim(name string, v any) func(*oidctest.JWT) {
	return func(t *oidctest.JWT) {
		if v == nil {
			delete(t.Claims, name)
		} else {
			t.Claims[name] = v
		}
	}
}

// head sets a header parameter; nil removes it.
func head(name string, v any) func(*oidctest.JWT) {
	return func(t *oidctest.JWT) {
		if v == nil {
			delete(t.Header, name)
		} else {
			t.Header[name] = v
		}
	}
}

type null struct{}

func (null) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

type literal string

func (l literal) MarshalJSON() ([]byte, error) { return []byte(l), nil }

func TestALogoutTokenIsRefusedByTheCheckThatItFails(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.op.AddKey(oidctest.NewKey("EdDSA")) // published, and not what is registered
	h.settle(t)
	stranger := oidctest.NewKey("ES256")
	now := h.Now()
	event := func(v any) func(*oidctest.JWT) { return claim("events", map[string]any{oidctest.LogoutEvent: v}) }
	payload := func(old, new string) func(*oidctest.JWT) {
		return func(j *oidctest.JWT) {
			j.ClaimsJSON = strings.Replace(`{"iss":"`+h.op.Issuer()+`","aud":"app","iat":`+sec(now)+`,"exp":`+
				sec(now.Add(time.Minute))+
				`,"jti":"j","sub":"alice","sid":"s","events":{"`+oidctest.LogoutEvent+`":{}}}`, old, new, 1)
		}
	}
	for _, row := range []struct {
		name   string
		lie    func(*oidctest.JWT)
		check  string
		reason string
	}{
		{"header: alg none", func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "none", "none" }, "alg",
			"`none` is no signature"},
		{"header: alg None", func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "NoNe", "none" }, "alg", "no signature"},
		{"header: alg HS256 under the public key", func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "HS256", "HS256" },
			"alg", "needs a secret"},
		{"header: another algorithm by a published key", func(j *oidctest.JWT) {
			k := h.op.Key("EdDSA")
			j.Header["alg"], j.Header["kid"], j.Alg, j.Key = "EdDSA", k.KID, "EdDSA", k
		}, "alg", "registered is ES256"},
		{"header: alg in the wrong case", head("alg", "es256"), "alg", "not known here"},
		{"header: no alg", head("alg", nil), "alg", "names no algorithm"},
		{"header: alg a number", head("alg", 256), "alg", "not a string"},
		{"header: kid a number", head("kid", 1), "kid", "not a string"},
		{"header: kid without end", head("kid", strings.Repeat("k", 1025)), "kid", "more than 1024"},
		{"header: crit", func(j *oidctest.JWT) { j.Header["crit"], j.Header["exp"] = []string{"exp"}, 1 }, "crit",
			"`crit`"},
		{"header: b64", head("b64", true), "crit", "`b64`"},
		{"header: typ of an access token", head("typ", "at+jwt"), "typ", "not the type"},
		{"header: typ of a security event", head("typ", "secevent+jwt"), "typ", "not the type"},
		{"header: typ empty", head("typ", ""), "typ", "not the type"},
		{"header: typ a number", head("typ", 1), "typ", "not a string"},
		{"header: typ under another tree", head("typ", "text/logout+jwt"), "typ", "not the type"},
		{"header: not an object", func(j *oidctest.JWT) { j.HeaderJSON = `["ES256"]` }, "json", "not a JSON object"},
		{"header: alg twice", func(j *oidctest.JWT) {
			j.HeaderJSON = `{"alg":"none","alg":"ES256","kid":"` + j.Key.KID +
				`"}`
		}, "json", "duplicate"},
		{"header: ALG beside alg is not alg", func(j *oidctest.JWT) {
			j.HeaderJSON = `{"ALG":"ES256","kid":"` +
				j.Key.KID + `"}`
		}, "alg", "names no algorithm"},

		{"payload: not JSON", func(j *oidctest.JWT) { j.ClaimsJSON = `{"iss":` }, "json", "not valid JSON"},
		{"payload: an array", func(j *oidctest.JWT) { j.ClaimsJSON = `[{"iss":"x"}]` }, "json", "not a JSON object"},
		{"payload: null", func(j *oidctest.JWT) { j.ClaimsJSON = `null` }, "json", "not a JSON object"},
		{"payload: empty", func(j *oidctest.JWT) { j.ClaimsJSON = ` ` }, "json", "not a JSON object"},
		{"payload: something after it", payload("}}}", "}}} {}"), "json", "something follows"},
		{"payload: garbage after it", payload("}}}", "}}}x"), "json", "something follows"},
		{"payload: not UTF-8", payload(`"alice"`, "\"al\xffice\""), "json", "not UTF-8"},
		{"payload: a claim twice", payload(`"sub":"alice"`, `"sub":"alice","sub":"bob"`), "json", "duplicate"},
		{"payload: a claim twice, once escaped", payload(`"sub":"alice"`, `"sub":"alice","\u0073ub":"bob"`), "json",
			"duplicate"},
		{"payload: a member of the event twice", payload(`:{}}`, `:{"a":1,"a":2}}`), "json", "duplicate"},
		{"payload: a member of an unknown claim twice", payload(`"jti"`, `"x":[{"a":1,"a":2}],"jti"`), "json",
			"duplicate"},

		{"iss: missing", claim("iss", nil), "iss", "missing"},
		{"iss: another", claim("iss", h.op.Issuer()+"INVALID"), "iss", "configured are"},
		{"iss: with a slash more", claim("iss", h.op.Issuer()+"/"), "iss", "configured are"},
		{"iss: an array", claim("iss", []string{h.op.Issuer()}), "iss", "not a string"},
		{"iss: in the wrong case", payload(`"iss"`, `"Iss"`), "iss", "missing"},
		{"aud: missing", claim("aud", nil), "aud", "missing"},
		{"aud: null", claim("aud", null{}), "aud", "missing"},
		{"aud: another", claim("aud", "appINVALID"), "aud", `configured is "app"`},
		{"aud: empty array", claim("aud", []string{}), "aud", "empty"},
		{"aud: array without us", claim("aud", []string{"a", "b"}), "aud", `"a", "b"`},
		{"aud: array with a number", claim("aud", []any{"app", 1}), "aud", "not a string"},
		{"aud: object", claim("aud", map[string]any{"app": 1}), "aud", "neither"},

		{"iat: missing", claim("iat", nil), "iat", "missing"},
		{"iat: a string", claim("iat", "1"), "iat", "not a number"},
		{"iat: in the future", claim("iat", now.Add(62*time.Second).Unix()), "iat", "do the clocks agree"},
		{"iat: negative", claim("iat", -1), "iat", "not a date"},
		{"exp: null is missing", claim("exp", null{}), "exp", "allow_missing_exp"},
		{"exp: past", claim("exp", now.Add(-60*time.Second).Unix()), "exp", "ran out"},
		{"exp: 1e300", claim("exp", literal("1e300")), "exp", "not a date"},
		{"exp: 1e999", claim("exp", literal("1e999")), "exp", "not a date"},
		{"exp: beyond int64", claim("exp", literal("99999999999999999999")), "exp", "not a date"},
		{"exp: more than a day after iat", claim("exp", now.Add(24*time.Hour+time.Second).Unix()), "exp",
			"longer than 24h"},
		{"exp: in the wrong case", payload(`"exp"`, `"EXP"`), "exp", "allow_missing_exp: true"},
		{"nbf: in the future", claim("nbf", now.Add(62*time.Second).Unix()), "nbf", "not valid before"},
		{"nbf: a string", claim("nbf", "soon"), "nbf", "not a number"},
		{"jti: missing", claim("jti", nil), "jti", "missing"},
		{"jti: empty", claim("jti", ""), "jti", "empty"},
		{"jti: a number", claim("jti", 7), "jti", "not a string"},
		{"jti: NUL", claim("jti", "a\x00b"), "jti", "control character"},
		{"events: missing", claim("events", nil), "events", "missing"},
		{"events: an array", claim("events", []string{oidctest.LogoutEvent}), "events", "not a JSON object"},
		{"events: another event", claim("events", map[string]any{oidctest.LogoutEvent + "/foobar": map[string]any{}}),
			"events", "does not hold"},
		{"events: null", event(null{}), "events", "not a JSON object"},
		{"events: true", event(true), "events", "not a JSON object"},
		{"events: an array in it", event([]any{}), "events", "not a JSON object"},
		{"events: in the wrong case", payload(`"events"`, `"Events"`), "events", "missing"},
		{"nonce: there", claim("nonce", "n"), "nonce", "never has one"},
		{"nonce: null", claim("nonce", null{}), "nonce", "never has one"},
		{"nonce: empty", claim("nonce", ""), "nonce", "never has one"},
		{"iat: a string", claim("iat", sec(now)), "iat", "not a number"},
		{"iat: null", claim("iat", null{}), "iat", "missing"},
		{"exp: a string", claim("exp", sec(now.Add(time.Minute))), "exp", "not a number"},
		{"exp: an object", claim("exp", map[string]any{}), "exp", "not a number"},
		{"aud: nothing in it", claim("aud", []any{}), "aud", "empty"},
		{"aud: null in it", claim("aud", []any{null{}, "app"}), "aud", "not a string"},
		{"aud: an empty string", claim("aud", ""), "aud", "the token is for"},
		{"jti: null", claim("jti", null{}), "jti", "missing"},
		{"jti: empty", claim("jti", ""), "jti", "empty"},
		{"events: null itself", claim("events", null{}), "events", "missing"},
		{"sub and sid: null", func(j *oidctest.JWT) { j.Claims["sub"], j.Claims["sid"] = null{}, null{} }, "sub",
			"names nobody"},
		{"nonce: empty", claim("nonce", ""), "nonce", "never has one"},
		{"neither sub nor sid", func(j *oidctest.JWT) { delete(j.Claims, "sub"); delete(j.Claims, "sid") }, "sub",
			"names nobody"},
		{"sub and sid in the wrong case", func(j *oidctest.JWT) {
			payload(`"sub"`, `"Sub"`)(j)
			j.ClaimsJSON = strings.Replace(j.ClaimsJSON, `"sid"`, `"SID"`, 1)
		}, "sub", "names nobody"},
		{"sub: empty", claim("sub", ""), "sub", "empty"},
		{"sub: a number", claim("sub", 1), "sub", "not a string"},
		{"sub: 256 bytes", claim("sub", strings.Repeat("a", 256)), "sub", "more than 255"},
		{"sub: a line end", claim("sub", "a\nb"), "sub", "control character"},
		{"sub: half a surrogate pair", payload(`"alice"`, `"\ud800"`), "json", "not valid"},
		{"sid: empty", claim("sid", ""), "sid", "empty"},
		{"sid: an array", claim("sid", []string{"s"}), "sid", "not a string"},
		{"sid: 1,025 bytes", claim("sid", strings.Repeat("a", 1025)), "sid", "more than 1024"},
		{"sid: a C1 control", claim("sid", "a\u0085b"), "sid", "control character"},

		{"signature: by a stranger under our kid", func(j *oidctest.JWT) { j.Key = stranger }, "signature",
			"not the signature"},
		{"signature: by a stranger under his kid", func(j *oidctest.JWT) {
			j.Key, j.Header["kid"] = stranger,
				stranger.KID
		}, "kid", "no key"},
		{"signature: by a stranger whose key is in the header", func(j *oidctest.JWT) {
			j.Key, j.Header["kid"], j.Header["jwk"] = stranger, stranger.KID, stranger.JWK()
		}, "kid", "no key"},
		{"signature: by a stranger who names no key", func(j *oidctest.JWT) {
			j.Key = stranger
			delete(j.Header,
				"kid")
		}, "signature", "names no key"},
		{"signature: under a key of another kind", func(j *oidctest.JWT) { j.Header["kid"] = h.op.Key("EdDSA").KID },
			"kid", "not for ES256"},
		{"signature: empty", func(j *oidctest.JWT) { j.Alg = "none" }, "signature", "not the signature"},
		{"an ID Token", func(j *oidctest.JWT) {
			delete(j.Claims, "events")
			j.Claims["nonce"], j.Header["typ"] = "n", "JWT"
		}, "events", "missing"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := h.verify(t, h.op.SignLogoutToken("app", "alice", "s", row.lie))
			wantCheck(t, err, row.check, row.reason)
		})
	}
}

func sec(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

func TestALogoutTokenIsTaken(t *testing.T) {
	t.Parallel()
	h := build(t)
	now := h.Now()
	for _, row := range []struct {
		name string
		lie  func(*oidctest.JWT)
		sub  string
		sid  string
	}{
		{"as the provider sends it", func(*oidctest.JWT) {}, "alice", "s"},
		{"without typ", head("typ", nil), "alice", "s"},
		{"typ JWT", head("typ", "jwt"), "alice", "s"},
		{"typ as a full media type, in any case", head("typ", "Application/LOGOUT+jwt"), "alice", "s"},
		{"without kid, and one key fits", head("kid", nil), "alice", "s"},
		{"with addresses of keys in the header, which are not looked at", func(j *oidctest.JWT) {
			j.Header["jku"], j.Header["x5u"] = "https://evil.example.com/jwks", "https://evil.example.com/x"
		}, "alice", "s"},
		{"aud an array with others", claim("aud", []string{"other", "app"}), "alice", "s"},
		{"sub alone", claim("sid", nil), "alice", ""},
		{"sid alone", claim("sub", nil), "", "s"},
		{"sid alone, and sub: null", claim("sub", null{}), "", "s"},
		{"sub alone, and sid: null", claim("sid", null{}), "alice", ""},
		{"nbf: null", claim("nbf", null{}), "alice", "s"},
		{"sid of every printable kind", claim("sid", `AZaz09 &%+"/=\<>é`), "alice", `AZaz09 &%+"/=\<>é`},
		{"sub of 255 bytes", claim("sub", strings.Repeat("a", 255)), strings.Repeat("a", 255), "s"},
		{"sid of 1,024 bytes", claim("sid", strings.Repeat("a", 1024)), "alice", strings.Repeat("a", 1024)},
		{"unknown claims and events", func(j *oidctest.JWT) {
			j.Claims["ignored_claim"] = map[string]any{"a": []int{1}}
			j.Claims["events"].(map[string]any)["urn:other"] = 1
		}, "alice", "s"},
		{"claims that differ from others in case alone", func(j *oidctest.JWT) {
			j.Claims["SUB"], j.Claims["Sid"], j.Claims["Nonce"] = "mallory", "x", "n"
		}, "alice", "s"},
		{"iat within the skew ahead", claim("iat", now.Add(60*time.Second).Unix()), "alice", "s"},
		{"exp within the skew past", claim("exp", now.Add(-59*time.Second).Unix()), "alice", "s"},
		{"exp a day after iat", claim("exp", now.Add(24*time.Hour).Unix()), "alice", "s"},
		{"exp with a fraction", claim("exp", literal(sec(now.Add(time.Minute))+".5")), "alice", "s"},
		{"nbf past", claim("nbf", now.Unix()), "alice", "s"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := h.verify(t, h.op.SignLogoutToken("app", "alice", "s", row.lie))
			if err != nil {
				t.Fatal(err)
			}
			if got.Subject != row.sub || got.SID != row.sid || got.Issuer != h.op.Issuer() || got.ClientID != "app" ||
				got.Provider != h.rp || got.JTI == "" {
				t.Fatalf("got %+v", got)
			}
		})
	}
}

func TestALogoutTokenOfTheWrongShapeIsRefused(t *testing.T) {
	t.Parallel()
	h := build(t)
	good := h.op.SignLogoutToken("app", "alice", "s")
	parts := strings.Split(good, ".")
	for _, row := range []struct{ name, raw, check, reason string }{
		{"nothing", "", "shape", "empty"},
		{"one part", parts[0], "shape", "this has 1"},
		{"two parts", parts[0] + "." + parts[1], "shape", "this has 2"},
		{"four parts", good + ".x", "shape", "this has 4"},
		{"dots alone", strings.Repeat(".", 60000), "shape", "this has 60001"},
		{"five parts, and no key to decrypt them", good + ".x.y", "jwe", "no key to decrypt"},
		{"too long", strings.Repeat("a", 64<<10+1), "shape", "more than 65536"},
		{"padding", parts[0] + "." + parts[1] + "=." + parts[2], "shape", "payload"},
		{"a line end, which decoders skip", good[:len(good)-4] + "\n" + good[len(good)-4:], "shape", "line end"},
		{"a space before it", " " + good, "shape", "header"},
		{"the alphabet of plain base64", parts[0] + "." + parts[1] + ".+/" + parts[2], "shape", "signature"},
		{"stray bits at the end", good[:len(good)-1] + stray(good), "shape", "signature"},
		{"JSON serialization", `{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] +
			`"}`, "shape", "this has 1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := h.verify(t, row.raw)
			wantCheck(t, err, row.check, row.reason)
		})
	}
	if _, err := h.verify(t, good); err != nil {
		t.Fatal(err)
	}
}

// stray returns another last character that decodes to the same bytes for a decoder that is not strict. The signature
// of ES256 has 64 bytes, so the last of its 86 characters carries four bits that mean nothing.
func stray(good string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, good[len(good)-1])|1])
}

func TestATokenThatCouldNotPassFetchesNoKey(t *testing.T) {
	t.Parallel()
	h := build(t)
	for _, lie := range []func(*oidctest.JWT){
		head("alg", "none"), head("typ", "at+jwt"), claim("iss", "https://evil.example.com"), claim("aud", "other"),
		claim("exp", 1), claim("events", nil), claim("nonce", 1), claim("jti", nil), claim("sub", 1),
	} {
		if _, err := h.verify(t, h.op.SignLogoutToken("app", "alice", "s", lie)); err == nil {
			t.Fatal("passed")
		}
	}
	if n, m := h.op.Count(oidctest.JWKS), h.op.Count(oidctest.Discovery); n != 0 || m != 0 {
		t.Fatalf("%d fetches of keys and %d of metadata; want none", n, m)
	}
}

func TestATokenWithoutExp(t *testing.T) {
	t.Parallel()
	strict := build(t)
	lax := build(t, func(_ *oidctest.Client, c *oidc.Config) { c.Quirks.AllowMissingExp, c.Name = true, "lax" })
	without := claim("exp", nil)

	_, err := strict.verify(t, strict.op.SignLogoutToken("app", "alice", "s", without))
	wantCheck(t, err, "exp", "set `allow_missing_exp: true` for the provider \"main\"")

	_, err = strict.verify(t, strict.op.SignLogoutToken("app", "alice", "s", without, claim("nonce", "n")))
	wantCheck(t, err, "exp", "missing")
	if strings.Contains(err.Error(), "allow_missing_exp") {
		t.Fatalf("%v: advises the quirk, though the token would fail all the same", err)
	}

	got, err := lax.verify(t, lax.op.SignLogoutToken("app", "alice", "s", without))
	if err != nil {
		t.Fatal(err)
	}
	if !got.Expiry.IsZero() || !got.Remember.Equal(lax.Now().Add(11*time.Minute)) {
		t.Fatalf("Expiry %v, Remember %v; want zero, and iat + 10 min + 60 s", got.Expiry, got.Remember)
	}
	_, err = lax.verify(t, lax.op.SignLogoutToken("app", "alice", "s", without,
		claim("iat", lax.Now().Add(-10*time.Minute-time.Second).Unix())))
	wantCheck(t, err, "exp", "more than 10m0s ago")
	_, err = lax.verify(t, lax.op.SignLogoutToken("app", "alice", "s", without, claim("iat", nil)))
	wantCheck(t, err, "iat", "missing")
}

func TestTheJTIIsRememberedUntilTheTokenCannotPassAnyMore(t *testing.T) {
	t.Parallel()
	h := build(t)
	raw := h.op.SignLogoutToken("app", "alice", "s")
	got, err := h.verify(t, raw)
	if err != nil {
		t.Fatal(err)
	}
	at := func(now time.Time) error {
		_, err := oidc.VerifyLogoutToken(t.Context(), []*oidc.Provider{h.rp}, raw, now)
		return err
	}
	if err := at(got.Remember.Add(-time.Nanosecond)); err != nil {
		t.Fatalf("refused while its jti is remembered: %v", err)
	}
	wantCheck(t, at(got.Remember), "exp", "ran out")
}

func TestTheProviderOfATokenIsFoundByIssuerAndClient(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.op.SetClient(oidctest.Client{ID: "second", SigningAlg: "EdDSA"})
	other := build(t)
	other.settle(t)
	second, err := oidc.New(oidc.Config{Name: "second", Issuer: h.op.Issuer(), ClientID: "second", SigningAlg: "EdDSA",
		Now: h.Now})
	if err != nil {
		t.Fatal(err)
	}
	all := []*oidc.Provider{other.rp, h.rp, second}
	verify := func(raw string) (*oidc.LogoutToken, error) {
		return oidc.VerifyLogoutToken(t.Context(), all, raw, h.Now())
	}
	for _, row := range []struct {
		raw  string
		want *oidc.Provider
	}{
		{h.op.SignLogoutToken("app", "alice", "s"), h.rp},
		{h.op.SignLogoutToken("second", "alice", "s"), second},
		{other.op.SignLogoutToken("app", "alice", "s"), other.rp},
	} {
		got, err := verify(row.raw)
		if err != nil || got.Provider != row.want || got.ClientID != row.want.Config().ClientID {
			t.Fatalf("got %+v, %v; want the provider %v", got, err, row.want)
		}
	}
	// A token for two clients names both, if it is signed as both have registered.
	third, err := oidc.New(oidc.Config{Name: "third", Issuer: h.op.Issuer(), ClientID: "third",
		SigningAlg: h.rp.Config().SigningAlg, Quirks: h.rp.Config().Quirks, Now: h.Now})
	if err != nil {
		t.Fatal(err)
	}
	got, err := oidc.VerifyLogoutToken(t.Context(), []*oidc.Provider{other.rp, h.rp, second, third},
		h.op.SignLogoutToken("app", "alice", "s", claim("aud", []string{"third", "app", "second", "stranger"})),
		h.Now())
	if err != nil || got.Provider != h.rp || len(got.Others) != 1 || got.Others[0] != third {
		t.Errorf("got %+v, %v; want the third beside the first, and not the second, whose algorithm is another", got,
			err)
	}
	// Each client has its own algorithm: that of a neighbour does not do.
	_, err = verify(h.op.SignLogoutToken("second", "alice", "s", func(j *oidctest.JWT) {
		k := h.op.Key("ES256")
		j.Header["alg"], j.Header["kid"], j.Alg, j.Key = "ES256", k.KID, "ES256", k
	}))
	wantCheck(t, err, "alg", "registered is EdDSA")
	// Keys belong to their issuer.
	_, err = verify(h.op.SignLogoutToken("app", "alice", "s", claim("iss", other.op.Issuer())))
	wantCheck(t, err, "kid", "no key")
	_, err = verify(h.op.SignLogoutToken("app", "alice", "s", claim("aud", "third")))
	wantCheck(t, err, "aud", `configured is "app", "second"`)
}

func TestQuirksOfLogoutTokens(t *testing.T) {
	t.Parallel()
	h := build(t, func(c *oidctest.Client, cfg *oidc.Config) {
		c.LogoutSigningAlg, cfg.Quirks.LogoutSigningAlg = "EdDSA", "EdDSA"
		cfg.Quirks.RequireTyp = true
	})
	if _, err := h.verify(t, h.op.SignLogoutToken("app", "alice", "s")); err != nil {
		t.Fatal(err)
	}
	for _, typ := range []any{nil, "JWT"} {
		_, err := h.verify(t, h.op.SignLogoutToken("app", "alice", "s", head("typ", typ)))
		wantCheck(t, err, "typ", "`require_typ` is set")
	}
	_, err := h.verify(t, h.op.SignLogoutToken("app", "alice", "s", func(j *oidctest.JWT) {
		k := h.op.Key("ES256")
		j.Header["alg"], j.Header["kid"], j.Alg, j.Key = "ES256", k.KID, "ES256", k
	}))
	wantCheck(t, err, "alg", "registered is EdDSA")
}

func TestKeycloaksRevokeOfflineAccessIsReadBesideTheEventAndInIt(t *testing.T) {
	t.Parallel()
	h := build(t)
	type object = map[string]any
	const event, revoke = oidctest.LogoutEvent, "revoke_offline_access"
	for _, row := range []struct {
		events object
		want   bool
	}{
		{object{event: object{}, revoke: true}, true}, // as Keycloak 26 writes it
		{object{event: object{revoke: true}}, true},
		{object{event: object{revoke: true}, revoke: false}, true},
		{object{event: object{revoke: false}, revoke: true}, true},
		{object{event: object{}}, false},
		{object{event: object{revoke: false}, revoke: false}, false},
		{object{event: object{}, revoke: nil}, false},
		{object{event: object{}, revoke: "true"}, false},
		{object{event: object{}, revoke: 1}, false},
		{object{event: object{}, revoke: object{}}, false},
		{object{event: object{}, "Revoke_offline_access": true}, false},
		{object{event: object{}, "another": object{revoke: true}}, false},
	} {
		got, err := h.verify(t, h.op.SignLogoutToken("app", "alice", "s", claim("events", row.events)))
		if err != nil || got.RevokeOffline != row.want {
			t.Errorf("%v: got %+v, %v; want %v", row.events, got, err, row.want)
		}
	}
	// Without the event it is no logout token.
	_, err := h.verify(t, h.op.SignLogoutToken("app", "alice", "s", claim("events", object{revoke: true})))
	wantCheck(t, err, "events", "does not hold")
}

func TestEveryAlgorithmVerifiesAndNoOtherTakesItsPlace(t *testing.T) {
	t.Parallel()
	algs := []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	rsa := oidctest.NewKey("RS256").Private // one for all of RSA: they take long to make
	for i, alg := range algs {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			h := build(t, func(_ *oidctest.Client, cfg *oidc.Config) { cfg.SigningAlg = alg })
			keyOf := func(alg string) *oidctest.Key {
				k := &oidctest.Key{KID: "the-" + alg, Alg: alg, Private: rsa}
				if alg[0] == 'E' {
					k = oidctest.NewKey(alg)
				}
				h.op.AddKey(k)
				return k
			}
			sign := func(k *oidctest.Key) string {
				return h.op.SignLogoutToken("app", "alice", "s", func(j *oidctest.JWT) {
					j.Key, j.Alg, j.Header["alg"], j.Header["kid"] = k, k.Alg, k.Alg, k.KID
				})
			}
			k, other := keyOf(alg), keyOf(algs[(i+1)%len(algs)])
			if _, err := h.verify(t, sign(k)); err != nil {
				t.Fatal(err)
			}
			_, err := h.verify(t, sign(other))
			wantCheck(t, err, "alg", "registered is "+alg)
			// The right name over a signature made otherwise.
			_, err = h.verify(t, h.op.SignLogoutToken("app", "alice", "s", func(j *oidctest.JWT) {
				j.Key, j.Alg, j.Header["alg"], j.Header["kid"] = other, other.Alg, alg, k.KID
			}))
			wantCheck(t, err, "signature", "not the signature")
			// A bit turned, in each part.
			for _, at := range []int{len(sign(k)) - 10} {
				raw := []byte(sign(k))
				raw[at] ^= 1 << 1
				if raw[at] == '.' {
					raw[at] = 'A'
				}
				if _, err := h.verify(t, string(raw)); err == nil {
					t.Fatal("passed with a bit turned")
				}
			}
		})
	}
}

func TestEd25519IsAnotherNameOfEdDSA(t *testing.T) {
	t.Parallel()
	h := build(t, func(c *oidctest.Client, cfg *oidc.Config) { c.SigningAlg, cfg.SigningAlg = "EdDSA", "Ed25519" })
	if got := h.rp.Config().SigningAlg; got != "EdDSA" {
		t.Fatalf("SigningAlg is %s; want EdDSA", got)
	}
	for _, name := range []string{"EdDSA", "Ed25519"} {
		if _, err := h.verify(t, h.op.SignLogoutToken("app", "alice", "s", head("alg", name))); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

func TestNoErrorRepeatsTheToken(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.settle(t)
	raw := h.op.SignLogoutToken("app", "alice", "s", head("kid", "nobody's"))
	_, err := h.verify(t, raw)
	wantCheck(t, err, "kid", "nobody's")
	long := h.op.SignLogoutToken("app", "alice", "s", claim("iss", "https://"+strings.Repeat("x\n", 5000)))
	_, err = h.verify(t, long)
	wantCheck(t, err, "iss", "…")
	if strings.Contains(err.Error(), "\n") || len(err.Error()) > 500 {
		t.Fatalf("quotes its input unescaped or at length: %v", err)
	}
	for _, part := range strings.Split(raw, ".") {
		if strings.Contains(err.Error(), part) {
			t.Fatalf("%v holds a part of the token", err)
		}
	}
}

// The settings that a refused token needs are named together, and only for what the provider signed.
func TestARefusedTokenNamesAllTheSettingsThatItNeeds(t *testing.T) {
	t.Parallel()
	h := build(t, func(_ *oidctest.Client, cfg *oidc.Config) { cfg.Quirks.RequireTyp = true })
	k := h.op.Rotate("EdDSA")
	_, err := h.verify(t, h.op.SignLogoutToken("app", "alice", "s", claim("exp", nil)))
	check, _ := errors.AsType[*oidc.Error](err)
	if check == nil || check.Settings != nil || h.op.Count(oidctest.JWKS) != 0 {
		t.Errorf("without keys in the cache: %v, and %d fetches of keys", err, h.op.Count(oidctest.JWKS))
	}
	if err := h.rp.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	otherwise := func(j *oidctest.JWT) {
		j.Header["alg"], j.Header["kid"], j.Alg, j.Key = "EdDSA", k.KID, "EdDSA", k
	}
	for _, row := range []struct {
		why      string
		lies     []func(*oidctest.JWT)
		settings string
	}{
		{"without exp", []func(*oidctest.JWT){claim("exp", nil)}, "allow_missing_exp: true"},
		{"without typ", []func(*oidctest.JWT){head("typ", nil)}, "require_typ: false"},
		{"with another alg", []func(*oidctest.JWT){otherwise}, "logout_token_signed_response_alg: EdDSA"},
		{"all of them", []func(*oidctest.JWT){otherwise, claim("exp", nil), head("typ", "JWT")},
			"logout_token_signed_response_alg: EdDSA require_typ: false allow_missing_exp: true"},
		{"with a nonce too", []func(*oidctest.JWT){claim("exp", nil), claim("nonce", "n")}, ""},
		{"expired too", []func(*oidctest.JWT){head("typ", nil), claim("exp", 1)}, ""},
		{"old, without exp", []func(*oidctest.JWT){claim("exp", nil), claim("iat", 1)}, ""},
		{"for somebody else", []func(*oidctest.JWT){claim("exp", nil), claim("aud", "other")}, ""},
		{"alg none", []func(*oidctest.JWT){head("alg", "none"), claim("exp", nil)}, ""},
	} {
		_, err := h.verify(t, h.op.SignLogoutToken("app", "alice", "s", row.lies...))
		var check *oidc.Error
		if !errors.As(err, &check) || strings.Join(check.Settings, " ") != row.settings ||
			(check.Provider == "main") != (row.settings != "") {
			t.Errorf("%s: %v: provider %q, settings %q, want %q", row.why, err, check.Provider, check.Settings,
				row.settings)
		}
		forged := h.op.SignLogoutToken("app", "alice", "s", row.lies...)
		_, err = h.verify(t, forged[:strings.LastIndexByte(forged, '.')+1]+strings.Repeat("A", 86))
		if errors.As(err, &check); check == nil || len(check.Settings) != 0 {
			t.Errorf("%s, forged: %v names settings", row.why, err)
		}
	}
}

func TestExplainAdvisesOnlyWhatTheConfigurationAccepts(t *testing.T) {
	t.Parallel()
	h := build(t)
	for _, alg := range []string{"none", "HS256", "ES256K", "es256"} {
		steps := oidc.ExplainLogoutToken(t.Context(), []*oidc.Provider{h.rp},
			h.op.SignLogoutToken("app", "alice", "s", head("alg", alg)), h.Now())
		for _, step := range steps {
			if strings.Contains(step.Detail, "logout_token_signed_response_alg") {
				t.Errorf("%s: the step %s advises %q", alg, step.Name, step.Detail)
			}
		}
	}
}
