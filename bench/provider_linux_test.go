package bench

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	clientID     = "app"
	clientSecret = "a secret of the bench, which is none, of enough bytes"
)

// provider is an OpenID provider that does no more than a relying party needs for a sign-in, as fast as it can. The
// browser's part is [provider.authorize], a call in the same process.
type provider struct {
	issuer string
	keys   *signer

	mu      sync.Mutex
	people  int
	granted map[string]grant // by code, and by access token
	keyAsks int
}

type grant struct{ nonce, sub, sid string }

func startProvider(b *testing.B) *provider {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	p := &provider{issuer: "http://" + l.Addr().String(), keys: newSigner(b), granted: map[string]grant{}}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		_ = json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{
			"issuer": p.issuer, "authorization_endpoint": p.issuer + "/authorize", "token_endpoint": p.issuer + "/token",
			"userinfo_endpoint": p.issuer + "/userinfo", "jwks_uri": p.issuer + "/jwks",
			"end_session_endpoint":     p.issuer + "/logout",
			"response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256"}, "scopes_supported": []string{"openid"},
			"token_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post"},
			"code_challenge_methods_supported":      []string{"S256"},
			"backchannel_logout_supported":          true, "backchannel_logout_session_supported": true,
			"authorization_response_iss_parameter_supported": true,
		})
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"keys": []any{map[string]string{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": keyID,
			"n": base64.RawURLEncoding.EncodeToString(p.keys.n.Bytes()), "e": "AQAB"}}})
	})
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		code := r.PostFormValue("code")
		g, ok := p.granted[code]
		delete(p.granted, code)
		if ok {
			p.granted["at-"+code] = g
		}
		p.mu.Unlock()
		if !ok {
			w.WriteHeader(http.StatusBadRequest)
			answer(w, map[string]string{"error": "invalid_grant"})
			return
		}
		now := time.Now().Unix()
		claims := map[string]any{"iss": p.issuer, "aud": clientID, "sub": g.sub, "sid": g.sid, "iat": now,
			"exp": now + 3600, "auth_time": now, "name": "Somebody", "email": g.sub + "@example.com"}
		if g.nonce != "" {
			claims["nonce"] = g.nonce
		}
		answer(w, map[string]any{"access_token": "at-" + code, "token_type": "Bearer", "expires_in": 7200,
			"id_token": p.keys.sign("JWT", claims)})
	})
	mux.HandleFunc("GET /userinfo", func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		g := p.granted[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
		p.mu.Unlock()
		answer(w, map[string]string{"sub": g.sub, "name": "Somebody", "email": g.sub + "@example.com"})
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go s.Serve(l)
	b.Cleanup(func() { s.Close() })
	return p
}

// authorize signs a new person in, each with a subject and a sid of its own, and returns where the browser is sent
// back to.
func (p *provider) authorize(request string) (back *url.URL, sub, sid string, err error) {
	u, err := url.Parse(request)
	if err != nil {
		return nil, "", "", err
	}
	q := u.Query()
	if u.Path != "/authorize" || q.Get("redirect_uri") == "" {
		return nil, "", "", fmt.Errorf("not an authentication request: %.200s", request)
	}
	p.mu.Lock()
	p.people++
	n := strconv.Itoa(p.people)
	sub, sid = "person-"+n, "sid-of-this-bench-"+n
	p.granted["code-"+n] = grant{q.Get("nonce"), sub, sid}
	p.mu.Unlock()
	if back, err = url.Parse(q.Get("redirect_uri")); err == nil {
		answer := back.Query()
		answer.Set("code", "code-"+n)
		answer.Set("state", q.Get("state"))
		answer.Set("iss", p.issuer)
		back.RawQuery = answer.Encode()
	}
	return back, sub, sid, err
}

// logoutToken returns a logout token (Back-Channel Logout §2.4), as the body of its request.
func (p *provider) logoutToken(sub, sid, jti string) string {
	return p.logoutTokenOf(p.issuer, sub, sid, jti)
}

func (p *provider) logoutTokenOf(issuer, sub, sid, jti string) string {
	now := time.Now().Unix()
	claims := map[string]any{"iss": issuer, "aud": clientID, "iat": now, "exp": now + 120, "jti": jti,
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}
	if sub != "" {
		claims["sub"] = sub
	}
	if sid != "" {
		claims["sid"] = sid
	}
	return "logout_token=" + p.keys.sign("logout+jwt", claims)
}
