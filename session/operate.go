package session

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"example.com/curfew/keyring"
	"example.com/curfew/store"
)

// This file is for operators: it finds sessions of people, and ends all of a provider.

// ID returns a name of the session for operators, in 19 characters that are safe in a URL: the tag of its key, a dot,
// and its handle as in log lines. [Manager.ByID] finds the session by it. Neither the key nor the bearer can be
// computed from it.
func (s *Session) ID() string { return IDOf(s.Key) }

// IDOf returns the [Session.ID] of the session with this key.
func IDOf(k store.Key) string {
	tag := k.Tag()
	return base64.RawURLEncoding.EncodeToString(tag[:]) + "." + k.Handle()
}

// Listed is a session in a [Listing].
type Listed struct {
	*Session
	// Unreadable: no key of this process opens its payload, or its columns were changed in the store; or its provider is
	// not configured any more. It is not served. It has no claims, address and user agent.
	Unreadable bool
}

// Search asks [Manager.Search] for living sessions. An empty field does not restrict. Subject and SID need Issuer and
// ClientID.
type Search struct {
	Issuer, ClientID, Subject, SID string

	Email   string    // the claim email, whatever the case of its letters
	Address string    // of the browser, at the sign-in
	Since   time.Time // Created is no earlier
	Before  time.Time // Created is earlier

	After store.Key // the Next of the page before
	Limit int       // 1 to 1,000; 0 means 100
}

// Listing is a page of sessions.
type Listing struct {
	Sessions []Listed
	Next     store.Key // zero on the last page
	Looked   int       // how many sessions were looked at
}

// lookMost is how many sessions one [Manager.Search] compares, so that an answer takes no longer than some tens of
// look-ups by key, however many sessions there are. It may then be short, or empty, and have a Next.
const lookMost = 100

// Search returns sessions in the order of their keys, a page at a time. Those of a subject or a sid are found by index.
// Anything else is compared session by session, since it is sealed in the payload: an answer ends after 100 of them, or
// after Limit if that is more, and the caller goes on from its Next.
func (m *Manager) Search(ctx context.Context, q Search) (Listing, error) {
	if err := m.clock.ensureRead(ctx); err != nil {
		return Listing{}, err
	}
	if q.Limit < 0 || q.Limit > 1000 {
		return Listing{}, fmt.Errorf("search: a page holds 1 to 1000 sessions, not %d", q.Limit)
	}
	q.Limit = cmp.Or(q.Limit, 100)
	most := max(lookMost, q.Limit)
	ask := store.Query{After: q.After, Limit: q.Limit} // enough if all match
	if q.Email != "" || q.Address != "" || !q.Since.IsZero() || !q.Before.IsZero() {
		ask.Limit = most
	}
	if q.Subject != "" || q.SID != "" {
		ask.Issuer, ask.ClientID, ask.Subject, ask.SID = q.Issuer, q.ClientID, q.Subject, q.SID
	}
	var found Listing
	now := m.Now()
	may := q.unopened(m.cfg.Keyring)
	for {
		page, err := m.cfg.Store.List(ctx, ask, store.Time(now))
		if err != nil {
			return Listing{}, unavailable(err)
		}
		for _, rec := range page.Records {
			if len(found.Sessions) == q.Limit {
				found.Next = found.Sessions[q.Limit-1].Key
				return found, nil
			}
			found.Looked++
			if !may(&rec) {
				continue
			}
			if s := m.listed(rec, now); q.matches(s) {
				found.Sessions = append(found.Sessions, s)
			}
		}
		ask.After, ask.Limit = page.Next, max(1, most-found.Looked)
		if page.Next.IsZero() || found.Looked >= most || len(found.Sessions) == q.Limit {
			found.Next = page.Next
			return found, nil
		}
	}
}

func (q *Search) matches(s Listed) bool {
	email, _ := s.Claims["email"].(string)
	return (q.Email == "" || strings.EqualFold(email, q.Email)) && (q.Address == "" || s.Address == q.Address) &&
		(q.Since.IsZero() || !s.Created.Before(q.Since)) && (q.Before.IsZero() || s.Created.Before(q.Before))
}

