package session

import (
	"bytes"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/store"
)

// Session is one browser that is signed in at this relying party, or stands for an access token of a client. An app
// gets it from curfew.SessionFrom. It is shared between requests: read it, and never change it.
type Session struct {
	Key      store.Key // names the session in the store and in [Manager]; for logs use [store.Key.Handle]
	Provider string    // the name of the provider in the configuration
	Issuer   string    // `iss` of the ID Token
	ClientID string    // the client ID of this relying party there
	Subject  string    // `sub` of the ID Token: with Issuer it names the person
	SID      string    // `sid` of the latest ID Token that had one, or empty
	// Former are the earlier values of SID, oldest first: a refresh may bring another. A logout may name the session by
	// any of them.
	Former []string

	Created     time.Time
	LastSeen    time.Time // the last use; written at most once a minute
	IdleExpires time.Time // when it ends if it is not used before
	Expires     time.Time // when it ends in any case

	// Claims are those of the ID Token and userinfo, and what OnLogin added, unchanged. Numbers are [json.Number]. Use
	// [Session.Claim] and [Session.Email] to read them: an address here may not be verified.
	Claims map[string]any
	Tokens Tokens

	// Address and UserAgent are those of the browser at its sign-in, cut to some length; empty for sessions of an earlier
	// release.
	Address   string
	UserAgent string

	// IsToken: the session stands for an access token, which a client sent in the Authorization header. It has no cookie,
	// no idle timeout and no tokens of its own; Created is when the token was issued, Expires when it expires. For the
	// request that it came with, Tokens.AccessToken is that token.
	IsToken bool

	admitted time.Time // of a token: see [store.TokenCreated]
	revision int64
	hostKey  []byte // of the MACs of its bearers; nil: its bearer is bound to no host
	// No refresh starts before refreshHeld. With refreshFailed the provider did not answer the last refresh. Without it
	// a refresh is under way on some replica.
	refreshHeld   time.Time
	refreshFailed bool
	confirmed     time.Time // when the provider was last asked whether the session goes on, and said so
}

// BearerFor returns the bearer of the session for the host with this name; b is its bearer for any host. It returns
// false if b is that of another session, or if the session was created for one host (see [SignIn.Host]).
func (s *Session) BearerFor(host string, b Bearer) (Bearer, bool) {
	if b.Key() != s.Key || s.hostKey == nil {
		return Bearer{}, false
	}
	return b.bindTo(host, s.hostKey), true
}

// opens reports whether b opens the session at the host that b came to.
func (s *Session) opens(b *Bearer) bool {
	if s.IsToken {
		return false
	}
	if s.hostKey == nil || !b.bound {
		return s.hostKey == nil && !b.bound
	}
	want := b.bindTo(b.host, s.hostKey)
	return hmac.Equal(want.mac[:], b.mac[:])
}

// maxFormer bounds Former, for providers that send another sid with each ID Token. A session that would need more ends.
// If it forgot one instead, a logout by that sid would be answered with success and end nothing.
const maxFormer = 16

// Revision is another number whenever the session was written: after a refresh, and about once a minute while it is in
// use.
func (s *Session) Revision() int64 { return s.revision }

// HasSID reports whether sid is the session's SID or one of Former.
func (s *Session) HasSID(sid string) bool {
	return (&store.Record{SID: s.SID, Former: s.Former}).HasSID(sid)
}

// rename sets the sid of a refreshed ID Token, if it is not empty. The sid until now goes to Former.
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

// Tokens are the tokens of a session. An app calls an API of the provider with AccessToken. They are encrypted in the
// store, and print as "[tokens]".
type Tokens struct {
	IDToken      string    `json:"id,omitempty"` // the latest; sent as id_token_hint at RP-Initiated Logout
	AccessToken  string    `json:"access,omitempty"`
	RefreshToken string    `json:"refresh,omitempty"`
	Expires      time.Time `json:"expires,omitzero"`  // of the access token; zero if the provider did not say
	Offline      bool      `json:"offline,omitempty"` // the refresh token was granted with the scope offline_access
	DPoPKey      []byte    `json:"dpop,omitempty"`    // the private key that the tokens are bound to; see oidc.Tokens
	// Inherited are refresh tokens of earlier sessions of the same sign-in, to be revoked with RefreshToken.
	Inherited []string `json:"inherited,omitempty"`
}

