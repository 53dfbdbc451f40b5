package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"example.com/curfew"
	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/session"
)

// openStore opens the store and its key ring. A key file that exists is read first, so that a bad one leaves no
// database behind. A new one is made last, by the process that got the store.
func openStore(ctx context.Context, c *config.Config, log *slog.Logger) (session.Store, *session.Ring, error) {
	var ring *session.Ring
	_, missing := os.Stat(c.KeyFile)
	if missing == nil {
		var err error
		if ring, err = openRing(c); err != nil {
			return nil, nil, err
		}
	}
	store, err := c.Store.Open(ctx, log)
	if err != nil {
		return nil, nil, err
	}
	if ring == nil {
		if ring, err = openRing(c); err != nil {
			return nil, nil, errors.Join(err, store.Close())
		}
	}
	return store, ring, nil
}

func openRing(c *config.Config) (*session.Ring, error) {
	if c.KeyFile == "" {
		return session.ParseRing(session.NewKeyFile())
	}
	if _, err := os.Stat(c.KeyFile); errors.Is(err, fs.ErrNotExist) && !c.Store.Embedded() {
		return nil, fmt.Errorf("key file: %w; replicas share one, so none is made here: "+
			"make it once, with %s, and give every replica the same", err, config.KeyCommand(c.KeyFile))
	}
	return curfew.KeyFile(c.KeyFile)
}
