package memory

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"
	"unique"

	"example.com/curfew/store"
)

var (
	errClosed = errors.New("memory: the store is closed")
	errExists = errors.New("memory: create: a session with this key exists already")
)

// Store keeps sessions and notices in memory. It is a [store.Store].
//
// One mutex guards everything. It is held longest for one batch of End or Prune, or one page of List. All other methods
// are a few map look-ups, so several mutexes would cost more than they save.
type Store struct {
	incarnation string

	mu     sync.Mutex
	closed bool

	sessions map[store.Key]*entry
	subjects index                        // every session, by its subject
	sids     index                        // every session, by its sid; or, when it has none, by its subject
	former   map[name]map[*entry]struct{} // the sessions that had a sid before, by that sid
	byKey    keyIndex
	expiry   queue[*entry]

	marks     map[mark]*remembered[mark]
	markTimes queue[*remembered[mark]]
	jtis      map[jti]*remembered[jti]
	jtiTimes  queue[*remembered[jti]]

	attempts     map[store.AttemptID]*attempt
	attemptTimes queue[*attempt]

	outbox outbox
	values map[string]sharedValue
	hub    store.Hub

	journal  []store.JournalEntry // by position
	position int64                // of the newest entry
}

// New returns an empty store.
func New() *Store {
	return &Store{
		incarnation: rand.Text(),

		sessions: make(map[store.Key]*entry),
		subjects: index{heads: make(map[name]*entry), links: func(e *entry) *links { return &e.bySubject }},
		sids:     index{heads: make(map[name]*entry), links: func(e *entry) *links { return &e.bySID }},
		former:   make(map[name]map[*entry]struct{}),
		marks:    make(map[mark]*remembered[mark]),
		jtis:     make(map[jti]*remembered[jti]),
		attempts: make(map[store.AttemptID]*attempt),
		outbox:   newOutbox(),
		values:   make(map[string]sharedValue),
	}
}

// namespace is one issuer and client, the scope of subjects and sids. It is a handle, so a million sessions of one
// provider share one copy of its name, and a comparison is one of pointers.
type namespace = unique.Handle[scope]

type scope struct{ issuer, clientID string }

func namespaceOf(issuer, clientID string) namespace { return unique.Make(scope{issuer, clientID}) }

// mark is an end mark. It bars the sessions that a [store.Selector] with the same subject or sid names; with bare set,
// those of the subject without a sid. An ending with both leaves one for the sid, and one with bare set.
type mark struct {
	in           namespace
	subject, sid string
	bare         bool
}

type jti struct {
	in namespace
	id string
}

// remembered is a mark or a jti that is kept for a while.
type remembered[K comparable] struct {
	timer
	key K
	at  time.Time // of a mark: when the ending was; of a jti: when it expires
}

// do runs fn with the mutex held, unless ctx is done or the store is closed.
func (s *Store) do(ctx context.Context, fn func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return fn()
}

// Create implements [store.Store].
func (s *Store) Create(ctx context.Context, r store.Record, began, now time.Time) error {
	if err := r.ValidateSIDs(); err != nil {
		return err
	}
	began = store.Time(began)
	return s.insertNew(ctx, r, began, began, store.Time(now).Sub(began) >= store.AttemptLifetime, "")
}

// Admit implements [store.Store].
func (s *Store) Admit(ctx context.Context, r store.Record, issued, _ time.Time) error {
	if err := r.ValidateSIDs(); err != nil {
		return err
	}
	return s.insertNew(ctx, r, store.Time(issued), time.Time{}, false, r.Key.MarkSID())
}

// insertNew keeps r, unless it is tooOld, or a mark names it: one of its subject at or after began, or one of its sids
// or keySID at or after sidBegan.
func (s *Store) insertNew(
	ctx context.Context, r store.Record, began, sidBegan time.Time, tooOld bool, keySID string,
) error {
	return s.do(ctx, func() error {
		byKey := mark{namespaceOf(r.Issuer, r.ClientID), "", keySID, false}
		if tooOld || s.barred(&r, began, sidBegan) || keySID != "" && s.marks[byKey] != nil {
			return store.ErrEnded
		}
		if s.sessions[r.Key] != nil {
			return errExists
		}
		s.insert(newEntry(r))
		return nil
	})
}

