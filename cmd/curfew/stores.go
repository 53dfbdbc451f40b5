package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"example.com/curfew"
	"example.com/curfew/keyring"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/store/postgres"
	"example.com/curfew/store/redis"
	"example.com/curfew/store/sqlite"
)

// storeURL is a store as --store names it.
type storeURL struct {
	scheme string
	rest   string // after the colon
	kind   storeKind
}

// String leaves out what may be a password: who signs in at a server, and what follows the question mark.
func (s storeURL) String() string {
	rest, remote := strings.CutPrefix(s.rest, "//")
	if !remote || s.kind.embedded {
		return s.scheme + ":" + s.rest
	}
	rest, _, _ = strings.Cut(rest, "?")
	hosts, path, _ := strings.Cut(rest, "/")
	shown := s.scheme + "://" + hosts[strings.LastIndexByte(hosts, '@')+1:]
	if path != "" {
		shown += "/" + path
	}
	return shown
}

// storeKind is what the command knows about one kind of store.
type storeKind struct {
	shape    string // how it is written, where help lists the stores; empty: not listed
	embedded bool   // it lives in this process, so a key file can be made for it
	check    func(rest string) error
	open     func(ctx context.Context, rest string, log *slog.Logger) (store.Store, error)
	// openAsItIs opens one of an older release only if it need not be changed for that; nil: open changes nothing.
	openAsItIs func(ctx context.Context, rest string, log *slog.Logger) (store.Store, error)
	older      func(error) bool         // whether openAsItIs failed because something would have to be changed
	keyFile    func(rest string) string // where the key file is by default
	file       func(rest string) string // the one file that holds it, if it is one
	inUse      func(error) bool         // whether open failed because a running curfew has it
}

// stores is every kind that can be named.
func stores() map[string]storeKind {
	return map[string]storeKind{
		"memory": {
			shape: "memory:", embedded: true,
			check: func(rest string) error {
				if rest != "" {
					return errors.New("memory: takes nothing after the colon")
				}
				return nil
			},
			open: func(context.Context, string, *slog.Logger) (store.Store, error) { return memory.New(), nil },
		},
		"sqlite": {
			shape: "sqlite:PATH", embedded: true,
			check: func(rest string) error {
				if rest == "" || strings.HasSuffix(rest, "/") || strings.HasPrefix(rest, "//") && !strings.HasPrefix(rest, "///") {
					return errors.New("sqlite: takes the path of a file, like sqlite:curfew.db or sqlite:/var/lib/curfew/curfew.db")
				}
				return nil
			},
			open: func(ctx context.Context, path string, _ *slog.Logger) (store.Store, error) {
				return sqlite.Open(ctx, path, sqlite.Options{})
			},
			openAsItIs: func(ctx context.Context, path string, _ *slog.Logger) (store.Store, error) {
				return sqlite.Open(ctx, path, sqlite.Options{AsItIs: true})
			},
			older:   func(err error) bool { return errors.Is(err, sqlite.ErrNotMigrated) },
			file:    func(path string) string { return path },
			inUse:   func(err error) bool { return errors.Is(err, sqlite.ErrInUse) },
			keyFile: func(path string) string { return strings.TrimSuffix(path, filepath.Ext(path)) + ".key" },
		},
		"postgres":        postgresKind("postgres"),
		"postgresql":      postgresKind("postgresql"),
		"redis":           redisKind("redis", "redis://HOST"),
		"rediss":          redisKind("rediss", ""),
		"redis+cluster":   redisKind("redis+cluster", "redis+cluster://HOST,HOST"),
		"rediss+cluster":  redisKind("rediss+cluster", ""),
		"redis+sentinel":  redisKind("redis+sentinel", "redis+sentinel://HOST,HOST/NAME"),
		"rediss+sentinel": redisKind("rediss+sentinel", ""),
	}
}

func redisKind(scheme, shape string) storeKind {
	return storeKind{
		shape: shape,
		check: func(rest string) error { return redis.CheckAddress(scheme + ":" + rest) },
		open: func(ctx context.Context, rest string, log *slog.Logger) (store.Store, error) {
			return redis.Open(ctx, scheme+":"+rest, redis.Options{Log: log})
		},
	}
}

// postgresKind is one of the two names that libpq knows.
func postgresKind(scheme string) storeKind {
	k := storeKind{
		check: func(rest string) error {
			if !strings.HasPrefix(rest, "//") {
				return errors.New(scheme + ": is written like " + scheme + "://user:password@host:5432/database")
			}
			return nil
		},
		open: func(ctx context.Context, rest string, _ *slog.Logger) (store.Store, error) {
			return postgres.Open(ctx, scheme+":"+rest, postgres.Options{})
		},
		openAsItIs: func(ctx context.Context, rest string, _ *slog.Logger) (store.Store, error) {
			return postgres.Open(ctx, scheme+":"+rest, postgres.Options{AsItIs: true})
		},
		older: func(err error) bool { return errors.Is(err, postgres.ErrNotMigrated) },
	}
	if scheme == "postgres" {
		k.shape = "postgres://…"
	}
	return k
}

// storeNames lists the stores that can be had, for help.
func storeNames() string {
	var all []string
	for _, k := range stores() {
		if k.shape != "" {
			all = append(all, k.shape)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func parseStore(s string) (storeURL, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	kind, known := stores()[scheme]
	switch {
	case !ok || !known:
		// The rest may hold a password, so it is not repeated.
		return storeURL{}, fmt.Errorf("%q is not a store; there are: %s", scheme, storeNames())
	case kind.open == nil:
		return storeURL{}, fmt.Errorf("%s: is not in this release yet; there are: %s", scheme, storeNames())
	}
	if err := kind.check(rest); err != nil {
		return storeURL{}, err
	}
	return storeURL{scheme, rest, kind}, nil
}

// openStore opens the store and its key ring. A key file that is there is read first, so that a bad one leaves no
// database behind; a new one is made last, by whoever got the store.
func (c *config) openStore(ctx context.Context, log *slog.Logger) (backend store.Store, ring *keyring.Keyring, err error) {
	if _, missing := os.Stat(c.KeyFile); missing == nil {
		if ring, err = c.openRing(); err != nil {
			return nil, nil, err
		}
	}
	if backend, err = c.Store.kind.open(ctx, c.Store.rest, log); err != nil {
		return nil, nil, err
	}
	if ring == nil {
		if ring, err = c.openRing(); err != nil {
			return nil, nil, errors.Join(err, backend.Close())
		}
	}
	return backend, ring, nil
}

func (c *config) openRing() (*keyring.Keyring, error) {
	if c.KeyFile == "" {
		return keyring.Parse(keyring.NewFile())
	}
	if _, err := os.Stat(c.KeyFile); errors.Is(err, fs.ErrNotExist) && !c.Store.kind.embedded {
		return nil, fmt.Errorf("key file: %w; replicas share one, so none is made here: make it once, with %s, and give every replica the same",
			err, keyCommand(c.KeyFile))
	}
	return curfew.KeyFile(c.KeyFile)
}

// keyCommand is what makes a key file, for a shell.
func keyCommand(name string) string {
	plain := func(c rune) bool {
		return unicode.IsLetter(c) || unicode.IsDigit(c) || strings.ContainsRune("/._-+@%:", c)
	}
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return !plain(c) }) {
		name = "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return "(umask 077; head -c 32 /dev/urandom | base64 > " + name + ")"
}
