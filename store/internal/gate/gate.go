// Package gate lets the methods of a store run until the store is closed.
package gate

import (
	"context"
	"errors"
	"sync"
)

// ErrClosed is what every method of a closed store returns.
var ErrClosed = errors.New("the store is closed")

// Gate is open until Close. The zero Gate is open.
type Gate struct {
	inUse  sync.RWMutex // held for reading while a method runs, for writing to close
	closed bool
}

// Enter begins a method. If it returns nil, the method must call Leave at its end.
func (g *Gate) Enter(ctx context.Context) error {
	g.inUse.RLock()
	err := ctx.Err()
	if g.closed {
		err = ErrClosed
	}
	if err != nil {
		g.inUse.RUnlock()
	}
	return err
}

// Leave ends a method.
func (g *Gate) Leave() { g.inUse.RUnlock() }

// Close waits for the methods that are running, and then calls release, unless the gate is closed already.
func (g *Gate) Close(release func() error) error {
	g.inUse.Lock()
	defer g.inUse.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	return release()
}
