package oidc_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

const (
	callback = "https://app.example.com/auth/callback"
	verifier = "a-verifier-of-forty-three-characters-or-more"
)

// browser returns a client that keeps cookies and follows nothing.
func browser(t testing.TB) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{
		Jar: jar, Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// visit gets a page and returns where it leads.
func visit(t testing.TB, b *http.Client, where string) (*url.URL, int) {
	t.Helper()
	resp, err := b.Get(where)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	to, err := url.Parse(resp.Header.Get("Location"))
	if err != nil {
		t.Fatal(err)
	}
	return to, resp.StatusCode
}

// signIn has a browser sign in, and returns the code.
func (h *fixture) signIn(t testing.TB, b *http.Client) string {
	t.Helper()
	where, err := h.rp.AuthURL(t.Context(), oidc.AuthRequest{RedirectURI: callback, State: "st", Nonce: "n",
		Verifier: verifier})
	if err != nil {
		t.Fatal(err)
	}
	to, _ := visit(t, b, where)
	if to.Query().Get("code") == "" || to.Query().Get("state") != "st" {
		t.Fatalf("sent to %s", to)
	}
	if err := h.rp.CheckIssParameter(t.Context(), to.Query().Get("iss")); err != nil {
		t.Fatal(err)
	}
	return to.Query().Get("code")
}

func (h *fixture) tokens(t testing.TB) (*oidc.Tokens, *oidc.IDToken) {
	t.Helper()
	b := browser(t)
	if h.bubble {
		b.Transport = h.rp.Config().HTTPClient.Transport
	}
	tok, err := h.rp.Exchange(t.Context(), h.signIn(t, b), verifier, callback)
	if err != nil {
		t.Fatal(err)
	}
	id, err := h.rp.VerifyIDToken(t.Context(), tok.IDToken, oidc.Expect{Nonce: "n", AccessToken: tok.AccessToken},
		h.Now())
	if err != nil {
		t.Fatal(err)
	}
	return tok, id
}

func TestAPersonSignsInAndOut(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*oidctest.Client, *oidc.Config){
		"client_secret_basic": func(c *oidctest.Client, cfg *oidc.Config) { c.AuthMethod = oidc.AuthBasic },
		"client_secret_post": func(c *oidctest.Client, cfg *oidc.Config) {
			c.AuthMethod, cfg.AuthMethod = oidc.AuthPost, oidc.AuthPost
		},
		"none":            func(c *oidctest.Client, cfg *oidc.Config) { c.Secret, cfg.ClientSecret = "", "" },
		"signed userinfo": func(c *oidctest.Client, cfg *oidc.Config) { c.SignedUserinfo = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := build(t, change)
			tok, id := h.tokens(t)
			if id.Subject != "alice" || id.SID == "" || !tok.Expires.Equal(h.Now().Add(5*60e9)) ||
				len(tok.Scopes) != 3 {
				t.Fatalf("got %+v, expires %v, scopes %v", id.Claims, tok.Expires, tok.Scopes)
			}
			info, err := h.rp.Userinfo(t.Context(), tok.AccessToken, nil, id.Subject, h.Now())
			if err != nil || info["email"] != "alice@example.com" || info["email_verified"] != true {
				t.Fatalf("userinfo: %v, %v", info, err)
			}
			newer, newID, err := h.rp.Refresh(t.Context(), tok.RefreshToken, nil, *id, h.Now())
			if err != nil || newID == nil || newID.Subject != "alice" || newer.RefreshToken == tok.RefreshToken {
				t.Fatalf("refresh: %v, %v", newID, err)
			}
			if err := h.rp.Revoke(t.Context(), newer.RefreshToken, "refresh_token"); err != nil {
				t.Fatal(err)
			}
			if h.op.Alive(newer.RefreshToken) {
				t.Fatal("the refresh token is alive after it was revoked")
			}
			_, _, err = h.rp.Refresh(t.Context(), newer.RefreshToken, nil, *id, h.Now())
			if !errors.Is(err, oidc.ErrInvalidGrant) {
				t.Fatalf("got %v; want ErrInvalidGrant", err)
			}
			where, err := h.rp.EndSessionURL(t.Context(), oidc.EndSessionRequest{
				IDTokenHint: id.Raw, PostLogoutRedirectURI: "https://app.example.com/", State: "bye",
			})
			if err != nil {
				t.Fatal(err)
			}
			to, _ := visit(t, browser(t), where)
			if to.String() != "https://app.example.com/?state=bye" || len(h.op.Sessions()) != 0 {
				t.Fatalf("sent to %s, with %d sessions left", to, len(h.op.Sessions()))
			}
		})
	}
}

