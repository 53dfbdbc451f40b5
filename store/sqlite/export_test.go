package sqlite

import "context"

// Exec runs a statement on the connection that writes, where tests set traps.
func (s *Store) Exec(ctx context.Context, statement string) error {
	return s.write(ctx, func(w *writer) error {
		_, err := w.conn.ExecContext(context.Background(), statement)
		return err
	})
}
