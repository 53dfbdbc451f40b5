package session_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// lasting is a store of one process that keeps its marks over a restart, as a file does.
type lasting struct{ store.Store }

func (lasting) Clock() store.Clock { return store.Clock{} }

// process returns the manager of a process whose clock is off.
func process(t *testing.T, backend store.Store, off time.Duration) *session.Manager {
	t.Helper()
	m, err := session.NewManager(session.Config{Store: backend, Keyring: ring(t, 1),
		Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return time.Now().Add(off) }})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A process that was started anew may have another clock than the one before: its stamps tell nothing, and any mark
// that is still there bars a login from before.
func TestALoginFromBeforeARestartIsBarredByAnyMark(t *testing.T) {
	t.Parallel()
	alice := store.Selector{Issuer: issuer, ClientID: client, Subject: "alice"}
	for _, row := range []struct {
		why         string
		off         time.Duration  // of the clock of the process before
		early, late store.Selector // who is logged out before the restart, and after it
		want        error
	}{
		{"the clock was ahead, the logout came after the restart", 10 * time.Minute, store.Selector{}, alice,
			store.ErrEnded},
		{"the clock was ahead, the logout came before", 10 * time.Minute, alice, store.Selector{}, store.ErrEnded},
		{"the clock was behind, the logout came after", -10 * time.Minute, store.Selector{}, alice, store.ErrEnded},
		{"the clock was behind, the logout came before", -10 * time.Minute, alice, store.Selector{}, store.ErrEnded},
		{"the clock was right, the logout came after", 0, store.Selector{}, alice, store.ErrEnded},
		{"the clock was ahead for longer than a login may take", time.Hour, store.Selector{}, alice, store.ErrEnded},
		{"nobody was logged out", 10 * time.Minute, store.Selector{}, store.Selector{}, nil},
		{"another person was", 10 * time.Minute, store.Selector{},
			store.Selector{Issuer: issuer, ClientID: client, Subject: "bob"}, nil},
	} {
		t.Run(row.why, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				backend := lasting{memory.New()}
				end := func(m *session.Manager, who store.Selector) {
					time.Sleep(time.Second)
					if who.Issuer == "" {
						return
					}
					if _, err := m.End(t.Context(), store.Ending{Selector: who,
						Cause: store.CauseBackChannel}); err != nil {
						t.Fatal(err)
					}
				}
				before := process(t, backend, row.off)
				began, era, err := before.Begin(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				end(before, row.early)
				after := process(t, backend, 0)
				end(after, row.late)
				_, _, err = after.Create(t.Context(), session.SignIn{Issuer: issuer, ClientID: client, Subject: "alice",
					Began: began, Era: era})
				if !errors.Is(err, row.want) {
					t.Errorf("got %v, want %v", err, row.want)
				}
			})
		})
	}
}

// The marks in a file are in the time of the process that made them. While the clock of the next one has not come as
// far, a login is refused that nobody has ended: that is safe, and passes.
func TestALoginAfterALogoutWaitsForAClockThatIsBehindThatOfTheProcessBefore(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		behind, wait time.Duration
		want         error
	}{
		{0, 0, nil},
		{80 * time.Second, 79 * time.Second, store.ErrEnded},
		{80 * time.Second, 81 * time.Second, nil},
		{-80 * time.Second, 0, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			backend := lasting{memory.New()}
			if _, err := process(t, backend, row.behind).End(t.Context(), store.Ending{Cause: store.CauseBackChannel,
				Selector: store.Selector{Issuer: issuer, ClientID: client, Subject: "alice"}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond + row.wait)
			after := process(t, backend, 0)
			began, era, err := after.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := after.Create(t.Context(), session.SignIn{Issuer: issuer, ClientID: client, Subject: "alice",
				Began: began, Era: era}); !errors.Is(err, row.want) {
				t.Errorf("%v behind, after %v: got %v, want %v", row.behind, row.wait, err, row.want)
			}
		})
	}
}

// mute is a store that replicas share, whose clock can be silenced.
type mute struct {
	store.Store
	silent *atomic.Pointer[error]
	hangs  *atomic.Bool
}

func (s mute) Clock() store.Clock { return store.Clock{Now: s.now} }

