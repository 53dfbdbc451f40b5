package memory

import (
	"bytes"
	"context"
	"time"

	"example.com/curfew/store"
)

// attempt is a value of [store.Attempts].
type attempt struct {
	timer
	id      store.AttemptID
	value   []byte
	expires time.Time
}

// ClaimAttempt implements [store.Attempts].
func (s *Store) ClaimAttempt(
	ctx context.Context, id store.AttemptID, value []byte, expires, now time.Time,
) (held []byte, err error) {
	if err := store.CheckAttempt(value); err != nil {
		return nil, err
	}
	expires, now = store.Time(expires), store.Time(now)
	err = s.do(ctx, func() error {
		a := s.attempts[id]
		switch {
		case a == nil:
			a = &attempt{id: id, value: bytes.Clone(value), expires: expires}
			s.attempts[id] = a
			s.attemptTimes.add(a, expires.UnixMicro(), 0)
		case now.Before(a.expires):
			held = bytes.Clone(a.value)
		default:
			a.value, a.expires = bytes.Clone(value), expires
			s.attemptTimes.move(a, expires.UnixMicro())
		}
		return nil
	})
	return held, err
}

// CompleteAttempt implements [store.Attempts].
func (s *Store) CompleteAttempt(ctx context.Context, id store.AttemptID, value []byte, now time.Time) error {
	if err := store.CheckAttempt(value); err != nil {
		return err
	}
	return s.do(ctx, func() error {
		a := s.attempts[id]
		if a == nil || !store.Time(now).Before(a.expires) {
			return store.ErrNotFound
		}
		a.value = bytes.Clone(value)
		return nil
	})
}

// Attempt implements [store.Attempts].
func (s *Store) Attempt(ctx context.Context, id store.AttemptID, now time.Time) (value []byte, err error) {
	err = s.do(ctx, func() error {
		a := s.attempts[id]
		if a == nil || !store.Time(now).Before(a.expires) {
			return store.ErrNotFound
		}
		value = bytes.Clone(a.value)
		return nil
	})
	return value, err
}
