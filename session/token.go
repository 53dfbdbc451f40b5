package session

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"example.com/curfew/store"
)

// TokenSlack is how much longer than [Config.TokenLifetime] an end mark is kept, for clocks that differ.
const TokenSlack = 5 * time.Minute

// Token describes the session that stands for an access token of a client; see [Manager.Admit].
type Token struct {
	Provider string // the name of the provider in the configuration
	Issuer   string // of the provider, and its client ID here: an ending names the session by these
	ClientID string
	Subject  string
	SID      string // empty: the token has none
	Claims   map[string]any
	Issued   time.Time // `iat`, by the clock of the provider
	Expires  time.Time
	// About is shown to operators in place of the name of a browser.
	About string
}

// TokenKey returns the key of the session that stands for an access token. It is a hash of the token, which cannot be
// computed from it. For a JWT, token is the part that is signed, without the signature: anybody who has an ECDSA
// signature can compute a second valid one for the same content, and it is still the same token.
func TokenKey(issuer, clientID, subject, token string) store.Key {
	var k store.Key
	tag := store.Tag(issuer, clientID, subject)
	copy(k[:], tag[:])
	sum := sha256.Sum256([]byte("access token\x00" + token))
	copy(k[tagSize:], sum[:])
	return k
}

// Token returns the session that stands for an access token that was admitted before, from the cache while that may be
// used. The caller has verified the token. [store.ErrNotFound] if it was not admitted, has expired, or was ended;
// [ErrUnavailable] if the store does not answer.
func (m *Manager) Token(ctx context.Context, key store.Key) (*Session, error) {
	if err := m.clock.ensureRead(ctx); err != nil {
		return nil, err
	}
	now := m.Now()
	var s *Session
	if m.cacheTrusted(m.cfg.Now()) {
		s, _ = m.cached(key, now)
	}
	if s == nil {
		var err error
		if s, err = m.read(ctx, key, now); err != nil {
			return nil, err
		}
	}
	if !s.IsToken {
		return nil, store.ErrNotFound
	}
	return s, nil
}

// Admit keeps a session that stands for an access token, which the caller has just verified, so that an ending of its
// sid or its subject ends it, on every replica, as it ends the session of a browser. [store.ErrEnded], which stays so
// until the token expires, if such an ending came before: one of this token alone, one that names the sid, or one that
// names the subject at or after t.Issued. [ErrUnavailable] if the store does not answer.
func (m *Manager) Admit(ctx context.Context, key store.Key, t Token) (*Session, error) {
	if err := m.clock.ensureRead(ctx); err != nil {
		return nil, err
	}
	now := store.Time(m.Now())
	issued := t.Issued
	if now.Before(issued) { // its provider's clock is ahead of ours
		issued = now
	}
	// A store knows no ending from before it was made, or from before it was copied. `iat` has whole seconds.
	since, err := m.endingsSince(ctx)
	if err != nil {
		return nil, err
	}
	if !issued.Add(time.Second).After(since) {
		return nil, store.ErrEnded
	}
	s := &Session{
		Key: key, Provider: t.Provider, Issuer: t.Issuer, ClientID: t.ClientID, Subject: t.Subject, SID: t.SID,
		Created: store.Time(t.Issued), LastSeen: now, IdleExpires: t.Expires, Expires: t.Expires, Claims: t.Claims,
		UserAgent: t.About, IsToken: true, admitted: store.TokenCreated(now), revision: 1,
	}
	rec, err := encode(m.cfg.Keyring, s)
	if err != nil {
		return nil, err
	}
	epoch := m.cache.epoch(key)
	if err := m.cfg.Store.Admit(ctx, rec, store.Time(issued), now); err != nil {
		if store.IsContractError(err) {
			return nil, err
		}
		// Another request, here or on another replica, may have admitted it meanwhile.
		if s, err := m.Token(ctx, key); err == nil {
			return s, nil
		}
		return nil, unavailable(err)
	}
	barred, err := m.clientBarred(ctx, s.Issuer, s.ClientID, issued)
	if barred || err != nil {
		_, errEnd := m.End(ctx, store.Ending{Cause: store.CauseExpired, KeepTokens: true,
			Selector: store.Selector{Issuer: s.Issuer, ClientID: s.ClientID, Key: key}})
		if err == nil {
			err = store.ErrEnded
		}
		return nil, unavailable(errors.Join(err, errEnd))
	}
	m.cache.put(s, epoch)
	m.enforceCap(ctx, s)
	return s, nil
}

// endingsSince returns from when on the store knows the endings of access tokens that were not used before: from when
// it was made, if it forgets everything with its process, or else from when it was copied, if it was. A copy is made
// before the first process uses the store.
func (m *Manager) endingsSince(ctx context.Context) (time.Time, error) {
	if m.cfg.Store.Clock().Incarnation != "" {
		return m.started, nil
	}
	if at := m.copied.Load(); at != nil {
		return *at, nil
	}
	value, _, err := m.cfg.Store.Load(ctx, store.CopiedValue)
	if err != nil {
		return time.Time{}, unavailable(err)
	}
	var at time.Time
	if value != nil {
		if err := at.UnmarshalText(value); err != nil {
			return at, fmt.Errorf("session: the shared value %q: %w", store.CopiedValue, err)
		}
	}
	m.copied.Store(&at)
	return at, nil
}