// Some providers grant offline_access to those alone who are asked for their consent (Core §11).
func TestAProviderPromptsAsConfiguredUnlessAskedOtherwise(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ configured, asked, want, why string }{
		{"", "", "", "nobody said anything"},
		{"consent", "", "consent", "so it is configured"},
		{" login  consent ", "", "login consent", "one space is enough (Core §3.1.2.1)"},
		{"consent", "none", "none", "a silent sign-in cannot prompt"},
		{"none", "login", "login", "who asks for something gets that"},
	} {
		h := build(t, func(_ *oidctest.Client, c *oidc.Config) { c.Prompt = row.configured })
		where, err := h.rp.AuthURL(t.Context(), oidc.AuthRequest{RedirectURI: callback, State: "st", Nonce: "n",
			Verifier: verifier, Prompt: row.asked})
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(where)
		if err != nil {
			t.Fatal(err)
		}
		if got := u.Query().Get("prompt"); got != row.want || u.Query().Has("prompt") != (row.want != "") {
			t.Errorf("%q configured, %q asked: prompt is %q; want %q, since %s", row.configured, row.asked, got,
				row.want, row.why)
		}
	}
}

func TestAProviderWithoutMetadataIsToldOfOnceAndWhenItHasSome(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	h := build(t, func(_ *oidctest.Client, c *oidc.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	away := func(d map[string]any) { d["issuer"] = "https://other.example" }
	for _, row := range []struct {
		broken            func(map[string]any)
		failed, recovered int // lines in the log by then
	}{{away, 1, 0}, {away, 1, 0}, {nil, 1, 1}} {
		h.op.Mangle(func(m *oidctest.Mangle) { m.Discovery = row.broken })
		h.Add(2 * time.Second) // it is asked again after one
		if err := h.rp.Ready(t.Context()); (err == nil) != (row.broken == nil) {
			t.Fatalf("Ready: %v", err)
		}
		if failed, recovered := strings.Count(log.String(), "event=oidc.discovery.failed"),
			strings.Count(log.String(), "event=oidc.discovery.recovered"); failed != row.failed ||
			recovered != row.recovered {
			t.Errorf("told of %d failures and %d recoveries, want %d and %d:\n%s", failed, recovered, row.failed,
				row.recovered, &log)
		}
	}
}

func TestTheAuthenticationRequestSaysWhatItMust(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.op.Mangle(func(m *oidctest.Mangle) {
		m.Discovery = func(d map[string]any) { d["authorization_endpoint"] = h.op.URL("authorize") + "?tenant=a%20b" }
	})
	age := 0
	where, err := h.rp.AuthURL(t.Context(), oidc.AuthRequest{
		RedirectURI: callback, State: "st", Nonce: "n", Verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
		LoginHint: "alice", Prompt: "login", MaxAge: &age,
		Extra: url.Values{"ui_locales": {"de"}, "state": {"stolen"}, "response_type": {"token"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(where)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"tenant": "a b", "response_type": "code", "client_id": "app", "redirect_uri": callback,
		"scope": "openid profile email",
		"state": "st", "nonce": "n", "code_challenge_method": "S256", "login_hint": "alice", "prompt": "login",
		"max_age": "0", "ui_locales": "de",
		"code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", // RFC 7636 Appendix B
	} {
		if got := u.Query()[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q; want %q", name, got, want)
		}
	}
	for _, r := range []oidc.AuthRequest{
		{RedirectURI: callback, State: "", Nonce: "n", Verifier: verifier},
		{RedirectURI: callback, State: "s", Nonce: "", Verifier: verifier},
		{RedirectURI: callback, State: "s", Nonce: "n", Verifier: "short"},
	} {
		if _, err := h.rp.AuthURL(t.Context(), r); err == nil {
			t.Errorf("%+v: passed", r)
		}
	}
}

func TestTheIssParameter(t *testing.T) {
	t.Parallel()
	h := build(t)
	wantCheck(t, h.rp.CheckIssParameter(t.Context(), "https://evil.example.com"), "iss", "the question went to")
	if err := h.rp.CheckIssParameter(t.Context(), h.op.Issuer()); err != nil {
		t.Fatal(err)
	}
	wantCheck(t, h.rp.CheckIssParameter(t.Context(), ""), "iss", "promises")
	silent := build(t)
	silent.op.Mangle(func(m *oidctest.Mangle) {
		m.Discovery = func(d map[string]any) { delete(d, "authorization_response_iss_parameter_supported") }
	})
	if err := silent.rp.CheckIssParameter(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	wantCheck(t, silent.rp.CheckIssParameter(t.Context(), "https://evil.example.com"), "iss", "the question went to")
}

func TestARefreshedIDTokenSpeaksOfTheSameSession(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		lie    func(*oidctest.JWT)
		check  string
		reason string
	}{
		{"sub", claim("sub", "bob"), "sub", "of another issuer, client or subject"},
		{"iss", claim("iss", "https://evil.example.com"), "iss", "of another issuer, client or subject"},
		{"aud", claim("aud", "other"), "aud", "of another issuer, client or subject"},
		{"at_hash", claim("at_hash", "x"), "at_hash", "not the one"},
		{"alg", func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "none", "none" }, "alg", "registered"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := build(t)
			tok, id := h.tokens(t)
			h.op.Mangle(func(m *oidctest.Mangle) { m.IDToken = row.lie })
			newer, newID, err := h.rp.Refresh(t.Context(), tok.RefreshToken, nil, *id, h.Now())
			wantCheck(t, err, row.check, row.reason)
			if newID != nil || newer == nil || newer.RefreshToken == "" {
				t.Fatalf("got %v, %v; want no ID Token, and the tokens to revoke", newID, newer)
			}
		})
	}
	h := build(t)
	tok, id := h.tokens(t)
	h.op.Mangle(func(m *oidctest.Mangle) {
		m.Tokens = func(_ string, d map[string]any) {
			delete(d, "id_token")
			delete(d, "refresh_token")
			d["expires_in"] = "60"
		}
	})
	newer, newID, err := h.rp.Refresh(t.Context(), tok.RefreshToken, nil, *id, h.Now())
	if err != nil || newID != nil || newer.RefreshToken != tok.RefreshToken || !newer.Expires.Equal(h.Now().Add(60e9)) {
		t.Fatalf("got %v, %v, %v; want the old refresh token and no ID Token", newer, newID, err)
	}
	before := *id
	before.Issuer = "https://before.example.com"
	h.op.Mangle(func(m *oidctest.Mangle) { m.Tokens = nil })
	tok, _ = h.tokens(t)
	_, _, err = h.rp.Refresh(t.Context(), tok.RefreshToken, nil, before, h.Now())
	wantCheck(t, err, "iss", "another issuer")
}

func TestWhatTheTokenEndpointAnswersDecidesWhetherToTryAgain(t *testing.T) {
	t.Parallel()
	h := build(t)
	_, id := h.tokens(t)
	refresh := func(o http.HandlerFunc) error {
		h.op.Override(oidctest.Token, o)
		_, _, err := h.rp.Refresh(t.Context(), "the-refresh-token", nil, *id, h.Now())
		if err != nil && strings.Contains(err.Error(), "the-refresh-token") {
			t.Fatalf("%v holds the token", err)
		}
		return err
	}
	for _, status := range []int{500, 502, 503, 429, 408, 302} {
		wantUnavailable(t, refresh(oidctest.Status(status)), fmt.Sprint(status))
	}
	wantUnavailable(t, refresh(oidctest.Huge(1<<20)), "more than 524288")
	wantUnavailable(t, refresh(func(w http.ResponseWriter,
		_ *http.Request) {
		fmt.Fprint(w, "<html>the-refresh-token")
	}), "not with a JSON object")
	wantUnavailable(t, refresh(oidctest.OAuthError(400, "temporarily_unavailable")), "temporarily")
	if err := refresh(oidctest.OAuthError(400, "invalid_grant")); !errors.Is(err, oidc.ErrInvalidGrant) ||
		errors.Is(err, oidc.ErrUnavailable) {
		t.Fatalf("got %v; want ErrInvalidGrant", err)
	}
	// Whatever has not the form of RFC 6749 §5.2 is no word of the provider's about the grant.
	wantCheck(t, refresh(oidctest.OAuthError(401, "invalid_grant")), "token_response", "invalid_grant")
	wantCheck(t, refresh(oidctest.OAuthError(404, "invalid_grant")), "token_response", "invalid_grant")
	wantCheck(t, refresh(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(400)
		fmt.Fprint(w, `{"error":"invalid_grant"}`)
	}), "token_response", "invalid_grant")
	wantCheck(t, refresh(oidctest.OAuthError(401, "invalid_client")), "token_response", "check client_id")
	wantCheck(t, refresh(oidctest.OAuthError(400, "invalid_request")), "token_response", "as the test wants it")
	wantCheck(t, refresh(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(400)
		fmt.Fprint(w, `{"error":"invalid_request","error_description":"bad the-refresh-token\n"}`)
	}), "token_response", "invalid_request")
	for body, reason := range map[string]string{
		`{"token_type":"Bearer"}`:                    "`access_token` is missing",
		`{"access_token":"a","token_type":"mac"}`:    "not Bearer",
		`{"access_token":1}`:                         "not a string",
		`{"Access_Token":"a","token_type":"Bearer"}`: "`access_token` is missing",
	} {
		wantCheck(t, refresh(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }), "token_response",
			reason)
	}
	h.op.Override(oidctest.Token, nil)
	_, err := h.rp.Exchange(t.Context(), "unknown", verifier, callback)
	if !errors.Is(err, oidc.ErrInvalidGrant) {
		t.Fatalf("got %v; want ErrInvalidGrant", err)
	}
	code := h.signIn(t, browser(t))
	h.op.Mangle(func(m *oidctest.Mangle) { m.Tokens = func(_ string, d map[string]any) { delete(d, "id_token") } })
	_, err = h.rp.Exchange(t.Context(), code, verifier, callback)
	wantCheck(t, err, "token_response", "no ID Token")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = h.rp.Exchange(ctx, "c", verifier, callback)
	wantUnavailable(t, err, "canceled")
}

