package store

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
)

const (
	tagSize = 4
	keySize = tagSize + sha256.Size
)

// Key names a session in a store: the tag of the bearer and the bearer's SHA-256. A bearer cannot be computed from a
// key.
//
// The tag depends on issuer, client and subject alone, so that a store which is spread over machines can keep all that
// belongs to one person in one place. It is no secret and proves nothing.
type Key [keySize]byte

// Tag returns the tag of all sessions of one subject at one issuer and client.
func Tag(issuer, clientID, subject string) [tagSize]byte {
	h := sha256.New()
	var n [8]byte
	for _, s := range []string{issuer, clientID, subject} {
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	return [tagSize]byte(h.Sum(nil))
}

// ParseKey reads what [Key.String] wrote.
func ParseKey(s string) (Key, error) {
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(raw) != keySize || Key(raw).String() != s { // one spelling for each key
		return Key{}, errors.New("not a session key")
	}
	return Key(raw), nil
}

// Tag returns the part of the key that all sessions of one subject share.
func (k Key) Tag() [tagSize]byte { return [tagSize]byte(k[:]) }

// IsZero reports whether k names no session.
func (k Key) IsZero() bool { return k == Key{} }

// String returns the key as 48 characters that are safe in a URL.
func (k Key) String() string { return base64.RawURLEncoding.EncodeToString(k[:]) }

// MarkSID returns the name of the end mark of the key (see [Ending.Bar]) for a store that keeps it as one of a sid. No
// provider has such a sid: it would have to know the key.
func (k Key) MarkSID() string { return "key:" + k.String() }

// Handle returns a short name of the session for log lines and pages. It cannot be used in place of a key.
func (k Key) Handle() string {
	sum := sha256.Sum256(k[:])
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// SIDFor returns the name by which the app with this client ID knows the session: it gets the name in a header, and as
// the `sid` of a logout token (OpenID Connect Back-Channel Logout 1.0 §2.4). The name does not change while the
// session lives. Each app gets another one, from which neither the key nor the name for another app can be computed.
//
// It is derived from the key alone, which no app ever sees. If it used a key of the keyring, a rotation would change
// the names of living sessions.
func (k Key) SIDFor(clientID string) string {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte("curfew sid of an app\x00" + clientID))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:24])
}
