package storetest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

// Order begins logins at one replica and ends the sessions that they name at another, 0.1 ms to 2 s later, while the
// first replica reads the clock slowly. replica opens the same store once more; a store of one process has only one
// replica, so there it may return the same store.
func Order(t *testing.T, replica func(t *testing.T) store.Store) {
	ring, err := keyring.New(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	manager := func(t *testing.T, backend store.Store) *session.Manager {
		m, err := session.NewManager(session.Config{Store: backend, Keyring: ring, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { m.Run(ctx) })
		t.Cleanup(func() { cancel(); running.Wait() })
		return m
	}
	const late = 2 * time.Second
	for name, stall := range map[string]slow{
		"readings are quick":                       {},
		"a reading waits before it is sent":        {before: late},
		"the replica is suspended after an answer": {after: late},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := replica(t)
			var readings sync.RWMutex // held by each reading, which may outlast its caller
			stall.readings = &readings
			t.Cleanup(readings.Lock)
			login := manager(t, stall.of(backend))
			logout := login
			if backend.Clock().Now != nil {
				logout = manager(t, replica(t)) // which reads the clock quickly
			}
			var all sync.WaitGroup // not subtests, since no more of them run at once than there are processors
			for _, margin := range []time.Duration{100 * time.Microsecond, 500 * time.Microsecond, time.Millisecond,
				5 * time.Millisecond,
				20 * time.Millisecond, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second} {
				for i, who := range []store.Selector{{Subject: "s"}, {SID: "s"}, {Subject: "s", SID: "s"}} {
					all.Go(func() {
						if err := ordered(t.Context(), login, logout, who, fmt.Sprint(margin, i), margin); err != nil {
							t.Errorf("%v between, ended by %+v: %v", margin, who, err)
						}
					})
				}
			}
			all.Wait()
		})
	}
}

func ordered(ctx context.Context, login, logout *session.Manager, who store.Selector, name string,
	margin time.Duration) error {
	who.Issuer, who.ClientID = issuer, client
	for _, s := range []*string{&who.Subject, &who.SID} {
		if *s != "" {
			*s = name
		}
	}
	create := func(began time.Time, era string) error {
		_, _, err := login.Create(ctx, session.SignIn{Issuer: issuer, ClientID: client, Subject: name, SID: name,
			Began: began, Era: era})
		return err
	}
	began, era, err := login.Begin(ctx)
	if err != nil {
		return fmt.Errorf("Begin: %w", err)
	}
	time.Sleep(margin) // the delay is what this tests
	if _, err := logout.End(ctx, store.Ending{Selector: who, Cause: store.CauseBackChannel}); err != nil {
		return fmt.Errorf("End: %w", err)
	}
	if err := create(began, era); !errors.Is(err, store.ErrEnded) {
		return fmt.Errorf("a login from before the logout: %v, want %w", err, store.ErrEnded)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		if began, era, err = login.Begin(ctx); err != nil {
			return fmt.Errorf("Begin: %w", err)
		}
		if err = create(began, era); err == nil {
			return nil
		}
		if !errors.Is(err, store.ErrEnded) || time.Now().After(deadline) {
			return fmt.Errorf("a login from after the logout: %w", err)
		}
	}
}

// slow is how slowly a clock is read.
type slow struct {
	before, after time.Duration
	readings      *sync.RWMutex // read-locked by those under way
}

func (s slow) of(backend store.Store) store.Store {
	if backend.Clock().Now == nil || s.before+s.after == 0 {
		return backend
	}
	return slowly{backend, s}
}

type slowly struct {
	store.Store
	slow
}

func (s slowly) Clock() store.Clock { return store.Clock{Now: s.now} }

func (s slowly) now(ctx context.Context) (time.Time, error) {
	s.readings.RLock()
	defer s.readings.RUnlock()
	time.Sleep(s.before)
	at, err := s.Store.Clock().Now(ctx)
	time.Sleep(s.after)
	return at, err
}
