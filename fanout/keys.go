package fanout

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"example.com/curfew/internal/wait"
	"example.com/curfew/keyring"
	"example.com/curfew/store"
)

const (
	keysValue = "signing keys"    // the name among the shared values of the store
	purpose   = "signing keys v1" // the purpose for the keyring

	// maxAge is how old this process's copy of the keys may be. A replica knows of a rotation at the latest after that.
	maxAge = 30 * time.Second
	// retirement is how long a key stays published after another has replaced it: a token lives two minutes, an app's
	// clock may be off by as much, and a replica may not know of the new key yet.
	retirement = 10 * time.Minute

	defaultLead     = time.Hour
	defaultRotation = 90 * 24 * time.Hour
)

// KeysConfig is the configuration of [Keys]. Values and Keyring are required.
type KeysConfig struct {
	Values  store.SharedValues // keeps the keys; every [store.Store] is one
	Keyring *keyring.Keyring   // seals the keys in the store
	Algs    []string           // the algorithms that are needed: ES256, RS256; default ES256

	Every time.Duration // how often a key is replaced; default 90 days, negative: never
	Lead  time.Duration // how long a new key is published before it signs; default 1 h

	Now func() time.Time // default time.Now
	Log *slog.Logger     // default slog.Default()
}

// Keys are the keys that sign logout tokens. They are sealed in the store, so that all replicas share them. A key is
// made when it is first needed. It is published for a while before it signs, and until the last token that it signed
// has expired.
type Keys struct {
	cfg KeysConfig

	mu      sync.Mutex // held while the store is read, so that one caller reads for all
	set     keySet
	at      time.Time // when the store was read; zero: never
	signers map[signerName]jose.Signer
}

type signerName struct{ kid, typ string }

// keySet is the value in the store.
type keySet struct {
	Keys []signingKey `json:"keys"` // oldest first
}

type signingKey struct {
	JWK     jose.JSONWebKey `json:"jwk"` // the private key
	Created time.Time       `json:"created"`
	Active  time.Time       `json:"active"` // it signs from then on
}

// KeyInfo describes a key without its secret.
type KeyInfo struct {
	ID      string    `json:"kid"`
	Alg     string    `json:"alg"`
	Created time.Time `json:"created"`
	Active  time.Time `json:"active"` // it signs from then on
	Signs   bool      `json:"signs"`  // it is the key that signs now for its algorithm
}

