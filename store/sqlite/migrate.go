package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"
)

//go:embed migrations/*.sql
var migrations embed.FS

// application is the application_id of Curfew's databases in the header of the file: "crfw".
const application = 0x63726677

// migrate brings the database to the newest schema of this release, or with noMigration only checks that it has it.
func migrate(ctx context.Context, db *sql.DB, noMigration bool) error {
	if err := checkApplication(ctx, db, noMigration); err != nil {
		return err
	}
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files,
		goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	has, knows, err := p.GetVersions(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read the version of its schema: %w", err)
	case has > knows:
		return fmt.Errorf("a newer curfew wrote this file (schema %d, this release knows up to %d)", has, knows)
	case has < knows && noMigration:
		return fmt.Errorf("%w (schema %d, this release has %d)", ErrNotMigrated, has, knows)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("bring its schema from %d to %d: %w", has, knows, err)
	}
	return nil
}

// checkApplication accepts a new database, which it marks as Curfew's, and one of Curfew's. It refuses all others.
func checkApplication(ctx context.Context, db *sql.DB, noMigration bool) error {
	var id, objects int
	if err := db.QueryRowContext(ctx, `PRAGMA application_id`).Scan(&id); err != nil {
		return err
	}
	if err := db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&objects); err != nil {
		return err
	}
	if id == application {
		return nil
	}
	switch {
	case id != 0 || objects != 0:
		return errors.New("this is a database, but not one of curfew's")
	case noMigration:
		return ErrNotMigrated
	}
	_, err := db.ExecContext(ctx, fmt.Sprintf(`PRAGMA application_id = %d`, application))
	return err
}
