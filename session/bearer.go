package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"log/slog"
)

const (
	tagSize    = 4
	bearerSize = tagSize + 32
	keySize    = tagSize + sha256.Size
)

// Bearer is the random value in the cookie: 256 random bits after a tag. Who has it is signed in, so it is never stored,
// logged or printed: it prints as "[bearer]".
type Bearer struct{ raw [bearerSize]byte }

// Key names a session in a store: the tag of the bearer and the bearer's SHA-256. From a key nobody gets back to a
// bearer.
//
// The tag depends on issuer, client and subject alone, so that a store which is spread over machines can keep all that
// belongs to one person in one place. It is no secret and proves nothing.
type Key [keySize]byte

// NewBearer makes the bearer of a new session.
func NewBearer(issuer, clientID, subject string) Bearer {
	var b Bearer
	tag := Tag(issuer, clientID, subject)
	copy(b.raw[:], tag[:])
	rand.Read(b.raw[tagSize:])
	return b
}

// ParseBearer reads the value of a cookie. There is one spelling for each bearer and no other is taken.
func ParseBearer(s string) (Bearer, error) {
	var b Bearer
	if err := decode(b.raw[:], s); err != nil {
		return Bearer{}, errors.New("not a session cookie of ours")
	}
	return b, nil
}

// Reveal returns the value for the cookie.
func (b *Bearer) Reveal() string { return base64.RawURLEncoding.EncodeToString(b.raw[:]) }

// Key returns the hash under which the session is stored.
func (b *Bearer) Key() Key {
	var k Key
	copy(k[:], b.raw[:tagSize])
	sum := sha256.Sum256(b.raw[:])
	copy(k[tagSize:], sum[:])
	return k
}

func (Bearer) String() string       { return "[bearer]" }
func (Bearer) GoString() string     { return "[bearer]" }
func (Bearer) LogValue() slog.Value { return slog.StringValue("[bearer]") }

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
	var k Key
	if err := decode(k[:], s); err != nil {
		return Key{}, errors.New("not a session key")
	}
	return k, nil
}

// Tag returns the part of the key that all sessions of one subject share.
func (k Key) Tag() [tagSize]byte { return [tagSize]byte(k[:]) }

// IsZero says whether k names no session.
func (k Key) IsZero() bool { return k == Key{} }

// String returns the key as 48 characters that are safe in a URL.
func (k Key) String() string { return base64.RawURLEncoding.EncodeToString(k[:]) }

// Handle returns a short name of the session for log lines and pages. It cannot be used in place of a key.
func (k Key) Handle() string {
	sum := sha256.Sum256(k[:])
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}

// decode fills dst from the canonical base64url of exactly its length. It does not allocate.
func decode(dst []byte, s string) error {
	if len(s) != base64.RawURLEncoding.EncodedLen(len(dst)) {
		return errors.New("wrong length")
	}
	var src [64]byte
	n := copy(src[:], s)
	for _, c := range src[:n] {
		if c == '\r' || c == '\n' { // which the decoder would skip
			return errors.New("line end")
		}
	}
	_, err := base64.RawURLEncoding.Strict().Decode(dst, src[:n])
	return err
}
