//go:build unix

package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
	"example.com/curfew/keyring"
)

// ceiling is how long a replica may serve its copy of a session that has ended elsewhere: the default of cache_ceiling.
const ceiling = time.Second

// engine is what replicas share.
type engine struct {
	url   string
	nodes []*servers.Server
}

func (e *engine) each(do func(*servers.Server)) {
	for _, s := range e.nodes {
		do(s)
	}
}

// kind is an engine by its name.
type kind struct {
	name  string
	start func(t testing.TB) *engine
}

// engines keep what they are told over a crash of theirs.
func engines() []kind {
	return []kind{
		{"postgres", func(t testing.TB) *engine {
			s := servers.Postgres(t)
			return &engine{s.URL, []*servers.Server{s}}
		}},
		{"redis", func(t testing.TB) *engine {
			s := servers.Redis(t, "--appendfsync", "always")
			return &engine{s.URL, []*servers.Server{s}}
		}},
		{"redis cluster", func(t testing.TB) *engine {
			c := servers.RedisCluster(t, "--appendfsync", "always")
			return &engine{c.URL, c.Nodes}
		}},
	}
}

// site has a provider, and so many replicas of one gateway, which share a store, a key file and an app. None of them
// runs yet. Who comes by the URL of the site, as the provider does, reaches the last of them.
func site(t *testing.T, backend string, n int) (*provider, []*gateway) {
	t.Helper()
	p, gs := world(t, "app")
	return p, replicas(t, gs[0], backend, n)
}

// replicas returns so many of a gateway; it is the last of them.
func replicas(t *testing.T, last *gateway, backend string, n int) []*gateway {
	t.Helper()
	last.set("--store", backend)
	last.set("--key-file", last.write(t, "curfew.key", string(keyring.NewFile())))
	var all []*gateway
	for range n - 1 {
		g := &gateway{client: last.client, secret: last.secret, url: last.url, listen: reserve(t), admin: reserve(t),
			dir: t.TempDir()}
		g.flags = slices.Clone(last.flags)
		g.set("--listen", g.listen)
		g.set("--admin-listen", g.admin)
		all = append(all, g)
	}
	return append(all, last)
}

// run starts replicas, all at the same time.
func run(t *testing.T, gs []*gateway) {
	t.Helper()
	for i, g := range gs {
		g.child = start(t, fmt.Sprintf("replica %d", i), g.dir, environ(),
			append([]string{curfew(t), "serve"}, g.flags...)...)
	}
	for _, g := range gs {
		g.await(t, "event=serving", 0, func(line string) bool { return strings.Contains(line, "event=serving") })
	}
}

// via is the same browser, which reaches the site through that replica: a load balancer picked it.
func (b *browser) via(g *gateway) *browser {
	client := *b.client
	client.Transport = &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr == strings.TrimPrefix(g.url, "http://") {
				addr = g.listen
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}}
	return &browser{b.name + " at " + g.listen, &client}
}

// ask asks a replica whether the browser is signed in, as a proxy in front of an app does.
func (b *browser) ask(g *gateway) (*page, error) {
	return b.via(g).try(http.MethodGet, g.url+"/auth/verify", nil, "Accept", "application/json")
}

// untilRefused asks until the answer is 401, and returns when it asked for the last time that was answered 200.
func (b *browser) untilRefused(ctx context.Context, g *gateway) (served time.Time, err error) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		asked := time.Now()
		switch got, err := b.ask(g); {
		case err != nil:
			return served, err
		case got.status == http.StatusUnauthorized:
			return served, nil
		case got.status == http.StatusOK:
			served = asked
		}
		select {
		case <-ctx.Done():
			return served, ctx.Err()
		case <-tick.C:
		}
	}
}

// outEverywhere watches a session on all replicas while it is ended. What it returns waits until all refuse it, and
// fails the test if one of them served it to somebody who asked more than the ceiling after done.
func (b *browser) outEverywhere(t *testing.T, gs []*gateway) (within func(done time.Time)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	t.Cleanup(cancel)
	served, errs := make([]time.Time, len(gs)), make([]error, len(gs))
	for i, g := range gs {
		all.Go(func() { served[i], errs[i] = b.untilRefused(ctx, g) })
	}
	return func(done time.Time) {
		t.Helper()
		all.Wait()
		for i := range gs {
			late := served[i].Sub(done)
			switch {
			case errs[i] != nil:
				t.Errorf("replica %d was asked about %s until %v", i, b.name, errs[i])
			case late > ceiling:
				t.Errorf("replica %d served %s to who asked %v after the logout was done", i, b.name, late)
			case !served[i].IsZero():
				t.Logf("replica %d served %s to who asked %v after the test knew that the logout was done", i, b.name,
					late)
			}
		}
	}
}

