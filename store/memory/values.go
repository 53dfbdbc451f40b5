package memory

import (
	"bytes"
	"context"

	"example.com/curfew/store"
)

// sharedValue is a value of [store.SharedValues].
type sharedValue struct {
	value    []byte
	revision int64
}

// Load implements [store.SharedValues].
func (s *Store) Load(ctx context.Context, name string) ([]byte, int64, error) {
	var found sharedValue
	err := s.do(ctx, func() error {
		found = s.values[name]
		return nil
	})
	return bytes.Clone(found.value), found.revision, err
}

// Save implements [store.SharedValues].
func (s *Store) Save(ctx context.Context, name string, value []byte, revision int64) error {
	if err := store.CheckSharedValue(name, value); err != nil {
		return err
	}
	return s.do(ctx, func() error {
		if s.values[name].revision != revision {
			return store.ErrConflict
		}
		s.values[name] = sharedValue{bytes.Clone(value), revision + 1}
		return nil
	})
}