// unopened returns a function that reports whether a record may match. It is quick: most of the time of a comparison is
// spent on decoding the payload, which has to have the texts that are asked for.
func (q *Search) unopened(r *keyring.Keyring) func(*store.Record) bool {
	quoted := func(text string) []byte {
		b, _ := json.Marshal(text) // as the payload has it
		return b
	}
	address, email := quoted(q.Address), bytes.ToLower(quoted(q.Email)) // nil: another case or escape may match
	// The letters s and k have a third case, which ToLower keeps.
	folds := func(text []byte) bool { return bytes.ContainsAny(text, "\u017f\u212a") }
	if !ascii(address) {
		address = nil
	}
	if q.Email == "" || !ascii(email) {
		email = nil
	}
	return func(rec *store.Record) bool {
		if q.Issuer != "" && q.Issuer != rec.Issuer || q.ClientID != "" && q.ClientID != rec.ClientID {
			return false
		}
		// The column of an access token is not when it was created: see encode.
		if !rec.IsToken() &&
			(!q.Since.IsZero() && rec.Created.Before(q.Since) || !q.Before.IsZero() && !rec.Created.Before(q.Before)) {
			return false
		}
		if q.Email == "" && q.Address == "" {
			return true
		}
		plain, _, err := unseal(r, rec.Key, rec.Payload)
		return err == nil && (q.Address == "" || bytes.Contains(plain, address)) &&
			(email == nil || folds(plain) || bytes.Contains(bytes.ToLower(plain), email))
	}
}

func ascii(text []byte) bool {
	return !bytes.ContainsFunc(text, func(c rune) bool { return c >= utf8.RuneSelf })
}

// listed opens a record for an operator.
func (m *Manager) listed(rec store.Record, now time.Time) Listed {
	s, err := m.decode(rec)
	unserved := m.cfg.Serves != nil && !m.cfg.Serves(rec.Issuer, rec.ClientID)
	if err != nil || !now.Before(s.Expires) {
		return Listed{&Session{
			Key: rec.Key, Issuer: rec.Issuer, ClientID: rec.ClientID, Subject: rec.Subject, SID: rec.SID,
			Former: rec.Former, Created: rec.Created, LastSeen: rec.LastSeen, IdleExpires: rec.IdleExpires,
			Expires: rec.Expires,
		}, true}
	}
	return Listed{s, unserved}
}

// tagOfID returns the tag in a [Session.ID].
func tagOfID(id string) (tag [4]byte, ok bool) {
	text, _, ok := strings.Cut(id, ".")
	raw, err := base64.RawURLEncoding.DecodeString(text)
	if !ok || err != nil || len(raw) != len(tag) {
		return tag, false
	}
	return [4]byte(raw), true
}

// ByID returns the living session with this [Session.ID]. The error is [store.ErrNotFound] if there is none.
func (m *Manager) ByID(ctx context.Context, id string) (Listed, error) {
	tag, ok := tagOfID(id)
	if !ok {
		return Listed{}, store.ErrNotFound
	}
	_, handle, _ := strings.Cut(id, ".")
	if err := m.clock.ensureRead(ctx); err != nil {
		return Listed{}, err
	}
	now := m.Now()
	q := store.Query{Limit: 10} // few people have more
	copy(q.After[:], tag[:])    // the keys of a subject follow one another
	for {
		page, err := m.cfg.Store.List(ctx, q, store.Time(now))
		if err != nil {
			return Listed{}, unavailable(err)
		}
		for _, rec := range page.Records {
			switch {
			case rec.Key.Tag() != tag:
				return Listed{}, store.ErrNotFound
			case rec.Key.Handle() == handle:
				return m.listed(rec, now), nil
			}
		}
		if q.After, q.Limit = page.Next, 1000; q.After.IsZero() {
			return Listed{}, store.ErrNotFound
		}
	}
}

const (
	endedAtOnce   = 8                // subjects whose sessions are ended at the same time
	endClientStep = 10 * time.Second // how long one call of EndClient goes on
)

