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

// Bearer is the secret in the session cookie: 256 random bits after a tag. Everybody who has it is signed in, so it is
// never stored, logged or printed: it prints as "[bearer]". An app does not handle it; [Cookie] and [Manager] do.
type Bearer struct{ raw [bearerSize]byte }

// NewBearer returns a random bearer for a new session. [Manager.Create] calls it.
func NewBearer(issuer, clientID, subject string) Bearer {
	var b Bearer
	tag := store.Tag(issuer, clientID, subject)
	copy(b.raw[:], tag[:])
	rand.Read(b.raw[tagSize:])
	return b
}

// ParseBearer reads the value of a cookie. It accepts only the one spelling that [Bearer.Reveal] returns.
func ParseBearer(s string) (Bearer, error) {
	var b Bearer
	if err := decodeText(b.raw[:], s); err != nil {
		return Bearer{}, errors.New("not a session cookie of ours")
	}
	return b, nil
}

// Reveal returns the value for the cookie. Use it for nothing else.
func (b *Bearer) Reveal() string { return base64.RawURLEncoding.EncodeToString(b.raw[:]) }

// Key returns the key of the session in the store, which is a hash of b.
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

// decodeText fills dst from its canonical base64url, which must have exactly that length. It does not allocate.
func decodeText(dst []byte, s string) error {
	if len(s) != base64.RawURLEncoding.EncodedLen(len(dst)) {
		return errors.New("wrong length")
	}
	var src [64]byte
	n := copy(src[:], s)
	for _, c := range src[:n] {
		if c == '\r' || c == '\n' { // the decoder would skip it
			return errors.New("line end")
		}
	}
	_, err := base64.RawURLEncoding.Strict().Decode(dst, src[:n])
	return err
}
