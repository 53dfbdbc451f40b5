package session_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store"
)

// provider is the token endpoint, as far as the manager knows it.
type provider struct {
	calls    atomic.Int64
	takes    time.Duration
	answer   error
	sid      string
	between  func()
	orphaned []session.Tokens
}

func (p *provider) config() session.Config {
	return session.Config{
		RefreshGrace: 10 * time.Minute,
		Refresh: func(ctx context.Context, s *session.Session) (session.Renewal, error) {
			p.calls.Add(1)
			if p.takes > 0 {
				select {
				case <-time.After(p.takes):
				case <-ctx.Done():
					return session.Renewal{}, ctx.Err()
				}
			}
			if p.between != nil {
				p.between()
			}
			if p.answer != nil {
				return session.Renewal{}, p.answer
			}
			return session.Renewal{SID: p.sid, Claims: s.Claims,
				Tokens: session.Tokens{AccessToken: "new", RefreshToken: s.Tokens.RefreshToken + "+",
					Expires: time.Now().Add(5 * time.Minute)}}, nil
		},
		Notices: &notifier{orphaned: func(t session.Tokens) { p.orphaned = append(p.orphaned, t) }},
	}
}

func (b *bench) signInFor(life time.Duration) (session.Bearer, *session.Session) {
	return b.signIn(session.Tokens{AccessToken: "old", RefreshToken: "rt", Expires: b.m.Now().Add(life)})
}

func TestAnExpiredAccessTokenIsRefreshedOnceForAllRequestsAndReplicas(t *testing.T) {
	t.Parallel()
	p := &provider{takes: time.Second}
	bubble(t, p.config(), func(b *bench) {
		other := b.replica(p.config())
		bearer, _ := b.signInFor(5 * time.Minute)
		time.Sleep(5*time.Minute - 1)
		b.want(b.m, bearer, nil)
		b.want(other, bearer, nil)
		if p.calls.Load() != 0 {
			t.Error("refreshed before it was due")
		}
		time.Sleep(1)
		var all sync.WaitGroup
		for i := range 100 {
			m := b.m
			if i%2 == 1 {
				m = other
			}
			all.Go(func() {
				if s := b.want(m, bearer, nil); s.Tokens.AccessToken != "new" || s.Tokens.RefreshToken != "rt+" {
					t.Errorf("tokens %#v", s.Tokens.AccessToken)
				}
			})
		}
		all.Wait()
		if n := p.calls.Load(); n != 1 {
			t.Errorf("the provider was asked %d times", n)
		}
	})
}

func TestARefreshGoesOnWhenItsRequestGoesAway(t *testing.T) {
	t.Parallel()
	p := &provider{takes: time.Second}
	bubble(t, p.config(), func(b *bench) {
		bearer, _ := b.signInFor(0)
		ctx, cancel := context.WithTimeout(b.t.Context(), time.Millisecond)
		defer cancel()
		if _, err := b.m.Get(ctx, bearer); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Get: %v", err)
		}
		time.Sleep(time.Second)
		if s := b.want(b.m, bearer, nil); s.Tokens.AccessToken != "new" || p.calls.Load() != 1 {
			t.Errorf("after %d calls the access token is %q", p.calls.Load(), s.Tokens.AccessToken)
		}
	})
}

func TestARefreshUnderWayCannotReviveAnEndedSessionAndItsTokensAreHandedBack(t *testing.T) {
	t.Parallel()
	p := &provider{}
	bubble(t, p.config(), func(b *bench) {
		bearer, s := b.signInFor(0)
		p.between = func() { b.end(b.m, store.Selector{Key: s.Key}) }
		b.want(b.m, bearer, store.ErrNotFound)
		b.want(b.m, bearer, store.ErrNotFound)
		if len(p.orphaned) != 1 || p.orphaned[0].RefreshToken != "rt+" {
			t.Errorf("handed back: %d", len(p.orphaned))
		}
	})
}

func TestTheTokensOfASignInThatALogoutOvertookAreHandedBack(t *testing.T) {
	t.Parallel()
	p := &provider{}
	bubble(t, p.config(), func(b *bench) {
		began := b.m.Now()
		time.Sleep(time.Second)
		b.end(b.m, store.Selector{Subject: "alice"})
		_, _, err := b.m.Create(b.t.Context(), session.SignIn{Issuer: issuer, ClientID: client, Subject: "alice",
			Began:  began,
			Tokens: session.Tokens{RefreshToken: "rt", Inherited: []string{"of a session that may live"}}})
		if !errors.Is(err, store.ErrEnded) {
			t.Fatalf("Create: %v, want %v", err, store.ErrEnded)
		}
		if len(p.orphaned) != 1 || p.orphaned[0].RefreshToken != "rt" || len(p.orphaned[0].Inherited) != 0 {
			t.Errorf("handed back: %d", len(p.orphaned))
		}
	})
}

