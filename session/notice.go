package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// SIDFor returns what an app behind us knows the session by: it is told this in a header, and finds it as the `sid` of
// a logout token. It stays the same as long as the session lives, another app gets another one, and nobody gets from it
// to the key, or to what another app was told.
//
// It is made of the key alone, which no app ever sees: a secret of the key ring would change what a living session is
// called when the ring is rotated.
func (k Key) SIDFor(clientID string) string {
	mac := hmac.New(sha256.New, k[:])
	mac.Write([]byte("curfew sid of an app\x00" + clientID))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:24])
}

// NoticeTokens opens the tokens in the payload of a [NoticeRevoke]. [ErrUnsealed] when no key of the ring opens it.
func (r *Ring) NoticeTokens(n Notice) (Tokens, error) {
	s, err := r.session(Record{Key: n.Key, Payload: n.Payload})
	if err != nil {
		return Tokens{}, err
	}
	return s.Tokens, nil
}

// NoticePayload seals tokens as the payload of a [NoticeRevoke] about the session with this key.
func (r *Ring) NoticePayload(k Key, t Tokens) ([]byte, error) {
	plain, err := json.Marshal(payload{Tokens: t})
	if err != nil {
		return nil, fmt.Errorf("session: encode payload: %w", err)
	}
	return r.Seal(sealed, k[:], plain), nil
}
