package session

import (
	"context"
	"time"

	"example.com/curfew/store"
)

// ClaimAttempt calls [store.Attempts] with the time of the manager; life is how long the value is kept. The error is
// [ErrUnavailable] if the store does not answer. Package login uses it and the two methods below.
func (m *Manager) ClaimAttempt(ctx context.Context, id store.AttemptID, value []byte,
	life time.Duration) (held []byte, err error) {
	now := m.Now()
	held, err = m.cfg.Store.ClaimAttempt(ctx, id, value, store.Time(now.Add(life)), store.Time(now))
	return held, unavailable(err)
}

// CompleteAttempt calls [store.Attempts] with the time of the manager.
func (m *Manager) CompleteAttempt(ctx context.Context, id store.AttemptID, value []byte) error {
	return unavailable(m.cfg.Store.CompleteAttempt(ctx, id, value, store.Time(m.Now())))
}

// Attempt calls [store.Attempts] with the time of the manager.
func (m *Manager) Attempt(ctx context.Context, id store.AttemptID) ([]byte, error) {
	value, err := m.cfg.Store.Attempt(ctx, id, store.Time(m.Now()))
	return value, unavailable(err)
}