// barred reports whether a mark names r: one of its subject at or after began, or one of its sids at or after sidBegan.
func (s *Store) barred(r *store.Record, began, sidBegan time.Time) bool {
	in := namespaceOf(r.Issuer, r.ClientID)
	since := func(m mark, t time.Time) bool {
		found := s.marks[m]
		return found != nil && !found.at.Before(t)
	}
	if since(mark{in, r.Subject, "", false}, began) {
		return true
	}
	if r.SID == "" {
		return since(mark{in, r.Subject, "", true}, began)
	}
	return slices.ContainsFunc(append([]string{r.SID}, r.Former...), func(sid string) bool {
		return since(mark{in, "", sid, false}, sidBegan)
	})
}

// Find implements [store.Store].
func (s *Store) Find(ctx context.Context, key store.Key, now time.Time) (store.Record, error) {
	var r store.Record
	now = store.Time(now)
	err := s.do(ctx, func() error {
		e := s.sessions[key]
		if e == nil || !e.rec.Lives(now) {
			return store.ErrNotFound
		}
		r = e.rec
		return nil
	})
	return own(r), err
}

// own makes r the caller's.
func own(r store.Record) store.Record {
	r.Former, r.Payload = slices.Clone(r.Former), bytes.Clone(r.Payload)
	return r
}

// Update implements [store.Store].
func (s *Store) Update(ctx context.Context, r store.Record, now time.Time) error {
	return s.update(ctx, r, now, nil)
}

// Rename implements [store.Store].
func (s *Store) Rename(ctx context.Context, r store.Record, began, now time.Time) error {
	if err := r.ValidateSIDs(); err != nil {
		return err
	}
	began, now = store.Time(began), store.Time(now)
	if now.Sub(began) >= store.AttemptLifetime {
		return store.ErrEnded
	}
	return s.update(ctx, r, now, func(e *entry) error {
		renamed := e.rec
		renamed.SID, renamed.Former = strings.Clone(r.SID), cloneAll(r.Former)
		if s.barred(&renamed, began, began) {
			return store.ErrEnded
		}
		_, was := e.names()
		s.sids.drop(was, e)
		s.dropFormer(e)
		e.rec.SID, e.rec.Former = renamed.SID, renamed.Former
		_, is := e.names()
		s.sids.add(is, e)
		s.addFormer(e)
		return nil
	})
}

// update carries out Update and Rename. also makes the further changes of Rename; if it fails, nothing has changed.
func (s *Store) update(ctx context.Context, r store.Record, now time.Time, also func(*entry) error) error {
	now = store.Time(now)
	return s.do(ctx, func() error {
		e := s.sessions[r.Key]
		if e == nil || !e.rec.Lives(now) {
			return store.ErrNotFound
		}
		if e.rec.Revision != r.Revision {
			return store.ErrConflict
		}
		if also != nil {
			if err := also(e); err != nil {
				return err
			}
		}
		e.rec.LastSeen = store.Time(r.LastSeen)
		e.rec.IdleExpires = store.Time(r.IdleExpires)
		e.rec.Expires = store.Time(r.Expires)
		e.rec.Refresh = r.Refresh
		e.rec.Payload = bytes.Clone(r.Payload)
		e.rec.Revision++
		s.expiry.move(e, e.runsOut())
		return nil
	})
}

// End implements [store.Store].
func (s *Store) End(ctx context.Context, e store.Ending, now time.Time) ([]store.Ended, error) {
	if err := e.Validate(); err != nil {
		return nil, err
	}
	now = store.Time(now)
	return store.EndInBatches(ctx, func(ctx context.Context) ([]store.Ended, bool, error) {
		return s.endBatch(ctx, e, now)
	})
}

