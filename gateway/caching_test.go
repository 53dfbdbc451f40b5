package gateway_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
)

// What an app says about caching, and what leaves the gateway.
func TestNoCacheKeepsMoreThanTheAppAllows(t *testing.T) {
	t.Parallel()
	type said = http.Header
	for name, c := range map[string]struct {
		path    string
		nobody  bool
		noStore bool
		app     said
		want    said // of Cache-Control, Vary and those below
	}{
		"nothing": {app: said{}, want: said{"Cache-Control": {"private"}, "Vary": {"Cookie"}}},
		"nothing, with Vary": {app: said{"Vary": {"Accept-Encoding, cookie"}},
			want: said{"Cache-Control": {"private"}, "Vary": {"Accept-Encoding, cookie"}}},
		"Expires alone": {app: said{"Expires": {"Wed, 01 Jan 2098 00:00:00 GMT"}},
			want: said{"Cache-Control": {"private"}, "Vary": {"Cookie"}}},
		"no-store": {app: said{"Cache-Control": {"no-store"}}, want: said{"Cache-Control": {"no-store"}}},
		"private": {app: said{"Cache-Control": {"Private, max-age=60"}},
			want: said{"Cache-Control": {"Private, max-age=60"}}},
		"no-cache": {app: said{"Cache-Control": {"no-cache"}}, want: said{"Cache-Control": {"no-cache, private"}}},
		"max-age alone": {app: said{"Cache-Control": {"max-age=60"}},
			want: said{"Cache-Control": {"max-age=60, private"}}},
		"a private field alone": {app: said{"Cache-Control": {`max-age=60, private="Set-Cookie, X"`}},
			want: said{"Cache-Control": {`max-age=60, private="Set-Cookie, X", private`}}},
		"public in a quoted text": {app: said{"Cache-Control": {`no-cache="a, public", private`}},
			want: said{"Cache-Control": {`no-cache="a, public", private`}}},
		"public": {app: said{"Cache-Control": {"PUBLIC, max-age=60, immutable", "S-MaxAge=600"}},
			want: said{"Cache-Control": {"max-age=60, immutable, private"}}},
		"for shared caches alone": {app: said{"Cache-Control": {"private"}, "X-Accel-Expires": {"600"},
			"Surrogate-Control": {"max-age=600"}, "Cdn-Cache-Control": {"max-age=600"},
			"Acme-Cdn-Cache-Control": {"max-age=6"}},
			want: said{"Cache-Control": {"private"}}},
		"a public path, nothing": {path: "/public/x", app: said{},
			want: said{"Cache-Control": {"private"}, "Vary": {"Cookie"}}},
		"a public path, public": {path: "/public/x",
			app:  said{"Cache-Control": {"public, max-age=60"}, "X-Accel-Expires": {"6"}},
			want: said{"Cache-Control": {"public, max-age=60"}, "X-Accel-Expires": {"6"}}},
		"a public path, nobody": {path: "/public/x", nobody: true, app: said{}, want: said{"Vary": {"Cookie"}}},
		"a public path, nobody, public": {path: "/public/x", nobody: true, app: said{"Cache-Control": {"public"}},
			want: said{"Cache-Control": {"public"}}},
		"no_store, nothing": {noStore: true, app: said{},
			want: said{"Cache-Control": {"no-store"}, "Vary": {"Cookie"}}},
		"no_store, private": {noStore: true, app: said{"Cache-Control": {"private, max-age=60"}},
			want: said{"Cache-Control": {"no-store"}}},
		"no_store, a file": {noStore: true,
			app:  said{"Cache-Control": {"public, max-age=60"}, "Content-Type": {"text/css"}},
			want: said{"Cache-Control": {"max-age=60, private"}}},
		"no_store, a public page": {noStore: true,
			app:  said{"Cache-Control": {"public, max-age=60"}, "Content-Type": {"text/html"}},
			want: said{"Cache-Control": {"no-store"}}},
	} {
		st := newStage(t)
		policy, err := gateway.NewPolicy(gateway.Rule{Path: "/public/*", Public: true}, gateway.Rule{Path: "/*"})
		rig.Must(t, err)
		st.gateway.Policy, st.gateway.NoStore = policy, c.noStore
		b, _ := st.signIn(nil)
		st.upstream = func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range c.app {
				w.Header()[k] = v
			}
		}
		path, headers := "/x", []string{"Cookie", cookie(b)}
		if c.path != "" {
			path = c.path
		}
		if c.nobody {
			headers = nil
		}
		resp, _ := st.send("GET", path, headers...)
		for _, field := range []string{"Cache-Control", "Vary", "X-Accel-Expires", "Surrogate-Control",
			"Cdn-Cache-Control", "Acme-Cdn-Cache-Control"} {
			got, want := resp.Header[field], c.want[field]
			if len(got) != len(want) || len(got) > 0 && got[0] != want[0] {
				t.Errorf("%s: %s is %q, want %q", name, field, got, want)
			}
		}
	}
}