// NewKeys checks the configuration. It does not access the store.
func NewKeys(cfg KeysConfig) (*Keys, error) {
	if cfg.Values == nil || cfg.Keyring == nil {
		return nil, errors.New("fanout: KeysConfig needs Values and a Keyring")
	}
	if len(cfg.Algs) == 0 {
		cfg.Algs = []string{ES256}
	}
	for _, alg := range cfg.Algs {
		if alg != ES256 && alg != RS256 {
			return nil, fmt.Errorf("fanout: %q is not one of the algorithms: ES256, RS256", alg)
		}
	}
	cfg.Every = cmp.Or(cfg.Every, defaultRotation)
	cfg.Lead = cmp.Or(cfg.Lead, defaultLead)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if cfg.Lead < 0 || cfg.Every > 0 && cfg.Every < 2*cfg.Lead {
		return nil, errors.New("fanout: Lead must not be negative, nor longer than half of Every")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Keys{cfg: cfg, signers: make(map[signerName]jose.Signer)}, nil
}

// CheckEvery returns an error if [KeysConfig.Every] is too short for the default of Lead.
func CheckEvery(every time.Duration) error {
	if every > 0 && every < 2*defaultLead {
		return fmt.Errorf("%v is too short; the least is %v", every, 2*defaultLead)
	}
	return nil
}

// Sign implements [Signer].
func (k *Keys) Sign(ctx context.Context, alg string, claims []byte) (string, error) {
	return k.SignAs(ctx, logoutType, alg, claims)
}

// SignAs is [Keys.Sign] for a token of another kind, which its `typ` names (RFC 8725 §3.11).
func (k *Keys) SignAs(ctx context.Context, typ, alg string, claims []byte) (string, error) {
	set, err := k.current(ctx)
	if err != nil {
		return "", err
	}
	key := set.signing(alg, k.cfg.Now())
	if key == nil {
		return "", fmt.Errorf("there is no key for %s", alg)
	}
	s, err := k.signer(key, typ)
	if err != nil {
		return "", err
	}
	return sign(s, claims)
}

func (k *Keys) signer(key *signingKey, typ string) (jose.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	name := signerName{key.JWK.KeyID, typ}
	if s, ok := k.signers[name]; ok {
		return s, nil
	}
	s, err := newSigner(key.JWK.KeyID, typ, key.JWK.Algorithm, key.JWK.Key)
	if err == nil {
		k.signers[name] = s
	}
	return s, err
}

// Public returns the public keys as they are published (RFC 7517 §5).
func (k *Keys) Public(ctx context.Context) (jose.JSONWebKeySet, error) {
	set, err := k.current(ctx)
	if err != nil {
		return jose.JSONWebKeySet{}, err
	}
	public := jose.JSONWebKeySet{Keys: make([]jose.JSONWebKey, len(set.Keys))}
	for i, key := range set.Keys {
		public.Keys[i] = key.JWK.Public()
	}
	return public, nil
}

// List describes the keys, oldest first.
func (k *Keys) List(ctx context.Context) ([]KeyInfo, error) {
	set, err := k.current(ctx)
	if err != nil {
		return nil, err
	}
	now := k.cfg.Now()
	all := make([]KeyInfo, len(set.Keys))
	for i, key := range set.Keys {
		signs := set.signing(key.JWK.Algorithm, now)
		all[i] = KeyInfo{key.JWK.KeyID, key.JWK.Algorithm, key.Created, key.Active,
			signs != nil && signs.JWK.KeyID == key.JWK.KeyID}
	}
	return all, nil
}

// Rotate makes a new key for each algorithm. It is published from now on, and signs after [KeysConfig.Lead].
//
// With atOnce, for keys that somebody else has got hold of, the new keys sign immediately and all others are removed.
// Apps that do not fetch the keys again refuse our tokens until they do; their notices are retried.
func (k *Keys) Rotate(ctx context.Context, atOnce bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.update(ctx, atOnce, func(set *keySet, now time.Time) (bool, error) {
		active := now.Add(k.cfg.Lead)
		if atOnce {
			*set, active = keySet{}, now
		}
		for _, alg := range k.cfg.Algs {
			if err := set.add(alg, now, active); err != nil {
				return false, err
			}
		}
		return true, nil
	})
}

// Run replaces keys that are old enough, until ctx is done.
func (k *Keys) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if _, err := k.current(ctx); err != nil && ctx.Err() == nil {
			k.cfg.Log.ErrorContext(ctx, "the keys that sign logout tokens cannot be read: until they can, no app "+
				"is notified", "event", "signing_keys_failed", "error", err)
		}
		wait.Sleep(ctx, 2*maxAge)
	}
}

// current returns the keys in the store, as they were at most maxAge ago. If the store does not answer, the keys that
// this process has stay in use.
func (k *Keys) current(ctx context.Context) (keySet, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Now()
	if age := now.Sub(k.at); !k.at.IsZero() && age >= 0 && age < maxAge {
		return k.set, nil
	}
	err := k.update(ctx, false, k.maintain)
	if err != nil && len(k.set.Keys) > 0 {
		if ctx.Err() == nil {
			k.at = now
			k.cfg.Log.WarnContext(ctx, "the keys that sign logout tokens could not be read again: the last known "+
				"ones stay in use",
				"event", "signing_keys_stale", "error", err)
		}
		return k.set, nil
	}
	return k.set, err
}

