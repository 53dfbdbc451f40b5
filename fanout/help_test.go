package fanout_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"

	"example.com/curfew/fanout"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store/memory"
)

type netConn = net.Conn

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// provider is one that is never asked.
func provider(t *testing.T, name, issuer string) *oidc.Provider {
	t.Helper()
	p, err := oidc.New(oidc.Config{Name: name, Issuer: issuer, ClientID: "curfew", HTTPClient: &http.Client{Transport: nowhere{}}})
	must(t, err)
	return p
}

type nowhere struct{}

func (nowhere) RoundTrip(*http.Request) (*http.Response, error) { return nil, errors.New("nowhere") }

// switchable is a signer that can be made to fail.
type switchable struct {
	fanout.Signer
	mu  sync.Mutex
	off bool
}

func (s *switchable) set(off bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = off
}

func (s *switchable) Sign(ctx context.Context, alg string, claims []byte) (string, error) {
	s.mu.Lock()
	off := s.off
	s.mu.Unlock()
	if off {
		return "", errors.New("on purpose")
	}
	return s.Signer.Sign(ctx, alg, claims)
}

type storeWithKeys struct {
	store *memory.Store
	ring  *session.Ring
	keys  *fanout.Keys
}

func newStoreWithKeys(t testing.TB) storeWithKeys {
	t.Helper()
	s := storeWithKeys{store: memory.New(), ring: newRing(t)}
	t.Cleanup(func() { s.store.Close() })
	var err error
	s.keys, err = fanout.NewKeys(fanout.KeysConfig{Vault: s.store, Ring: s.ring, Log: discard()})
	must(t, err)
	return s
}
