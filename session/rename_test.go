package session_test

import (
	"fmt"
	"testing"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store"
)

func TestEverySIDThatASessionHadEndsItOnEveryReplica(t *testing.T) {
	t.Parallel()
	for _, brings := range [][]string{{"s2"}, {"s2", "s1"}, {"s2", "s3"}, {"s2", "", "s3", "s2", "s2"}} {
		for _, sid := range []string{"s1", "s2", "s3"} {
			for _, subject := range []string{"", "alice", "bob"} {
				t.Run(fmt.Sprintf("refreshes brought %q, a logout names %q of %q", brings, sid, subject),
					func(t *testing.T) {
						t.Parallel()
						p := &provider{}
						bubble(t, p.config(), func(b *bench) {
							other := b.replica(p.config())
							bearer, _ := b.signInFor(time.Minute)
							sibling, _ := b.signIn(session.Tokens{}) // which keeps s1
							has := map[string]bool{"s1": true}
							for _, to := range brings {
								p.sid, has[to] = to, true
								time.Sleep(5 * time.Minute)
								b.want(b.m, bearer, nil)
							}
							s := b.want(other, bearer, nil)
							if len(s.Former) > 2 || !s.HasSID("s1") || s.HasSID("") || s.HasSID("s4") {
								t.Errorf("it has %q, and had %q", s.SID, s.Former)
							}
							b.end(b.m, store.Selector{Subject: subject, SID: sid})
							time.Sleep(time.Second)
							var want error
							if has[sid] {
								want = store.ErrNotFound
							}
							b.want(b.m, bearer, want)
							b.want(other, bearer, want)
							if want = nil; sid == "s1" {
								want = store.ErrNotFound
							}
							b.want(other, sibling, want)
						})
					})
			}
		}
	}
}

// The logout comes to another replica than the one that refreshes: before the provider is asked, while it is, and
// after.
func TestALogoutOfAnySIDMeetsARefreshThatChangesIt(t *testing.T) {
	t.Parallel()
	for _, sid := range []string{"s1", "s2"} {
		for _, when := range []string{"before", "while", "after"} {
			t.Run(sid+" "+when, func(t *testing.T) {
				t.Parallel()
				p := &provider{sid: "s2"}
				bubble(t, p.config(), func(b *bench) {
					other := b.replica(p.config())
					bearer, _ := b.signInFor(time.Minute)
					b.want(other, bearer, nil)
					time.Sleep(2 * time.Minute)
					end := func() { b.end(other, store.Selector{SID: sid}) }
					p.between = func() {
						if when == "while" {
							end()
						}
					}
					var want error
					switch when {
					case "before":
						end()
						if sid == "s1" {
							want = store.ErrNotFound // of s2 the provider has said after it that it lives
						}
						time.Sleep(time.Second)
						b.want(b.m, bearer, want)
					case "while":
						want = store.ErrNotFound
						b.want(b.m, bearer, want)
						if len(p.orphaned) != 1 || p.orphaned[0].RefreshToken != "rt+" {
							t.Errorf("handed back: %d", len(p.orphaned))
						}
					case "after":
						b.want(b.m, bearer, nil)
						b.want(other, bearer, nil)
						end()
						time.Sleep(time.Second)
						want = store.ErrNotFound
						b.want(b.m, bearer, want)
					}
					b.want(other, bearer, want)
				})
			})
		}
	}
}

func TestASessionWhoseProviderGivesItSIDAfterSIDEnds(t *testing.T) {
	t.Parallel()
	p := &provider{}
	var ended []store.Ended
	cfg := p.config()
	cfg.OnEnded = func(e store.Ended) { ended = append(ended, e) }
	bubble(t, cfg, func(b *bench) {
		bearer, first := b.signInFor(time.Minute)
		for i := range 16 {
			p.sid = fmt.Sprint("other", i)
			time.Sleep(5 * time.Minute)
			b.want(b.m, bearer, nil)
		}
		page, err := b.store.List(t.Context(), store.Query{Issuer: issuer, ClientID: client, SID: "s1"}, b.m.Now())
		if err != nil || len(page.Records) != 1 || page.Records[0].Key != first.Key ||
			page.Records[0].SID != "other15" {
			t.Errorf("by the sid of its sign-in there are %d (error %v)", len(page.Records), err)
		}
		p.sid = "other3" // one that it had: there are no more than before
		time.Sleep(5 * time.Minute)
		b.want(b.m, bearer, nil)
		p.sid = "one too many"
		time.Sleep(5 * time.Minute)
		b.want(b.m, bearer, store.ErrNotFound)
		if len(ended) != 1 || ended[0].Cause != store.CauseTooManySIDs || ended[0].SID != "other3" {
			t.Errorf("ended: %+v", ended)
		}
		if len(p.orphaned) != 1 {
			t.Errorf("handed back: %d", len(p.orphaned))
		}
	})
}
