package observed_test

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/store/observed"
	"example.com/curfew/store/storetest"
)

func open(begin observed.Begin) store.Store { return observed.New(memory.New(), begin) }

// It keeps the contract of the stores.
func TestAnObservedStoreIsAStore(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(*testing.T) storetest.Harness {
		return storetest.Harness{Store: open(func(ctx context.Context, _ string) (context.Context, func(error)) {
			return ctx, func(error) {}
		})}
	})
}

// A method that is added to the contract would be passed on unseen.
func TestEveryMethodOfTheContractIsSeen(t *testing.T) {
	t.Parallel()
	methods := func(file string, add func(ast.Node)) {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool { add(n); return true })
	}
	var want, have []string
	files, _ := filepath.Glob("../*.go")
	for _, file := range files {
		methods(file, func(n ast.Node) {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || !slices.Contains([]string{"Sessions", "Outbox", "SharedValues", "Attempts", "Journal"}, spec.Name.Name) {
				return
			}
			for _, m := range spec.Type.(*ast.InterfaceType).Methods.List {
				for _, name := range m.Names {
					want = append(want, name.Name)
				}
			}
		})
	}
	methods("observed.go", func(n ast.Node) {
		if f, ok := n.(*ast.FuncDecl); ok && f.Recv != nil && f.Name.Name != "Sync" {
			have = append(have, f.Name.Name)
		}
	})
	slices.Sort(want)
	slices.Sort(have)
	if len(want) < 20 || !slices.Equal(want, have) {
		t.Errorf("the contract has %q, and seen are %q", want, have)
	}
}

func TestACallIsToldWithItsNameContextAndError(t *testing.T) {
	t.Parallel()
	type key struct{}
	var mu sync.Mutex
	var told []string
	var faults []error
	s := open(func(ctx context.Context, operation string) (context.Context, func(error)) {
		return context.WithValue(ctx, key{}, operation), func(err error) {
			mu.Lock()
			defer mu.Unlock()
			told, faults = append(told, operation), append(faults, err)
		}
	})
	now := store.Time(time.Now())
	_, err := s.Find(t.Context(), store.Key{1}, now)
	if !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	feed, err := s.Watch(t.Context(), func(store.Ended) {})
	if err != nil {
		t.Fatal(err)
	}
	if err := feed.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	if err := feed.Close(); err != nil {
		t.Error(err)
	}
	if s.Clock().Incarnation == "" {
		t.Error("the clock of the store is lost")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Watch(t.Context(), func(store.Ended) {}); err == nil {
		t.Error("a closed store was watched")
	}
	if want := []string{"find", "watch", "sync", "watch"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
	for _, name := range told {
		if !slices.Contains(observed.Operations(), name) {
			t.Errorf("%q is not among the operations", name)
		}
	}
	if !errors.Is(faults[0], store.ErrNotFound) || faults[1] != nil || faults[2] != nil || faults[3] == nil {
		t.Errorf("the errors told are %v", faults)
	}
}
