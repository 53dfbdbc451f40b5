package session

import (
	"fmt"

	"example.com/curfew/keyring"
	"example.com/curfew/store"
)

// NoticeTokens opens the payload of a [store.NoticeRevoke] and returns its tokens. The error is [keyring.ErrUnsealed]
// if no key of the keyring opens it, and [ErrAltered] if the notice names another issuer, client or person than the
// payload: its tokens must not be sent to another provider. Package fanout uses it.
func NoticeTokens(r *keyring.Keyring, n store.Notice) (Tokens, error) {
	p, v1, err := openPayload(r, n.Key, n.Payload)
	if err != nil {
		return Tokens{}, fmt.Errorf("session %s: %w", n.Key.Handle(), err)
	}
	about := noticeColumns(n.Issuer, n.ClientID, n.Subject, n.SID)
	if v1 {
		_, err = p.checkV1(about)
	} else {
		sealed := noticeColumns(p.Columns.Issuer, p.Columns.ClientID, p.Columns.Subject, p.Columns.SID)
		if names := sealed.diff(about); names != "" {
			err = fmt.Errorf("%w: %s", ErrAltered, names)
		}
	}
	if err != nil {
		return Tokens{}, fmt.Errorf("session %s: %w", n.Key.Handle(), err)
	}
	return p.Tokens, nil
}

// NoticePayload seals tokens as the payload of a [store.NoticeRevoke] about a session. Package fanout uses it.
func NoticePayload(r *keyring.Keyring, s *Session, t Tokens) ([]byte, error) {
	return sealPayload(r, s.Key, payload{Provider: s.Provider, Tokens: t,
		Columns: noticeColumns(s.Issuer, s.ClientID, s.Subject, s.SID)})
}

func noticeColumns(issuer, clientID, subject, sid string) columns {
	return columns{Issuer: issuer, ClientID: clientID, Subject: subject, SID: sid}
}