func TestAMemberOfATokenResponseThatSaysNothingIsAbsent(t *testing.T) {
	t.Parallel()
	const seven = 7 * time.Minute // as configured
	h := build(t, func(_ *oidctest.Client, c *oidc.Config) { c.AccessTokenLifetime = seven })
	tok, id := h.tokens(t)
	five := 5 * time.Minute
	for _, row := range []struct {
		member, json string
		reason       string        // "": it is taken
		expires      time.Duration // 0: not said
	}{
		{"expires_in", `null`, "", seven},
		{"expires_in", `""`, "", seven},
		{"expires_in", `0`, "", seven},
		{"expires_in", `-1`, "", seven},
		{"expires_in", `1e99`, "", seven},
		{"expires_in", `1e999`, "", seven},
		{"expires_in", `"NaN"`, "", seven},
		{"expires_in", `"Inf"`, "", seven},
		{"expires_in", `"an hour"`, "", seven},
		{"expires_in", `true`, "", seven},
		{"expires_in", `[60]`, "", seven},
		{"expires_in", `"60"`, "", time.Minute},
		{"expires_in", `6e1`, "", time.Minute},
		{"refresh_token", `null`, "", five},
		{"refresh_token", `""`, "", five},
		{"refresh_token", `1`, "`refresh_token` is not a string", 0},
		{"id_token", `null`, "", five},
		{"id_token", `""`, "", five},
		{"id_token", `{}`, "`id_token` is not a string", 0},
		{"access_token", `null`, "`access_token` is missing", 0},
		{"access_token", `""`, "`access_token` is missing", 0},
		{"token_type", `null`, "", five},
		{"token_type", `""`, "", five},
		{"token_type", `"DPoP"`, "not Bearer", 0},
		{"token_type", `1`, "not Bearer", 0},
		{"scope", `null`, "", five},
		{"scope", `""`, "", five},
		{"scope", `[]`, "", five},
		{"session_state", `null`, "", five},
		{"session_state", `1`, "", five},
	} {
		all := map[string]string{"access_token": `"a"`, "token_type": `"Bearer"`, "expires_in": `300`}
		all[row.member] = row.json
		var body []string
		for name, v := range all {
			body = append(body, fmt.Sprintf("%q:%s", name, v))
		}
		h.op.Override(oidctest.Token, func(w http.ResponseWriter,
			_ *http.Request) {
			fmt.Fprint(w, "{"+strings.Join(body, ",")+"}")
		})
		got, newID, err := h.rp.Refresh(t.Context(), tok.RefreshToken, nil, *id, h.Now())
		if row.reason != "" {
			wantCheck(t, err, "token_response", row.reason)
			continue
		}
		if err != nil {
			t.Errorf("%s: %s: %v", row.member, row.json, err)
			continue
		}
		want := time.Time{}
		if row.expires > 0 {
			want = h.Now().Add(row.expires)
		}
		if newID != nil || got.RefreshToken != tok.RefreshToken || !got.Expires.Equal(want) || got.SessionState != "" ||
			!slices.Equal(got.Scopes, h.rp.Config().Scopes) {
			t.Errorf("%s: %s: got %#v, %v until %v", row.member, row.json, *got, newID, got.Expires)
		}
	}
	h.op.Override(oidctest.Token, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"access_token":"a","access_token":"b","token_type":"Bearer"}`)
	})
	_, _, err := h.rp.Refresh(t.Context(), tok.RefreshToken, nil, *id, h.Now())
	wantUnavailable(t, err, "whose names are there once")
}

func TestAMemberOfTheMetadataThatSaysNothingIsAbsent(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"id_token_signing_alg_values_supported", "code_challenge_methods_supported",
		"token_endpoint_auth_methods_supported",
		"scopes_supported", "prompt_values_supported", "authorization_response_iss_parameter_supported",
		"backchannel_logout_supported",
		"backchannel_logout_session_supported", "frontchannel_logout_supported"} {
		for _, v := range []any{nil, "", 1, []any{}, []any{nil, 1}, map[string]any{}, "true"} {
			inBubble(t, func(t *testing.T, h *fixture) {
				h.op.Mangle(func(m *oidctest.Mangle) { m.Discovery = func(d map[string]any) { d[name] = v } })
				m, err := h.rp.Metadata(t.Context())
				if err != nil {
					t.Fatalf("%s %v: %v", name, v, err)
				}
				said := map[string]bool{
					"id_token_signing_alg_values_supported":          len(m.IDTokenSigningAlgs) > 0,
					"code_challenge_methods_supported":               len(m.PKCEMethods) > 0,
					"token_endpoint_auth_methods_supported":          len(m.TokenAuthMethods) > 0,
					"scopes_supported":                               len(m.Scopes) > 0,
					"prompt_values_supported":                        len(m.Prompts) > 0,
					"authorization_response_iss_parameter_supported": m.IssParameter,
					"backchannel_logout_supported":                   m.BackchannelLogout,
					"backchannel_logout_session_supported":           m.BackchannelSession,
					"frontchannel_logout_supported":                  m.FrontchannelLogout,
				}
				if said[name] {
					t.Errorf("%s: %v says something: %+v", name, v, *m)
				}
			})
		}
	}
}

func TestAMemberOfAKeyThatIsNullIsAbsent(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"use", "alg", "key_ops", "d", "k", "x5c", "n"} {
		inBubble(t, func(t *testing.T, h *fixture) {
			h.op.Mangle(func(m *oidctest.Mangle) {
				m.JWKS = func(d map[string]any) {
					for _, k := range d["keys"].([]any) {
						k.(map[string]any)[name] = nil
					}
				}
			})
			if _, err := h.rp.VerifyIDToken(t.Context(), h.op.SignIDToken("app", "alice", "s", "n", ""),
				oidc.Expect{Nonce: "n"}, h.Now()); err != nil {
				t.Errorf("%s: null: %v", name, err)
			}
		})
	}
}

func TestARefusedClientIsWarnedOfOncePerChange(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer // written by this goroutine alone
	h := build(t, func(_ *oidctest.Client, c *oidc.Config) { c.Log = slog.New(slog.NewTextHandler(&logs, nil)) })
	n := 0
	odd := func(status int, code string) http.HandlerFunc { // with a description that is another one each time
		return func(w http.ResponseWriter, _ *http.Request) {
			n++
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"error":%q,"error_description":"trace %d"}`, code, n)
		}
	}
	for i, step := range []struct {
		answer  http.HandlerFunc
		refused bool   // errors.Is ErrInvalidClient
		warned  string // what is logged then; "" for nothing
	}{
		{odd(400, "invalid_grant"), false, ""},
		{odd(401, "invalid_client"), true, "event=oidc.client.refused"},
		{odd(401, "invalid_client"), true, ""},
		{odd(401, "invalid_client"), true, ""},
		{odd(401, "unauthorized_client"), true, "event=oidc.client.refused"}, // Keycloak's word for it
		{oidctest.Status(503), false, "event=oidc.token.failed"},             // says nothing of the client
		{odd(404, "not_found"), false, ""},
		{odd(401, "invalid_grant"), false, ""},
		{odd(401, "unauthorized_client"), true, ""},
		{odd(400, "invalid_grant"), false, "event=oidc.client.taken"},
		{odd(400, "invalid_grant"), false, ""},
		{oidctest.Status(401), true, "event=oidc.client.refused"},
		{nil, false, "event=oidc.client.taken"}, // the real endpoint, which does not know the code
		{odd(400, "invalid_client"), true, "event=oidc.client.refused"},
		{odd(400, "unauthorized_client"), false, ""}, // it may not use this grant, whoever it is
	} {
		h.op.Override(oidctest.Token, step.answer)
		logs.Reset()
		_, err := h.rp.Exchange(t.Context(), "code", verifier, callback)
		if errors.Is(err, oidc.ErrInvalidClient) != step.refused {
			t.Errorf("step %d: %v", i, err)
		}
		said := logs.String()
		if strings.Count(said, "event=") != min(1, len(step.warned)) || !strings.Contains(said, step.warned) {
			t.Errorf("step %d: logged %q, want %q once", i, said, step.warned)
		}
		if strings.Contains(said, "refused") {
			for _, want := range []string{"level=WARN", "provider=main", "client_id=app",
				"token_endpoint_auth_method=client_secret_basic", "See that client_id, client_secret"} {
				if !strings.Contains(said, want) {
					t.Errorf("step %d: no %s in %s", i, want, said)
				}
			}
			if strings.Contains(said, "s3cret") {
				t.Errorf("step %d: the secret is logged", i)
			}
		}
	}
}