func TestASessionInheritsWhatTheOneBeforeItHeld(t *testing.T) {
	t.Parallel()
	var held session.Tokens
	for i := range 20 { // a browser that signs in again and again
		next := session.Tokens{RefreshToken: fmt.Sprint("rt", i)}
		if next.Inherit(held) != (i > 0) {
			t.Fatalf("number %d", i)
		}
		held = next
	}
	if len(held.Inherited) != 8 || held.Inherited[0] != "rt11" || held.Inherited[7] != "rt18" {
		t.Errorf("of 20 it inherited %q", held.Inherited)
	}
	for name, pair := range map[string][2]session.Tokens{
		"there was none":                   {{}, {RefreshToken: "new"}},
		"it would be lost with the new":    {{RefreshToken: "old"}, {}},
		"they are revoked by other rules":  {{RefreshToken: "old", Offline: true}, {RefreshToken: "new"}},
		"they are revoked by other rules,": {{RefreshToken: "old"}, {RefreshToken: "new", Offline: true}},
	} {
		if pair[1].Inherit(pair[0]) || pair[1].Inherited != nil {
			t.Errorf("%s, and it is inherited all the same", name)
		}
	}
}

func TestARejectedRefreshTokenEndsTheSession(t *testing.T) {
	t.Parallel()
	p := &provider{answer: session.ErrRefreshRejected}
	bubble(t, p.config(), func(b *bench) {
		bearer, s := b.signInFor(0)
		ended, stop := b.m.Watch(s.Key)
		defer stop()
		b.want(b.m, bearer, store.ErrNotFound)
		if cause := <-ended; cause != store.CauseRefreshRejected {
			t.Errorf("cause %q", cause)
		}
		if len(p.orphaned) != 0 {
			t.Errorf("%d tokens to revoke, and the provider has rejected the only one", len(p.orphaned))
		}
	})
}

// The provider has rejected the session's own refresh token, and not those of the sessions before it.
func TestWhatARejectedSessionInheritedIsHandedBack(t *testing.T) {
	t.Parallel()
	p := &provider{answer: session.ErrRefreshRejected}
	bubble(t, p.config(), func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{AccessToken: "old", RefreshToken: "rt", Expires: b.m.Now(), Offline: true,
			Inherited: []string{"rt-2", "rt-1"}})
		b.want(b.m, bearer, store.ErrNotFound)
		if len(p.orphaned) != 1 || p.orphaned[0].RefreshToken != "rt-1" || !p.orphaned[0].Offline ||
			!slices.Equal(p.orphaned[0].Inherited, []string{"rt-2"}) {
			t.Errorf("handed back: %+v", p.orphaned)
		}
	})
}

func TestAProviderThatIsAwayEndsNoSessionUntilTheGraceRunsOut(t *testing.T) {
	t.Parallel()
	p := &provider{answer: errors.New("connection refused")}
	bubble(t, p.config(), func(b *bench) {
		bearer, s := b.signInFor(0)
		ended, stop := b.m.Watch(s.Key)
		defer stop()
		for range 599 {
			b.want(b.m, bearer, nil)
			time.Sleep(time.Second)
		}
		if n := p.calls.Load(); n != 20 {
			t.Errorf("asked %d times in ten minutes, want one every 30 s", n)
		}
		time.Sleep(time.Minute)
		b.want(b.m, bearer, store.ErrNotFound)
		if cause := <-ended; cause != store.CauseProviderSilent {
			t.Errorf("cause %q", cause)
		}
	})
}

// The provider has given the session another sid, and what follows fails for now. Each such sid names the session: the
// answer 200 to a logout must mean that it is dead.
func TestASIDThatCameBeforeTheFailureOfARefreshNamesTheSession(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		sids  []string // that refreshes bring before the logout
		named string
	}{
		"the latest": {[]string{"s2"}, "s2"}, "of two": {[]string{"s2", "s3"}, "s2"},
		"of the sign-in": {[]string{"s2"}, "s1"},
	} {
		p := new(provider)
		cfg := p.config()
		cfg.Refresh = func(context.Context, *session.Session) (session.Renewal, error) {
			return session.Renewal{SID: p.sid}, errors.New("userinfo is away")
		}
		bubble(t, cfg, func(b *bench) {
			bearer, _ := b.signInFor(0)
			for _, p.sid = range row.sids {
				b.want(b.m, bearer, nil)
				time.Sleep(30 * time.Second)
			}
			b.end(b.m, store.Selector{SID: row.named})
			if _, err := b.m.Get(b.t.Context(), bearer); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("%s: after the logout: %v", name, err)
			}
		})
	}
}

