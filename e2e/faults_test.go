//go:build unix

package e2e_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
)

// faulty has two replicas on an engine that is about to fail, with alice signed in at the first, and bob and carol.
type faulty struct {
	*provider
	engine *engine
	gs     []*gateway
	last   *gateway
	alice  *browser // is logged out before it happens
	bob    *browser // stays
	carol  *browser // is logged out while it lasts
}

func newFaulty(t *testing.T, k kind) *faulty {
	t.Helper()
	e := k.start(t)
	if len(e.nodes) > 1 {
		e.url += "?wait_replicas=1" // else a replica that becomes master may lack the last logout
	}
	e.each((*servers.Server).Own)
	p, gs := site(t, e.url, 2)
	p.start(t)
	run(t, gs)
	f := &faulty{p, e, gs, gs[len(gs)-1], newBrowser("alice's browser"), newBrowser("bob's browser"),
		newBrowser("carol's browser")}
	f.alice.via(gs[0]).signIn(t, gs[0], "alice")
	f.bob.via(gs[0]).signIn(t, gs[0], "bob")
	f.carol.via(f.last).signIn(t, f.last, "carol")
	for _, g := range gs { // so that each has a copy
		f.alice.via(g).mustBeIn(t, g, "alice")
		f.bob.via(g).mustBeIn(t, g, "bob")
	}
	return f
}

// logout signs somebody out at the provider, who tells the last replica. Where that is not done the provider gives up;
// then the token is sent again, as a better provider would, until it is.
func (f *faulty) logout(t *testing.T, b *browser) (done time.Time) {
	t.Helper()
	from := f.said()
	b.signOutAt(t, f.provider)
	line, _ := f.await(t, "the outcome of the logout of "+b.name, from, func(line string) bool {
		ev := parse(line).Ev
		return ev == "backchannel.success" || ev == "backchannel.error"
	})
	if parse(line).Ev == "backchannel.error" {
		post, _ := f.event(t, from, "backchannel.post")
		f.again(t, post.Token)
	}
	return time.Now()
}

// again sends a logout token that was not answered with 2xx, to one replica after the other.
func (f *faulty) again(t *testing.T, token string) {
	t.Helper()
	n := 0
	eventually(t, "a logout that was not done is done", func() string {
		g := f.gs[n%len(f.gs)]
		n++
		got, err := newBrowser("the provider").via(g).try(http.MethodPost, g.url+"/auth/backchannel-logout",
			url.Values{"logout_token": {token}})
		if err != nil {
			return err.Error()
		}
		if got.status != http.StatusOK && got.status != http.StatusServiceUnavailable &&
			!strings.Contains(got.body, "already processed") {
			t.Errorf("a logout token is sent again: %v", got)
		}
		return unless(got.status != http.StatusServiceUnavailable, "%v", got)
	})
}

// answer is what a replica said to who asked then.
type answer struct {
	asked, told time.Time
	*page
}

// observe asks every replica about a browser, over and over, until stop returns all answers.
func observe(t *testing.T, gs []*gateway, b *browser) (stop func() []answer) {
	t.Helper()
	var mu sync.Mutex
	var all []answer
	over := make(chan struct{})
	end := sync.OnceFunc(func() { close(over) })
	var asking sync.WaitGroup
	for _, g := range gs {
		asking.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				asked := time.Now()
				got, err := b.ask(g)
				if err != nil {
					t.Errorf("%s asks: %v", b.name, err)
					return
				}
				mu.Lock()
				all = append(all, answer{asked, time.Now(), got})
				mu.Unlock()
				select {
				case <-over:
					return
				case <-tick.C:
				}
			}
		})
	}
	t.Cleanup(asking.Wait)
	t.Cleanup(end)
	return func() []answer {
		end()
		asking.Wait()
		return all
	}
}

// stayed expects that somebody was never signed out, and was let in only while the store could be asked and for the
// ceiling after.
func stayed(t *testing.T, all []answer, cut, back time.Time) {
	t.Helper()
	served, told := 0, 0
	for _, a := range all {
		switch {
		case a.header.Get("Set-Cookie") != "":
			t.Errorf("a cookie was changed because the store was away: %v", a)
		case a.status == http.StatusServiceUnavailable:
			if told++; a.header.Get("Retry-After") == "" {
				t.Errorf("503 should say when to try again: %v", a)
			}
		case a.status != http.StatusOK:
			t.Errorf("who is signed in was told %v", a)
		case a.asked.After(cut.Add(ceiling)) && a.told.Before(back):
			t.Errorf("somebody was let in who asked %v after the store had gone", a.asked.Sub(cut))
		default:
			served++
		}
	}
	t.Logf("who stayed was served %d times, and told %d times to come back", served, told)
}

// left expects that somebody was let in by nobody whom they asked more than the ceiling after they were logged out.
func left(t *testing.T, all []answer, done time.Time) {
	t.Helper()
	count := map[int]int{}
	for _, a := range all {
		count[a.status]++
		switch {
		case a.status == http.StatusServiceUnavailable || a.status == http.StatusUnauthorized:
		case a.status != http.StatusOK:
			t.Errorf("who was logged out was told %v", a)
		case a.asked.Sub(done) > ceiling:
			t.Errorf("somebody was let in who asked %v after their logout was done", a.asked.Sub(done))
		}
	}
	t.Logf("who was logged out was answered %v", count)
}

