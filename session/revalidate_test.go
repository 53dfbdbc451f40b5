package session_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store"
)

// asked is the provider as one that is asked every minute whether sessions go on.
func (p *provider) asked(perMinute int) session.Config {
	cfg := p.config()
	cfg.Revalidate, cfg.Refresh = func(ctx context.Context, s *session.Session) (session.Renewal, error) {
		r, err := p.config().Refresh(ctx, s)
		r.Tokens, r.Confirmed = s.Tokens, err == nil
		return r, err
	}, nil
	cfg.Revalidation = func(string, string) session.Revalidation {
		return session.Revalidation{Every: time.Minute, PerMinute: perMinute}
	}
	return cfg
}

func TestTheProviderIsAskedOnceAMinuteForAllRequestsAndReplicas(t *testing.T) {
	t.Parallel()
	p := &provider{}
	bubble(t, p.asked(0), func(b *bench) {
		other := b.replica(p.asked(0))
		bearer, _ := b.signIn(session.Tokens{AccessToken: "at"})
		for second := range 600 {
			time.Sleep(time.Second)
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() { b.want(b.m, bearer, nil) })
				all.Go(func() { b.want(other, bearer, nil) })
			}
			all.Wait()
			if asked, minutes := int(p.calls.Load()), (second+1)/60; asked != minutes {
				t.Fatalf("after %d s the provider was asked %d times", second+1, asked)
			}
		}
		// Nobody asks about a session that is not in use.
		time.Sleep(30 * time.Minute)
		if p.calls.Load() != 10 {
			t.Errorf("asked %d times", p.calls.Load())
		}
	})
}

func TestASessionThatTheProviderEndedIsRefusedAfterTheBound(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		answer error
		ended  store.Cause // empty: it goes on
	}{
		"it is over":            {session.ErrProviderEnded, store.CauseProviderEnded},
		"the grant is refused":  {session.ErrRefreshRejected, store.CauseRefreshRejected},
		"the person is refused": {session.ErrRefused, store.CauseRequire},
		"it does not answer":    {errors.New("503"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &provider{}
			cfg := p.asked(0)
			var causes []store.Cause
			cfg.OnEnded = func(e store.Ended) { causes = append(causes, e.Cause) }
			bubble(t, cfg, func(b *bench) {
				other := b.replica(p.asked(0))
				bearer, _ := b.signIn(session.Tokens{AccessToken: "at"})
				p.answer = row.answer
				time.Sleep(time.Minute - 1)
				b.want(b.m, bearer, nil)
				time.Sleep(1)
				if row.ended != "" {
					b.want(b.m, bearer, store.ErrNotFound)
					b.want(other, bearer, store.ErrNotFound)
					if len(causes) != 1 || causes[0] != row.ended {
						t.Errorf("ended: %v", causes)
					}
					return
				}
				// It goes on for the grace of ten minutes after the answer was due, and is asked about once a minute.
				for range 10 {
					b.want(b.m, bearer, nil)
					b.want(other, bearer, nil)
					time.Sleep(time.Minute)
				}
				b.want(other, bearer, store.ErrNotFound)
				if n := p.calls.Load(); n != 11 {
					t.Errorf("asked %d times", n)
				}
			})
		})
	}
}

func TestARequestWaitsForTheProviderOnlyWhenTheLastAnswerIsTooOld(t *testing.T) {
	t.Parallel()
	p := &provider{takes: 5 * time.Second}
	bubble(t, p.asked(0), func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{AccessToken: "at"})
		took := func(err error) time.Duration {
			began := time.Now()
			b.want(b.m, bearer, err)
			return time.Since(began)
		}
		time.Sleep(74 * time.Second)
		if d := took(nil); d != 500*time.Millisecond {
			t.Errorf("with an answer of 74 s it waited %v", d)
		}
		time.Sleep(10 * time.Second) // the answer came in the background, to a question at 74 s
		if d := took(nil); d != 0 || p.calls.Load() != 1 {
			t.Errorf("after the answer it waited %v, and the provider was asked %d times", d, p.calls.Load())
		}
		time.Sleep(65 * time.Second) // the answer is 75 s old
		if d := took(nil); d != 5*time.Second {
			t.Errorf("with an answer of 75 s it waited %v", d)
		}
		p.answer = session.ErrProviderEnded
		time.Sleep(2 * time.Minute)
		if d := took(store.ErrNotFound); d != 5*time.Second {
			t.Errorf("an ended one waited %v", d)
		}
	})
}

