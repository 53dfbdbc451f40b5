package curfew_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"example.com/curfew"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

// The keys of a client are published for its provider alone, and not among those that apps trust.
func TestTheKeysOfEachClientHaveAnAddressOfTheirOwn(t *testing.T) {
	t.Parallel()
	var keys []oidc.PrivateKey
	for _, name := range []string{"one", "two"} {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		rig.Must(t, err)
		keys = append(keys, oidc.PrivateKey{ID: name, Key: k})
	}
	a := newApp(t, func(c *curfew.Config) {
		c.Providers = []oidc.Config{
			{Name: "one", Issuer: "https://one.example.com", ClientID: "app", Keys: keys[:1]},
			{Name: "two", Issuer: "https://two.example.com", ClientID: "app", Keys: keys[1:]},
			{Name: "none", Issuer: "https://three.example.com", ClientID: "app"},
		}
	})
	regs := a.rp.Registrations()
	client := newBrowser(t)
	for i, name := range []string{"one", "two", "none"} {
		where := a.server.URL + "/auth/client-keys/" + name
		resp, err := client.Get(where)
		rig.Must(t, err)
		body, err := io.ReadAll(resp.Body)
		rig.Must(t, err)
		resp.Body.Close()
		if name == "none" {
			if resp.StatusCode != http.StatusNotFound || regs[i].JWKSURI != "" {
				t.Errorf("a client without keys: %d, %q", resp.StatusCode, regs[i].JWKSURI)
			}
			continue
		}
		var set jose.JSONWebKeySet
		rig.Must(t, json.Unmarshal(body, &set))
		if len(set.Keys) != 1 || set.Keys[0].KeyID != name || !set.Keys[0].IsPublic() || regs[i].JWKSURI != where ||
			strings.Contains(string(body), `"d"`) {
			t.Errorf("%s publishes %s, at %s", name, body, regs[i].JWKSURI)
		}
	}
	if regs[0].InitiateURI != a.server.URL+"/auth/login" {
		t.Errorf("initiate_login_uri is %s", regs[0].InitiateURI)
	}
}

// proofs keeps the public keys of the DPoP proofs that are sent.
type proofs struct {
	http.Transport
	mu   sync.Mutex
	keys []string
}

func (p *proofs) RoundTrip(r *http.Request) (*http.Response, error) {
	if raw := r.Header.Get("DPoP"); raw != "" {
		jws, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(jws.Signatures[0].Protected.JSONWebKey)
		if err != nil {
			return nil, err
		}
		p.mu.Lock()
		p.keys = append(p.keys, string(text))
		p.mu.Unlock()
	}
	return p.Transport.RoundTrip(r)
}

// The key of a session is kept with it, sealed, so another replica can refresh it.
func TestABoundSessionIsRefreshedByAnotherReplica(t *testing.T) {
	t.Parallel()
	sent := new(proofs)
	t.Cleanup(sent.CloseIdleConnections)
	var cfg curfew.Config
	a := newApp(t, func(c *curfew.Config) {
		c.Providers[0].DPoP, c.Providers[0].SkipUserinfo = true, true
		c.HTTPClient = &http.Client{Transport: sent}
		cfg = *c
	})
	a.short(nil, nil, func(doc map[string]any) { aMinute(doc); doc["token_type"] = "DPoP" })
	b := newBrowser(t)
	b.open(a.server.URL + "/")
	if !b.signedIn(a) {
		t.Fatal("nobody is signed in")
	}
	site, err := url.Parse(a.server.URL)
	rig.Must(t, err)
	var bearer session.Bearer
	for _, c := range b.Jar.Cookies(site) {
		if found, err := session.ParseBearer(c.Value); err == nil {
			bearer = found
		}
	}
	first, err := a.rp.Sessions().Peek(t.Context(), bearer.Key())
	rig.Must(t, err)

	other := a.open(cfg)
	for range 2 {
		a.pass(time.Minute + 2*time.Second)
		s, err := other.Sessions().Get(t.Context(), bearer)
		rig.Must(t, err)
		if !slices.Equal(s.Tokens.DPoPKey, first.Tokens.DPoPKey) || len(s.Tokens.DPoPKey) == 0 ||
			s.Tokens.AccessToken == first.Tokens.AccessToken {
			t.Error("it was not refreshed with the key of the session")
		}
	}
	if len(sent.keys) != 3 || sent.keys[0] != sent.keys[1] || sent.keys[0] != sent.keys[2] {
		t.Errorf("the proofs are of %q", sent.keys)
	}
	page, err := a.store.List(t.Context(), store.Query{Limit: 10}, store.Time(time.Now()))
	rig.Must(t, err)
	for _, r := range page.Records {
		if strings.Contains(string(r.Payload), string(first.Tokens.DPoPKey)) {
			t.Error("the key is in the store as it is")
		}
	}
	if n := len(page.Records); n != 1 {
		t.Errorf("there are %d sessions", n)
	}
}
