package fanout_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"example.com/curfew/fanout"
	"example.com/curfew/internal/rig"
	"example.com/curfew/keyring"
	"example.com/curfew/oidc"
	"example.com/curfew/store/memory"
)

type netConn = net.Conn

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// provider is one that is never asked.
func provider(t *testing.T, name, issuer string, configure ...func(*oidc.Config)) *oidc.Provider {
	t.Helper()
	c := oidc.Config{Name: name, Issuer: issuer, ClientID: "curfew", HTTPClient: &http.Client{Transport: nowhere{}}}
	for _, f := range configure {
		f(&c)
	}
	p, err := oidc.New(c)
	rig.Must(t, err)
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
	ring  *keyring.Keyring
	keys  *fanout.Keys
}

func newStoreWithKeys(t testing.TB) storeWithKeys {
	t.Helper()
	s := storeWithKeys{store: memory.New(), ring: rig.Keyring(t)}
	t.Cleanup(func() { s.store.Close() })
	var err error
	s.keys, err = fanout.NewKeys(fanout.KeysConfig{Values: s.store, Keyring: s.ring, Log: discard()})
	rig.Must(t, err)
	return s
}

// unverified returns the claims of a token without a look at its signature.
func unverified(t testing.TB, token string) (claims map[string]any) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Errorf("%q is no token", token)
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		t.Error(err)
	}
	return claims
}