// A Go app's own word counts; where it says nothing, the answer is private.
func TestAnswersOfAGoAppArePrivateUnlessItSaysOtherwise(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		nobody, noStore bool
		app, want       string
	}{
		"nothing":           {want: "private"},
		"nothing, no_store": {noStore: true, want: "no-store"},
		"its own word":      {app: "max-age=60", want: "max-age=60"},
		"nobody":            {nobody: true, want: ""},
	} {
		st := newStage(t)
		st.gateway.NoStore = c.noStore
		b, _ := st.signIn(nil)
		app := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if c.app != "" {
				w.Header().Set("Cache-Control", c.app)
			}
		})
		st.front = st.gateway.Require(app)
		headers := []string{"Cookie", cookie(b)}
		if c.nobody {
			st.front, headers = st.gateway.Optional(app), nil
		}
		resp, _ := st.send("GET", "/", headers...)
		if got := resp.Header.Get("Cache-Control"); got != c.want || resp.Header.Get("Vary") != "Cookie" {
			t.Errorf("%s: Cache-Control %q, Vary %q; want %q", name, got, resp.Header.Get("Vary"), c.want)
		}
	}
}

// The script for open tabs has the name of a session, so the page is of one person, whatever the app says of it.
func TestAPublicPageWithTheNameOfASessionIsForNobodyElse(t *testing.T) {
	t.Parallel()
	for said, want := range map[string]string{
		"public, max-age=600, s-maxage=6": "max-age=600, no-cache, private", "": "no-cache, private",
		"no-store": "no-store, no-cache",
	} {
		for _, method := range []string{"GET", "HEAD"} {
			st := newStage(t)
			policy, err := gateway.NewPolicy(gateway.Rule{Path: "/public/*", Public: true})
			rig.Must(t, err)
			st.gateway.Policy, st.gateway.Tabs = policy, gateway.TabsOverlay
			b, _ := st.signIn(nil)
			st.upstream = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				if said != "" {
					w.Header().Set("Cache-Control", said)
				}
				w.Header().Set("Cdn-Cache-Control", "max-age=600")
				io.WriteString(w, "<!doctype html><p>x")
			}
			resp, body := st.send(method, "/public/x", "Cookie", cookie(b), "Sec-Fetch-Dest", "document")
			got := strings.Join(resp.Header["Cache-Control"], ", ")
			if got != want || resp.Header.Get("Cdn-Cache-Control") != "" ||
				method == "GET" && !strings.Contains(body, "data-session") {
				t.Errorf("%s %q: %q, want %q; %q", method, said, got, want, body)
			}
			resp, body = st.send(method, "/public/x", "Sec-Fetch-Dest", "document") // nobody is signed in
			if got := resp.Header.Get("Cache-Control"); got != said || strings.Contains(body, "data-session") {
				t.Errorf("%s %q, for nobody: %q; %q", method, said, got, body)
			}
		}
	}
}
