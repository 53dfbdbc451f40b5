package login_test

import (
	"fmt"
	"html"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/store"
)

func TestParametersForTheProviderAreThoseOfTheConfigurationAndThoseThatALinkMaySet(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil, func(c *oidc.Config) {
		c.AuthParams = map[string]string{"kc_idp_hint": "corp", "audience": "api", "max_age": "600", "ui_locales": "de fr"}
		c.LinkParams = []string{"kc_idp_hint", "max_age", "acr_values"}
	})
	fixed := map[string]string{"kc_idp_hint": "corp", "audience": "api", "max_age": "600", "ui_locales": "de fr"}
	for link, changed := range map[string]map[string]string{
		"":                               {},
		"kc_idp_hint=google":             {"kc_idp_hint": "google"},
		"kc_idp_hint=":                   {},
		"acr_values=gold+silver":         {"acr_values": "gold silver"},
		"max_age=60":                     {"max_age": "60"},
		"max_age=6000":                   {}, // a link cannot ask for less
		"max_age=0":                      {"max_age": "0"},
		"audience=evil&scope=admin":      {}, // it is not in the list
		"kc_idp_hint=a%26redirect_uri=x": {"kc_idp_hint": "a&redirect_uri=x"},
		"redirect_uri=https://evil.test/&state=x&nonce=x&code_challenge=x&response_type=token&client_id=x": {},
	} {
		p := s.browser().Get("/auth/login?" + link)
		to, err := url.Parse(p.To)
		if err != nil || p.Status != http.StatusSeeOther {
			t.Fatalf("%s: %d %s", link, p.Status, p.Body)
		}
		q := to.Query()
		for name, want := range fixed {
			if other, ok := changed[name]; ok {
				want = other
			}
			if got := q[name]; len(got) != 1 || got[0] != want {
				t.Errorf("%s: %s is %q, want %q", link, name, got, want)
			}
		}
		if q.Get("acr_values") != changed["acr_values"] || q.Get("scope") != "openid profile email" ||
			q.Get("client_id") != "app" || q.Get("response_type") != "code" || q.Get("nonce") == "x" ||
			q.Get("redirect_uri") != s.URL+"/auth/callback" || q.Get("state") == "x" {
			t.Errorf("%s: %v", link, q)
		}
	}
	for name, link := range map[string]string{
		"twice":             "kc_idp_hint=a&kc_idp_hint=b",
		"too long":          "kc_idp_hint=" + strings.Repeat("x", 257),
		"a control":         "kc_idp_hint=a%0Ab",
		"no UTF-8":          "kc_idp_hint=%FF",
		"no age":            "max_age=soon",
		"a negative age":    "max_age=-1",
		"a signed age":      "max_age=%2B1",
		"an age of an hour": "max_age=1h",
		"too much in all":   "kc_idp_hint=" + strings.Repeat("x", 256) + "&acr_values=" + strings.Repeat("x", 256),
	} {
		if p := s.browser().Get("/auth/login?" + link); p.Status != http.StatusBadRequest ||
			!strings.Contains(p.Body, "too long or malformed") {
			t.Errorf("%s: %d %s", name, p.Status, p.Body)
		}
	}
}

// Who is one too many is told so, and to try again; a silent sign-in goes back.
func TestTooManyPushedRequestsAreRefusedForAMoment(t *testing.T) {
	t.Parallel()
	var second atomic.Int64
	began := time.Now()
	s := newStage(t, 1, nil, func(c *oidc.Config) {
		c.PushRequests = true
		c.Now = func() time.Time { return began.Add(time.Duration(second.Load()) * time.Second) }
	})
	s.ops[0].Mangle(func(m *oidctest.Mangle) {
		m.Discovery = func(d map[string]any) { d["pushed_authorization_request_endpoint"] = s.ops[0].URL(oidctest.Revoke) }
	})
	pushed := 0
	s.ops[0].Override(oidctest.Revoke, func(w http.ResponseWriter, r *http.Request) {
		pushed++
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		io.WriteString(w, `{"request_uri": "urn:x", "expires_in": 60}`)
	})
	for n := range 100 {
		if p := s.browser().Get("/auth/login"); p.Status != http.StatusSeeOther {
			t.Fatalf("sign-in %d: %d %s", n+1, p.Status, p.Body)
		}
	}
	b := s.browser()
	p := b.Get("/auth/login?return_to=/page")
	if p.Status != http.StatusServiceUnavailable || p.Header.Get("Retry-After") == "" ||
		!strings.Contains(p.Body, "Too many people are signing in") || !strings.Contains(p.Body, "return_to=%2Fpage") {
		t.Errorf("one too many is answered %d, Retry-After %q: %s", p.Status, p.Header.Get("Retry-After"), p.Body)
	}
	if l := s.Log.Last("login"); l["result"] != "unavailable" ||
		!strings.Contains(fmt.Sprint(l["error"]), "too many requests at once") {
		t.Errorf("the log says %v", l)
	}
	if p := b.Get("/auth/login?silent=true&return_to=/page"); p.Status != http.StatusSeeOther || p.To != s.URL+"/page" {
		t.Errorf("a silent sign-in is answered %d to %q", p.Status, p.To)
	}
	if pushed != 100 {
		t.Errorf("the provider was asked %d times", pushed)
	}
	second.Add(1)
	if p := b.Get("/auth/login"); p.Status != http.StatusSeeOther {
		t.Errorf("after a second: %d %s", p.Status, p.Body)
	}
}