func TestALogoutDuringTheQuestionIsNotUndone(t *testing.T) {
	t.Parallel()
	p := &provider{}
	bubble(t, p.asked(0), func(b *bench) {
		bearer, s := b.signIn(session.Tokens{AccessToken: "at"})
		p.between = func() { b.end(b.m, store.Selector{Key: s.Key}) }
		time.Sleep(time.Minute)
		b.want(b.m, bearer, store.ErrNotFound)
		b.want(b.m, bearer, store.ErrNotFound)
	})
}

// The provider takes longer than a request waits, and a logout is answered meanwhile.
func TestWhoDoesNotWaitForTheProviderIsNotServedAfterALogout(t *testing.T) {
	t.Parallel()
	for _, here := range []bool{true, false} {
		p := &provider{takes: 5 * time.Second}
		bubble(t, p.asked(0), func(b *bench) {
			other := b.replica(p.asked(0))
			bearer, s := b.signIn(session.Tokens{AccessToken: "at"})
			time.Sleep(65 * time.Second)
			time.AfterFunc(100*time.Millisecond, func() {
				b.end(map[bool]*session.Manager{true: b.m, false: other}[here], store.Selector{SID: s.SID})
			})
			began := time.Now() // of a stream: a request would write its use, and fail then
			if _, _, err := b.m.Recheck(b.t.Context(), s.Key); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("ended here: %v: Recheck: %v", here, err)
			}
			if d := time.Since(began); d != 500*time.Millisecond {
				t.Errorf("it waited %v, so this shows nothing", d)
			}
			time.Sleep(10 * time.Second) // the question comes to its end
			b.want(b.m, bearer, store.ErrNotFound)
		})
	}
}

// One failed refresh is tried again soon, however rarely the provider is asked about the session.
func TestARefreshThatFailsIsTriedAgainSoonAlsoWithRevalidation(t *testing.T) {
	t.Parallel()
	p := &provider{answer: errors.New("connection refused")}
	cfg := p.config()
	cfg.Revalidate = cfg.Refresh
	cfg.Revalidation = func(string, string) session.Revalidation { return session.Revalidation{Every: time.Hour} }
	bubble(t, cfg, func(b *bench) {
		bearer, _ := b.signInFor(5 * time.Minute)
		time.Sleep(5 * time.Minute)
		b.want(b.m, bearer, nil)
		p.answer = nil
		time.Sleep(30 * time.Second)
		if s := b.want(b.m, bearer, nil); s.Tokens.AccessToken != "new" || p.calls.Load() != 2 {
			t.Errorf("after %d calls the access token is %q", p.calls.Load(), s.Tokens.AccessToken)
		}
	})
}

func TestTheProviderIsNeverAskedMoreThanItBears(t *testing.T) {
	t.Parallel()
	const limit = 12
	p := &provider{}
	bubble(t, p.asked(limit), func(b *bench) {
		other := b.replica(p.asked(limit))
		var bearers []session.Bearer
		for range 20 { // together they would be asked about 20 times a minute
			bearer, _ := b.signIn(session.Tokens{AccessToken: "at"})
			bearers = append(bearers, bearer)
		}
		var calls []int64
		for second := range 300 {
			time.Sleep(time.Second)
			for i, bearer := range bearers {
				if m := b.m; i%2 == second%2 {
					b.want(m, bearer, nil)
				} else {
					b.want(other, bearer, nil)
				}
			}
			calls = append(calls, p.calls.Load())
			if n := len(calls) - 61; n >= 0 && calls[len(calls)-1]-calls[n] > limit {
				t.Fatalf("asked %d times in the minute before %d s", calls[len(calls)-1]-calls[n], second)
			}
		}
		// Nearly all that it bears is used: four minutes of ten in a minute and more.
		if n := p.calls.Load(); n < 4*(limit-limit/6) {
			t.Errorf("asked %d times in five minutes", n)
		}
	})
}

