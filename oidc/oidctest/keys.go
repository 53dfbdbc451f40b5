package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"

	jose "github.com/go-jose/go-jose/v4"
)

// Key is a key that the provider signs with.
type Key struct {
	KID     string
	Alg     string
	Private crypto.Signer

	withdrawn bool
}

// JWK returns the public key as it is published.
func (k *Key) JWK() map[string]any {
	data, err := json.Marshal(jose.JSONWebKey{Key: k.Private.Public(), KeyID: k.KID, Algorithm: k.Alg, Use: "sig"})
	if err != nil {
		panic(err) // a key that NewKey did not make
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		panic(err)
	}
	return m
}

// NewKey makes a key for an algorithm: RS*, PS*, ES* or EdDSA.
func NewKey(alg string) *Key {
	var signer crypto.Signer
	var err error
	switch alg {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		signer, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		panic("oidctest: no algorithm " + alg)
	}
	if err != nil {
		panic(err)
	}
	return &Key{KID: strings.ToLower(alg) + "-" + random()[:8], Alg: alg, Private: signer}
}

// Rotate publishes a new key and signs with it from now on. The keys before stay published.
func (p *Provider) Rotate(alg string) *Key {
	k := NewKey(alg)
	p.AddKey(k)
	return k
}

// AddKey publishes a key. Of several for an algorithm the last signs.
func (p *Provider) AddKey(k *Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = append(p.keys, k)
}

// Withdraw publishes a key no more, and signs with it no more.
func (p *Provider) Withdraw(kid string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range p.keys {
		if k.KID == kid {
			k.withdrawn = true
		}
	}
}

// Key returns the key that signs with alg. It panics when there is none.
func (p *Provider) Key(alg string) *Key {
	if k := p.findKey(alg); k != nil {
		return k
	}
	panic("oidctest: no key for " + alg)
}

func (p *Provider) findKey(alg string) *Key {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, k := range slices.Backward(p.keys) {
		if k.Alg == alg && !k.withdrawn {
			return k
		}
	}
	return nil
}

// keyFor is Key, and makes the key if there is none.
func (p *Provider) keyFor(alg string) *Key {
	if k := p.findKey(alg); k != nil {
		return k
	}
	return p.Rotate(alg)
}

// JWT is a token about to be signed, for lies to change.
type JWT struct {
	Header map[string]any // alg and kid are there; remove or change what you like
	Claims map[string]any

	HeaderJSON string // if not empty, this in place of Header, to the letter
	ClaimsJSON string // if not empty, this in place of Claims, to the letter
	Key        *Key   // what it is signed with, whatever the header says
	Alg        string // how it is signed, whatever the header says: "none", HS256, or an algorithm of Key
}

// Sign signs a token to the letter.
func Sign(t JWT) string {
	part := func(literal string, m map[string]any) string {
		if literal == "" {
			data, err := json.Marshal(m)
			if err != nil {
				panic(err)
			}
			literal = string(data)
		}
		return base64.RawURLEncoding.EncodeToString([]byte(literal))
	}
	input := part(t.HeaderJSON, t.Header) + "." + part(t.ClaimsJSON, t.Claims)
	return input + "." + base64.RawURLEncoding.EncodeToString(t.Key.Sign(t.Alg, input))
}

// Sign returns the signature of input as RFC 7518 §3 lays it out; for "none" nothing, and for HS256 an HMAC under the
// PEM of the public key, as the well-known attack has it.
func (k *Key) Sign(alg, input string) []byte {
	var opts crypto.SignerOpts
	digest := []byte(input)
	switch {
	case alg == "none":
		return nil
	case alg == "HS256":
		der, err := x509.MarshalPKIXPublicKey(k.Private.Public())
		if err != nil {
			panic(err)
		}
		m := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		m.Write(digest)
		return m.Sum(nil)
	case alg == "EdDSA" || alg == "Ed25519":
		opts = crypto.Hash(0)
	default:
		hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[2:]]
		h := hash.New()
		h.Write(digest)
		digest, opts = h.Sum(nil), hash
		if strings.HasPrefix(alg, "PS") {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		}
	}
	if ec, ok := k.Private.(*ecdsa.PrivateKey); ok {
		r, s, err := ecdsa.Sign(rand.Reader, ec, digest)
		if err != nil {
			panic(err)
		}
		size := (ec.Curve.Params().BitSize + 7) / 8
		return append(fill(r, size), fill(s, size)...)
	}
	sig, err := k.Private.Sign(rand.Reader, digest, opts)
	if err != nil {
		panic(fmt.Sprintf("oidctest: signing with %s: %v", alg, err))
	}
	return sig
}

// verifies reports whether sig is the key's signature of input. It goes by way of go-jose, which knows nothing of how
// Sign does it.
func (k *Key) verifies(input string, sig []byte) bool {
	raw := input + "." + base64.RawURLEncoding.EncodeToString(sig)
	obj, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(k.Alg)})
	if err != nil {
		return false
	}
	_, err = obj.Verify(k.Private.Public())
	return err == nil
}

func fill(i *big.Int, size int) []byte { return i.FillBytes(make([]byte, size)) }

