package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"errors"
	"math/big"
	"slices"
	"strings"
)

// algorithm is a way of signing (RFC 7518 §3.1, RFC 8037). There is no `none` and nothing with a shared secret, so no
// mistake elsewhere can let one in.
type algorithm struct {
	name  string
	kty   string // of the keys it works with
	crv   string // of the keys it works with; empty for RSA
	hash  crypto.Hash
	half  crypto.Hash // the hash of at_hash (Core §3.1.3.6)
	size  int         // of each half of an ECDSA signature
	check func(a *algorithm, key crypto.PublicKey, input, signature []byte) bool
}

func algorithms() []algorithm {
	return []algorithm{
		{name: "RS256", kty: "RSA", hash: crypto.SHA256, half: crypto.SHA256, check: checkPKCS1},
		{name: "RS384", kty: "RSA", hash: crypto.SHA384, half: crypto.SHA384, check: checkPKCS1},
		{name: "RS512", kty: "RSA", hash: crypto.SHA512, half: crypto.SHA512, check: checkPKCS1},
		{name: "PS256", kty: "RSA", hash: crypto.SHA256, half: crypto.SHA256, check: checkPSS},
		{name: "PS384", kty: "RSA", hash: crypto.SHA384, half: crypto.SHA384, check: checkPSS},
		{name: "PS512", kty: "RSA", hash: crypto.SHA512, half: crypto.SHA512, check: checkPSS},
		{name: "ES256", kty: "EC", crv: "P-256", hash: crypto.SHA256, half: crypto.SHA256, size: 32, check: checkECDSA},
		{name: "ES384", kty: "EC", crv: "P-384", hash: crypto.SHA384, half: crypto.SHA384, size: 48, check: checkECDSA},
		{name: "ES512", kty: "EC", crv: "P-521", hash: crypto.SHA512, half: crypto.SHA512, size: 66, check: checkECDSA},
		{name: "EdDSA", kty: "OKP", crv: "Ed25519", half: crypto.SHA512, check: checkEd25519},
	}
}

// findAlgorithm returns the algorithm with this name; why not, when there is none.
func findAlgorithm(name string) (*algorithm, error) {
	all := algorithms()
	name = canonicalAlg(name)
	if i := slices.IndexFunc(all, func(a algorithm) bool { return a.name == name }); i >= 0 {
		return &all[i], nil
	}
	switch {
	case strings.EqualFold(name, "none"):
		return nil, errors.New("`none` is no signature")
	case strings.HasPrefix(name, "HS"):
		return nil, errors.New(quote(name) +
			" needs a secret that both sides know, and is never taken here; register RS256, PS256, ES256 or EdDSA")
	default:
		return nil, errors.New(quote(name) +
			" is not known here; known are RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512 and EdDSA")
	}
}

// canonicalAlg gives the two names of one algorithm the same spelling: RFC 9864 calls "Ed25519" what RFC 8037 called
// "EdDSA" with an Ed25519 key, which is the only kind taken here.
func canonicalAlg(name string) string {
	if name == "Ed25519" {
		return "EdDSA"
	}
	return name
}

// verify reports whether signature is that of input under key, which must be of the algorithm's kind.
func (a *algorithm) verify(key crypto.PublicKey, input string, signature []byte) bool {
	return a.check(a, key, []byte(input), signature)
}

func (a *algorithm) digest(input []byte) []byte {
	h := a.hash.New()
	h.Write(input)
	return h.Sum(nil)
}

func checkPKCS1(a *algorithm, key crypto.PublicKey, input, signature []byte) bool {
	k, ok := key.(*rsa.PublicKey)
	return ok && rsa.VerifyPKCS1v15(k, a.hash, a.digest(input), signature) == nil
}

func checkPSS(a *algorithm, key crypto.PublicKey, input, signature []byte) bool {
	k, ok := key.(*rsa.PublicKey)
	// RFC 7518 §3.5: the salt is as long as the hash.
	o := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
	return ok && rsa.VerifyPSS(k, a.hash, a.digest(input), signature, o) == nil
}

func checkECDSA(a *algorithm, key crypto.PublicKey, input, signature []byte) bool {
	k, ok := key.(*ecdsa.PublicKey)
	if !ok || len(signature) != 2*a.size {
		return false
	}
	r, s := new(big.Int).SetBytes(signature[:a.size]), new(big.Int).SetBytes(signature[a.size:])
	return ecdsa.Verify(k, a.digest(input), r, s)
}

func checkEd25519(_ *algorithm, key crypto.PublicKey, input, signature []byte) bool {
	k, ok := key.(ed25519.PublicKey)
	return ok && len(k) == ed25519.PublicKeySize && ed25519.Verify(k, input, signature)
}
