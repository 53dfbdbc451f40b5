package session

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"

	"example.com/curfew/store"
)

const (
	tagSize    = len(store.Key{}) - sha256.Size
	bearerSize = tagSize + 32
)

// Bearer is the random value in the cookie: 256 random bits after a tag. Who has it is signed in, so it is never
// stored, logged or printed: it prints as "[bearer]".
type Bearer struct{ raw [bearerSize]byte }

// NewBearer makes the bearer of a new session.
func NewBearer(issuer, clientID, subject string) Bearer {
	var b Bearer
	tag := store.Tag(issuer, clientID, subject)
	copy(b.raw[:], tag[:])
	rand.Read(b.raw[tagSize:])
	return b
}

// ParseBearer reads the value of a cookie. There is one spelling for each bearer and no other is taken.
func ParseBearer(s string) (Bearer, error) {
	var b Bearer
	if err := decodeText(b.raw[:], s); err != nil {
		return Bearer{}, errors.New("not a session cookie of ours")
	}
	return b, nil
}

// Reveal returns the value for the cookie.
func (b *Bearer) Reveal() string { return base64.RawURLEncoding.EncodeToString(b.raw[:]) }

// Key returns the hash under which the session is stored.
func (b *Bearer) Key() store.Key {
	var k store.Key
	copy(k[:], b.raw[:tagSize])
	sum := sha256.Sum256(b.raw[:])
	copy(k[tagSize:], sum[:])
	return k
}

func (Bearer) String() string       { return "[bearer]" }
func (Bearer) GoString() string     { return "[bearer]" }
func (Bearer) LogValue() slog.Value { return slog.StringValue("[bearer]") }

// decodeText fills dst from the canonical base64url of exactly its length. It does not allocate.
func decodeText(dst []byte, s string) error {
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