func (p *Provider) algOf(c Client) string {
	if c.SigningAlg != "" {
		return c.SigningAlg
	}
	return p.cfg.SigningAlg
}

func (p *Provider) logoutAlgOf(c Client) string {
	if c.LogoutSigningAlg != "" {
		return c.LogoutSigningAlg
	}
	return p.algOf(c)
}

// newJWT prepares a token of a client.
func (p *Provider) newJWT(alg, typ string, claims map[string]any) JWT {
	k := p.keyFor(alg)
	h := map[string]any{"alg": alg, "kid": k.KID}
	if typ != "" {
		h["typ"] = typ
	}
	return JWT{Header: h, Claims: claims, Key: k, Alg: alg}
}

// finish signs a token, and encrypts it if the client is registered so.
func (p *Provider) finish(t JWT, c Client) string {
	raw := Sign(t)
	if c.Encryption != nil {
		return Encrypt(raw, c.Encryption)
	}
	return raw
}

// Encrypt wraps a token in a JWE.
func Encrypt(raw string, e *Encryption) string {
	enc, err := jose.NewEncrypter(jose.ContentEncryption(e.Enc),
		jose.Recipient{Algorithm: jose.KeyAlgorithm(e.Alg), Key: e.Key},
		(&jose.EncrypterOptions{}).WithContentType("JWT"))
	if err != nil {
		panic(err)
	}
	obj, err := enc.Encrypt([]byte(raw))
	if err != nil {
		panic(err)
	}
	s, err := obj.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return s
}

// LogoutEvent is the member of `events` of a logout token.
const LogoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// SignLogoutToken signs a logout token for a client (Back-Channel Logout §2.4). sub or sid may be empty. Each lie may
// change it before it is signed.
func (p *Provider) SignLogoutToken(clientID, sub, sid string, lies ...func(*JWT)) string {
	c, _ := p.client(clientID)
	now := p.cfg.Now()
	claims := map[string]any{
		"iss":    p.cfg.Issuer,
		"aud":    clientID,
		"iat":    now.Unix(),
		"exp":    now.Add(p.cfg.LogoutTokenTTL).Unix(),
		"jti":    random(),
		"events": map[string]any{LogoutEvent: map[string]any{}},
	}
	if sub != "" {
		claims["sub"] = sub
	}
	if sid != "" {
		claims["sid"] = sid
	}
	t := p.newJWT(p.logoutAlgOf(c), "logout+jwt", claims)
	for _, lie := range lies {
		lie(&t)
	}
	if c.PlainLogoutTokens {
		return Sign(t)
	}
	return p.finish(t, c)
}

// SignAccessToken signs an access token for a resource (RFC 9068 §2), issued to a client. sid may be empty.
func (p *Provider) SignAccessToken(audience, clientID, sub, sid string, lies ...func(*JWT)) string {
	now := p.cfg.Now()
	claims := map[string]any{
		"iss": p.cfg.Issuer, "aud": audience, "sub": sub, "client_id": clientID, "jti": random(),
		"iat": now.Unix(), "exp": now.Add(p.cfg.AccessTokenTTL).Unix(),
	}
	if sid != "" {
		claims["sid"] = sid
	}
	t := p.newJWT(p.cfg.SigningAlg, "at+jwt", claims)
	for _, lie := range lies {
		lie(&t)
	}
	return Sign(t)
}

// SignIDToken signs an ID Token for a client (Core §2). sid, nonce and accessToken may be empty.
func (p *Provider) SignIDToken(clientID, sub, sid, nonce, accessToken string, lies ...func(*JWT)) string {
	return p.signIDToken(&grant{client: clientID, subject: sub, sid: sid, nonce: nonce, authTime: p.cfg.Now()},
		accessToken, lies...)
}

func (p *Provider) signIDToken(g *grant, accessToken string, lies ...func(*JWT)) string {
	c, _ := p.client(g.client)
	now := p.cfg.Now()
	alg := p.algOf(c)
	claims := map[string]any{
		"iss":       p.cfg.Issuer,
		"aud":       g.client,
		"sub":       g.subject,
		"iat":       now.Unix(),
		"exp":       now.Add(p.cfg.IDTokenTTL).Unix(),
		"auth_time": g.authTime.Unix(),
	}
	if g.sid != "" && !c.NoSID {
		claims["sid"] = g.sid
	}
	if g.nonce != "" {
		claims["nonce"] = g.nonce
	}
	if accessToken != "" {
		claims["at_hash"] = half(alg, accessToken)
	}
	t := p.newJWT(alg, "JWT", claims)
	for _, lie := range lies {
		lie(&t)
	}
	return p.finish(t, c)
}

// half is the left half of a hash (Core §3.1.3.6).
func half(alg, s string) string {
	hash := crypto.SHA512 // of EdDSA
	switch {
	case strings.HasSuffix(alg, "256"):
		hash = crypto.SHA256
	case strings.HasSuffix(alg, "384"):
		hash = crypto.SHA384
	}
	h := hash.New()
	h.Write([]byte(s))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:h.Size()/2])
}