// endBatch carries out one batch of End. Everything that can fail comes before the first change.
func (s *Store) endBatch(
	ctx context.Context, e store.Ending, now time.Time,
) (ended []store.Ended, more bool, err error) {
	err = s.do(ctx, func() error {
		scope := namespaceOf(e.Selector.Issuer, e.Selector.ClientID)
		if known := s.jtis[jti{scope, e.JTI}]; e.JTI != "" && known != nil && now.Before(known.at) {
			return store.ErrReplayed
		}
		if e.Spare == 0 {
			s.leaveMarks(scope, &e, now)
		}
		named := s.named(e.Selector, e.Spare, store.EndBatch)
		more = len(named) == store.EndBatch && e.Spare == 0
		if e.JTI != "" && !more {
			remember(s.jtis, &s.jtiTimes, jti{scope, strings.Clone(e.JTI)}, store.Time(e.JTIExpires), 0)
		}
		var gone []store.Record
		for _, found := range named {
			s.remove(found)
			if found.rec.Lives(now) {
				gone = append(gone, found.rec)
			}
			if found.rec.IsToken() && e.Spare == 0 {
				s.leaveMark(mark{scope, "", found.rec.Key.MarkSID(), false}, now, e.MarkLife())
			}
		}
		for _, n := range e.NoticesFor(gone, more, now) {
			s.outbox.add(n)
		}
		ended = e.Ended(gone, now)
		s.hub.Publish(ended) // before another ending can find them gone
		return nil
	})
	return ended, more, err
}

// leaveMarks leaves the marks that bar the logins under way that e names. A key names an existing session, so no login,
// but it may name an access token.
func (s *Store) leaveMarks(in namespace, e *store.Ending, now time.Time) {
	w := e.Selector
	if e.Bar {
		w.SID = w.Key.MarkSID()
	}
	if w.SID != "" {
		s.leaveMark(mark{in, "", strings.Clone(w.SID), false}, now, e.MarkLife())
	}
	if w.Subject != "" {
		s.leaveMark(mark{in, strings.Clone(w.Subject), "", w.SID != ""}, now, e.MarkLife())
	}
}

func (s *Store) leaveMark(k mark, now time.Time, life time.Duration) {
	at, until := now, now.Add(life)
	if m := s.marks[k]; m != nil {
		at, until = later(at, m.at), later(until, time.UnixMicro(s.markTimes[m.place].due))
	}
	remember(s.marks, &s.markTimes, k, at, until.Sub(at))
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// remember keeps k with the time at, until at+longer. It replaces what was kept for k before.
func remember[K comparable](
	all map[K]*remembered[K], times *queue[*remembered[K]], k K, at time.Time, longer time.Duration,
) {
	until := at.Add(longer).UnixMicro()
	if m := all[k]; m != nil {
		m.at = at
		times.move(m, until)
		return
	}
	m := &remembered[K]{key: k, at: at}
	all[k] = m
	times.add(m, until, 0)
}

// pruneBatch is how many entries one Prune removes at most, since all other calls wait for it.
const pruneBatch = 500

// Prune implements [store.Store].
func (s *Store) Prune(ctx context.Context, now time.Time) (int, error) {
	removed := 0
	err := s.do(ctx, func() error {
		at := store.Time(now).UnixMicro()
		for ; removed < pruneBatch; removed++ {
			if e, ok := s.expiry.until(at); ok {
				s.remove(e)
			} else if m, ok := s.markTimes.until(at); ok {
				s.markTimes.drop(m)
				delete(s.marks, m.key)
			} else if m, ok := s.jtiTimes.until(at); ok {
				s.jtiTimes.drop(m)
				delete(s.jtis, m.key)
			} else if a, ok := s.attemptTimes.until(at); ok {
				s.attemptTimes.drop(a)
				delete(s.attempts, a.id)
			} else {
				break
			}
		}
		return nil
	})
	return removed, err
}

// Watch implements [store.Store]. fn is called before End returns.
func (s *Store) Watch(ctx context.Context, fn func(store.Ended)) (store.Feed, error) {
	return s.hub.Watch(ctx, fn)
}

// Close implements [store.Store] and discards everything.
func (s *Store) Close() error {
	s.hub.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.sessions, s.subjects.heads, s.sids.heads, s.former, s.byKey, s.expiry = nil, nil, nil, nil, keyIndex{}, nil
	s.attempts, s.attemptTimes, s.journal = nil, nil, nil
	s.marks, s.markTimes, s.jtis, s.jtiTimes, s.outbox, s.values = nil, nil, nil, nil, outbox{}, nil
	return nil
}

// Clock implements [store.Store]. The incarnation is a new one for each store, since a restart loses all end marks.
func (s *Store) Clock() store.Clock { return store.Clock{Incarnation: s.incarnation} }
