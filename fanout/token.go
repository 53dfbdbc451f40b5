package fanout

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"example.com/curfew/store"
)

// The algorithms that sign logout tokens.
const (
	ES256 = "ES256"
	RS256 = "RS256"
)

// logoutType is the `typ` of a logout token (Back-Channel Logout §2.4).
const logoutType = "logout+jwt"

// tokenLife is what Back-Channel Logout §4 encourages: two minutes at most.
const tokenLife = 2 * time.Minute

// logoutClaims are the claims of a logout token (Back-Channel Logout §2.4), which never has a nonce.
type logoutClaims struct {
	Issuer   string              `json:"iss"`
	Audience string              `json:"aud"`
	IssuedAt int64               `json:"iat"`
	Expiry   int64               `json:"exp"`
	ID       string              `json:"jti"`
	Events   map[string]struct{} `json:"events"`
	Subject  string              `json:"sub,omitempty"`
	SID      string              `json:"sid,omitempty"`
}

// claimsFor returns the claims of a logout token for app. Each attempt has a new token: an app that records the `jti`
// before it acts would refuse the same token a second time.
//
// A session that ended here is named only by the sid that the app was given. Some relying parties take a token with
// both sub and sid as an order to end all sessions of the person.
func claimsFor(issuer string, app App, n store.Notice, now time.Time) ([]byte, error) {
	c := logoutClaims{
		Issuer: issuer, Audience: app.ClientID, IssuedAt: now.Unix(), Expiry: now.Add(tokenLife).Unix(),
		ID:     rand.Text(),
		Events: map[string]struct{}{"http://schemas.openid.net/event/backchannel-logout": {}},
	}
	switch {
	case app.Scope == ScopeSubject && n.Subject != "":
		c.Subject = n.Subject
	case !n.Key.IsZero():
		c.SID = n.Key.SIDFor(app.ClientID)
	default:
		c.Subject, c.SID = n.Subject, n.SID
	}
	if c.Subject == "" && c.SID == "" {
		return nil, errors.New("the notice names nobody")
	}
	if app.SessionRequired && c.SID == "" {
		return nil, errors.New("the notice names no session, and the app requires one")
	}
	return json.Marshal(c)
}

// Signer signs logout tokens. It is safe for concurrent use.
type Signer interface {
	// Sign returns claims as a compact JWS (RFC 7515 §7.1) with the algorithm alg, the `kid` of the key, and the `typ`
	// logout+jwt (Back-Channel Logout §2.4). After an error the notice is tried again.
	Sign(ctx context.Context, alg string, claims []byte) (string, error)
}

// OneKey returns a [Signer] with one key, for a provider that keeps its keys itself. alg is the algorithm of the key;
// it signs no token with another.
func OneKey(kid, alg string, key crypto.Signer) (Signer, error) {
	s, err := newSigner(kid, logoutType, alg, key)
	if err != nil {
		return nil, err
	}
	return oneKey{alg, s}, nil
}

type oneKey struct {
	alg    string
	signer jose.Signer
}

func (k oneKey) Sign(_ context.Context, alg string, claims []byte) (string, error) {
	if alg != k.alg {
		return "", fmt.Errorf("there is no key for %s, only one for %s", alg, k.alg)
	}
	return sign(k.signer, claims)
}

func newSigner(kid, typ, alg string, key any) (jose.Signer, error) {
	return jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(alg),
		Key: jose.JSONWebKey{Key: key, KeyID: kid}},
		new(jose.SignerOptions).WithType(jose.ContentType(typ)))
}

func sign(s jose.Signer, claims []byte) (string, error) {
	jws, err := s.Sign(claims)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}