// As above, and the logout comes before the sid is written.
func TestALogoutBySIDOvertakesARefreshThatFails(t *testing.T) {
	t.Parallel()
	p := new(provider)
	cfg := p.config()
	var b *bench
	cfg.Refresh = func(context.Context, *session.Session) (session.Renewal, error) {
		b.end(b.m, store.Selector{SID: "s2"})
		return session.Renewal{SID: "s2", Tokens: session.Tokens{RefreshToken: "rt+"}}, errors.New("userinfo is away")
	}
	bubble(t, cfg, func(made *bench) {
		b = made
		bearer, s := b.signInFor(0)
		ended, stop := b.m.Watch(s.Key)
		defer stop()
		b.want(b.m, bearer, store.ErrNotFound)
		if cause := <-ended; cause != store.CauseBackChannel {
			t.Errorf("cause %q", cause)
		}
		if len(p.orphaned) != 1 || p.orphaned[0].RefreshToken != "rt+" {
			t.Errorf("handed back: %d", len(p.orphaned))
		}
	})
}

func TestAPanicInTheMiddleOfARefreshIsTemporary(t *testing.T) {
	t.Parallel()
	p := &provider{between: func() { panic("the app fell over") }}
	bubble(t, p.config(), func(b *bench) {
		bearer, _ := b.signInFor(0)
		if s := b.want(b.m, bearer, nil); s.Tokens.AccessToken != "old" {
			t.Errorf("the access token is %q", s.Tokens.AccessToken)
		}
		p.between = nil
		time.Sleep(30 * time.Second)
		if s := b.want(b.m, bearer, nil); s.Tokens.AccessToken != "new" || p.calls.Load() != 2 {
			t.Errorf("after %d calls the access token is %q", p.calls.Load(), s.Tokens.AccessToken)
		}
	})
}

func TestAProviderThatComesBackWithinTheGraceIsAskedAgain(t *testing.T) {
	t.Parallel()
	p := &provider{answer: errors.New("connection refused")}
	bubble(t, p.config(), func(b *bench) {
		bearer, _ := b.signInFor(0)
		b.want(b.m, bearer, nil)
		p.answer = nil
		time.Sleep(30 * time.Second)
		if s := b.want(b.m, bearer, nil); s.Tokens.AccessToken != "new" {
			t.Error("not refreshed")
		}
	})
}

func TestARefreshWhoseReplicaDiedIsTakenOverWhenItsHoldRunsOut(t *testing.T) {
	t.Parallel()
	heir := &provider{}
	bubble(t, heir.config(), func(b *bench) {
		bearer, _ := b.signInFor(0)
		mine := b.store
		b.store = &faulty{Store: mine.Store} // the dying replica's own way to the same store
		killed := errors.New("killed")
		// so that nothing of the refresh is written
		dying := &provider{between: func() { b.store.failUpdate.Store(&killed) }}
		dead := b.replica(dying.config())
		ctx, cancel := context.WithTimeout(b.t.Context(), time.Second)
		defer cancel()
		dead.Get(ctx, bearer)
		if dying.calls.Load() != 1 {
			t.Fatal("the dying replica never held the session")
		}

		began := b.m.Now()
		if s := b.want(b.m, bearer, nil); s.Tokens.AccessToken != "new" || heir.calls.Load() != 1 {
			t.Error("not refreshed")
		}
		if waited := b.m.Now().Sub(began); waited < 13*time.Second || waited > 15*time.Second {
			t.Errorf("taken over after %v, want what was left of 15 s", waited)
		}
		time.Sleep(time.Minute) // the dead one gives up
	})
}

func TestTheTokensOfARefreshAreWrittenAfterAStoreThatWasAway(t *testing.T) {
	t.Parallel()
	p := &provider{takes: time.Second}
	bubble(t, p.config(), func(b *bench) {
		bearer, _ := b.signInFor(0)
		broken := errors.New("connection refused")
		p.between = func() {
			b.store.away.Store(&broken)
			time.AfterFunc(3*time.Second, func() { b.store.away.Store(nil) })
		}
		if s := b.want(b.m, bearer, nil); s.Tokens.RefreshToken != "rt+" {
			t.Error("the rotated refresh token is lost")
		}
	})
}

func TestASessionWithoutARefreshTokenOutlivesItsAccessToken(t *testing.T) {
	t.Parallel()
	p := &provider{}
	bubble(t, p.config(), func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{AccessToken: "old", Expires: b.m.Now()})
		b.want(b.m, bearer, nil)
		if p.calls.Load() != 0 {
			t.Error("the provider was asked")
		}
	})
}