func TestALinkKeepsItsParametersOnEveryPageOfTheSignIn(t *testing.T) {
	t.Parallel()
	var providers int
	s := newStage(t, 2, nil, func(c *oidc.Config) {
		if providers++; providers == 1 { // the second knows no such parameter
			c.LinkParams = []string{"kc_idp_hint"}
		}
	})
	choose := s.browser().Get("/auth/login?kc_idp_hint=google").Body
	if !strings.Contains(choose, "kc_idp_hint=google&amp;provider=main") ||
		strings.Contains(choose, "kc_idp_hint=google&amp;provider=second") {
		t.Errorf("the page to choose: %s", choose)
	}
	s.ops[0].Mangle(func(m *oidctest.Mangle) {
		m.Authorize = func(url.Values) string { return "access_denied" }
	})
	b := s.browser()
	page := b.Follow("/auth/login?provider=main&kc_idp_hint=google&return_to=/a")
	if page.Status != http.StatusForbidden || !strings.Contains(page.Body, "kc_idp_hint=google") {
		t.Errorf("%d: the page to sign in again: %s", page.Status, page.Body)
	}
}

// The same holds for a sign-in that came to nothing here.
func TestASignInThatRanOutOrWasLostKeepsWhatItWasFor(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(*stage, *browser){
		"it ran out": func(s *stage, _ *browser) { s.Pass(store.AttemptLifetime) },
		"its cookie is lost": func(s *stage, b *browser) {
			for _, c := range b.attempts() {
				b.SetCookie(&http.Cookie{Name: c.Name, MaxAge: -1, Path: "/"})
			}
		},
		"the store is away after that": func(s *stage, b *browser) {
			b.Follow("/auth/login")
			s.Pass(store.AttemptLifetime)
			s.store.Away.Store(true)
		},
	} {
		s := newStage(t, 1, nil, func(c *oidc.Config) { c.LinkParams = []string{"organization"} })
		b := s.browser()
		callback := b.begin("/auth/login?return_to=/a&organization=acme&step_up=" + url.QueryEscape("POST /transfer"))
		lose(s, b)
		p := b.Get(callback)
		const link = `href="/auth/login?organization=acme&provider=main&return_to=%2Fa&step_up=POST+%2Ftransfer"`
		if p.Status < 400 || !strings.Contains(html.UnescapeString(p.Body), link) {
			t.Errorf("%s: %d %s", name, p.Status, p.Body)
		}
	}
}

// Core §3.1.3.7 step 13.
func TestWhenANewSignInWasAskedForItsTimeIsChecked(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		fixed string
		link  string
		ago   time.Duration // before the request
		claim any           // in place of the time
		in    bool
	}{
		"new enough":           {"300", "", 4 * time.Minute, nil, true},
		"clocks differ":        {"300", "", 5*time.Minute + 30*time.Second, nil, true},
		"too old":              {"300", "", 7 * time.Minute, nil, false},
		"too old for the link": {"3000", "&max_age=60", 3 * time.Minute, nil, false},
		"none":                 {"300", "", 0, "absent", false},
		"a text":               {"300", "", 0, "now", false},
		"to come":              {"300", "", -10 * time.Minute, nil, false},
		"nobody asked":         {"", "", 24 * time.Hour, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, 1, nil, func(c *oidc.Config) {
				if c.LinkParams = []string{"max_age"}; row.fixed != "" {
					c.AuthParams = map[string]string{"max_age": row.fixed}
				}
			})
			s.ops[0].Mangle(func(m *oidctest.Mangle) {
				m.IDToken = func(j *oidctest.JWT) {
					switch row.claim {
					case nil:
						j.Claims["auth_time"] = s.Now().Add(-row.ago).Unix()
					case "absent":
						delete(j.Claims, "auth_time")
					default:
						j.Claims["auth_time"] = row.claim
					}
				}
			})
			p := s.browser().Follow("/auth/login?return_to=/a" + row.link)
			if in := strings.Contains(p.Body, "the app at /a"); in != row.in {
				t.Errorf("signed in: %v, %d %s", in, p.Status, p.Body)
			}
			if line := s.Log.Last("login"); !row.in && (line["check"] != "auth_time" || p.Status < 400) {
				t.Errorf("%d, logged %v", p.Status, line)
			}
		})
	}
}

// Somebody who reads for long what the provider asks has signed in in time.
func TestANewSignInIsMeasuredByWhenItWasAskedFor(t *testing.T) {
	t.Parallel()
	for before, in := range map[time.Duration]bool{30 * time.Second: true, 3 * time.Minute: false} {
		s := newStage(t, 1, nil, func(c *oidc.Config) { c.AuthParams = map[string]string{"max_age": "0"} })
		b := s.browser()
		signedIn := s.Now().Add(-before).Unix() // by a clock that may be a minute off
		s.ops[0].Mangle(func(m *oidctest.Mangle) {
			m.IDToken = func(j *oidctest.JWT) { j.Claims["auth_time"] = signedIn }
		})
		callback := b.begin("/auth/login?return_to=/a")
		s.Pass(40 * time.Second)
		if p := b.Follow(callback); strings.Contains(p.Body, "the app at /a") != in {
			t.Errorf("%v before it was asked for: %d %s", before, p.Status, p.Body)
		}
	}
}
