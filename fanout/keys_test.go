package fanout_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"example.com/curfew/fanout"
	"example.com/curfew/internal/rig"
	"example.com/curfew/keyring"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// values are the shared values of a store, which can be away.
type values struct {
	*memory.Store
	mu   sync.Mutex
	away bool
}

func (v *values) set(away bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.away = away
}

func (v *values) Load(ctx context.Context, name string) ([]byte, int64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.away {
		return nil, 0, errors.New("away")
	}
	return v.Store.Load(ctx, name)
}

func newKeys(t *testing.T, v store.SharedValues, r *keyring.Keyring, change ...func(*fanout.KeysConfig)) *fanout.Keys {
	t.Helper()
	cfg := fanout.KeysConfig{Values: v, Keyring: r, Log: discard()}
	for _, f := range change {
		f(&cfg)
	}
	k, err := fanout.NewKeys(cfg)
	rig.Must(t, err)
	return k
}

func kid(t *testing.T, k *fanout.Keys) string {
	t.Helper()
	token, err := k.Sign(t.Context(), fanout.ES256, []byte(`{}`))
	rig.Must(t, err)
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	rig.Must(t, err)
	return jws.Signatures[0].Header.KeyID
}

func published(t *testing.T, k *fanout.Keys) map[string]bool {
	t.Helper()
	set, err := k.Public(t.Context())
	rig.Must(t, err)
	all := make(map[string]bool)
	for _, key := range set.Keys {
		if !key.IsPublic() || key.Use != "sig" || key.Algorithm == "" {
			t.Errorf("published: %+v", key)
		}
		all[key.KeyID] = true
	}
	return all
}

func TestReplicasThatStartTogetherMakeOneKey(t *testing.T) {
	t.Parallel()
	backend := memory.New()
	defer backend.Close()
	ring := rig.Keyring(t)
	var mu sync.Mutex
	kids := make(map[string]bool)
	var all sync.WaitGroup
	for range 8 {
		k := newKeys(t, backend, ring)
		all.Go(func() {
			id := kid(t, k)
			mu.Lock()
			defer mu.Unlock()
			kids[id] = true
		})
	}
	all.Wait()
	if len(kids) != 1 {
		t.Errorf("%d keys sign, want one", len(kids))
	}
	sealed, _, err := backend.Load(t.Context(), "signing keys")
	rig.Must(t, err)
	for id := range kids {
		if strings.Contains(string(sealed), id) || json.Valid(sealed) {
			t.Error("the keys are not sealed")
		}
	}
}

// Forty days of two replicas and of apps that keep the published keys for as long as the lead: at every moment the key
// that signs has been published for so long, and is until the token is dead.
func TestAKeyIsPublishedBeforeItSignsAndUntilItsLastTokenIsDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		backend := memory.New()
		defer backend.Close()
		ring := rig.Keyring(t)
		const lead, life = time.Hour, 2 * time.Minute
		often := func(c *fanout.KeysConfig) { c.Every = 10 * 24 * time.Hour }
		replicas := []*fanout.Keys{newKeys(t, backend, ring, often), newKeys(t, backend, ring, often)}
		type seen struct {
			at   time.Time
			keys map[string]bool
		}
		var history []seen
		begun := time.Now()
		kid(t, replicas[0])
		signers := make(map[string]bool)
		dead := make(map[string]time.Time) // kid → when its last token dies
		step := 5 * time.Minute
		for i := 0; time.Since(begun) < 40*24*time.Hour; i++ {
			now := time.Now()
			for _, k := range replicas {
				keys := published(t, k)
				history = append(history, seen{now, keys})
				for id, until := range dead {
					if now.Before(until) && !keys[id] {
						t.Fatalf("at %v the key of a living token is no longer published", now)
					}
				}
			}
			for _, k := range replicas {
				id := kid(t, k)
				signers[id] = true
				dead[id] = now.Add(life + step) // and an app's clock is late
				for _, s := range history {
					old := now.Sub(s.at)
					if !s.keys[id] && old < lead-time.Minute && s.at.Sub(begun) > 0 {
						t.Fatalf("after %v a key signs that was not published %v ago", now.Sub(begun), old)
					}
				}
			}
			for len(history) > 0 && now.Sub(history[0].at) > lead {
				history = history[1:]
			}
			if i == 100 {
				rig.Must(t, replicas[0].Rotate(t.Context(), false))
			}
			if time.Since(begun) > 24*time.Hour {
				step = time.Duration(1+i%7) * 5 * time.Minute
			}
			time.Sleep(step)
		}
		if len(signers) != 5 {
			t.Errorf("%d keys have signed in 40 days, want the first, the one asked for, and three by schedule",
				len(signers))
		}
		if n := len(published(t, replicas[1])); n > 2 {
			t.Errorf("%d keys are published at the end", n)
		}
	})
}

func TestARotationAtOnceLeavesNoOldKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		backend := memory.New()
		defer backend.Close()
		ring := rig.Keyring(t)
		a, b := newKeys(t, backend, ring), newKeys(t, backend, ring)
		old := kid(t, a)
		kid(t, b)
		rig.Must(t, a.Rotate(t.Context(), true))
		if now := kid(t, a); now == old || published(t, a)[old] || !published(t, a)[now] {
			t.Error("the old key is still in use")
		}
		time.Sleep(30 * time.Second)
		if kid(t, b) == old || published(t, b)[old] {
			t.Error("another replica still uses the old key after 30 seconds")
		}
		rig.Must(t, a.Rotate(t.Context(), false))
		info, err := a.List(t.Context())
		rig.Must(t, err)
		if len(info) != 2 || !info[0].Signs || info[1].Signs || time.Until(info[1].Active) != time.Hour {
			t.Errorf("after a rotation in good time: %+v", info)
		}
	})
}

func TestKeysOutliveAStoreThatIsAwayAndAKeyRingThatIsRotated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := &values{Store: memory.New()}
		defer v.Close()
		one, two := make([]byte, 32), make([]byte, 32)
		rand.Read(one)
		rand.Read(two)
		ring := func(keys ...[]byte) *keyring.Keyring {
			r, err := keyring.New(keys...)
			rig.Must(t, err)
			return r
		}
		k := newKeys(t, v, ring(one))
		v.set(true)
		if _, err := k.Sign(t.Context(), fanout.ES256, []byte(`{}`)); err == nil {
			t.Error("signed without ever having had a key")
		}
		v.set(false)
		id := kid(t, k)
		v.set(true)
		time.Sleep(time.Hour)
		if kid(t, k) != id {
			t.Error("another key signs while the store is away")
		}
		v.set(false)
		if kid(t, newKeys(t, v, ring(two, one))) != id { // which seals it anew
			t.Error("another key after the key ring was rotated")
		}
		if kid(t, newKeys(t, v, ring(two))) != id {
			t.Error("another key after the old key of the ring was dropped")
		}
		lost := newKeys(t, v, ring(make([]byte, 32)))
		if _, err := lost.Public(t.Context()); !errors.Is(err, keyring.ErrUnsealed) ||
			!strings.Contains(err.Error(), "curfew key rotate --now") {
			t.Errorf("with another key ring: %v", err)
		}
		rig.Must(t, lost.Rotate(t.Context(), true))
		if kid(t, lost) == id {
			t.Error("the old key")
		}
	})
}

func TestAnOldKeyIsNeverReplacedWhereThatIsTurnedOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		backend := memory.New()
		defer backend.Close()
		k := newKeys(t, backend, rig.Keyring(t), func(c *fanout.KeysConfig) { c.Every = -1 })
		id := kid(t, k)
		time.Sleep(1000 * 24 * time.Hour)
		if kid(t, k) != id {
			t.Error("it was replaced")
		}
		if _, err := k.Sign(t.Context(), fanout.RS256, []byte(`{}`)); err == nil {
			t.Error("signed with an algorithm that nobody asked for")
		}
	})
}

func TestKeyConfigurationFaults(t *testing.T) {
	t.Parallel()
	backend := memory.New()
	defer backend.Close()
	for _, c := range []struct {
		cfg    fanout.KeysConfig
		reason string
	}{
		{fanout.KeysConfig{Values: backend}, "needs Values and a Keyring"},
		{fanout.KeysConfig{Keyring: rig.Keyring(t)}, "needs Values and a Keyring"},
		{fanout.KeysConfig{Values: backend, Keyring: rig.Keyring(t), Algs: []string{"HS256"}}, `"HS256" is not one`},
		{fanout.KeysConfig{Values: backend, Keyring: rig.Keyring(t), Every: time.Hour}, "longer than half of Every"},
		{fanout.KeysConfig{Values: backend, Keyring: rig.Keyring(t), Lead: -1}, "longer than half of Every"},
	} {
		if _, err := fanout.NewKeys(c.cfg); err == nil || !strings.Contains(err.Error(), c.reason) {
			t.Errorf("%v, want %q", err, c.reason)
		}
	}
}

func TestAProviderMaySignWithAKeyOfItsOwn(t *testing.T) {
	t.Parallel()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	rig.Must(t, err)
	s, err := fanout.OneKey("mine", fanout.ES256, private)
	rig.Must(t, err)
	token, err := s.Sign(t.Context(), fanout.ES256, []byte(`{"a":1}`))
	rig.Must(t, err)
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	rig.Must(t, err)
	if payload, err := jws.Verify(private.Public()); err != nil || string(payload) != `{"a":1}` ||
		jws.Signatures[0].Header.KeyID != "mine" {
		t.Errorf("%s, %v", payload, err)
	}
	if _, err := s.Sign(t.Context(), fanout.RS256, nil); err == nil {
		t.Error("an EC key signed as RS256")
	}
	if _, err := fanout.OneKey("mine", fanout.RS256, private); err == nil {
		t.Error("an EC key was taken for RS256")
	}
}

func TestAClockThatWasSetBackLeavesAKeyThatSigns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil)
		ahead := 6 * time.Hour
		k := newKeys(t, s.store, rig.Keyring(t),
			func(c *fanout.KeysConfig) { c.Now = func() time.Time { return time.Now().Add(ahead) } })
		first := kid(t, k)
		ahead = 0
		if now := kid(t, k); now != first {
			t.Errorf("%s signs, want %s", now, first)
		}
	})
}