func TestUserinfoThatIsWrongIsNotUsed(t *testing.T) {
	t.Parallel()
	set := func(name string, v any) func(map[string]any) { return func(c map[string]any) { c[name] = v } }
	for _, row := range []struct {
		name   string
		signed bool
		lie    func(map[string]any)
		check  string
		reason string
	}{
		{"another sub", false, set("sub", "bob"), "sub", "somebody else"},
		{"no sub", false, func(c map[string]any) { delete(c, "sub") }, "sub", "missing"},
		{"Sub for sub", false, func(c map[string]any) { delete(c, "sub"); c["Sub"] = "alice" }, "sub", "missing"},
		{"signed, another sub", true, set("sub", "bob"), "sub", "somebody else"},
		{"signed, another iss", true, set("iss", "https://evil.example.com"), "iss", "another issuer"},
		{"signed, another aud", true, set("aud", "other"), "aud", "not for this client"},
		{"signed, run out", true, set("exp", 1), "exp", "ran out"},
		{"signed, a logout token", true, set("events", map[string]any{oidctest.LogoutEvent: map[string]any{}}),
			"events", "logout token"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := build(t, func(c *oidctest.Client, _ *oidc.Config) { c.SignedUserinfo = row.signed })
			tok, id := h.tokens(t)
			h.op.Mangle(func(m *oidctest.Mangle) { m.Userinfo = row.lie })
			_, err := h.rp.Userinfo(t.Context(), tok.AccessToken, nil, id.Subject, h.Now())
			wantCheck(t, err, "userinfo", row.reason)
			if row.check != "" && !strings.HasPrefix(err.Error(), "userinfo: "+row.check+": ") {
				t.Errorf("it does not name the check %s: %v", row.check, err)
			}
		})
	}
	h := build(t)
	ask := func(o http.HandlerFunc) error {
		h.op.Override(oidctest.Userinfo, o)
		_, err := h.rp.Userinfo(t.Context(), "the-access-token", nil, "alice", h.Now())
		return err
	}
	jwt := func(raw string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/jwt")
			fmt.Fprint(w, raw)
		}
	}
	wantUnavailable(t, ask(oidctest.Status(503)), "503")
	wantUnavailable(t, ask(oidctest.Huge(1<<20)), "more than")
	wantUnavailable(t, ask(oidctest.Status(307)), "not followed")
	wantCheck(t, ask(oidctest.Status(403)), "userinfo", "403")
	wantCheck(t, ask(jwt(h.op.SignIDToken("app", "alice", "", "", "",
		func(j *oidctest.JWT) { j.Key = oidctest.NewKey("ES256") }))), "userinfo", "signature: it is not the signature")
	wantCheck(t, ask(jwt(h.op.SignIDToken("app", "alice", "", "", "",
		func(j *oidctest.JWT) { j.Header["alg"], j.Alg = "none", "none" }))), "userinfo", "`none` is no signature")
	wantUnavailable(t, ask(oidctest.Status(503)), "userinfo")
	wantCheck(t, ask(jwt("")), "userinfo", "the token is empty")
	wantCheck(t, ask(jwt("{}")), "userinfo", "three parts")
	wantCheck(t, ask(jwt("a.b.c.d.e")), "userinfo", "no key to decrypt it is configured")
	wantCheck(t, ask(jwt("a.b.c")), "userinfo", "the header is not base64url")
	h.op.Override(oidctest.Userinfo, nil)
	wantCheck(t, ask(nil), "userinfo", "401") // an access token that is none
}

