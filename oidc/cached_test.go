package oidc

import (
	"context"
	"errors"
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
