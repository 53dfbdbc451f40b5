package stores

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"

	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/store/postgres"
	"example.com/curfew/store/redis"
	"example.com/curfew/store/sqlite"
)

// Address names a store: its scheme is the kind, and that kind parses what follows the colon. The zero Address names no
// store. Equal addresses name the same store.
type Address struct{ scheme, rest string }

// kind describes the stores of one scheme.
type kind struct {
	shape string // the form of an address, for help; empty: not listed
	check func(rest string) error
	// open opens a store. With unchanged it does not create one, and does not migrate one of an older release.
	open func(ctx context.Context, a Address, unchanged bool, log *slog.Logger) (store.Store, error)
}

// kinds returns all schemes.
func kinds() map[string]kind {
	return map[string]kind{
		"memory":          {"memory:", checkMemory, openMemory},
		"sqlite":          {"sqlite:PATH", checkSQLite, openSQLite},
		"postgres":        {"postgres://…", checkPostgres("postgres"), openPostgres},
		"postgresql":      {"", checkPostgres("postgresql"), openPostgres}, // libpq accepts both names
		"redis":           {"redis://HOST", checkRedis("redis"), openRedis},
		"rediss":          {"", checkRedis("rediss"), openRedis},
		"redis+cluster":   {"redis+cluster://HOST,HOST", checkRedis("redis+cluster"), openRedis},
		"rediss+cluster":  {"", checkRedis("rediss+cluster"), openRedis},
		"redis+sentinel":  {"redis+sentinel://HOST,HOST/NAME", checkRedis("redis+sentinel"), openRedis},
		"rediss+sentinel": {"", checkRedis("rediss+sentinel"), openRedis},
	}
}

// Shapes lists the forms of addresses, for help.
func Shapes() string {
	var all []string
	for _, k := range kinds() {
		if k.shape != "" {
			all = append(all, k.shape)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// Parse parses an address. The error holds nothing that may be a password.
func Parse(s string) (Address, error) {
	scheme, rest, ok := strings.Cut(s, ":")
	k, known := kinds()[scheme]
	if !ok || !known {
		return Address{}, fmt.Errorf("%q is not a store; there are: %s", scheme, Shapes())
	}
	if err := k.check(rest); err != nil {
		return Address{}, err
	}
	return Address{scheme, rest}, nil
}

// String returns the address without what may hold a password: the user, and the query.
func (a Address) String() string {
	rest, remote := strings.CutPrefix(a.rest, "//")
	if !remote || a.Embedded() {
		return a.scheme + ":" + a.rest
	}
	rest, _, _ = strings.Cut(rest, "?")
	hosts, path, _ := strings.Cut(rest, "/")
	shown := a.scheme + "://" + hosts[strings.LastIndexByte(hosts, '@')+1:]
	if path != "" {
		shown += "/" + path
	}
	return shown
}

// IsZero reports whether the address names no store.
func (a Address) IsZero() bool { return a.scheme == "" }

// Scheme returns the part before the colon.
func (a Address) Scheme() string { return a.scheme }

// Embedded reports whether only one process can use the store, so that its key file can be created for it.
func (a Address) Embedded() bool { return a.InMemory() || a.scheme == "sqlite" }

// InMemory reports whether the store ends with the process.
func (a Address) InMemory() bool { return a.scheme == "memory" }

// File returns the name of the file that holds the store, or "" if there is none.
func (a Address) File() string {
	if a.scheme == "sqlite" {
		return a.rest
	}
	return ""
}

// KeyFile returns the default key file of the store, or "" if there is no default.
func (a Address) KeyFile() string {
	name := a.File()
	if name == "" {
		return ""
	}
	return strings.TrimSuffix(name, filepath.Ext(name)) + ".key"
}

// Open opens the store, creates what is missing, and migrates the data of an older release.
func (a Address) Open(ctx context.Context, log *slog.Logger) (store.Store, error) {
	return a.open(ctx, false, log)
}

// OpenUnchanged opens the store without changing it. [IsOlder] reports whether its error means that [Address.Open]
// would migrate the store.
func (a Address) OpenUnchanged(ctx context.Context, log *slog.Logger) (store.Store, error) {
	return a.open(ctx, true, log)
}

func (a Address) open(ctx context.Context, unchanged bool, log *slog.Logger) (store.Store, error) {
	s, err := kinds()[a.scheme].open(ctx, a, unchanged, log)
	if err != nil {
		return nil, err // not s, which may be an interface that holds a nil pointer
	}
	return s, nil
}

// IsOlder reports whether a store could not be opened unchanged because an older release, or none, has used it.
func IsOlder(err error) bool {
	return errors.Is(err, sqlite.ErrNotMigrated) || errors.Is(err, postgres.ErrNotMigrated)
}

// IsInUse reports whether a store could not be opened because a running curfew uses it.
func IsInUse(err error) bool { return errors.Is(err, sqlite.ErrInUse) }

func checkMemory(rest string) error {
	if rest != "" {
		return errors.New("memory: takes nothing after the colon")
	}
	return nil
}

func openMemory(context.Context, Address, bool, *slog.Logger) (store.Store, error) {
	return memory.New(), nil
}

func checkSQLite(rest string) error {
	remote := strings.HasPrefix(rest, "//") && !strings.HasPrefix(rest, "///")
	if rest == "" || strings.HasSuffix(rest, "/") || remote {
		return errors.New("sqlite: takes the path of a file, like sqlite:curfew.db or sqlite:/var/lib/curfew/curfew.db")
	}
	return nil
}

func openSQLite(ctx context.Context, a Address, unchanged bool, _ *slog.Logger) (store.Store, error) {
	return sqlite.Open(ctx, a.rest, sqlite.Options{NoMigration: unchanged})
}

func checkPostgres(scheme string) func(string) error {
	return func(rest string) error {
		if !strings.HasPrefix(rest, "//") {
			return errors.New(scheme + ": is written like " + scheme + "://user:password@host:5432/database")
		}
		return nil
	}
}

func openPostgres(ctx context.Context, a Address, unchanged bool, _ *slog.Logger) (store.Store, error) {
	return postgres.Open(ctx, a.scheme+":"+a.rest, postgres.Options{NoMigration: unchanged})
}

func checkRedis(scheme string) func(string) error {
	return func(rest string) error { return redis.CheckAddress(scheme + ":" + rest) }
}

// openRedis ignores unchanged: there is no migration.
func openRedis(ctx context.Context, a Address, _ bool, log *slog.Logger) (store.Store, error) {
	return redis.Open(ctx, a.scheme+":"+a.rest, redis.Options{Log: log})
}

// Warnings returns a logger for a store that is being opened, which passes on each of its warnings: what is wrong, and
// what to do.
func Warnings(tell func(what, todo string)) *slog.Logger { return slog.New(warnings(tell)) }

type warnings func(what, todo string)

func (warnings) Enabled(context.Context, slog.Level) bool { return true }
func (w warnings) WithAttrs([]slog.Attr) slog.Handler     { return w }
func (w warnings) WithGroup(string) slog.Handler          { return w }
func (w warnings) Handle(_ context.Context, r slog.Record) error {
	what, todo, ok := strings.Cut(r.Message, ": ")
	if !ok {
		todo = "see docs/stores-redis.md or docs/stores-postgres.md"
	}
	w(what, todo)
	return nil
}
