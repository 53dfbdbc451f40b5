package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"sync"
)

// ErrUnsealed means that a value was not sealed by a [Keyring], was changed, was sealed for another purpose or context,
// or was sealed with a key that the keyring does not have.
var ErrUnsealed = errors.New("cannot be opened with any key of the keyring")

// Keyring holds keys: the first one seals, all of them open. To rotate, put a new key first, and remove the old one
// when nothing that it sealed is in use any more. Where several processes share what is sealed, each has to know the
// new key before one of them has it first. A Keyring is safe for concurrent use.
//
// A sealed value is bound to a purpose and a context (a session's key, a cookie's name), so it cannot be moved from one
// place to another. It is sealed with AES-256-GCM and a random nonce, under a key derived for the purpose. One key may
// seal 2^32 values for each purpose.
type Keyring struct {
	keys []key
	aead sync.Map // aeadOf → cipher.AEAD: a derived key for each purpose
}

type key struct {
	id     [4]byte
	secret [32]byte
}

type aeadOf struct {
	key     int
	purpose string
}

// New returns a keyring with these keys, each of 32 random bytes.
func New(keys ...[]byte) (*Keyring, error) {
	if len(keys) == 0 {
		return nil, errors.New("keyring: no keys")
	}
	r := new(Keyring)
	for i, k := range keys {
		if len(k) != 32 {
			return nil, fmt.Errorf("keyring: key %d has %d bytes, want 32", i+1, len(k))
		}
		sum := sha256.Sum256(append([]byte("curfew key id\x00"), k...))
		r.keys = append(r.keys, key{id: [4]byte(sum[:]), secret: [32]byte(k)})
	}
	return r, nil
}

// Parse reads a key file. Each line holds one key: 32 bytes in base64. Empty lines and lines that begin with # are
// ignored. Errors name the line and never its content.
func Parse(text []byte) (*Keyring, error) {
	var keys [][]byte
	for i, line := range bytes.Split(text, []byte("\n")) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		k, err := base64.StdEncoding.DecodeString(string(line))
		wrong := ""
		switch {
		case err != nil:
			wrong = "is not base64"
		case len(k) != 32:
			wrong = fmt.Sprintf("holds %d bytes", len(k))
		}
		if wrong != "" {
			return nil, fmt.Errorf("key file line %d %s: "+
				"want the base64 of 32 random bytes, as `openssl rand -base64 32` prints it", i+1, wrong)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("key file: holds no key; write one with `openssl rand -base64 32`")
	}
	return New(keys...)
}

// NewFile returns the text of a key file with one new key.
func NewFile() []byte {
	k := make([]byte, 32)
	rand.Read(k)
	return fmt.Appendf(nil,
		"# The keys that seal cookies and tokens: the first seals, all open. Keep this file secret.\n%s\n",
		base64.StdEncoding.EncodeToString(k))
}

// Seal encrypts plain for one purpose and context.
func (r *Keyring) Seal(purpose string, context, plain []byte) []byte {
	id := r.keys[0].id
	out := make([]byte, len(id), len(id)+12+len(plain)+16)
	copy(out, id[:])
	return r.cipher(0, purpose).Seal(out, nil, plain, context)
}

// Open decrypts what Seal returned for the same purpose and context. The error is [ErrUnsealed].
func (r *Keyring) Open(purpose string, context, sealed []byte) ([]byte, error) {
	if len(sealed) < 4 {
		return nil, ErrUnsealed
	}
	for i := range r.keys {
		if r.keys[i].id != [4]byte(sealed) {
			continue
		}
		if plain, err := r.cipher(i, purpose).Open(nil, nil, sealed[4:], context); err == nil {
			return plain, nil
		}
	}
	return nil, ErrUnsealed
}

// Stale reports whether a value was sealed with another key than the first one, so that its owner can seal it again
// before that key is removed.
func (r *Keyring) Stale(sealed []byte) bool {
	return len(sealed) < 4 || r.keys[0].id != [4]byte(sealed)
}

// cipher returns the AEAD of one key for one purpose. It cannot fail, since the sizes are fixed.
func (r *Keyring) cipher(key int, purpose string) cipher.AEAD {
	at := aeadOf{key, purpose}
	if a, ok := r.aead.Load(at); ok {
		return a.(cipher.AEAD)
	}
	derived, err := hkdf.Key(sha256.New, r.keys[key].secret[:], nil, "curfew "+purpose, 32)
	if err != nil {
		panic(err)
	}
	block, err := aes.NewCipher(derived)
	if err != nil {
		panic(err)
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	r.aead.Store(at, a)
	return a
}