// maintain makes a key for each algorithm that has none, makes the next one in time before the newest is too old, and
// removes keys that are no longer needed.
func (k *Keys) maintain(set *keySet, now time.Time) (changed bool, err error) {
	for _, alg := range k.cfg.Algs {
		var newest *signingKey
		for i := range set.Keys {
			if set.Keys[i].JWK.Algorithm == alg {
				newest = &set.Keys[i]
			}
		}
		active := now
		switch {
		case newest == nil:
		case k.cfg.Every > 0 && !now.Before(newest.Active.Add(k.cfg.Every-k.cfg.Lead)):
			active = now.Add(k.cfg.Lead)
		default:
			continue
		}
		if err := set.add(alg, now, active); err != nil {
			return false, err
		}
		changed = true
	}
	before := len(set.Keys)
	kept := make([]signingKey, 0, before)
	for i, key := range set.Keys {
		replaced := slices.ContainsFunc(set.Keys[i+1:], func(later signingKey) bool {
			return later.JWK.Algorithm == key.JWK.Algorithm && !now.Before(later.Active.Add(retirement))
		})
		if !replaced {
			kept = append(kept, key)
		}
	}
	set.Keys = kept
	return changed || len(kept) < before, nil
}

// update changes the keys in the store, if change reports that it changed them, and remembers the result. If several
// replicas do so at once, one succeeds and the others read again. With anew the present value need not be readable.
// k.mu is held.
func (k *Keys) update(ctx context.Context, anew bool, change func(*keySet, time.Time) (bool, error)) error {
	for range 10 {
		now := k.cfg.Now()
		sealed, revision, err := k.cfg.Values.Load(ctx, keysValue)
		if err != nil {
			return fmt.Errorf("signing keys: %w", err)
		}
		var set keySet
		if revision > 0 && !anew {
			if set, err = k.open(sealed); err != nil {
				return err
			}
		}
		changed, err := change(&set, now)
		if err != nil {
			return fmt.Errorf("signing keys: %w", err)
		}
		if changed || revision > 0 && k.cfg.Keyring.Stale(sealed) {
			plain, err := json.Marshal(set)
			if err != nil {
				return fmt.Errorf("signing keys: %w", err)
			}
			err = k.cfg.Values.Save(ctx, keysValue, k.cfg.Keyring.Seal(purpose, []byte(keysValue), plain), revision)
			if errors.Is(err, store.ErrConflict) {
				continue
			}
			if err != nil {
				return fmt.Errorf("signing keys: %w", err)
			}
			k.cfg.Log.InfoContext(ctx, "the keys that sign logout tokens have changed", "event", "signing_keys_changed",
				"keys", len(set.Keys))
		}
		k.set, k.at = set, now
		clear(k.signers)
		return nil
	}
	return errors.New("signing keys: other replicas keep changing them")
}

func (k *Keys) open(sealed []byte) (set keySet, err error) {
	plain, err := k.cfg.Keyring.Open(purpose, []byte(keysValue), sealed)
	if err == nil {
		err = json.Unmarshal(plain, &set)
	}
	if err != nil {
		// The error of the decoder is left out: it might quote a part of a key.
		return keySet{}, fmt.Errorf("signing keys: the value in the store %w; if that key is lost, run "+
			"`curfew key rotate --now`", keyring.ErrUnsealed)
	}
	return set, nil
}

// signing returns the key that signs for alg: the newest that is active. If none is, the clock was set back since the
// first was made, and that one signs.
func (s *keySet) signing(alg string, now time.Time) *signingKey {
	var first *signingKey
	for i := range slices.Backward(s.Keys) {
		if key := &s.Keys[i]; key.JWK.Algorithm == alg {
			if first = key; !now.Before(key.Active) {
				break
			}
		}
	}
	return first
}

func (s *keySet) add(alg string, now, active time.Time) error {
	var private any
	var err error
	if alg == RS256 {
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	} else {
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return err
	}
	jwk := jose.JSONWebKey{Key: private, KeyID: rand.Text()[:16], Algorithm: alg, Use: "sig"}
	s.Keys = append(s.Keys, signingKey{jwk, store.Time(now), store.Time(active)})
	return nil
}
