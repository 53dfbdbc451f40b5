package main

import (
	"fmt"
	"go/ast"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/redis/rueidis"

	"example.com/curfew/audit"
	"example.com/curfew/internal/servers"
	"example.com/curfew/oidc/oidctest"
)

// onCall is what each section of docs/on-call.md says that an operator sees.
func onCall() map[string]func(t *testing.T, o *operated) {
	wantWhy := func(t *testing.T, o *operated, status int, want ...string) {
		t.Helper()
		out := o.want(status, "why", "alice")
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("curfew why lacks %q:\n%s", w, out)
			}
		}
	}
	return map[string]func(t *testing.T, o *operated){
		"The logout token was refused": func(t *testing.T, o *operated) {
			alice := o.arrive(t, "Phone/1")
			alice.signIn("alice")
			o.logout(t, o.op.SignLogoutToken("app", "alice", "", claim("nonce", "n")))
			o.happened("the refusal", func(e audit.Event) bool { return e.Check == "nonce" })
			wantWhy(t, o, 3, "can get in: 1 session",
				`a logout token that claims this subject was not carried out`, `refused, check "nonce"`)
			if out := o.want(0, "events", "--result", "refused", "--limit", "9"); !strings.Contains(out, "check=nonce") {
				t.Errorf("events: %s", out)
			}
		},
		"The provider never called": func(t *testing.T, o *operated) {
			alice := o.arrive(t, "Phone/1")
			alice.signIn("alice")
			o.happened("the sign-in", func(e audit.Event) bool { return e.Subject == "alice" })
			wantWhy(t, o, 3, "no logout for this subject has arrived here lately", "is the back channel registered?",
				"Since then 1 sign-in, and 0 sessions ended by a refused refresh alone")
			if _, body := o.get(t, o.private+"/console/providers"); !strings.Contains(body, "is the back channel registered?") {
				t.Errorf("the page of the providers: %s", body)
			}
			// After a logout that hint is gone.
			o.logout(t, o.op.SignLogoutToken("app", "somebody", ""))
			if out := o.want(3, "why", "alice"); strings.Contains(out, "is the back channel registered?") {
				t.Errorf("why: %s", out)
			}
		},
		"The logout named another browser": func(t *testing.T, o *operated) {
			phone, laptop := o.arrive(t, "Phone/1"), o.arrive(t, "Laptop/2")
			phone.signIn("alice")
			laptop.signIn("alice")
			all := o.list("--sub", "alice")
			sid := all[0].SID
			if all[0].UserAgent == "Laptop/2" {
				sid = all[1].SID
			}
			o.logout(t, o.op.SignLogoutToken("app", "alice", sid))
			o.happened("the ending", func(e audit.Event) bool { return e.Cause == "backchannel" })
			phone.wantIn(false)
			wantWhy(t, o, 3, "can get in: 1 session", "ended 1 session; this session has another sid")
		},
		"They signed in again": func(t *testing.T, o *operated) {
			alice := o.arrive(t, "Phone/1")
			alice.signIn("alice")
			o.logout(t, o.op.SignLogoutToken("app", "alice", ""))
			alice.wantIn(false)
			alice.signIn("alice")
			o.happened("the logout", func(e audit.Event) bool { return e.Type == audit.BackchannelLogout })
			wantWhy(t, o, 3, "can get in: 1 session", "from after the last logout", "they signed in again")
		},
		"The logout could not be carried out": func(t *testing.T, o *operated) {
			alice := o.arrive(t, "Phone/1")
			alice.signIn("alice")
			o.op.Rotate("RS256")
			o.op.Override(oidctest.JWKS, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
			if status, body := o.logout(t, o.op.SignLogoutToken("app", "alice", "")); status != 503 {
				t.Fatalf("the token was answered %d %s", status, body)
			}
			o.happened("that the keys are missing", func(e audit.Event) bool { return e.Result == "unavailable" })
			wantWhy(t, o, 3, "can get in: 1 session", `unavailable, check "keys"`)
		},
		"The session is dead, and the app does not ask": func(t *testing.T, o *operated) {
			alice := o.arrive(t, "Phone/1")
			alice.signIn("alice")
			o.logout(t, o.op.SignLogoutToken("app", "alice", ""))
			o.happened("the ending", func(e audit.Event) bool { return e.Cause == "backchannel" })
			wantWhy(t, o, 0, "cannot get in", "the provider sent a logout token")
			alice.wantIn(false)
		},
		"A replica does not hear of endings": func(t *testing.T, o *operated) {
			server := servers.OwnRedis(t, "--appendfsync", "always")
			option := rueidis.ClientOption{InitAddress: []string{server.Addr()}, DisableCache: true}
			admin, err := rueidis.NewClient(option)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(admin.Close)
			rules := func(rules ...string) {
				words := append([]string{"ACL", "SETUSER", "deaf"}, rules...)
				if err := admin.Do(t.Context(), admin.B().Arbitrary(words...).Build()).Error(); err != nil {
					t.Fatal(err)
				}
			}
			rules("on", ">geheim", "~*", "&*", "+@all")
			all := operateReplicas(t, []string{server.URL, "redis://deaf:geheim@" + server.Addr()})
			hears, deaf := all[0], all[1]
			alice := deaf.arrive(t, "Phone/1")
			alice.signIn("alice")

			rules("resetchannels") // which also breaks off its subscriptions
			deaf.logs.await(t, "event=feed_broken")
			eventually(t, "the first page of the console says so", func() bool {
				_, body := hears.get(t, hears.private+"/console/")
				return strings.Contains(body, "not in sync: each check asks the store")
			})
			if _, body := hears.get(t, hears.private+"/api/replicas"); !strings.Contains(body, `"in_sync":false`) {
				t.Errorf("replicas: %s", body)
			}
			hears.want(0, "session", "end", "--sub", "alice")
			alice.wantIn(false)
			wantWhy(t, deaf, 0, "cannot get in")
		},
	}
}

