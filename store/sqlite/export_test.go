package sqlite

import (
	"context"
	"runtime"

	"example.com/curfew/store"
)

// Exec runs a statement on the connection that writes, where tests set traps.
func (s *Store) Exec(ctx context.Context, statement string) error {
	return s.write(ctx, "test", func(w *writer) error {
		_, err := w.conn.ExecContext(context.Background(), statement)
		return err
	})
}

// Write has fn called by the writer, in the middle of a change.
func (s *Store) Write(ctx context.Context, fn func()) error {
	return s.write(ctx, "test", func(*writer) error { fn(); return nil })
}

// Block keeps the writer busy until release is called.
func (s *Store) Block() (release func()) {
	began, gate, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		s.write(context.Background(), "test", func(*writer) error { close(began); <-gate; return nil })
	}()
	<-began
	return func() { close(gate); <-done }
}

// WaitQueued returns when n changes wait for the writer.
func (s *Store) WaitQueued(n int) {
	for len(s.changes) < n {
		runtime.Gosched()
	}
}

// Statements returns every statement that the store prepares, by its text.
func Statements() []string {
	var all []string
	for _, s := range append(new(writer).statements(), new(reader).statements()...) {
		all = append(all, s.sql)
	}
	return all
}

// Fill inserts n sessions, many in a transaction.
func (s *Store) Fill(ctx context.Context, n int, record func(int) store.Record) error {
	const atOnce = 5000
	for from := 0; from < n; from += atOnce {
		err := s.write(ctx, "test", func(w *writer) error {
			for i := from; i < min(from+atOnce, n); i++ {
				r := record(i)
				if err := oneRow(errExists, w.insertSession, r.Key[:], r.Issuer, r.ClientID, r.Subject, r.SID, "",
					store.Micros(r.Created), store.Micros(r.LastSeen), store.Micros(r.IdleExpires),
					store.Micros(r.Expires), int64(r.Refresh), r.Payload); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