func TestAnOpenStreamHasItsSessionAskedAboutAndIsNoUse(t *testing.T) {
	t.Parallel()
	p := &provider{}
	bubble(t, p.asked(0), func(b *bench) {
		bearer, s := b.signIn(session.Tokens{AccessToken: "at"})
		for range 5 {
			time.Sleep(time.Minute)
			got, next, err := b.m.Recheck(b.t.Context(), s.Key)
			if err != nil || !got.LastSeen.Equal(s.LastSeen) || !got.IdleExpires.Equal(s.IdleExpires) ||
				time.Until(next) > time.Minute {
				t.Fatalf("last seen %v, next %v, %v", got.LastSeen, next, err)
			}
		}
		p.answer = session.ErrProviderEnded
		ended, stop := b.m.Watch(s.Key)
		defer stop()
		time.Sleep(time.Minute)
		if _, _, err := b.m.Recheck(b.t.Context(), s.Key); !errors.Is(err, store.ErrNotFound) || p.calls.Load() != 6 {
			t.Errorf("%v, asked %d times", err, p.calls.Load())
		}
		synctest.Wait()
		if cause := <-ended; cause != store.CauseProviderEnded {
			t.Errorf("ended by %q", cause)
		}
		b.want(b.m, bearer, store.ErrNotFound)
	})
}

func TestWhatTheProviderSaysBoundsASession(t *testing.T) {
	t.Parallel()
	var says time.Time
	cfg := (&provider{}).config()
	cfg.Lifetime, cfg.IdleTimeout = time.Hour, time.Hour
	cfg.Refresh = func(_ context.Context, s *session.Session) (session.Renewal, error) {
		tokens := s.Tokens
		tokens.Expires = time.Now().Add(5 * time.Minute)
		return session.Renewal{Tokens: tokens, Claims: s.Claims, Expires: says}, nil
	}
	bubble(t, cfg, func(b *bench) {
		began := time.Now()
		_, s, err := b.m.Create(b.t.Context(), session.SignIn{Issuer: issuer, ClientID: client, Subject: "alice",
			Began: b.m.Now(), Expires: began.Add(24 * time.Hour)})
		if err != nil || !s.Expires.Equal(began.Add(time.Hour)) {
			t.Errorf("a bound beyond the lifetime: %v, %v", s, err)
		}
		bearer, s, err := b.m.Create(b.t.Context(), session.SignIn{Issuer: issuer, ClientID: client, Subject: "alice",
			Began: b.m.Now(), Expires: began.Add(10 * time.Minute),
			Tokens: session.Tokens{RefreshToken: "rt", Expires: began.Add(5 * time.Minute)}})
		if err != nil || !s.Expires.Equal(began.Add(10*time.Minute)) {
			t.Fatalf("it lasts until %v, %v", s.Expires, err)
		}
		for _, row := range []struct{ says, want time.Duration }{
			{20 * time.Minute, 20 * time.Minute}, {0, 20 * time.Minute}, {48 * time.Hour, time.Hour},
			{30 * time.Minute, 30 * time.Minute},
		} {
			if says = (time.Time{}); row.says != 0 {
				says = began.Add(row.says)
			}
			time.Sleep(5 * time.Minute)
			if s := b.want(b.m, bearer, nil); !s.Expires.Equal(began.Add(row.want)) {
				t.Errorf("said %v: it lasts for %v", row.says, s.Expires.Sub(began))
			}
		}
		says = time.Now() // it is over
		time.Sleep(5 * time.Minute)
		b.want(b.m, bearer, store.ErrNotFound)
	})
}