// eventually asks again and again, until it is answered true.
func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(2 * time.Minute); !ask(); <-tick.C {
		if time.Now().After(late) {
			t.Fatalf("never: %s", what)
		}
	}
}

// Each cause in docs/on-call.md is seen as the page says.
func TestEachCauseOnCall(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.FromSlash("../../docs/on-call.md"))
	if err != nil {
		t.Fatal(err)
	}
	causes := onCall()
	for _, m := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(string(text), -1) {
		if causes[m[1]] == nil {
			t.Errorf("docs/on-call.md has %q, which no test walks through", m[1])
		}
	}
	for name, walk := range causes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !strings.Contains(string(text), "\n## "+name+"\n") {
				t.Error("docs/on-call.md does not have it")
			}
			walk(t, operate(t))
		})
	}
}

// Each metric is in docs/metrics.md, with its labels, and no other is.
func TestEachMetricIsDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.FromSlash("../../docs/metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	have := words{}
	source(t, "cmd/curfew/*.go", func(n ast.Node) {
		if e, ok := n.(ast.Expr); ok {
			if s, ok := literal(e); ok && regexp.MustCompile(`^curfew_[a-z_]+$`).MatchString(s) {
				have[s] = true
			}
		}
	})
	documented := words{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(curfew_[a-z_]+)(?:\\{([a-z_,]*)\\})?` \\| .+ \\| .+ \\|$").
		FindAllStringSubmatch(string(text), -1) {
		documented[m[1]] = true
	}
	for name := range have {
		if !documented[name] {
			t.Errorf("docs/metrics.md does not say what to do about %s", name)
		}
	}
	for name := range documented {
		if !have[name] {
			t.Errorf("docs/metrics.md has %s, which does not exist", name)
		}
	}
	if len(have) < 10 {
		t.Errorf("only %d metrics were seen: this test looks at the wrong thing", len(have))
	}
}

// What took a quarter of an hour before is one command, or one page: which token was refused and why; that the provider
// never called; and one person's sessions, which end at once.
func TestThreeTasksAtThreeInTheMorning(t *testing.T) {
	t.Parallel()
	o := operate(t)
	page := func(path string, want ...string) {
		t.Helper()
		status, body := o.get(t, o.private+"/console"+path)
		for _, w := range want {
			if status != http.StatusOK || !strings.Contains(body, w) {
				t.Errorf("%s: %d, and it lacks %q:\n%s", path, status, w, body)
			}
		}
	}
	phone, laptop, bob := o.signInThree(t)

	// The provider never called.
	if out := o.want(3, "why", "alice"); !strings.Contains(out, "is the back channel registered?") {
		t.Errorf("why: %s", out)
	}
	page("/providers", "is the back channel registered?", "3 signed in, 0 ended by a refused refresh alone")
	page("/person?sub=alice", "can get in: 2 sessions", "is the back channel registered?")

	// A refused token.
	o.logout(t, o.op.SignLogoutToken("app", "alice", "", claim("aud", "another-app")))
	o.happened("the refusal", func(e audit.Event) bool { return e.Check == "aud" })
	if out := o.want(0, "events", "--result", "refused", "--limit", "20"); !strings.Contains(out, "check=aud") {
		t.Errorf("events: %s", out)
	}
	page("/events?type=&result=refused&sub=", "<strong>aud</strong>", "another-app", "(claimed)")

	// One person's sessions: listed, and ended.
	if all := o.list("--sub", "alice"); len(all) != 2 {
		t.Errorf("%d sessions", len(all))
	}
	page("/sessions?sub=alice", "Phone/1", "Laptop/2", "Compared: 2 sessions.")
	if out := o.want(0, "session", "end", "--sub", "alice"); out != "2 sessions ended\n" {
		t.Errorf("end: %q", out)
	}
	phone.wantIn(false)
	laptop.wantIn(false)
	bob.wantIn(true)
	o.want(0, "why", "alice")
	o.happened("the ending", func(e audit.Event) bool { return e.Type == audit.SessionEnded && e.Subject == "alice" })
	page("/person?sub=alice", "cannot get in: no session", "an operator ended it")
}

// The same by the console alone, from its first page, by what there is to click and to type: in seconds, so few steps
// it takes.
func TestThreeTasksByConsole(t *testing.T) {
	t.Parallel()
	o := operate(t)
	phone, laptop, bob := o.signInThree(t)
	s := openConsole(t, o)
	steps := 0
	click := func(text string) {
		t.Helper()
		steps++
		s.do(chromedp.Click(fmt.Sprintf(`//*[self::a or self::button][normalize-space()=%q]`, text)))
	}
	task := func(name string, most int, do func()) {
		t.Helper()
		began := time.Now()
		steps = 0
		s.open("/console/")
		do()
		t.Logf("%s: %d steps, %v", name, steps, time.Since(began).Round(time.Millisecond))
		if steps > most {
			t.Errorf("%s takes %d steps", name, steps)
		}
	}
	says := func(texts ...string) {
		t.Helper()
		for _, text := range texts {
			s.until(fmt.Sprintf(`document.querySelector("main").innerText.includes(%q)`, text))
		}
	}

	task("the provider never called", 1, func() {
		says("is the back channel registered?", "3 signed in, 0 ended by a refused refresh alone") // on the first page
		click("Providers")
		says("is the back channel registered?")
	})

	o.logout(t, o.op.SignLogoutToken("app", "alice", "", claim("aud", "another-app")))
	o.happened("the refusal", func(e audit.Event) bool { return e.Check == "aud" })
	task("a refused token", 4, func() {
		says("aud") // among the last events of the first page
		click("Events")
		steps++
		s.until(`!!document.querySelector("select[name=result]")`)
		s.text(`document.querySelector("select[name=result]").value = "refused"`)
		click("Show")
		s.until(`location.search.includes("result=refused") && document.querySelectorAll("#rows tr").length === 1`)
		steps++
		s.do(chromedp.Click("#rows summary"))
		says("aud", "another-app", "(claimed)")
	})

	task("one person's sessions", 4, func() {
		click("Sessions")
		s.until(`!!document.querySelector("input[name=sid]")`)
		steps++
		s.do(chromedp.SendKeys("input[name=sub]", "alice"))
		click("Search")
		says("Phone/1", "Laptop/2", "Compared: 2 sessions.")
		steps++
		s.do(chromedp.Click("tbody td:first-child a"))
		says("can get in: 2 sessions")
		s.shape(1280, "light")
		shot(t, s, "console-person")
		s.shape(360, "dark")
		shot(t, s, "console-person-narrow")
		click("End all sessions of this person at main")
		says("cannot get in: no session")
		steps-- // the last ends them; the others list them
		phone.wantIn(false)
		laptop.wantIn(false)
		bob.wantIn(true)
	})
}
