package oidc

import (
	"crypto"
	"slices"

	jose "github.com/go-jose/go-jose/v4"
)

// openToken takes a token apart, decrypted if it was encrypted. mustEncrypt is whether a plain one is refused when the
// provider is registered to encrypt (Back-Channel Logout §2.6 step 1, Core §3.1.3.7 step 1).
func (p *Provider) openToken(raw string, mustEncrypt bool) (*signed, error) {
	parts, err := splitCompact(raw)
	if err != nil {
		return nil, err
	}
	if len(parts) == 5 {
		if raw, err = p.cfg.Encryption.decrypt(raw, parts); err != nil {
			return nil, err
		}
		if parts, err = splitCompact(raw); err != nil {
			return nil, err
		}
	} else if mustEncrypt && p.cfg.Encryption != nil {
		return nil, failed("jwe", "the token is not encrypted, and this client is registered for encrypted ones")
	}
	return parseSigned(parts, raw)
}

// decrypt opens a JWE. Exactly the registered pair of algorithms is taken, and no compression: what comes out is never
// larger than what came in. With no e there is no key.
func (e *Encryption) decrypt(raw string, parts []string) (string, error) {
	plain, _, err := e.decryptWith(raw, parts)
	return plain, err
}

// decryptWith is [Encryption.decrypt]; it also returns the key that opened the JWE.
func (e *Encryption) decryptWith(raw string, parts []string) (string, *PrivateKey, error) {
	if e == nil {
		return "", nil, failed("jwe", "the token is encrypted, and no key to decrypt it is configured")
	}
	for _, part := range parts { // which the library would not insist on
		if _, err := decodePart(part); err != nil {
			return "", nil, failed("shape", "a part of the encrypted token is %w", err)
		}
	}
	head, err := decodePart(parts[0])
	if err != nil {
		return "", nil, failed("shape", "the header of the encryption is %w", err)
	}
	h, err := parseHeader(head) // no zip, no crit
	if err != nil {
		return "", nil, err
	}
	if h.alg != e.Alg {
		return "", nil, failed("jwe", "the token is encrypted with alg %s; registered is %s", quote(h.alg), e.Alg)
	}
	enc, err := jose.ParseEncryptedCompact(raw, []jose.KeyAlgorithm{jose.KeyAlgorithm(e.Alg)},
		[]jose.ContentEncryption{jose.ContentEncryption(e.Enc)})
	if err != nil {
		return "", nil, failed("jwe", "the encryption cannot be read, or its enc is not the registered %s", e.Enc)
	}
	for _, k := range e.inOrder(h.kid) {
		if plain, err := enc.Decrypt(k.Key); err == nil {
			return string(plain), &k, nil
		}
	}
	return "", nil, failed("jwe", "the token cannot be decrypted with the configured key")
}

// has reports whether a key, whatever it is called, is among those of e.
func (e *Encryption) has(k *PrivateKey) bool {
	type comparable interface{ Equal(crypto.PublicKey) bool }
	public, ok := k.public().(comparable)
	return ok && e != nil && slices.ContainsFunc(e.Keys, func(o PrivateKey) bool { return public.Equal(o.public()) })
}

// inOrder returns the keys, first the one that the header names. Providers may name a key as they like.
func (e *Encryption) inOrder(kid string) []PrivateKey {
	keys := slices.Clone(e.Keys)
	slices.SortStableFunc(keys, func(a, b PrivateKey) int {
		switch {
		case kid == "" || (a.ID == kid) == (b.ID == kid):
			return 0
		case a.ID == kid:
			return -1
		}
		return 1
	})
	return keys
}