func (s mute) now(ctx context.Context) (time.Time, error) {
	if s.hangs.Load() {
		<-ctx.Done()
		return time.Time{}, ctx.Err()
	}
	if err := s.silent.Load(); err != nil {
		return time.Time{}, *err
	}
	return time.Now(), nil
}

// muted runs a test with a manager whose clock is silent or hangs.
func muted(t *testing.T, test func(t *testing.T, m *session.Manager, away func(bool))) {
	for _, hangs := range []bool{false, true} {
		t.Run(fmt.Sprint("it hangs: ", hangs), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				backend := mute{memory.New(), new(atomic.Pointer[error]), new(atomic.Bool)}
				m, err := session.NewManager(session.Config{Store: backend, Keyring: ring(t, 1),
					Log: slog.New(slog.DiscardHandler)})
				if err != nil {
					t.Fatal(err)
				}
				gone := errors.New("the server does not answer")
				test(t, m, func(away bool) {
					switch {
					case hangs:
						backend.hangs.Store(away)
					case away:
						backend.silent.Store(&gone)
					default:
						backend.silent.Store(nil)
					}
				})
			})
		})
	}
}

func alice(began time.Time, era string) session.SignIn {
	return session.SignIn{Issuer: issuer, ClientID: client, Subject: "alice", Began: began, Era: era}
}

// Before the first reading nobody knows the store's time: nothing is decided by a clock that was never compared.
func TestBeforeTheFirstReadingOfTheClockNothingIsDecided(t *testing.T) {
	t.Parallel()
	muted(t, func(t *testing.T, m *session.Manager, away func(bool)) {
		away(true)
		began, era := time.Now(), "store"
		for what, do := range map[string]func() error{
			"Begin":  func() error { _, _, err := m.Begin(t.Context()); return err },
			"Create": func() error { _, _, err := m.Create(t.Context(), alice(began, era)); return err },
			"Get": func() error {
				_, err := m.Get(t.Context(),
					session.NewBearer(issuer, client, "alice"))
				return err
			},
			"End": func() error {
				_, err := m.End(t.Context(), store.Ending{Selector: store.Selector{Issuer: issuer, ClientID: client,
					Subject: "alice"}})
				return err
			},
		} {
			if err := do(); !errors.Is(err, session.ErrUnavailable) {
				t.Errorf("%s: %v, want %v", what, err, session.ErrUnavailable)
			}
		}
		away(false)
		began, era, err := m.Begin(t.Context())
		if err != nil {
			t.Fatalf("Begin: %v", err)
		}
		if _, _, err := m.Create(t.Context(), alice(began, era)); err != nil {
			t.Errorf("Create: %v", err)
		}
	})
}

// A reading that is a minute old no longer does for a login; who is signed in stays so, and logouts are carried out.
func TestWithoutANewReadingOfTheClockForAMinuteNobodySignsIn(t *testing.T) {
	t.Parallel()
	muted(t, func(t *testing.T, m *session.Manager, away func(bool)) {
		began, era, err := m.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		bearer, s, err := m.Create(t.Context(), alice(began, era))
		if err != nil {
			t.Fatal(err)
		}
		away(true)
		time.Sleep(50 * time.Second)
		if began, era, err = m.Begin(t.Context()); err != nil {
			t.Errorf("Begin, 50 s after the last reading: %v", err)
		}
		time.Sleep(10 * time.Second)
		if _, _, err := m.Begin(t.Context()); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("Begin, a minute after it: %v, want %v", err, session.ErrUnavailable)
		}
		if _, _, err := m.Create(t.Context(), alice(began, era)); !errors.Is(err, session.ErrUnavailable) {
			t.Errorf("Create, a minute after it: %v, want %v", err, session.ErrUnavailable)
		}
		if _, err := m.Get(t.Context(), bearer); err != nil {
			t.Errorf("Get: %v", err)
		}
		ended, err := m.End(t.Context(), store.Ending{Selector: store.Selector{Issuer: issuer, ClientID: client,
			Key: s.Key}})
		if err != nil || len(ended) != 1 {
			t.Errorf("End: %d ended, %v", len(ended), err)
		}
		away(false)
		if began, era, err = m.Begin(t.Context()); err != nil {
			t.Fatalf("Begin, as soon as the clock can be read: %v", err)
		}
		if _, _, err := m.Create(t.Context(), alice(began, era)); err != nil {
			t.Errorf("Create, as soon as the clock can be read: %v", err)
		}
	})
}