// unavailable waits until no replica lets bob in.
func (f *faulty) unavailable(t *testing.T) {
	t.Helper()
	for _, g := range f.gs {
		eventually(t, "who is signed in is asked to come back", func() string {
			got, err := f.bob.ask(g)
			if err != nil {
				return err.Error()
			}
			return unless(got.status == http.StatusServiceUnavailable, "%v", got)
		})
	}
}

// recovered expects that everything works again, that alice stays out and bob in; nobody has started a replica anew.
func (f *faulty) recovered(t *testing.T) {
	t.Helper()
	for _, g := range f.gs {
		eventually(t, "bob is served again", func() string { return f.bob.via(g).isIn(g, "bob") })
	}
	dora := newBrowser("dora's browser")
	eventually(t, "somebody signs in", func() string { // a shard may come later than another
		got, _ := dora.via(f.gs[0]).open(t, f.last.url+"/auth/login?return_to=/private", "dora")
		return unless(got.status == http.StatusOK, "%v", got)
	})
	for _, g := range f.gs {
		dora.via(g).mustBeIn(t, g, "dora")
		f.alice.via(g).mustBeOut(t, g)
	}
	within := dora.outEverywhere(t, f.gs)
	within(f.logout(t, dora))
	for _, g := range f.gs {
		dora.via(g).mustBeOut(t, g)
		f.alice.via(g).mustBeOut(t, g)
		f.bob.via(g).mustBeIn(t, g, "bob")
	}
}

// Promises 1 to 3 when the engine crashes the moment after it took a logout: replicas say 503 while it is away, and go
// on by themselves.
func TestAnEngineThatIsKilledAndStartedAgainSignsNobodyInOrOut(t *testing.T) {
	t.Parallel()
	for _, k := range engines() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t, k)
			alice, bob := observe(t, f.gs, f.alice), observe(t, f.gs, f.bob)
			done := f.logout(t, f.alice)
			f.engine.each((*servers.Server).Kill)
			cut := time.Now()

			f.unavailable(t)
			from := f.said()
			f.carol.signOutAt(t, f.provider)
			f.loggedOut(t, from, "backchannel.error", f.last)
			post, _ := f.event(t, from, "backchannel.post")
			for _, g := range f.gs {
				got, _ := newBrowser("erin's browser").via(g).open(t, g.url+"/auth/login?return_to=/private", "erin")
				if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
					t.Errorf("who signs in meanwhile should be asked to come back: %v", got)
				}
			}

			back := time.Now()
			f.engine.each((*servers.Server).Start)
			for _, g := range f.gs {
				eventually(t, "carol, whose logout was not done, is served",
					func() string { return f.carol.via(g).isIn(g, "carol") })
			}
			within := f.carol.outEverywhere(t, f.gs)
			f.again(t, post.Token)
			within(time.Now())
			f.recovered(t)
			left(t, alice(), done)
			stayed(t, bob(), cut, back)
		})
	}
}

// A server that is stopped keeps its connections, and says nothing. No copy may be trusted for longer than the ceiling.
func TestAnEngineThatIsFrozenForTenSecondsSignsNobodyInOrOut(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("slow: an engine is frozen for 10 s")
	}
	for _, k := range engines() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t, k)
			alice, bob := observe(t, f.gs, f.alice), observe(t, f.gs, f.bob)
			done := f.logout(t, f.alice)
			f.engine.each((*servers.Server).Freeze)
			cut := time.Now()

			f.unavailable(t)
			from := f.said()
			f.carol.signOutAt(t, f.provider)
			f.loggedOut(t, from, "backchannel.error", f.last)
			post, _ := f.event(t, from, "backchannel.post")
			pause(time.Until(cut.Add(10 * time.Second)))

			back := time.Now()
			f.engine.each((*servers.Server).Thaw)
			// the frozen server may have read that logout: it is done now, or with the next try
			within := f.carol.outEverywhere(t, f.gs)
			f.again(t, post.Token)
			within(time.Now())
			f.recovered(t)
			left(t, alice(), done)
			stayed(t, bob(), cut, back)
		})
	}
}

// A replica that was suspended wakes up with copies that it thinks are new. Nobody told it what ended meanwhile.
func TestAReplicaThatWasSuspendedLetsNobodyInWhoWasLoggedOutMeanwhile(t *testing.T) {
	t.Parallel()
	for _, k := range engines() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			f := newFaulty(t, k)
			asleep := f.gs[0]
			signal := func(s syscall.Signal) {
				if err := asleep.cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			f.alice.via(asleep).mustBeIn(t, asleep, "alice") // from its cache
			signal(syscall.SIGSTOP)
			done := f.logout(t, f.alice)
			f.alice.via(f.last).mustBeOut(t, f.last)
			pause(time.Until(done.Add(ceiling + 50*time.Millisecond)))

			// They wait in front of it, and are the first whom it sees.
			const each = 16
			answers := make(chan string, 2*each)
			var asking sync.WaitGroup
			for range each {
				for b, want := range map[*browser]int{f.alice: http.StatusUnauthorized, f.bob: http.StatusOK} {
					asking.Go(func() {
						got, err := b.ask(asleep)
						switch {
						case err != nil:
							answers <- err.Error()
						case got.status != want && got.status != http.StatusServiceUnavailable:
							answers <- fmt.Sprintf("%s asks a replica that has just woken up: %v, want %d", b.name, got,
								want)
						}
					})
				}
			}
			pause(ceiling)
			signal(syscall.SIGCONT)
			asking.Wait()
			close(answers)
			for wrong := range answers {
				t.Error(wrong)
			}
			f.recovered(t)
		})
	}
}
