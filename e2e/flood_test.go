package e2e_test

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"
)

// The endpoint is open to everybody. Rubbish must not become requests to the provider, nor stand in the way of a
// logout.
func TestAFloodOfBadTokensNeitherReachesTheProviderNorHindersALogout(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "app")
	g := gs[0]
	p.start(t)
	g.start(t)
	alice, bob := newBrowser("alice's browser"), newBrowser("bob's browser")
	alice.signIn(t, g, "alice")
	bob.signIn(t, g, "bob")

	from := p.said()
	kinds := []struct {
		name, kid, alg, iss string
		status              int // 0: 400 or 503, since an unknown key may be one that the provider has only just made
	}{
		{"of a key that nobody has", "", "RS256", p.issuer, 0},
		{"with a random signature", "e2e-RS256", "RS256", p.issuer, http.StatusBadRequest},
		{"of a stranger", "", "RS256", "https://stranger.example", http.StatusBadRequest},
		{"with another algorithm", "", "PS256", p.issuer, http.StatusBadRequest},
		{"signed with nothing", "", "none", p.issuer, http.StatusBadRequest},
	}
	sender := newBrowser("a stranger")
	sender.client.Transport = &http.Transport{MaxConnsPerHost: 50}
	began := time.Now()
	var all sync.WaitGroup
	for i := range 500 {
		all.Go(func() {
			kind := kinds[i%len(kinds)]
			if kind.kid == "" {
				kind.kid = rand.Text()
			}
			got, err := sender.try(http.MethodPost, g.url+"/auth/backchannel-logout",
				url.Values{"logout_token": {rubbish(g.client, kind.kid, kind.alg, kind.iss)}})
			switch {
			case err != nil:
				t.Errorf("a token %s: %v", kind.name, err)
			case kind.status == 0 && (got.status == http.StatusBadRequest ||
				got.status == http.StatusServiceUnavailable):
			case got.status != kind.status:
				t.Errorf("a token %s: %v, want %d", kind.name, got, kind.status)
			}
		})
	}
	all.Wait()
	sender.client.CloseIdleConnections()

	// Three fetches may follow each other, then one in two seconds, for tokens that anybody can send and for those of
	// the provider each.
	most := 4 + int(time.Since(began)/(2*time.Second))
	if n := len(p.events(t, from, "jwks")); n > most {
		t.Errorf("500 bad tokens made %d requests for the provider's keys, want at most %d", n, most)
	}
	alice.signOutAt(t, p)
	p.loggedOut(t, from, "backchannel.success", g)
	alice.mustBeOut(t, g)
	bob.mustBeIn(t, g, "bob")
}

// rubbish is a logout token that would be a good one if somebody had signed it.
func rubbish(client, kid, alg, iss string) string {
	part := func(v any) string {
		text, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(text)
	}
	now := time.Now().Unix()
	signature := make([]byte, 256)
	rand.Read(signature)
	return fmt.Sprintf("%s.%s.%s", part(map[string]any{"alg": alg, "kid": kid, "typ": "logout+jwt"}),
		part(map[string]any{
			"iss": iss, "aud": client, "iat": now, "exp": now + 120, "jti": rand.Text(), "sub": "alice",
			"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
		}), base64.RawURLEncoding.EncodeToString(signature))
}
