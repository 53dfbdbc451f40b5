package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/store"
)

// Session is one browser signed in at this relying party. It is shared between requests: read it, never change it.
type Session struct {
	Key      store.Key
	Provider string // what the provider is called in the configuration
	Issuer   string
	ClientID string
	Subject  string
	SID      string // the `sid` of the latest ID Token that had one; empty when none had
	// Former are the sids that it had before its refreshes brought others, the oldest first. They name it too.
	Former []string

	Created     time.Time
	LastSeen    time.Time // written at most once a minute
	IdleExpires time.Time
	Expires     time.Time

	// Claims are those of the ID Token, userinfo and the app's own hook, as they were said; numbers are [json.Number],
	// with the digits that the provider wrote. Ask [Session.Claim] and [Session.Email] for what may be relied on.
	Claims map[string]any
	Tokens Tokens

	revision int64
	// No refresh before this: one is under way on some replica, or (refreshFailed) the last one found the provider
	// away.
	refreshHeld   time.Time
	refreshFailed bool
}

// maxFormer bounds what a provider piles up that gives each ID Token another sid. A session with more of them ends: one
// that is forgotten would be a logout that is answered with success and ends nothing.
const maxFormer = 16

// HasSID says whether the session has this sid, or had it before.
func (s *Session) HasSID(sid string) bool {
	return (&store.Record{SID: s.SID, Former: s.Former}).HasSID(sid)
}

// rename gives the session the sid of a refreshed ID Token, if there is one. The one that it had still names it.
func (s *Session) rename(sid string) {
	if sid == "" || sid == s.SID {
		return
	}
	former := slices.DeleteFunc(slices.Clone(s.Former), func(f string) bool { return f == sid })
	if s.SID != "" {
		former = append(former, s.SID)
	}
	s.SID, s.Former = sid, former
}

// Tokens is what the provider gave for a session. They are encrypted at rest.
type Tokens struct {
	IDToken      string    `json:"id,omitempty"` // the latest, as the hint for RP-Initiated Logout
	AccessToken  string    `json:"access,omitempty"`
	RefreshToken string    `json:"refresh,omitempty"`
	Expires      time.Time `json:"expires,omitzero"`  // of the access token; zero when the provider did not say
	Offline      bool      `json:"offline,omitempty"` // the refresh token was granted with offline_access
	// refresh tokens of earlier sessions of the same sign-in, to be revoked with this one's
	Inherited []string `json:"inherited,omitempty"`
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
	Columns     columns        `json:"columns,omitzero"` // since version 2
}

// columns are what a [store.Record] says beside its payload, but for the revision, which the store counts: what a
// session is found and judged by. They are sealed with it, so that nobody who can write to the store, and has no key,
// can make a session another person's or let it live longer. The key is bound to the payload as its context (see
// [keyring.Keyring]).
type columns struct {
	Issuer      string        `json:"iss"`
	ClientID    string        `json:"client"`
	Subject     string        `json:"sub"`
	SID         string        `json:"sid,omitempty"`
	Former      []string      `json:"former,omitempty"`  // this and what follows is not in notices
	Created     int64         `json:"created,omitempty"` // microseconds since 1970, as those below
	LastSeen    int64         `json:"last_seen,omitempty"`
	IdleExpires int64         `json:"idle_expires,omitempty"`
	Expires     int64         `json:"expires,omitempty"`
	Refresh     store.Refresh `json:"refresh,omitempty"`
}

func columnsOf(r *store.Record) columns {
	return columns{
		Issuer: r.Issuer, ClientID: r.ClientID, Subject: r.Subject, SID: r.SID, Former: r.Former,
		Created: r.Created.UnixMicro(), LastSeen: r.LastSeen.UnixMicro(),
		IdleExpires: r.IdleExpires.UnixMicro(), Expires: r.Expires.UnixMicro(), Refresh: r.Refresh,
	}
}

// differ names the columns in which a and b differ, for a log line: what they hold may be anybody's text.
func (a columns) differ(b columns) string {
	var names []string
	for _, c := range []struct {
		name string
		same bool
	}{
		{"issuer", a.Issuer == b.Issuer}, {"client", a.ClientID == b.ClientID}, {"subject", a.Subject == b.Subject},
		{"sid", a.SID == b.SID}, {"former", slices.Equal(a.Former, b.Former)},
		{"created", a.Created == b.Created}, {"last_seen", a.LastSeen == b.LastSeen},
		{"idle_expires", a.IdleExpires == b.IdleExpires}, {"expires", a.Expires == b.Expires},
		{"refresh", a.Refresh == b.Refresh},
	} {
		if !c.same {
			names = append(names, c.name)
		}
	}
	return strings.Join(names, ", ")
}

// ErrAltered: what a store keeps beside a sealed payload is not what was sealed with it. Somebody who has no key has
// written to the store.
var ErrAltered = errors.New("the store holds other columns than were sealed")

