package oidc

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	jose "github.com/go-jose/go-jose/v4"
)

const (
	keysMost   = 256 // in one set
	rsaLeast   = 2048
	rsaLargest = 8192 // bits; a larger one would make each check costly
)

// KeyInfo describes a key that the provider publishes.
type KeyInfo struct {
	KID string
	Kty string // RSA, EC, OKP, ...
	Crv string // P-256, Ed25519, ...; empty for RSA
	Alg string // the one algorithm that it is for; empty when the provider does not say
	Use string // sig, enc; empty when the provider does not say
	// Bits is the size of an RSA key.
	Bits int
	// For are the configured algorithms that the key is used with, each once.
	For []string
	// Problem says why the key is not used with a configured algorithm; empty when it is.
	Problem string
}

// publicKey is a key as published (RFC 7517 §4), usable or not: one that is known to be unusable must not look unknown.
type publicKey struct {
	info    KeyInfo
	ops     []string
	key     crypto.PublicKey
	problem string // why it is of no use at all
}

// parseKeys reads a JWK Set (RFC 7517 §5). A key that cannot be used does not spoil the others.
func parseKeys(data []byte) (keysByID, error) {
	c, err := decodeObject(data)
	if err != nil {
		return nil, err
	}
	list, ok := c["keys"].([]any)
	if !ok {
		return nil, errors.New("it has no array `keys`")
	}
	if len(list) > keysMost {
		return nil, fmt.Errorf("it has %d keys, more than %d", len(list), keysMost)
	}
	keys := keysByID{}
	for _, e := range list {
		members, ok := e.(map[string]any)
		if !ok {
			continue
		}
		k := parseKey(members)
		keys[k.info.KID] = append(keys[k.info.KID], k)
	}
	return keys, nil
}

func parseKey(m claims) publicKey {
	var k publicKey
	for name, to := range map[string]*string{
		"kid": &k.info.KID, "kty": &k.info.Kty, "crv": &k.info.Crv, "alg": &k.info.Alg, "use": &k.info.Use,
	} {
		v := m[name] // nil also when it is null, which is as good as absent
		s, ok := v.(string)
		if v != nil && !ok {
			k.problem = fmt.Sprintf("its `%s` is not a string", name)
		}
		*to = s
	}
	if v := m["key_ops"]; v != nil {
		list, _ := v.([]any)
		k.ops = []string{} // said, even if it says nothing: then the key is for nothing
		for _, e := range list {
			if s, ok := e.(string); ok {
				k.ops = append(k.ops, s)
			}
		}
	}
	if k.problem != "" {
		return k
	}
	if m["d"] != nil || m["k"] != nil {
		k.problem = "it is published together with its private part, or is a shared secret"
		return k
	}
	// Only what makes the key is handed on: certificates are not looked at, so a strange one spoils nothing.
	material := map[string]any{}
	for _, name := range []string{"kty", "crv", "n", "e", "x", "y"} {
		if v := m[name]; v != nil {
			material[name] = v
		}
	}
	data, err := json.Marshal(material)
	if err != nil {
		k.problem = "it cannot be read"
		return k
	}
	var j jose.JSONWebKey
	if err := j.UnmarshalJSON(data); err != nil || !j.Valid() || !j.IsPublic() {
		k.problem = fmt.Sprintf("a key of kty %s, crv %s that cannot be read here", quote(k.info.Kty),
			quote(k.info.Crv))
		return k
	}
	k.key = j.Key
	if r, ok := j.Key.(*rsa.PublicKey); ok {
		k.info.Bits = r.N.BitLen()
		if k.info.Bits < rsaLeast || k.info.Bits > rsaLargest {
			k.problem = fmt.Sprintf("an RSA key of %d bits; it takes %d to %d", k.info.Bits, rsaLeast, rsaLargest)
		}
	}
	return k
}

// problemWith says why the key is not used to check signatures made with a; empty when it is. Each key serves the one
// algorithm that it was published for, if that was said (RFC 8725 §3.1).
func (k *publicKey) problemWith(a *algorithm) string {
	switch {
	case k.problem != "":
		return k.problem
	case k.info.Use != "" && k.info.Use != "sig":
		return "its `use` is " + quote(k.info.Use)
	case k.info.Alg != "" && canonicalAlg(k.info.Alg) != a.name:
		return "its `alg` is " + quote(k.info.Alg)
	case k.ops != nil && !slices.Contains(k.ops, "verify"):
		return "its `key_ops` do not hold \"verify\""
	}
	var kty, crv string
	switch key := k.key.(type) {
	case *rsa.PublicKey:
		kty = "RSA"
	case *ecdsa.PublicKey:
		kty, crv = "EC", key.Curve.Params().Name
	case ed25519.PublicKey:
		kty, crv = "OKP", "Ed25519"
	}
	if kty != a.kty || crv != a.crv {
		return fmt.Sprintf("it is a key of kty %s, crv %s", quote(k.info.Kty), quote(k.info.Crv))
	}
	return ""
}
