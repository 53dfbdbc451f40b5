//go:build unix

package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Access tokens of the real provider at two replicas: a JWT of a person, one of a client, and an opaque one. A logout
// at the provider ends the person's, on both, with its open stream, and leaves the others.
func TestALogoutAtTheProviderEndsAccessTokensOnBothReplicas(t *testing.T) {
	t.Parallel()
	for _, k := range engines() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			const api = "https://api.example.com"
			p, gs := world(t, "app")
			script := &gateway{client: "script", secret: "script-secret-0123456789abcdef", url: "http://127.0.0.1:1",
				more: map[string]any{"grant_types": []string{"client_credentials"}, "redirect_uris": []string{},
					"response_types": []string{}}}
			p.apps = append(p.apps, script)
			p.env = []string{"OP_RESOURCE=" + api}
			gs = replicas(t, gs[0], k.start(t).url, 2)
			upstream := streamingApp(t)
			p.start(t)
			for i, g := range gs {
				g.set("--upstream", upstream)
				g.child = start(t, fmt.Sprintf("replica %d", i), g.dir, append(environ(),
					"CURFEW_BEARER={audiences: ["+api+", "+api+"/opaque], introspection: true}",
					"CURFEW_AUTHORIZATION_PARAMS={resource: \""+api+"\"}", "CURFEW_USERINFO=never",
					"CURFEW_PASS_ACCESS_TOKEN=true"), append([]string{curfew(t), "serve"}, g.flags...)...)
			}
			for _, g := range gs {
				g.await(t, "event=serving", 0, func(line string) bool { return strings.Contains(line, "event=serving") })
			}

			alice := newBrowser("alice's browser")
			last := gs[len(gs)-1]
			ofAlice := strings.TrimPrefix(alice.via(last).signIn(t, last, "alice").Header.Get("Authorization"), "Bearer ")
			if strings.Count(ofAlice, ".") != 2 {
				t.Fatalf("the access token is no JWT but %d bytes", len(ofAlice))
			}
			jwt, opaque := p.forItself(t, script, api), p.forItself(t, script, api+"/opaque")
			asks := newBrowser("the script")
			answer := func(g *gateway, token string) (int, string) {
				t.Helper()
				got := asks.via(g).get(t, g.url+"/private", "Authorization", "Bearer "+token)
				var s seen
				_ = json.Unmarshal([]byte(got.body), &s)
				return got.status, s.Header.Get("X-Auth-Subject")
			}
			for _, g := range gs {
				for token, who := range map[string]string{ofAlice: "alice", jwt: "script", opaque: "script"} {
					for range 2 {
						if status, sub := answer(g, token); status != http.StatusOK || sub != who {
							t.Fatalf("a token of %s is answered %d, as of %q", who, status, sub)
						}
					}
				}
			}
			req, err := http.NewRequest(http.MethodGet, gs[0].url+"/stream", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+ofAlice)
			stream, err := asks.via(gs[0]).client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Body.Close()
			lines := bufio.NewReader(stream.Body)
			if line, err := lines.ReadString('\n'); err != nil || line != "data: open\n" {
				t.Fatalf("the stream begins with %q, %v", line, err)
			}

			alice.signOutAt(t, p)
			p.loggedOut(t, 0, "backchannel.success", last)
			done := time.Now()
			for i, g := range gs {
				eventually(t, "the token is refused", func() string {
					asked := time.Now()
					status, _ := answer(g, ofAlice)
					if status == http.StatusOK && asked.Sub(done) > ceiling {
						t.Fatalf("replica %d took the token %v after the logout", i, asked.Sub(done))
					}
					return unless(status == http.StatusUnauthorized, "answered %d", status)
				})
				if a, _ := answer(g, jwt); a != http.StatusOK {
					t.Errorf("replica %d answers %d to the token of the client", i, a)
				}
				if a, _ := answer(g, opaque); a != http.StatusOK {
					t.Errorf("replica %d answers %d to the opaque token of the client", i, a)
				}
			}
			if _, err := io.Copy(io.Discard, lines); err != nil && strings.Contains(err.Error(), "Timeout") {
				t.Error("the stream of the token is still open")
			}
		})
	}
}

// streamingApp is an app that also has a stream without an end.
func streamingApp(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stream" {
			json.NewEncoder(w).Encode(seen{Path: r.URL.RequestURI(), Header: r.Header})
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: open\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// forItself returns an access token that a client gets for itself (RFC 6749 §4.4), for a resource (RFC 8707).
func (p *provider) forItself(t *testing.T, g *gateway, resource string) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.issuer+"/token",
		strings.NewReader(url.Values{"grant_type": {"client_credentials"}, "resource": {resource}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.SetBasicAuth(g.client, g.secret)
	resp, err := (&http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got.AccessToken == "" {
		t.Fatalf("the provider answers %d, %v", resp.StatusCode, err)
	}
	return got.AccessToken
}