// maxInherited bounds Inherited, for a browser that signs in again and again.
const maxInherited = 8

// Inherit adds the refresh tokens of a session that t's session replaces, and reports whether it did. Package login
// uses it.
//
// Both sessions may be of one sign-in at the provider, and so of one grant (RFC 6749 §1.3). Providers revoke a grant
// as a whole: if the old token were revoked now, the new session would end at its next refresh.
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

// expired reports whether the access token has expired and there is a refresh token to get a new one.
func (s *Session) expired(now time.Time) bool {
	return s.Tokens.RefreshToken != "" && !s.Tokens.Expires.IsZero() && !now.Before(s.Tokens.Expires)
}

// refreshDue reports whether the access token must be refreshed before the session is served.
func (s *Session) refreshDue(now time.Time) bool {
	return s.expired(now) && !(s.refreshFailed && now.Before(s.refreshHeld))
}

// payload is what is sealed in [store.Record.Payload]. A new field needs a usable zero value, since new code reads old
// payloads.
type payload struct {
	Provider    string         `json:"provider"`
	Claims      map[string]any `json:"claims,omitempty"`
	Tokens      Tokens         `json:"tokens,omitzero"`
	RefreshHeld time.Time      `json:"refresh_held,omitzero"`
	RefreshFail bool           `json:"refresh_failed,omitempty"`
	Confirmed   time.Time      `json:"confirmed,omitzero"`
	Address     string         `json:"address,omitempty"`
	UserAgent   string         `json:"user_agent,omitempty"`
	HostKey     []byte         `json:"host_key,omitempty"`
	TokenIssued time.Time      `json:"token_issued,omitzero"` // if the session stands for an access token
	Columns     columns        `json:"columns,omitzero"`      // since version 2
}

