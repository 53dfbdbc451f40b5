package redis

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"example.com/curfew/store"
	"github.com/redis/rueidis"
)

// ClaimAttempt implements [store.Attempts]. It does not wait for replicas.
func (s *Store) ClaimAttempt(
	ctx context.Context, id store.AttemptID, value []byte, expires, now time.Time,
) (held []byte, err error) {
	word, text, err := s.attempt(ctx, id, value, decimal(expires), until(expires, margin), now)
	if err != nil || word != "held" {
		return nil, err
	}
	return []byte(text), nil
}

// CompleteAttempt implements [store.Attempts].
func (s *Store) CompleteAttempt(ctx context.Context, id store.AttemptID, value []byte, now time.Time) error {
	_, _, err := s.attempt(ctx, id, value, "", "", now)
	return err
}

// attempt calls the script and returns its answer: a word, and the value that is held.
func (s *Store) attempt(
	ctx context.Context, id store.AttemptID, value []byte, expires, cleanUp string, now time.Time,
) (word, held string, err error) {
	if err := store.CheckAttempt(value); err != nil {
		return "", "", fmt.Errorf("redis: %w", err)
	}
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return "", "", err
	}
	defer leave()
	answer, err := s.run(ctx, call{s.scripts.attempt, []string{s.attemptKey(id), s.key(id[0], keyExpiry)},
		[]string{decimal(now), string(value), expires, cleanUp, keyAttempt + string(id[:])}})
	if err != nil {
		return "", "", err
	}
	word, rest, err := list(answer)
	if err == nil && len(rest) > 0 {
		held, err = text(rest[0])
	}
	return word, held, err
}

// Attempt implements [store.Attempts].
func (s *Store) Attempt(ctx context.Context, id store.AttemptID, now time.Time) ([]byte, error) {
	ctx, leave, err := s.read(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	raw, err := s.client.Do(ctx, s.client.B().Get().Key(s.attemptKey(id)).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, fmt.Errorf("redis: attempt: %w", err)
	}
	till, value, ok := strings.Cut(raw, " ")
	expires, err := strconv.ParseInt(till, 10, 64)
	if !ok || err != nil {
		return nil, errDamaged
	}
	if store.Micros(now) >= expires {
		return nil, store.ErrNotFound
	}
	return []byte(value), nil
}

func (s *Store) attemptKey(id store.AttemptID) string { return s.named(id[0], keyAttempt, id[:]) }