// The purposes under which payloads are sealed, and with that the versions of their form. A payload opens as what it
// was sealed as, and as nothing else: without a key nobody makes a version 1 of a version 2.
const (
	sealed   = "session payload v2"
	sealedV1 = "session payload v1" // without columns; still opened, never written
)

// encode turns a session into what a store keeps.
func encode(r *keyring.Keyring, s *Session) (store.Record, error) {
	rec := store.Record{
		Key: s.Key, Issuer: s.Issuer, ClientID: s.ClientID, Subject: s.Subject, SID: s.SID, Former: s.Former,
		Created: store.Time(s.Created), LastSeen: store.Time(s.LastSeen), IdleExpires: store.Time(s.IdleExpires),
		Expires:  store.Time(s.Expires),
		Revision: s.revision,
	}
	switch {
	case s.Tokens.RefreshToken == "":
	case s.Tokens.Offline:
		rec.Refresh = store.RefreshOffline
	default:
		rec.Refresh = store.RefreshOnline
	}
	var err error
	rec.Payload, err = sealPayload(r, s.Key, payload{Provider: s.Provider, Claims: s.Claims, Tokens: s.Tokens,
		RefreshHeld: s.refreshHeld, RefreshFail: s.refreshFailed, Columns: columnsOf(&rec)})
	return rec, err
}

func sealPayload(r *keyring.Keyring, k store.Key, p payload) ([]byte, error) {
	plain, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("session: encode payload: %w", err)
	}
	return r.Seal(sealed, k[:], plain), nil
}

// openPayload reads a payload, of whatever version. That it belongs to its columns is the caller's to see.
func openPayload(r *keyring.Keyring, k store.Key, text []byte) (p payload, v1 bool, err error) {
	plain, err := r.Open(sealed, k[:], text)
	if err != nil {
		v1 = true
		plain, err = r.Open(sealedV1, k[:], text)
	}
	if err != nil {
		return p, v1, err
	}
	decoder := json.NewDecoder(bytes.NewReader(plain))
	decoder.UseNumber() // numbers keep their digits
	if err := decoder.Decode(&p); err != nil {
		return p, v1, fmt.Errorf("decode payload: %w", err)
	}
	return p, v1, nil
}

// decode turns what a store kept into a session, which never lives longer than lifetime. [keyring.ErrUnsealed] when no
// key opens the payload, [ErrAltered] when it belongs to other columns.
func decode(r *keyring.Keyring, rec store.Record, lifetime time.Duration) (*Session, error) {
	p, v1, err := openPayload(r, rec.Key, rec.Payload)
	if err != nil {
		return nil, fmt.Errorf("session %s: %w", rec.Key.Handle(), err)
	}
	expires := rec.Expires
	if v1 {
		issued, err := p.ownerV1(columnsOf(&rec))
		if err != nil {
			return nil, fmt.Errorf("session %s: %w", rec.Key.Handle(), err)
		}
		if latest := store.Time(issued.Add(lifetime + store.AttemptLifetime)); latest.Before(expires) {
			expires = latest
		}
	} else if names := p.Columns.differ(columnsOf(&rec)); names != "" {
		return nil, fmt.Errorf("session %s: %w: %s", rec.Key.Handle(), ErrAltered, names)
	}
	return &Session{
		Key: rec.Key, Provider: p.Provider, Issuer: rec.Issuer, ClientID: rec.ClientID, Subject: rec.Subject,
		SID:     rec.SID,
		Former:  rec.Former,
		Created: rec.Created, LastSeen: rec.LastSeen, IdleExpires: rec.IdleExpires, Expires: expires,
		Claims: p.Claims, Tokens: p.Tokens, revision: rec.Revision, refreshHeld: p.RefreshHeld,
		refreshFailed: p.RefreshFail,
	}, nil
}

// ownerV1 compares the columns of a payload of version 1, which does not hold them, with the claims of the ID Token
// that it does hold, and returns when that token was issued: when the session began. So a payload of an old backup
// cannot be put back as another person's session, nor for longer than it would have lived.
func (p *payload) ownerV1(c columns) (issued time.Time, err error) {
	iss, _ := p.Claims["iss"].(string)
	sub, _ := p.Claims["sub"].(string)
	number, _ := p.Claims["iat"].(json.Number)
	iat, _ := number.Float64()
	if iss == "" || sub == "" || iat <= 0 || iat > 1<<40 {
		return issued, fmt.Errorf("%w: it is of version 1 and does not say whose it is", keyring.ErrUnsealed)
	}
	claimed := c
	claimed.Issuer, claimed.Subject = iss, sub
	switch aud := p.Claims["aud"].(type) {
	case string:
		claimed.ClientID = aud
	case []any:
		if !slices.Contains(aud, any(c.ClientID)) {
			claimed.ClientID = ""
		}
	default:
		claimed.ClientID = ""
	}
	if sid, _ := p.Claims["sid"].(string); sid != "" {
		claimed.SID = sid
	}
	if names := claimed.differ(c); names != "" {
		return issued, fmt.Errorf("%w: %s", ErrAltered, names)
	}
	return time.Unix(int64(iat), 0), nil
}
