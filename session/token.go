package session

import (
	"context"
	"crypto/sha256"
	"errors"
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
// computed from it.
func TokenKey(issuer, clientID, subject, token string) store.Key {
	var k store.Key
	tag := store.Tag(issuer, clientID, subject)
	copy(k[:], tag[:])
	sum := sha256.Sum256([]byte("access token\x00" + token))
	copy(k[tagSize:], sum[:])
	return k
}

// Token returns the session that stands for an access token that was admitted before, from the cache while that may be
// used. The caller has verified the token. [store.ErrNotFound] if it was not admitted, has expired, or was ended with
// others; [store.ErrEnded] if it was ended by itself;
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
	switch {
	case !s.IsToken:
		return nil, store.ErrNotFound
	case s.buried:
		return nil, store.ErrEnded
	}
	return s, nil
}

// bury ends the session of one access token for good. An ending of a key leaves no mark, so the token would be admitted
// again: a record that lets nobody in takes the place of its session, until the token expires.
func (m *Manager) bury(ctx context.Context, s *Session, cause store.Cause) ([]store.Ended, error) {
	grave := *s
	grave.buried, grave.Claims, grave.SID, grave.Former = true, nil, "", nil
	rec, err := encode(m.cfg.Keyring, &grave)
	if err != nil {
		return nil, err
	}
	for range 10 { // a request with the token may come between the two
		ended, err := m.End(ctx, store.Ending{Cause: cause,
			Selector: store.Selector{Issuer: s.Issuer, ClientID: s.ClientID, Key: s.Key}})
		if err != nil {
			return nil, err
		}
		now := store.Time(m.Now())
		err = m.cfg.Store.Admit(ctx, rec, now, now)
		if err == nil || errors.Is(err, store.ErrEnded) { // its subject is ended as well
			return ended, nil
		}
	}
	return nil, unavailable(errors.New("an access token could not be ended"))
}

// Admit keeps a session that stands for an access token, which the caller has just verified, so that an ending of its
// sid or its subject ends it, on every replica, as it ends the session of a browser. [store.ErrEnded] if such an ending
// came before: one that names the sid, or one that names the subject at or after t.Issued. [ErrUnavailable] if the
// store does not answer.
func (m *Manager) Admit(ctx context.Context, key store.Key, t Token) (*Session, error) {
	if err := m.clock.ensureRead(ctx); err != nil {
		return nil, err
	}
	now := store.Time(m.Now())
	issued := t.Issued
	if now.Before(issued) { // its provider's clock is ahead of ours
		issued = now
	}
	// The store has forgotten what ended before it was made. `iat` has whole seconds.
	if m.cfg.Store.Clock().Incarnation != "" && !issued.Add(time.Second).After(m.started) {
		return nil, store.ErrEnded
	}
	s := &Session{
		Key: key, Provider: t.Provider, Issuer: t.Issuer, ClientID: t.ClientID, Subject: t.Subject, SID: t.SID,
		Created: store.Time(t.Issued), LastSeen: now, IdleExpires: t.Expires, Expires: t.Expires, Claims: t.Claims,
		UserAgent: t.About, IsToken: true, revision: 1,
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
		if s, found := m.Token(ctx, key); found == nil || errors.Is(found, store.ErrEnded) {
			return s, found
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
