package oidc

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	jose "github.com/go-jose/go-jose/v4"
)

const thumbprintHash = crypto.SHA256 // of RFC 7638

// mostKeys is how many private keys a client may have for one purpose: each is tried, and all are published.
const mostKeys = 8

// PrivateKey is a private key of this client. [ParsePrivateKeys] reads them. It prints as "[private key]".
type PrivateKey struct {
	ID  string // `kid`; default: the thumbprint of its public part (RFC 7638)
	Alg string // the one algorithm that it is for; empty: any that goes with it
	Use string // "sig" or "enc"; empty: either
	Key any    // *rsa.PrivateKey, *ecdsa.PrivateKey or ed25519.PrivateKey
}

func (PrivateKey) String() string       { return "[private key]" }
func (PrivateKey) GoString() string     { return "[private key]" }
func (PrivateKey) LogValue() slog.Value { return slog.StringValue("[private key]") }

// ParsePrivateKeys reads the private keys of a file, in their order: PEM blocks as PKCS#8, PKCS#1 or SEC 1, or JSON
// that is a JWK or a JWK Set (RFC 7517). Certificates beside the keys are skipped. Errors never quote the file.
func ParsePrivateKeys(data []byte) ([]PrivateKey, error) {
	parse := parsePEMKeys
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		parse = parseJWKKeys
	}
	keys, err := parse(data)
	if err != nil {
		return nil, err
	}
	for i := range keys {
		if err := keys[i].complete(); err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
	}
	return keys, nil
}

func parsePEMKeys(data []byte) (keys []PrivateKey, err error) {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		var key any
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["Proc-Type"] != "":
			return nil, errors.New("the key has a passphrase; write it without, readable by this program alone")
		case block.Type == "PRIVATE KEY":
			key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case block.Type == "RSA PRIVATE KEY":
			key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case block.Type == "EC PRIVATE KEY":
			key, err = x509.ParseECPrivateKey(block.Bytes)
		case block.Type == "CERTIFICATE" || block.Type == "EC PARAMETERS":
			continue
		default:
			return nil, fmt.Errorf("it holds a PEM block %s, which is no private key", quote(block.Type))
		}
		if err != nil {
			return nil, errors.New("want a private key as PKCS#8, PKCS#1 or SEC 1; this one cannot be read")
		}
		keys = append(keys, PrivateKey{Key: key})
	}
	if len(keys) == 0 {
		return nil, errors.New("it holds no private key, neither in PEM (-----BEGIN PRIVATE KEY-----) nor as a JWK")
	}
	return keys, nil
}

