package session

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"example.com/curfew/store"
	"golang.org/x/sync/errgroup"
)

// This file ends what belongs to a session in several steps. A step that fails may have removed the session, and with
// it what the others are, or the store may have done it all and not know whether its replicas have it. So a caller
// that knows only the name of the session can repeat it.

const (
	leftovers   = "leftover v1"    // the purpose under which they are sealed
	signOutTime = 30 * time.Second // of one sign-out, whether or not its browser waits
)

// leftover is what is to be ended with a session. Unless one ending does it, it is kept for a quarter of an hour, under
// the [Session.ID], until it has been done.
type leftover struct {
	Key      string   `json:"key"`
	Issuer   string   `json:"iss"`
	ClientID string   `json:"client"`
	Subject  string   `json:"sub"` // whose session it is
	All      bool     `json:"all"` // all sessions of the subject
	SIDs     []string `json:"sids"`
}

// EndSignIn ends a session and those that share its sid, or an earlier one, since they are of one sign-in at the
// provider. It ends them by sid, because that leaves end marks, which bar a login of the same sign-in that is under way
// in another tab. It goes on when ctx is done. After an error some may have ended; [Manager.EndAgain] ends the rest.
func (m *Manager) EndSignIn(ctx context.Context, s *Session, cause store.Cause) ([]store.Ended, error) {
	sids := slices.DeleteFunc(append([]string{s.SID}, s.Former...), func(sid string) bool { return sid == "" })
	return m.endAll(ctx, &leftover{s.Key.String(), s.Issuer, s.ClientID, s.Subject, false, sids}, cause)
}

// EndSubject ends all sessions of the person of a session, as an ending of the subject does. After an error
// [Manager.EndAgain] ends the rest.
func (m *Manager) EndSubject(ctx context.Context, s *Session, cause store.Cause) ([]store.Ended, error) {
	return m.endAll(ctx, &leftover{s.Key.String(), s.Issuer, s.ClientID, s.Subject, true, nil}, cause)
}

func (m *Manager) endAll(ctx context.Context, l *leftover, cause store.Cause) (ended []store.Ended, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), signOutTime)
	defer cancel()
	key, err := store.ParseKey(l.Key)
	if err != nil {
		return nil, err
	}
	id, steps := leftoverID(IDOf(key)), l.All || len(l.SIDs) > 1
	var unkept error // a full store may keep nothing more, and still end sessions
	if steps {
		text, _ := json.Marshal(l)
		_, unkept = m.ClaimAttempt(ctx, id, m.cfg.Keyring.Seal(leftovers, id[:], text), store.AttemptLifetime)
	}
	end := func(sel store.Selector, bar bool) {
		sel.Issuer, sel.ClientID = l.Issuer, l.ClientID
		more, fault := m.End(ctx, store.Ending{Cause: cause, Selector: sel, Bar: bar})
		ended, err = append(ended, more...), errors.Join(err, fault)
	}
	for _, sid := range l.SIDs {
		end(store.Selector{SID: sid}, false)
	}
	if l.All {
		end(store.Selector{Subject: l.Subject}, false)
	}
	if !slices.ContainsFunc(ended, func(e store.Ended) bool { return e.Key == key }) {
		end(store.Selector{Key: key}, true)
	}
	switch {
	case err != nil:
		err = errors.Join(err, unkept)
	case steps && unkept == nil:
		_ = m.CompleteAttempt(ctx, id, []byte("done"))
	}
	return ended, err
}

// EndOne ends one session and no other, also if others are of the same sign-in. If it stands for an access token, that
// token lets nobody in any more. So also if no key of this process opens the session, which then does not say so.
func (m *Manager) EndOne(ctx context.Context, s *Session, cause store.Cause) ([]store.Ended, error) {
	return m.End(ctx, store.Ending{Cause: cause, Bar: true,
		Selector: store.Selector{Issuer: s.Issuer, ClientID: s.ClientID, Key: s.Key}})
}

// EndAgain ends what an ending of a session that failed has left, if that was in the last quarter of an hour: the
// session is not found any more. In any case it returns nil only when the store is certain that the session has ended.
// id is its [Session.ID]. of holds the issuer and the client; the subject, unless the caller may end anybody's session;
// and the key, if it is known.
func (m *Manager) EndAgain(ctx context.Context, id string, of store.Selector, cause store.Cause,
) ([]store.Ended, error) {
	tag, ok := tagOfID(id)
	if !ok {
		return nil, nil
	}
	note := leftoverID(id)
	value, err := m.Attempt(ctx, note)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	var l leftover
	if plain, err := m.cfg.Keyring.Open(leftovers, note[:], value); err == nil && json.Unmarshal(plain, &l) == nil &&
		l.Issuer == of.Issuer && l.ClientID == of.ClientID && (of.Subject == "" || l.Subject == of.Subject) {
		return m.endAll(ctx, &l, cause)
	}
	if of.Key.IsZero() {
		of.Key = nobody(tag)
	}
	return m.End(ctx, store.Ending{Cause: cause,
		Selector: store.Selector{Issuer: of.Issuer, ClientID: of.ClientID, Key: of.Key}})
}

// confirmAll returns nil only when the store is certain of all endings of a client that it has carried out: after an
// error nothing may be left to end.
func (m *Manager) confirmAll(ctx context.Context, issuer, clientID string) error {
	var all errgroup.Group
	all.SetLimit(endedAtOnce)
	for b := range 256 { // one in each part of a store that is spread over servers
		all.Go(func() error {
			_, err := m.End(ctx, store.Ending{Cause: store.CauseAdmin, Selector: store.Selector{
				Issuer: issuer, ClientID: clientID, Key: nobody([4]byte{byte(b)})}})
			return err
		})
	}
	return all.Wait()
}

// nobody is a key with a tag that no session has. When an ending of it succeeds, the store is certain of those before.
func nobody(tag [4]byte) (k store.Key) {
	copy(k[:], tag[:])
	copy(k[len(tag):], "this is the key of no session")
	return k
}

func leftoverID(id string) store.AttemptID {
	return store.AttemptID(sha256.Sum256([]byte("leftover\x00" + id)))
}