// EndClient ends all sessions of an issuer and client, in steps: call it again with the returned key until that is
// zero. After the last step no session that a login from before the first one created lives, on any replica, as after
// [Manager.End]. The sessions of each subject end as if an ending had named the subject, so a person who signs in again
// before the last step may have to do so once more. It returns how many sessions the step ended. After an error the
// caller goes on from the same key, or from the beginning.
//
// A store has no end mark for everybody. So the first step saves the time for all replicas, before the first session
// ends, and [Manager.Create] compares it after the session has been created: either the steps find that session, or
// Create finds the time.
func (m *Manager) EndClient(ctx context.Context, issuer, clientID string, cause store.Cause,
	after store.Key) (ended int, next store.Key, err error) {
	if issuer == "" || clientID == "" {
		return 0, store.Key{}, store.ErrNobody
	}
	if after.IsZero() {
		if err := m.barClient(ctx, issuer, clientID); err != nil {
			return 0, store.Key{}, err
		}
	} else if err := m.clock.ensureRead(ctx); err != nil {
		return 0, store.Key{}, err
	}
	for began := m.cfg.Now(); ; {
		page, err := m.cfg.Store.List(ctx, store.Query{After: after, Limit: 1000}, store.Time(m.Now()))
		if err != nil {
			return ended, after, unavailable(err)
		}
		var subjects []string
		for _, rec := range page.Records {
			if rec.Issuer == issuer && rec.ClientID == clientID {
				subjects = append(subjects, rec.Subject)
			}
		}
		slices.Sort(subjects)
		n, err := m.endSubjects(ctx, issuer, clientID, cause, slices.Compact(subjects))
		ended += n
		if err != nil {
			return ended, after, err
		}
		after = page.Next
		if after.IsZero() {
			return ended, after, m.confirmAll(ctx, issuer, clientID)
		}
		if m.clock.since(began) > endClientStep {
			return ended, after, nil
		}
	}
}

// endSubjects ends the sessions of each subject.
func (m *Manager) endSubjects(ctx context.Context, issuer, clientID string, cause store.Cause,
	subjects []string) (ended int, err error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for chunk := range slices.Chunk(subjects, max(1, (len(subjects)+endedAtOnce-1)/endedAtOnce)) {
		all.Go(func() {
			for _, subject := range chunk {
				gone, fault := m.End(ctx, store.Ending{Cause: cause,
					Selector: store.Selector{Issuer: issuer, ClientID: clientID, Subject: subject}})
				mu.Lock()
				ended, err = ended+len(gone), errors.Join(err, fault)
				stop := err != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	all.Wait()
	return ended, err
}

func clientEndedName(issuer, clientID string) string {
	sum := sha256.Sum256([]byte(strconv.Itoa(len(issuer)) + ":" + issuer + clientID))
	return "client-ended/" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// barClient saves that all sessions of a client end now. The time is never earlier than the store's when barClient was
// called. It is not sealed: an access token outlives a change of all keys.
func (m *Manager) barClient(ctx context.Context, issuer, clientID string) error {
	if err := m.clock.ensureFresh(ctx); err != nil {
		return err
	}
	name := clientEndedName(issuer, clientID)
	_, latest := m.clock.between()
	at := []byte(strconv.FormatInt(store.Micros(latest), 10))
	for {
		_, revision, err := m.cfg.Store.Load(ctx, name)
		if err == nil {
			err = m.cfg.Store.Save(ctx, name, at, revision)
		}
		if errors.Is(err, store.ErrConflict) { // another operator was as quick
			continue
		}
		if err != nil {
			return unavailable(err)
		}
		return nil
	}
}

// clientBarred reports whether all sessions of a client were ended after a login began. It is called after the session
// was created: see [Manager.EndClient].
func (m *Manager) clientBarred(ctx context.Context, issuer, clientID string, began time.Time) (bool, error) {
	name := clientEndedName(issuer, clientID)
	value, _, err := m.cfg.Store.Load(ctx, name)
	if err != nil {
		return false, unavailable(err)
	}
	if value == nil {
		return false, nil
	}
	micros, err := strconv.ParseInt(string(value), 10, 64)
	if err != nil {
		return false, fmt.Errorf("session: the shared value %q: %w", name, err)
	}
	return !store.FromMicros(micros).Before(store.Time(began)), nil
}

// FeedInSync reports whether this process hears of the sessions that end on other replicas: the last proof of it is no
// older than it should be. While it is false, every check asks the store.
func (m *Manager) FeedInSync() bool {
	t := m.synced.Load()
	return t != nil && m.clock.since(*t) <= max(m.cfg.MaxStale, time.Second)
}