func parseJWKKeys(data []byte) ([]PrivateKey, error) {
	c, err := decodeObject(data)
	if err != nil {
		return nil, errors.New("it is not one JSON object whose names are there once")
	}
	list := []any{map[string]any(c)}
	if c.has("keys") {
		if list, _ = c["keys"].([]any); len(list) == 0 {
			return nil, errors.New("its `keys` are not an array with a key in it")
		}
	}
	keys := make([]PrivateKey, 0, len(list))
	for i, e := range list {
		m, _ := e.(map[string]any)
		k, err := parsePrivateJWK(m)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func parsePrivateJWK(m claims) (k PrivateKey, err error) {
	for name, to := range map[string]*string{"kid": &k.ID, "alg": &k.Alg, "use": &k.Use} {
		s, ok := m[name].(string)
		if m[name] != nil && !ok {
			return k, fmt.Errorf("its `%s` is not a string", name)
		}
		*to = s
	}
	material := map[string]any{}
	for _, name := range []string{"kty", "crv", "n", "e", "d", "p", "q", "dp", "dq", "qi", "x", "y"} {
		if v := m[name]; v != nil {
			material[name] = v
		}
	}
	switch {
	case m["k"] != nil:
		return k, errors.New("it is a shared secret; give it as client_secret")
	case m["d"] == nil:
		return k, errors.New("it has no private part (`d`): it is a public key")
	}
	data, err := json.Marshal(material)
	if err != nil {
		return k, errors.New("it cannot be read")
	}
	var j jose.JSONWebKey
	if err := j.UnmarshalJSON(data); err != nil || !j.Valid() || j.IsPublic() {
		return k, errors.New("it is no private JWK of kty RSA, EC or OKP that can be read here")
	}
	k.Key = j.Key
	return k, nil
}

// complete checks a key and fills in its ID.
func (k *PrivateKey) complete() error {
	switch key := k.Key.(type) {
	case *rsa.PrivateKey:
		if key == nil || key.N == nil {
			return errors.New("the key is missing")
		}
		switch n := key.N.BitLen(); {
		case n < rsaLeast:
			return fmt.Errorf("the RSA key has %d bits, less than %d", n, rsaLeast)
		case n > rsaLargest:
			return fmt.Errorf("the RSA key has %d bits, more than %d", n, rsaLargest)
		}
		if key.Validate() != nil {
			return errors.New("the parts of the RSA key do not go together")
		}
	case *ecdsa.PrivateKey:
		if key == nil || key.Curve == nil {
			return errors.New("the key is missing")
		}
		if !slices.Contains([]string{"P-256", "P-384", "P-521"}, key.Curve.Params().Name) {
			return fmt.Errorf("the curve %s is not taken; want P-256, P-384 or P-521", key.Curve.Params().Name)
		}
		d, err := key.Bytes()
		if err == nil {
			var again *ecdsa.PrivateKey
			if again, err = ecdsa.ParseRawPrivateKey(key.Curve, d); err == nil && !again.PublicKey.Equal(&key.PublicKey) {
				err = errors.New("another point")
			}
		}
		if err != nil {
			return errors.New("the private and the public part of the EC key do not go together")
		}
	case ed25519.PrivateKey:
		if len(key) != ed25519.PrivateKeySize || !ed25519.NewKeyFromSeed(key.Seed()).Equal(key) {
			return errors.New("the private and the public part of the Ed25519 key do not go together")
		}
	default:
		return fmt.Errorf("it is a %T; want an RSA, an EC or an Ed25519 private key", k.Key)
	}
	if k.Use != "" && k.Use != "sig" && k.Use != "enc" {
		return fmt.Errorf("its `use` is %s; want sig or enc", quote(k.Use))
	}
	if len(k.ID) > maxKID {
		return fmt.Errorf("its `kid` has %d bytes, more than %d", len(k.ID), maxKID)
	}
	if k.ID == "" {
		sum, err := (&jose.JSONWebKey{Key: k.public()}).Thumbprint(thumbprintHash)
		if err != nil {
			return errors.New("it has no thumbprint")
		}
		k.ID = encodePart(sum)
	}
	return nil
}

func (k *PrivateKey) public() crypto.PublicKey {
	if s, ok := k.Key.(crypto.Signer); ok {
		return s.Public()
	}
	return nil
}

// signingAlgs returns the algorithms that a key can sign with, the default first.
func (k *PrivateKey) signingAlgs() []string {
	var algs []string
	switch key := k.Key.(type) {
	case *rsa.PrivateKey:
		algs = []string{"RS256", "PS256", "RS384", "RS512", "PS384", "PS512"}
	case *ecdsa.PrivateKey:
		algs = []string{map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}[key.Params().Name]}
	case ed25519.PrivateKey:
		algs = []string{"EdDSA"}
	}
	if k.Use == "enc" {
		return nil
	}
	if k.Alg != "" {
		algs = slices.DeleteFunc(algs, func(a string) bool { return a != canonicalAlg(k.Alg) })
	}
	return algs
}

// signingKey returns the first key that can sign with alg, and the algorithm; with no alg the first key that signs, and
// its default.
func signingKey(keys []PrivateKey, alg string) (*PrivateKey, string) {
	for i := range keys {
		algs := keys[i].signingAlgs()
		if alg == "" && len(algs) > 0 {
			return &keys[i], algs[0]
		}
		if alg != "" && slices.Contains(algs, alg) {
			return &keys[i], alg
		}
	}
	return nil, alg
}

// completeKeys checks keys and fills in their IDs, in a copy.
func completeKeys(keys []PrivateKey) ([]PrivateKey, error) {
	keys = slices.Clone(keys)
	if len(keys) > mostKeys {
		return keys, fmt.Errorf("there are %d keys, more than %d", len(keys), mostKeys)
	}
	var faults []error
	ids := map[string]bool{}
	for i := range keys {
		if err := keys[i].complete(); err != nil {
			faults = append(faults, fmt.Errorf("key %d: %w", i+1, err))
			continue
		}
		if ids[keys[i].ID] {
			faults = append(faults, fmt.Errorf("key %d: another key has the same `kid` %s", i+1, quote(keys[i].ID)))
		}
		ids[keys[i].ID] = true
	}
	return keys, errors.Join(faults...)
}

// ClientKeys returns the public parts of this client's keys, for the provider to fetch (`jwks_uri`, OpenID Connect
// Dynamic Client Registration §2): those that sign and those that tokens are encrypted to. It is empty when there are
// none.
func (p *Provider) ClientKeys() jose.JSONWebKeySet {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	// A provider that needs to be told the algorithm of a key is, where there is only one.
	add := func(k *PrivateKey, use string, algs []string) {
		slices.Sort(algs)
		algs = slices.Compact(algs)
		public := jose.JSONWebKey{Key: k.public(), KeyID: k.ID, Use: use, Algorithm: k.Alg}
		if len(algs) == 1 {
			public.Algorithm = algs[0]
		}
		if !slices.ContainsFunc(set.Keys, func(o jose.JSONWebKey) bool { return o.KeyID == k.ID && o.Use == use }) {
			set.Keys = append(set.Keys, public)
		}
	}
	for i := range p.cfg.Keys {
		var algs []string
		for _, alg := range p.cfg.signingAlgsInUse() {
			if alg = signingAlgFor(&p.cfg.Keys[i], alg); alg != "" {
				algs = append(algs, alg)
			}
		}
		add(&p.cfg.Keys[i], "sig", algs)
	}
	for _, e := range p.cfg.encryptions() {
		for i := range e.Keys {
			add(&e.Keys[i], "enc", []string{e.Alg})
		}
	}
	if k, ok := p.certificateKey(); ok {
		set.Keys = append(set.Keys, k)
	}
	return set
}

// HasClientKeys reports whether there is a `jwks_uri` to register: whether [Provider.ClientKeys] returns any.
func (p *Provider) HasClientKeys() bool {
	return len(p.cfg.Keys) > 0 || len(p.cfg.encryptions()) > 0 || p.cfg.AuthMethod == AuthSelfSignedTLS
}

// signingAlgFor returns what a key signs with where alg is configured; "" when it does not.
func signingAlgFor(k *PrivateKey, alg string) string {
	if _, alg = signingKey([]PrivateKey{*k}, alg); slices.Contains(k.signingAlgs(), alg) {
		return alg
	}
	return ""
}

// sign signs claims as this client, with one of its keys or, for HS256 and the like, with its secret. typ is the `typ`
// of the JWT (RFC 8725 §3.11).
func (p *Provider) sign(typ, alg string, claims map[string]any) (string, error) {
	var with jose.SigningKey
	if strings.HasPrefix(alg, "HS") {
		with = jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: []byte(p.cfg.ClientSecret)}
	} else {
		k, alg := signingKey(p.cfg.Keys, alg)
		if k == nil {
			return "", fmt.Errorf("no private key signs with %s", quote(alg))
		}
		with = jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg), Key: jose.JSONWebKey{Key: k.Key, KeyID: k.ID}}
	}
	return signWith(with, new(jose.SignerOptions).WithType(jose.ContentType(typ)), claims)
}

func signWith(with jose.SigningKey, o *jose.SignerOptions, claims map[string]any) (string, error) {
	s, err := jose.NewSigner(with, o)
	if err != nil {
		return "", err
	}
	data, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	jws, err := s.Sign(data)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}
