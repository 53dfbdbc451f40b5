package session

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
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

// NoticeTokens opens the tokens in the payload of a [NoticeRevoke]. [ErrUnsealed] when no key of the ring opens it,
// [ErrAltered] when the notice names another issuer, client or person than the payload: its tokens must not be sent to
// another provider.
func (r *Ring) NoticeTokens(n Notice) (Tokens, error) {
	p, v1, err := r.open(n.Key, n.Payload)
	if err != nil {
		return Tokens{}, fmt.Errorf("session %s: %w", n.Key.Handle(), err)
	}
	about := noticeColumns(n.Issuer, n.ClientID, n.Subject, n.SID)
	if v1 {
		_, err = p.ownerV1(about)
	} else if names := noticeColumns(p.Columns.Issuer, p.Columns.ClientID, p.Columns.Subject, p.Columns.SID).differ(about); names != "" {
		err = fmt.Errorf("%w: %s", ErrAltered, names)
	}
	if err != nil {
		return Tokens{}, fmt.Errorf("session %s: %w", n.Key.Handle(), err)
	}
	return p.Tokens, nil
}

// NoticePayload seals tokens as the payload of a [NoticeRevoke] about a session.
func (r *Ring) NoticePayload(s *Session, t Tokens) ([]byte, error) {
	return r.seal(s.Key, payload{Provider: s.Provider, Tokens: t, Columns: noticeColumns(s.Issuer, s.ClientID, s.Subject, s.SID)})
}

func noticeColumns(issuer, clientID, subject, sid string) columns {
	return columns{Issuer: issuer, ClientID: clientID, Subject: subject, SID: sid}
}
