package session

import (
	"crypto/hmac"
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
	boundSize  = bearerSize + sha256.Size
)

// Bearer is the secret in the session cookie: 256 random bits after a tag. Everybody who has it is signed in, so it is
// never stored, logged or printed: it prints as "[bearer]". An app does not handle it; [Cookie] and [Manager] do.
//
// At a site with several hosts each has a bearer of its own. It ends in a MAC over the name of the host, with a key
// that is sealed in the session: so all of them name one session, and none opens it at another host.
type Bearer struct {
	raw   [bearerSize]byte
	bound bool
	mac   [sha256.Size]byte // if bound
	host  string            // of the request that it came with; it is not part of the value
}

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
	var all [boundSize]byte
	var b Bearer
	size := bearerSize
	if b.bound = len(s) == base64.RawURLEncoding.EncodedLen(boundSize); b.bound {
		size = boundSize
	}
	if err := decodeText(all[:size], s); err != nil {
		return Bearer{}, errors.New("not a session cookie of ours")
	}
	copy(b.raw[:], all[:])
	copy(b.mac[:], all[bearerSize:])
	return b, nil
}

// Reveal returns the value for the cookie. Use it for nothing else.
func (b *Bearer) Reveal() string {
	if !b.bound {
		return base64.RawURLEncoding.EncodeToString(b.raw[:])
	}
	return base64.RawURLEncoding.EncodeToString(append(b.raw[:], b.mac[:]...))
}

// bindTo returns the bearer of the same session for one host.
func (b Bearer) bindTo(host string, key []byte) Bearer {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(host))
	b.bound, b.host = true, host
	mac.Sum(b.mac[:0])
	return b
}

// Key returns the key of the session in the store, which is a hash of b. It is the same for all hosts.
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
	var src [128]byte
	n := copy(src[:], s)
	for _, c := range src[:n] {
		if c == '\r' || c == '\n' { // the decoder would skip it
			return errors.New("line end")
		}
	}
	_, err := base64.RawURLEncoding.Strict().Decode(dst, src[:n])
	return err
}
