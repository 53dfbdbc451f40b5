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

// ErrUnsealed: what was to be opened is not ours, was changed, belongs elsewhere, or was sealed with a key that the
// ring does not hold.
var ErrUnsealed = errors.New("cannot be opened with any key of the ring")

// Ring is a key ring: the first key seals, all of them open. To rotate, put a new key first; drop the old one when
// nothing that it sealed is alive.
//
// What is sealed is bound to a purpose and to a context (a session's key, a cookie's name), so that it cannot be moved
// from one place to another. AES-256-GCM with a random nonce, under a key derived for the purpose: one key of the ring
// may seal 2^32 times for each purpose.
type Keyring struct {
	keys []ringKey
	aead sync.Map // of aeadOf → cipher.AEAD: a derived key for each purpose
}

type ringKey struct {
	id     [4]byte
	secret [32]byte
}

type aeadOf struct {
	key     int
	purpose string
}

// NewRing returns the ring of these keys, 32 random bytes each.
func New(keys ...[]byte) (*Keyring, error) {
	if len(keys) == 0 {
		return nil, errors.New("key ring: no keys")
	}
	r := new(Keyring)
	for i, k := range keys {
		if len(k) != 32 {
			return nil, fmt.Errorf("key ring: key %d has %d bytes, want 32", i+1, len(k))
		}
		sum := sha256.Sum256(append([]byte("curfew key id\x00"), k...))
		r.keys = append(r.keys, ringKey{id: [4]byte(sum[:]), secret: [32]byte(k)})
	}
	return r, nil
}

// ParseRing reads a key file: one key a line, as base64 of 32 bytes; empty lines and lines that begin with # are
// passed over. Its errors name the line and never its content.
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
			return nil, fmt.Errorf("key file line %d %s: want the base64 of 32 random bytes, as `openssl rand "+
				"-base64 32` prints it", i+1, wrong)
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return nil, errors.New("key file: holds no key; write one with `openssl rand -base64 32`")
	}
	return New(keys...)
}

// NewKeyFile returns the text of a key file with one new key.
func NewFile() []byte {
	k := make([]byte, 32)
	rand.Read(k)
	return fmt.Appendf(nil, "# The keys that seal cookies and tokens: the first seals, all open. Keep this file "+
		"secret.\n%s\n",
		base64.StdEncoding.EncodeToString(k))
}

// Seal encrypts plain for one purpose and context.
func (r *Keyring) Seal(purpose string, context, plain []byte) []byte {
	id := r.keys[0].id
	out := make([]byte, len(id), len(id)+12+len(plain)+16)
	copy(out, id[:])
	return r.cipher(0, purpose).Seal(out, nil, plain, context)
}

// Open decrypts what Seal made for the same purpose and context, or answers [ErrUnsealed].
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

// Stale says whether something was sealed with another key than the one that seals now, so that its owner may seal it
// anew before that key is dropped.
func (r *Keyring) Stale(sealed []byte) bool {
	return len(sealed) < 4 || r.keys[0].id != [4]byte(sealed)
}

// cipher returns the AEAD of one key for one purpose. It cannot fail: the sizes are fixed.
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
