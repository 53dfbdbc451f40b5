package oidc

import (
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/url"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// ProofLife is how long before and after its `iat` a DPoP proof is taken, and so for how long its use is to be
// remembered.
const ProofLife = 2 * skew

const maxProof = 8 << 10 // bytes

// VerifyDPoPProof verifies the proof that came with an access token (RFC 9449 §4.3): that the holder of the key with
// the thumbprint jkt made it for this token, and for a request of this method to this URL. It returns what identifies
// the proof. The caller refuses one that was used before, within [ProofLife] of now. The error is an [Error] of the
// check "dpop".
func VerifyDPoPProof(proof, method, where, accessToken, jkt string, now time.Time) (id [sha256.Size]byte, err error) {
	refuse := func(format string, args ...any) ([sha256.Size]byte, error) {
		return [sha256.Size]byte{}, failed("dpop", format, args...)
	}
	if len(proof) > maxProof {
		return refuse("the proof has more than %d bytes", maxProof)
	}
	t, err := parseSigned(strings.Split(proof, "."), proof)
	if err != nil {
		return refuse("%w", err)
	}
	if mediaType(t.header.typ) != "dpop+jwt" {
		return refuse("%s is not the type of a proof", quote(t.header.typ))
	}
	a, err := findAlgorithm(t.header.alg)
	if err != nil {
		return refuse("%w", err)
	}
	key, err := t.embeddedKey()
	if err != nil {
		return refuse("%w", err)
	}
	if problem := key.problemWith(a); problem != "" {
		return refuse("its key is not for %s: %s", a.name, problem)
	}
	sum, err := (&jose.JSONWebKey{Key: key.key}).Thumbprint(crypto.SHA256)
	if err != nil || subtle.ConstantTimeCompare([]byte(encodePart(sum)), []byte(jkt)) != 1 {
		return refuse("the token is bound to another key")
	}
	c, err := decodeObject(t.payload)
	if err != nil {
		return refuse("the payload is %w", err)
	}
	ath := sha256.Sum256([]byte(accessToken))
	got, _ := c["ath"].(string)
	switch {
	case c["htm"] != method:
		return refuse("it is for another method than %s", quote(method))
	case !sameTarget(c["htu"], where):
		return refuse("it is for another URL than %s", quote(where))
	case subtle.ConstantTimeCompare([]byte(got), []byte(base64.RawURLEncoding.EncodeToString(ath[:]))) != 1:
		return refuse("it is for another access token (ath)")
	}
	iat, err := c.time("iat")
	if err != nil {
		return refuse("%w", err)
	}
	if age := now.Sub(iat); age > skew || age < -skew {
		return refuse("it is of %v, and it is %v; do the clocks agree?", iat.UTC(), now.UTC())
	}
	jti, err := c.text("jti", maxJTI)
	if err != nil {
		return refuse("%w", err)
	}
	if !a.verify(key.key, t.input, t.signature) {
		return refuse("it is not signed with the key that it names")
	}
	return sha256.Sum256([]byte("dpop proof\x00" + jkt + "\x00" + jti)), nil
}

// embeddedKey returns the key in the header of a DPoP proof, which is used for nothing but that proof.
func (s *signed) embeddedKey() (publicKey, error) {
	head, _, _ := strings.Cut(s.input, ".")
	data, err := decodePart(head)
	if err != nil {
		return publicKey{}, err
	}
	members, err := decodeObject(data)
	if err != nil {
		return publicKey{}, err
	}
	jwk, ok := members["jwk"].(map[string]any)
	if !ok {
		return publicKey{}, failed("dpop", "it holds no key (jwk)")
	}
	return parseKey(jwk), nil
}

// sameTarget compares `htu` with the URL of a request, without query and fragment (RFC 9449 §4.3), and after what RFC
// 3986 §6.2.2 and §6.2.3 call equivalent: case, default ports, an empty path.
func sameTarget(htu any, where string) bool {
	text, _ := htu.(string)
	a, err1 := url.Parse(text)
	b, err2 := url.Parse(where)
	if err1 != nil || err2 != nil || text == "" || a.User != nil || !sameOrigin(a, b) {
		return false
	}
	path := func(u *url.URL) string {
		if p := u.EscapedPath(); p != "" {
			return p
		}
		return "/"
	}
	return path(a) == path(b)
}
