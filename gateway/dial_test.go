package gateway

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestADialThatNobodyNeedsIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := new(lines)
		l.enter()
		if err := l.reserve(t.Context()); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := l.reserve(t.Context()); !errors.Is(err, errSpare) || time.Since(began) != spareWait {
			t.Errorf("a second connection for one request: %v after %v", err, time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.reserve(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("for a request that was given up: %v", err)
		}
		for what, wake := range map[string]func(){"a connection was closed": l.free, "there is one request more": l.enter} {
			done := make(chan error, 1)
			go func() { done <- l.reserve(t.Context()) }()
			synctest.Wait()
			wake()
			if err := <-done; err != nil {
				t.Errorf("when %s: %v", what, err)
			}
		}
	})
}