// columns are the fields of a [store.Record] beside its payload, except the revision, which the store counts. A session
// is found and judged by them. They are sealed in the payload too, so that somebody who can write to the store, but has
// no key, cannot make a session another person's or let it live longer. The payload is bound to the key of the session
// as its context (see [keyring.Keyring]).
type columns struct {
	Issuer      string        `json:"iss"`
	ClientID    string        `json:"client"`
	Subject     string        `json:"sub"`
	SID         string        `json:"sid,omitempty"`
	Former      []string      `json:"former,omitempty"`  // this and the fields below are not set in notices
	Created     int64         `json:"created,omitempty"` // microseconds since 1970, like those below
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

// diff returns the names of the columns in which a and b differ, for a log line. Their values may be anybody's text.
func (a columns) diff(b columns) string {
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

// ErrAltered means that the columns of a session or notice are not those that were sealed with its payload. Somebody
// without a key has written to the store. An app does not see it: such a session counts as not found.
var ErrAltered = errors.New("the store holds other columns than were sealed")

// The purposes under which payloads are sealed, which name the version of their format. A payload opens only under the
// purpose that it was sealed for: without a key nobody can turn a version 2 into a version 1.
const (
	sealed   = "session payload v2"
	sealedV1 = "session payload v1" // has no columns; still opened, never written
)

// encode returns a session as a store keeps it.
func encode(r *keyring.Keyring, s *Session) (store.Record, error) {
	rec := store.Record{
		Key: s.Key, Issuer: s.Issuer, ClientID: s.ClientID, Subject: s.Subject, SID: s.SID, Former: s.Former,
		Created: store.Time(s.Created), LastSeen: store.Time(s.LastSeen),
		IdleExpires: store.Time(s.IdleExpires), Expires: store.Time(s.Expires), Revision: s.revision,
	}
	switch {
	case s.Tokens.RefreshToken == "":
	case s.Tokens.Offline:
		rec.Refresh = store.RefreshOffline
	default:
		rec.Refresh = store.RefreshOnline
	}
	var issued time.Time
	if s.IsToken {
		// The oldest sessions make room when somebody has too many: tokens, and never a person's browsers for them.
		issued, rec.Created = s.Created, s.admitted
	}
	var err error
	rec.Payload, err = sealPayload(r, s.Key, payload{Provider: s.Provider, Claims: s.Claims, Tokens: s.Tokens,
		RefreshHeld: s.refreshHeld, RefreshFail: s.refreshFailed, Address: s.Address, UserAgent: s.UserAgent,
		Confirmed: s.confirmed, HostKey: s.hostKey, TokenIssued: issued, Columns: columnsOf(&rec)})
	return rec, err
}

func sealPayload(r *keyring.Keyring, k store.Key, p payload) ([]byte, error) {
	plain, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("session: encode payload: %w", err)
	}
	return r.Seal(sealed, k[:], plain), nil
}

// openPayload opens a payload of any version. The caller checks that it belongs to the columns beside it.
func openPayload(r *keyring.Keyring, k store.Key, text []byte) (p payload, v1 bool, err error) {
	plain, v1, err := unseal(r, k, text)
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

// unseal returns the JSON of a payload of any version.
func unseal(r *keyring.Keyring, k store.Key, text []byte) (plain []byte, v1 bool, err error) {
	if plain, err = r.Open(sealed, k[:], text); err != nil {
		v1 = true
		plain, err = r.Open(sealedV1, k[:], text)
	}
	return plain, v1, err
}

// decode returns the session of a record. It never lives longer than lifetime. The error is [keyring.ErrUnsealed] if no
// key opens the payload, and [ErrAltered] if the payload belongs to other columns.
func decode(r *keyring.Keyring, rec store.Record, lifetime time.Duration) (*Session, error) {
	p, v1, err := openPayload(r, rec.Key, rec.Payload)
	if err != nil {
		return nil, fmt.Errorf("session %s: %w", rec.Key.Handle(), err)
	}
	expires := rec.Expires
	if v1 {
		issued, err := p.checkV1(columnsOf(&rec))
		if err != nil {
			return nil, fmt.Errorf("session %s: %w", rec.Key.Handle(), err)
		}
		if latest := store.Time(issued.Add(lifetime + store.AttemptLifetime)); latest.Before(expires) {
			expires = latest
		}
	} else if names := p.Columns.diff(columnsOf(&rec)); names != "" {
		return nil, fmt.Errorf("session %s: %w: %s", rec.Key.Handle(), ErrAltered, names)
	}
	created := rec.Created
	if !p.TokenIssued.IsZero() {
		created = p.TokenIssued
	}
	return &Session{
		Key: rec.Key, Provider: p.Provider, Issuer: rec.Issuer, ClientID: rec.ClientID, Subject: rec.Subject,
		SID: rec.SID, Former: rec.Former,
		Created: created, LastSeen: rec.LastSeen, IdleExpires: rec.IdleExpires, Expires: expires,
		IsToken: !p.TokenIssued.IsZero(), admitted: rec.Created,
		Claims: p.Claims, Tokens: p.Tokens, revision: rec.Revision, refreshHeld: p.RefreshHeld,
		refreshFailed: p.RefreshFail, Address: p.Address, UserAgent: p.UserAgent, hostKey: p.HostKey,
		confirmed: p.Confirmed,
	}, nil
}

// decode is [decode] with the provider under today's name.
func (m *Manager) decode(rec store.Record) (*Session, error) {
	s, err := decode(m.cfg.Keyring, rec, m.cfg.Lifetime)
	if err == nil && m.cfg.NameOf != nil {
		if name := m.cfg.NameOf(rec.Issuer, rec.ClientID); name != "" {
			s.Provider = name
		}
	}
	return s, err
}

// checkV1 checks the columns beside a payload of version 1, which does not contain them, against the claims of the ID
// Token that it does contain. It returns when that token was issued, which is when the session began. So a payload from
// an old backup cannot be restored as another person's session, nor for longer than it would have lived.
func (p *payload) checkV1(c columns) (issued time.Time, err error) {
	iss, _ := p.Claims["iss"].(string)
	sub, _ := p.Claims["sub"].(string)
	number, _ := p.Claims["iat"].(json.Number)
	iat, _ := number.Float64()
	if iss == "" || sub == "" || iat <= 0 || iat > 1<<40 {
		return issued, fmt.Errorf("%w: it has version 1 and does not say whose it is", keyring.ErrUnsealed)
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
	if names := claimed.diff(c); names != "" {
		return issued, fmt.Errorf("%w: %s", ErrAltered, names)
	}
	return time.Unix(int64(iat), 0), nil
}
