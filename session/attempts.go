package session

import (
	"context"
	"time"

	"example.com/curfew/store"
)

// ClaimAttempt is the method of [store.Attempts], by the manager's clock; life is how long the value is kept.
// [ErrUnavailable] when the store cannot do it.
func (m *Manager) ClaimAttempt(ctx context.Context, id store.AttemptID, value []byte, life time.Duration) (held []byte,
	err error) {
	now := m.Now()
	if held, err = m.cfg.Store.ClaimAttempt(ctx, id, value, store.Time(now.Add(life)), store.Time(now)); err != nil {
		return nil, unavailable(err)
	}
	return held, nil
}

// SettleAttempt is the method of [store.Attempts], by the manager's clock.
func (m *Manager) CompleteAttempt(ctx context.Context, id store.AttemptID, value []byte) error {
	if err := m.cfg.Store.CompleteAttempt(ctx, id, value, store.Time(m.Now())); err != nil {
		return unavailable(err)
	}
	return nil
}

// Attempt is the method of [store.Attempts], by the manager's clock.
func (m *Manager) Attempt(ctx context.Context, id store.AttemptID) ([]byte, error) {
	value, err := m.cfg.Store.Attempt(ctx, id, store.Time(m.Now()))
	if err != nil {
		return nil, unavailable(err)
	}
	return value, nil
}
