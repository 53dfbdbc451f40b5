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
	"example.com/curfew/keyring"
	"example.com/curfew/store"
)

// openStore opens the store and its keyring. An existing key file is read first, so that a bad one does not leave a new
// database behind. A missing one is created last, by the process that has opened the store.
func openStore(ctx context.Context, c *config.Config, log *slog.Logger) (store.Store, *keyring.Keyring, error) {
	var ring *keyring.Keyring
	_, missing := os.Stat(c.KeyFile)
	if missing == nil {
		var err error
		if ring, err = openKeyring(c); err != nil {
			return nil, nil, err
		}
	}
	backend, err := c.Store.Open(ctx, log)
	if err != nil {
		return nil, nil, err
	}
	if ring == nil {
		if ring, err = openKeyring(c); err != nil {
			return nil, nil, errors.Join(err, backend.Close())
		}
	}
	return backend, ring, nil
}

func openKeyring(c *config.Config) (*keyring.Keyring, error) {
	if c.KeyFile == "" {
		return keyring.Parse(keyring.NewFile())
	}
	if _, err := os.Stat(c.KeyFile); errors.Is(err, fs.ErrNotExist) && !c.Store.Embedded() {
		return nil, fmt.Errorf("key file: %w; replicas share one, so none is created here: "+
			"create it once, with %s, and give every replica the same", err, config.KeyCommand(c.KeyFile))
	}
	return curfew.KeyFile(c.KeyFile)
}
