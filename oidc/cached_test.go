package oidc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestARefreshThatFailedIsTriedAgainAfterAMinuteBehindTheCallersBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked, broken := 0, false
		c := &cached[int]{now: time.Now, fresh: time.Hour, stale: 24 * time.Hour,
			fetch: func(context.Context) (int, error) {
				asked++
				if broken {
					return 0, errors.New("broken")
				}
				return asked, nil
			}}
		get := func(want, fetches int) {
			t.Helper()
			v, err := c.get(t.Context())
			synctest.Wait()
			if err != nil || v != want || asked != fetches {
				t.Fatalf("got %d, %v after %d fetches; want %d after %d", v, err, asked, want, fetches)
			}
		}
		get(1, 1)
		broken = true
		time.Sleep(time.Hour) // the bubble's clock
		get(1, 2)
		get(1, 2)
		time.Sleep(time.Minute - time.Nanosecond)
		get(1, 2)
		time.Sleep(time.Nanosecond)
		get(1, 3)
		broken = false
		time.Sleep(time.Minute)
		get(1, 4) // answered with the old one, and the new one is there for the next
		get(4, 4)
	})
}

func TestADocumentThatNobodyHasNeededForLongIsNotServedBeforeItWasFetchedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked, broken := 0, false
		c := &cached[int]{now: time.Now, fresh: time.Hour, stale: 24 * time.Hour,
			fetch: func(context.Context) (int, error) {
				if asked++; broken {
					return 0, errors.New("broken")
				}
				return asked, nil
			}}
		get := func(want int) {
			t.Helper()
			if v, err := c.get(t.Context()); err != nil || v != want {
				t.Fatalf("got %d, %v; want %d", v, err, want)
			}
		}
		get(1)
		time.Sleep(2 * time.Hour)
		get(2)
		time.Sleep(2 * time.Hour)
		broken = true
		get(2) // the provider is away: what there is has to do
		synctest.Wait()
	})
}

// The reason is the provider's last answer, not that there was no time to ask once more. One who does not wait gets it
// at once.
func TestWhoeverGivesUpWaitingForKeysIsToldTheLastAnswer(t *testing.T) {
	t.Parallel()
	for _, waits := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			asked, end := 0, make(chan struct{})
			defer close(end)
			keys := newKeySet(func(context.Context) (keysByID, error) {
				if asked++; asked > 1 {
					<-end
				}
				return nil, errors.New("connection refused")
			}, time.Now, func() {})
			began, list, took := time.Now(), keys.provider, holdFor
			if !waits {
				list, took = nil, 0
			}
			err := keys.verify(t.Context(), &signed{raw: "a token"}, nil, began, list)
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("waits: %v: %v", waits, err)
			}
			if got := time.Since(began); got != took {
				t.Errorf("waits: %v: it took %v, want %v", waits, got, took)
			}
		})
	}
}