// Core §5.3.2: userinfo may be JSON, signed, encrypted, or signed and encrypted, with algorithms of its own.
func TestUserinfoComesAsItIsRegistered(t *testing.T) {
	t.Parallel()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	const jwe = "ECDH-ES"
	theirs := &oidctest.Encryption{Alg: jwe, Enc: "A128GCM", Key: &key.PublicKey}
	ours := &oidc.Encryption{Alg: jwe, Enc: "A128GCM", Key: key}
	const unsigned, unencrypted = "`userinfo_signed_response_alg` is set",
		"`userinfo_encrypted_response_alg` is set"
	for _, row := range []struct {
		name   string
		signed string // as the provider signs; "" for not at all
		jwe    *oidctest.Encryption
		alg    string // as configured
		enc    *oidc.Encryption
		id     *oidc.Encryption // of ID Tokens
		reason string           // "": it is taken
	}{
		{"JSON", "", nil, "", nil, nil, ""},
		{"JSON beside encrypted ID Tokens", "", nil, "", nil, ours, ""},
		{"JSON where it is to be signed", "", nil, "ES256", nil, nil, unsigned},
		{"JSON where it is to be encrypted", "", nil, "", ours, nil, unencrypted},
		{"signed as ID Tokens", "ES256", nil, "", nil, nil, ""},
		{"signed otherwise", "EdDSA", nil, "", nil, nil,
			"signed with \"EdDSA\"; registered is ES256 (if userinfo is signed so, set " +
				"`userinfo_signed_response_alg: EdDSA`)"},
		{"signed otherwise, as set", "EdDSA", nil, "EdDSA", nil, nil, ""},
		{"signed otherwise, as set by its new name", "EdDSA", nil, "Ed25519", nil, nil, ""},
		{"signed as ID Tokens, set otherwise", "ES256", nil, "EdDSA", nil, nil, "registered is EdDSA"},
		{"signed where it is to be encrypted", "ES256", nil, "", ours, nil, unencrypted},
		{"encrypted", "", theirs, "", ours, nil, ""},
		{"encrypted as ID Tokens are", "", theirs, "", nil, ours, ""},
		{"encrypted, without a key", "", theirs, "", nil, nil, "no key to decrypt it is configured"},
		{"encrypted where it is to be signed", "", theirs, "ES256", ours, nil, unsigned},
		{"encrypted otherwise", "", &oidctest.Encryption{Alg: jwe, Enc: "A256GCM", Key: &key.PublicKey}, "", ours, nil,
			"not the registered A128GCM"},
		{"encrypted otherwise than ID Tokens, as set", "", theirs, "", ours,
			&oidc.Encryption{Alg: "RSA-OAEP", Enc: "A128GCM", Key: rsaKey}, ""},
		{"signed and encrypted", "EdDSA", theirs, "EdDSA", ours, nil, ""},
		{"signed otherwise and encrypted", "EdDSA", theirs, "ES256", ours, nil, "registered is ES256"},
		{"signed and encrypted, set for neither", "ES256", theirs, "", nil, ours, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := build(t, func(c *oidctest.Client, cfg *oidc.Config) {
				c.SignedUserinfo, c.UserinfoSigningAlg, c.UserinfoEncryption = row.signed != "", row.signed, row.jwe
				cfg.UserinfoSigningAlg, cfg.UserinfoEncryption, cfg.Encryption = row.alg, row.enc, row.id
				if row.id != nil && row.id.Alg == jwe {
					c.Encryption = theirs
				} else if row.id != nil {
					c.Encryption = &oidctest.Encryption{Alg: row.id.Alg, Enc: row.id.Enc, Key: &rsaKey.PublicKey}
				}
			})
			h.op.Mangle(func(m *oidctest.Mangle) {
				m.Userinfo = func(c map[string]any) { c["site"] = "a.b.c.d.e.f" } // dots of its own
			})
			tok, id := h.tokens(t)
			got, err := h.rp.Userinfo(t.Context(), tok.AccessToken, nil, id.Subject, h.Now())
			if row.reason != "" {
				wantCheck(t, err, "userinfo", row.reason)
				return
			}
			if err != nil || got["email"] != "alice@example.com" || got["site"] != "a.b.c.d.e.f" {
				t.Fatalf("%v, %v", got, err)
			}
			// About somebody else, or for another client: refused in any form.
			h.op.Mangle(func(m *oidctest.Mangle) { m.Userinfo = func(c map[string]any) { c["sub"] = "bob" } })
			_, err = h.rp.Userinfo(t.Context(), tok.AccessToken, nil, id.Subject, h.Now())
			wantCheck(t, err, "userinfo", "somebody else")
			if row.signed != "" || row.jwe != nil {
				h.op.Mangle(func(m *oidctest.Mangle) { m.Userinfo = func(c map[string]any) { c["aud"] = "other" } })
				_, err = h.rp.Userinfo(t.Context(), tok.AccessToken, nil, id.Subject, h.Now())
				wantCheck(t, err, "userinfo", "not for this client")
			}
		})
	}
	// `none` inside an encrypted answer is no signature either.
	h := build(t, func(_ *oidctest.Client, cfg *oidc.Config) { cfg.UserinfoEncryption = ours })
	tok, id := h.tokens(t)
	h.op.Override(oidctest.Userinfo, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwt")
		fmt.Fprint(w, oidctest.Encrypt(oidctest.Sign(oidctest.JWT{Header: map[string]any{"alg": "none"},
			Claims: map[string]any{"sub": "alice"}, Alg: "none", Key: h.op.Key("ES256")}), theirs))
	})
	_, err = h.rp.Userinfo(t.Context(), tok.AccessToken, nil, id.Subject, h.Now())
	wantCheck(t, err, "userinfo", "`none` is no signature")
}

