package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"

	"example.com/curfew/store"
)

func (s *Store) valueKey(name string) string {
	n := hash('v', name)
	return s.named(n[0], keyValue, n[:])
}

// Load implements [store.SharedValues].
func (s *Store) Load(ctx context.Context, name string) (value []byte, revision int64, err error) {
	ctx, leave, err := s.read(ctx)
	if err != nil {
		return nil, 0, err
	}
	defer leave()
	parts, err := s.client.Do(ctx, s.client.B().Hmget().Key(s.valueKey(name)).Field("r", "v").Build()).AsStrSlice()
	if err != nil || len(parts) != 2 {
		return nil, 0, fmt.Errorf("redis: shared value: %w", cmp.Or(err, errAnswer))
	}
	if parts[0] == "" {
		return nil, 0, nil
	}
	if revision, err = strconv.ParseInt(parts[0], 10, 64); err != nil {
		return nil, 0, errDamaged
	}
	return []byte(parts[1]), revision, nil
}

// Save implements [store.SharedValues]. It waits for replicas, but succeeds without them, since the value is saved.
func (s *Store) Save(ctx context.Context, name string, value []byte, revision int64) error {
	if err := store.CheckSharedValue(name, value); err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	ctx, leave, err := s.change(ctx)
	if err != nil {
		return err
	}
	defer leave()
	n := hash('v', name)
	answer, err := s.runReplicated(ctx, n[0], call{s.scripts.save, []string{s.valueKey(name)},
		[]string{strconv.FormatInt(revision, 10), string(value)}}, s.timeout/2)
	if err != nil && !errors.Is(err, errReplicas) {
		return err
	}
	_, err = verdict(answer)
	return err
}
