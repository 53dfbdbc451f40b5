package session

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Session is one browser signed in at this relying party. It is shared between requests: read it, never change it.
type Session struct {
	Key      Key
	Provider string // what the provider is called in the configuration
	Issuer   string
	ClientID string
	Subject  string
	SID      string // the `sid` of the ID Token; empty when it had none

	Created     time.Time
	LastSeen    time.Time // written at most once a minute
	IdleExpires time.Time
	Expires     time.Time

	// Claims are those of the ID Token, userinfo and the app's own hook, as they were said; numbers are [json.Number], with
	// the digits that the provider wrote. Ask [Session.Claim] and [Session.Email] for what may be relied on.
	Claims map[string]any
	Tokens Tokens

	revision int64
	// No refresh before this: one is under way on some replica, or (refreshFailed) the last one found the provider away.
	refreshHeld   time.Time
	refreshFailed bool
}

// Tokens is what the provider gave for a session. They are encrypted at rest.
type Tokens struct {
	IDToken      string    `json:"id,omitempty"` // the latest, as the hint for RP-Initiated Logout
	AccessToken  string    `json:"access,omitempty"`
	RefreshToken string    `json:"refresh,omitempty"`
	Expires      time.Time `json:"expires,omitzero"`    // of the access token; zero when the provider did not say
	Offline      bool      `json:"offline,omitempty"`   // the refresh token was granted with offline_access
	Inherited    []string  `json:"inherited,omitempty"` // refresh tokens of earlier sessions of the same sign-in, to be revoked with this one's
}

// maxInherited bounds what a browser that signs in again and again piles up.
const maxInherited = 8

// Inherit takes over the refresh tokens of a session that ends because t's takes its place, and says whether it could.
//
// Both may be of one sign-in at the provider, and so of one grant (RFC 6749 §1.3). Providers revoke a grant as a whole:
// to revoke the old token now would end the new session when it is next refreshed.
func (t *Tokens) Inherit(old Tokens) bool {
	if old.RefreshToken == "" || t.RefreshToken == "" || old.Offline != t.Offline {
		return false
	}
	t.Inherited = append(slices.Clone(old.Inherited), old.RefreshToken)
	if n := len(t.Inherited); n > maxInherited {
		t.Inherited = t.Inherited[n-maxInherited:]
	}
	return true
}

// String keeps tokens out of logs.
func (Tokens) String() string { return "[tokens]" }

// GoString keeps tokens out of logs.
func (Tokens) GoString() string { return "[tokens]" }

// expired says whether the access token has run out and there is a refresh token to get a new one.
func (s *Session) expired(now time.Time) bool {
	return s.Tokens.RefreshToken != "" && !s.Tokens.Expires.IsZero() && !now.Before(s.Tokens.Expires)
}

// refreshDue says whether the access token has to be refreshed before the session is served.
func (s *Session) refreshDue(now time.Time) bool {
	return s.expired(now) && !(s.refreshFailed && now.Before(s.refreshHeld))
}

// payload is what lies sealed in a Record. A new field needs a usable zero value: old payloads are read by new code.
type payload struct {
	Provider    string         `json:"provider"`
	Claims      map[string]any `json:"claims,omitempty"`
	Tokens      Tokens         `json:"tokens,omitzero"`
	RefreshHeld time.Time      `json:"refresh_held,omitzero"`
	RefreshFail bool           `json:"refresh_failed,omitempty"`
}

// sealed is the purpose under which payloads are sealed, and the version of their form.
const sealed = "session payload v1"

// record turns a session into what a store keeps.
func (r *Ring) record(s *Session) (Record, error) {
	plain, err := json.Marshal(payload{Provider: s.Provider, Claims: s.Claims, Tokens: s.Tokens, RefreshHeld: s.refreshHeld, RefreshFail: s.refreshFailed})
	if err != nil {
		return Record{}, fmt.Errorf("session: encode payload: %w", err)
	}
	refresh := RefreshNone
	switch {
	case s.Tokens.RefreshToken == "":
	case s.Tokens.Offline:
		refresh = RefreshOffline
	default:
		refresh = RefreshOnline
	}
	return Record{
		Key: s.Key, Issuer: s.Issuer, ClientID: s.ClientID, Subject: s.Subject, SID: s.SID,
		Created: s.Created, LastSeen: s.LastSeen, IdleExpires: s.IdleExpires, Expires: s.Expires,
		Revision: s.revision, Refresh: refresh,
		Payload: r.Seal(sealed, s.Key[:], plain),
	}, nil
}

// session turns what a store kept into a session.
func (r *Ring) session(rec Record) (*Session, error) {
	plain, err := r.Open(sealed, rec.Key[:], rec.Payload)
	if err != nil {
		return nil, fmt.Errorf("session %s: %w", rec.Key.Handle(), err)
	}
	var p payload
	decoder := json.NewDecoder(bytes.NewReader(plain))
	decoder.UseNumber()
	if err := decoder.Decode(&p); err != nil {
		return nil, fmt.Errorf("session %s: decode payload: %w", rec.Key.Handle(), err)
	}
	return &Session{
		Key: rec.Key, Provider: p.Provider, Issuer: rec.Issuer, ClientID: rec.ClientID, Subject: rec.Subject, SID: rec.SID,
		Created: rec.Created, LastSeen: rec.LastSeen, IdleExpires: rec.IdleExpires, Expires: rec.Expires,
		Claims: p.Claims, Tokens: p.Tokens, revision: rec.Revision, refreshHeld: p.RefreshHeld, refreshFailed: p.RefreshFail,
	}, nil
}
