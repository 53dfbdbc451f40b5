package oidc

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/url"
	"strings"

	jose "github.com/go-jose/go-jose/v4"
)

// dpopAlg signs DPoP proofs. RFC 9449 names none that is mandatory; every known implementation takes this one.
const dpopAlg = "ES256"

const maxNonce = 1024 // bytes

// dpopKey is the private key to which the tokens of one session are bound (RFC 9449). Its text is 32 bytes, the scalar
// on P-256.
type dpopKey struct{ private *ecdsa.PrivateKey }

// newDPoPKey makes a key for the tokens of a new session, or reads one that was kept.
func newDPoPKey(kept []byte) (*dpopKey, error) {
	if kept == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		return &dpopKey{k}, err
	}
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), kept)
	if err != nil {
		return nil, errors.New("the session's DPoP key cannot be read")
	}
	return &dpopKey{k}, nil
}

// bytes returns the key to be kept; nil when there is none.
func (k *dpopKey) bytes() []byte {
	if k == nil {
		return nil
	}
	b, err := k.private.Bytes()
	if err != nil { // which a key on P-256 has none of
		return nil
	}
	return b
}

// dpopFor returns the key that the tokens of a request are to be bound to: the one that was kept; a new one, when this
// client binds tokens; else nil.
func (p *Provider) dpopFor(kept []byte) (*dpopKey, error) {
	if kept == nil && !p.cfg.DPoP {
		return nil, nil
	}
	return newDPoPKey(kept)
}

// proof returns a DPoP proof for one request (RFC 9449 §4.2), with the last nonce that this endpoint gave. accessToken
// is that of the request, if it has one.
func (p *Provider) proof(k *dpopKey, method, where, accessToken string) (string, error) {
	u, err := url.Parse(where)
	if err != nil {
		return "", err
	}
	u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = "", false, "", ""
	claims := map[string]any{"jti": rand.Text(), "htm": method, "htu": u.String(), "iat": p.cfg.Now().Unix()}
	if accessToken != "" {
		sum := sha256.Sum256([]byte(accessToken))
		claims["ath"] = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	if nonce, ok := p.nonces.Load(where); ok {
		claims["nonce"] = nonce
	}
	o := &jose.SignerOptions{EmbedJWK: true}
	return signWith(jose.SigningKey{Algorithm: dpopAlg, Key: k.private}, o.WithType("dpop+jwt"), claims)
}

// noteNonce keeps the nonce of an answer for the next request to the same endpoint (RFC 9449 §8.2).
func (p *Provider) noteNonce(where string, a *answer) {
	bad := func(c rune) bool { return c < '!' || c > '~' || c == '"' || c == '\\' } // NQCHAR of RFC 6749
	if n := a.nonce; n != "" && len(n) <= maxNonce && !strings.ContainsFunc(n, bad) {
		p.nonces.Store(where, n)
	}
}

// wantsNonce reports whether an answer asks for the request to be sent again with the nonce that came with it (RFC 9449
// §8, §9).
func (a *answer) wantsNonce() bool {
	if a.nonce == "" || a.status != 400 && a.status != 401 {
		return false
	}
	code, _ := a.oauthError()
	return code == "use_dpop_nonce" || strings.Contains(a.challenge, `"use_dpop_nonce"`)
}
