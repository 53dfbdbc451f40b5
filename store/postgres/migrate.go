package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

const (
	schemaTable = "curfew_schema"
	// schemaLock is an advisory lock: only one replica at a time migrates. "crfw".
	schemaLock = 0x63726677
)

// migrate brings the database to the newest schema of this release, or with noMigration only checks that it has it.
// Other replicas wait meanwhile.
func migrate(ctx context.Context, a *address, noMigration bool) (err error) {
	defer func() { err = explain(err) }()
	lock, err := a.connect(ctx, func(uint32) {})
	if err != nil {
		return err
	}
	defer drop(lock) // which releases the lock
	var pid uint32
	var schema *string
	if err := lock.QueryRow(ctx, `SELECT pg_backend_pid(), current_schema()::text`).Scan(&pid, &schema); err != nil {
		return err
	}
	// A pooler gives its clients process numbers of its own.
	if !a.pooler && pid != lock.PgConn().PID() {
		return errors.New(poolerHint)
	}
	if schema == nil {
		return errors.New("the search_path names no schema that exists")
	}
	if _, err := lock.Exec(ctx, `SELECT pg_advisory_lock($1::bigint)`, int64(schemaLock)); err != nil {
		return fmt.Errorf("wait for another replica that migrates the schema: %w", err)
	}
	if noMigration {
		var exists bool // checked here, since goose would create the table when it reads the version
		err := lock.QueryRow(ctx, `SELECT to_regclass($1::text) IS NOT NULL`, schemaTable).Scan(&exists)
		if err != nil || !exists {
			return cmp.Or(err, ErrNotMigrated)
		}
	}
	db := stdlib.OpenDB(*a.direct.Copy())
	defer db.Close()
	return up(ctx, db, noMigration)
}

func up(ctx context.Context, db *sql.DB, noMigration bool) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithTableName(schemaTable),
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	has, knows, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read the version of the schema: %w", err)
	}
	if has > knows {
		return fmt.Errorf("a newer curfew has been here (schema %d, this release knows up to %d)", has, knows)
	}
	if has == knows {
		return nil
	}
	if noMigration {
		return fmt.Errorf("%w (schema %d, this release has %d)", ErrNotMigrated, has, knows)
	}
	if _, err := p.Up(ctx); err != nil {
		var partial *goose.PartialError
		if errors.As(err, &partial) {
			err = partial.Err
		}
		return fmt.Errorf("bring the schema from %d to %d: %w", has, knows, err)
	}
	return nil
}