func TestWhatTheRevocationEndpointAnswersDecidesWhetherToTryAgain(t *testing.T) {
	t.Parallel()
	h := build(t)
	revoke := func(o http.HandlerFunc) error {
		h.op.Override(oidctest.Revoke, o)
		return h.rp.Revoke(t.Context(), "the-refresh-token", "refresh_token")
	}
	for _, o := range []http.HandlerFunc{nil, oidctest.Status(200), oidctest.OAuthError(400, "invalid_token")} {
		if err := revoke(o); err != nil {
			t.Fatal(err)
		}
	}
	wantUnavailable(t, revoke(oidctest.Status(503)), "503")
	wantUnavailable(t, revoke(oidctest.Status(302)), "not followed")
	wantCheck(t, revoke(oidctest.OAuthError(401, "invalid_client")), "revocation", "invalid_client")
	if err := revoke(oidctest.OAuthError(400, "unsupported_token_type")); !errors.Is(err,
		oidc.ErrUnsupportedTokenType) {
		t.Fatalf("got %v; want ErrUnsupportedTokenType", err)
	}
}

func TestAProviderWithoutAnEndpointSaysSo(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.op.Mangle(func(m *oidctest.Mangle) {
		m.Discovery = func(d map[string]any) {
			delete(d, "userinfo_endpoint")
			delete(d, "revocation_endpoint")
			delete(d, "end_session_endpoint")
		}
	})
	_, err1 := h.rp.Userinfo(t.Context(), "a", nil, "alice", h.Now())
	err2 := h.rp.Revoke(t.Context(), "r", "")
	_, err3 := h.rp.EndSessionURL(t.Context(), oidc.EndSessionRequest{})
	for _, err := range []error{err1, err2, err3} {
		if !errors.Is(err, oidc.ErrUnsupported) {
			t.Fatalf("got %v; want ErrUnsupported", err)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	h := build(t)
	tok, _ := h.tokens(t)
	for _, v := range []any{h.rp, h.rp.Config(), tok, *tok} {
		for _, f := range []string{"%v", "%+v", "%#v", "%s"} {
			if s := fmt.Sprintf(f, v); strings.Contains(s, "s3cret") || strings.Contains(s, tok.AccessToken) {
				t.Errorf("%T prints with %s as %s", v, f, s)
			}
		}
	}
}