// The main job, on many machines: a session that began on one and is checked on another ends on all of them when the
// provider tells a third.
func TestEveryReplicaRefusesASessionThatWasEndedAtAnother(t *testing.T) {
	t.Parallel()
	for _, k := range engines() {
		for _, n := range []int{2, 4} {
			t.Run(fmt.Sprintf("%d on %s", n, k.name), func(t *testing.T) {
				t.Parallel()
				p, gs := site(t, k.start(t).url, n)
				p.start(t)
				run(t, gs)
				endedAtAnother(t, p, gs)
			})
		}
	}
}

func endedAtAnother(t *testing.T, p *provider, gs []*gateway) {
	last := gs[len(gs)-1]
	first, second, other := newBrowser("alice's first browser"), newBrowser("alice's second browser"),
		newBrowser("bob's browser")
	first.via(gs[0]).signIn(t, gs[0], "alice")
	second.via(gs[1]).signIn(t, gs[1], "alice")
	other.via(last).signIn(t, last, "bob")
	for _, g := range gs {
		for range 2 { // the second time from its cache
			first.via(g).mustBeIn(t, g, "alice")
			second.via(g).mustBeIn(t, g, "alice")
			other.via(g).mustBeIn(t, g, "bob")
		}
	}
	tab := first.via(gs[0]).listen(t, gs[0])
	stillIn := watch(t, last, map[*browser]string{second.via(gs[0]): "alice", other.via(gs[1]): "bob"})
	within := first.outEverywhere(t, gs)

	from := p.said()
	first.signOutAt(t, p)
	p.loggedOut(t, from, "backchannel.success", last)
	within(time.Now())
	if got := tab(); got != "ended" {
		t.Errorf("the tab that is open at another replica was told %q, want that its session has ended", got)
	}
	stillIn()
	for _, g := range gs {
		first.via(g).mustBeOut(t, g)
		second.via(g).mustBeIn(t, g, "alice")
		other.via(g).mustBeIn(t, g, "bob")
	}

	// The token has had its effect, whichever replica it comes to; and who signs in again is in everywhere.
	post, _ := p.event(t, from, "backchannel.post")
	first.via(gs[1]).signIn(t, gs[1], "alice")
	for _, g := range gs {
		again := newBrowser("somebody").via(g).post(t, g.url+"/auth/backchannel-logout",
			url.Values{"logout_token": {post.Token}})
		if again.status != http.StatusBadRequest || !strings.Contains(again.body, "already processed") {
			t.Errorf("a logout token that comes again should be refused as already processed: %v", again)
		}
		first.via(g).mustBeIn(t, g, "alice")
	}
}

// A refresh token of this provider works once, and twice ends the session. Replicas must not use it twice between them.
func TestReplicasThatNeedNewTokensAtTheSameMomentAskForThemOnce(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("slow: waits for an access token to run out")
	}
	for _, k := range engines() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			p, gs := site(t, k.start(t).url, 2)
			p.env = []string{"OP_REFRESH=always", "OP_ACCESS_TTL=2", "OP_NEXT_TTL=300"}
			p.start(t)
			run(t, gs)
			const people = 8
			from := p.said()
			var all []*browser
			for i := range people {
				b := newBrowser(fmt.Sprintf("person%d", i))
				b.via(gs[i%2]).signIn(t, gs[i%2], b.name)
				all = append(all, b)
			}

			runOut := time.NewTimer(2 * time.Second) // the last of them is due then
			defer runOut.Stop()
			<-runOut.C
			var asking sync.WaitGroup
			for _, b := range all {
				for _, g := range gs {
					for range 3 {
						asking.Go(func() {
							if wrong := b.via(g).isIn(g, b.name); wrong != "" {
								t.Errorf("while the session is refreshed: %s", wrong)
							}
						})
					}
				}
			}
			asking.Wait()
			if n := len(p.events(t, from, "refresh")); n != people {
				t.Errorf("%d sessions were refreshed %d times, want once each", people, n)
			}
			if failed := p.events(t, from, "refresh.error"); len(failed) > 0 {
				t.Errorf("the provider refused to refresh: %v", failed)
			}
			for _, b := range all {
				for _, g := range gs {
					b.via(g).mustBeIn(t, g, b.name)
				}
			}
		})
	}
}
