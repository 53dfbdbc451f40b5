package e2e_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// provider is oidc-provider/op.mjs.
type provider struct {
	*child
	issuer string
	port   string
	alg    string
	env    []string // more of it
	ca     string   // the file of its certificate, when it is https
	apps   []*gateway
}

// event is one line of what the provider tells.
type event struct {
	Ev     string `json:"ev"`
	ID     string `json:"id"`
	Client string `json:"client"`
	Sub    string `json:"sub"`
	SID    string `json:"sid"`
	Error  string `json:"error"`
	Token  string `json:"token"`
}

func parse(line string) (e event) {
	json.Unmarshal([]byte(line), &e) // a line that is no event is no event
	return e
}

// start has it run, with nobody signed in and with new keys.
func (p *provider) start(t *testing.T) {
	t.Helper()
	type client struct {
		ID     string `json:"id"`
		Secret string `json:"secret"`
		Base   string `json:"base"`
		// More of its metadata (OpenID Connect Dynamic Client Registration §2).
		More map[string]any `json:"more,omitempty"`
	}
	var clients []client
	for _, g := range p.apps {
		clients = append(clients, client{g.client, g.secret, g.url, g.more})
	}
	list, err := json.Marshal(clients)
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "OP_PORT="+p.port, "OP_KEY="+newJWK(t, p.alg), "OP_CLIENTS="+string(list))
	p.child = start(t, "the provider", "", append(env, p.env...), "node", "oidc-provider/op.mjs")
	p.event(t, 0, "listening")
	// Its first answer takes longest; a gateway would give up after five seconds.
	b := newBrowser("the supervisor")
	trust(t, b, p)
	b.get(t, p.issuer+"/.well-known/openid-configuration")
}

// newJWK returns a new private key for an algorithm.
func newJWK(t *testing.T, alg string) string {
	t.Helper()
	var key any
	var err error
	switch alg {
	case "RS256", "PS256":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		t.Fatalf("no keys for %q here", alg)
	}
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: "e2e-" + alg, Algorithm: alg, Use: "sig"})
	if err != nil {
		t.Fatal(err)
	}
	return string(jwk)
}

// event returns the first event of that kind, beginning with the line number from, and the number after it.
func (p *provider) event(t *testing.T, from int, kind string) (event, int) {
	t.Helper()
	line, next := p.await(t, kind, from, func(line string) bool { return parse(line).Ev == kind })
	return parse(line), next
}

// events returns those of that kind which happened since it had said from lines.
func (p *provider) events(t *testing.T, from int, kind string) (all []event) {
	t.Helper()
	id := strconv.FormatInt(time.Now().UnixNano(), 36)
	p.test(t, "mark", url.Values{"id": {id}})
	_, end := p.await(t, "mark "+id, from, func(line string) bool { return parse(line).ID == id })
	for _, line := range p.since(from)[:end-from] {
		if e := parse(line); e.Ev == kind {
			all = append(all, e)
		}
	}
	return all
}

// revoke destroys what a person has granted, as an administrator would.
func (p *provider) revoke(t *testing.T, sub string) {
	t.Helper()
	p.test(t, "revoke", url.Values{"sub": {sub}})
}

func (p *provider) test(t *testing.T, what string, form url.Values) {
	t.Helper()
	b := newBrowser("the administrator")
	trust(t, b, p)
	if got := b.post(t, p.issuer+"/test/"+what, form); got.status != http.StatusNoContent {
		t.Fatalf("%s at the provider: %v", what, got)
	}
}

// loggedOut waits until the provider has counted a back-channel logout of a client as done, or as failed.
func (p *provider) loggedOut(t *testing.T, from int, result string, g *gateway) event {
	t.Helper()
	line, _ := p.await(t, result+" of "+g.client, from, func(line string) bool {
		e := parse(line)
		return strings.HasPrefix(e.Ev, "backchannel.") && e.Ev != "backchannel.post" && e.Client == g.client
	})
	e := parse(line)
	if e.Ev != result {
		t.Fatalf("the provider says %s (%s) of its logout of %s, want %s", e.Ev, e.Error, g.client, result)
	}
	return e
}

// subject returns whom a logout token names.
func subject(t *testing.T, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[len(parts)/2])
	var claims struct{ Sub string }
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		t.Fatal(err)
	}
	return claims.Sub
}
