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

	"example.com/curfew/session"
	"example.com/curfew/store/internal/feed"
	"example.com/curfew/store/internal/rules"
)

var (
	errClosed = errors.New("memory: the store is closed")
	errExists = errors.New("memory: create: a session with this key exists already")
)

// Store keeps sessions and notices in memory. It is a [session.Store], a [session.Desk] and a [session.Vault].
//
// One mutex guards it all: the longest thing done under it is a batch of End or Prune or one page of List, and everything
// else is a few map look-ups, less than handing the work to another shard would cost.
type Store struct {
	incarnation string

	mu     sync.Mutex
	closed bool

	sessions map[session.Key]*entry
	subjects index                        // every session, by its subject
	sids     index                        // every session, by its sid; or, when it has none, by its subject
	former   map[name]map[*entry]struct{} // the sessions that had a sid before the one that they have
	shelves  shelves
	expiry   queue[*entry]

	marks     map[mark]*memo[mark]
	markTimes queue[*memo[mark]]
	jtis      map[jti]*memo[jti]
	jtiTimes  queue[*memo[jti]]

	attempts     map[session.AttemptID]*attempt
	attemptTimes queue[*attempt]

	outbox outbox
	vault  map[string]valuable
	hub    feed.Hub
}

// New returns an empty store.
func New() *Store {
	return &Store{
		incarnation: rand.Text(),

		sessions: make(map[session.Key]*entry),
		subjects: index{heads: make(map[name]*entry), links: func(e *entry) *links { return &e.bySubject }},
		sids:     index{heads: make(map[name]*entry), links: func(e *entry) *links { return &e.bySID }},
		former:   make(map[name]map[*entry]struct{}),
		marks:    make(map[mark]*memo[mark]),
		jtis:     make(map[jti]*memo[jti]),
		attempts: make(map[session.AttemptID]*attempt),
		outbox:   newOutbox(),
		vault:    make(map[string]valuable),
	}
}

// realm is the scope of all names: one issuer and client. It is a handle, so that a million sessions of one provider
// hold one copy of its name and comparing two is comparing two pointers.
type realm = unique.Handle[scope]

type scope struct{ issuer, clientID string }

func realmOf(issuer, clientID string) realm { return unique.Make(scope{issuer, clientID}) }

// mark names who is barred: those that a [session.Who] of the same subject and sid names. With bare set it is the
// other half of a mark with both: the sessions of the subject that have no sid.
type mark struct {
	realm        realm
	subject, sid string
	bare         bool
}

type jti struct {
	realm realm
	id    string
}

// memo is something to be remembered for a while.
type memo[K comparable] struct {
	timer
	key K
	at  time.Time // of a mark: when the ending was; of a jti: when it runs out
}

// do runs fn alone, unless ctx is done or the store is closed.
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

// Create implements [session.Store].
func (s *Store) Create(ctx context.Context, r session.Record, began, now time.Time) error {
	if err := rules.CheckSIDs(&r); err != nil {
		return err
	}
	began, now = session.Time(began), session.Time(now)
	return s.do(ctx, func() error {
		if now.Sub(began) >= session.AttemptLifetime || s.barred(&r, began) {
			return session.ErrEnded
		}
		if s.sessions[r.Key] != nil {
			return errExists
		}
		s.insert(newEntry(r))
		return nil
	})
}

// barred says whether a mark at or after began names r.
func (s *Store) barred(r *session.Record, began time.Time) bool {
	in := realmOf(r.Issuer, r.ClientID)
	shapes := []mark{{in, r.Subject, "", false}, {in, r.Subject, "", true}}
	if r.SID != "" {
		shapes = []mark{{in, r.Subject, "", false}}
		for _, sid := range append([]string{r.SID}, r.Former...) {
			shapes = append(shapes, mark{in, "", sid, false}, mark{in, r.Subject, sid, false})
		}
	}
	for _, shape := range shapes {
		if left := s.marks[shape]; left != nil && !left.at.Before(began) {
			return true
		}
	}
	return false
}

// Find implements [session.Store].
func (s *Store) Find(ctx context.Context, key session.Key, now time.Time) (session.Record, error) {
	var r session.Record
	now = session.Time(now)
	err := s.do(ctx, func() error {
		e := s.sessions[key]
		if e == nil || !e.rec.Lives(now) {
			return session.ErrNotFound
		}
		r = e.rec
		return nil
	})
	return own(r), err
}

// own makes r the caller's.
func own(r session.Record) session.Record {
	r.Former, r.Payload = slices.Clone(r.Former), bytes.Clone(r.Payload)
	return r
}

// Update implements [session.Store].
func (s *Store) Update(ctx context.Context, r session.Record, now time.Time) error {
	return s.update(ctx, r, now, nil)
}

// Rename implements [session.Store].
func (s *Store) Rename(ctx context.Context, r session.Record, began, now time.Time) error {
	if err := rules.CheckSIDs(&r); err != nil {
		return err
	}
	began, now = session.Time(began), session.Time(now)
	if now.Sub(began) >= session.AttemptLifetime {
		return session.ErrEnded
	}
	return s.update(ctx, r, now, func(e *entry) error {
		renamed := e.rec
		renamed.SID, renamed.Former = strings.Clone(r.SID), cloneAll(r.Former)
		if s.barred(&renamed, began) {
			return session.ErrEnded
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

// update does either; also may refuse, and then nothing has changed.
func (s *Store) update(ctx context.Context, r session.Record, now time.Time, also func(*entry) error) error {
	now = session.Time(now)
	return s.do(ctx, func() error {
		e := s.sessions[r.Key]
		if e == nil || !e.rec.Lives(now) {
			return session.ErrNotFound
		}
		if e.rec.Revision != r.Revision {
			return session.ErrConflict
		}
		if also != nil {
			if err := also(e); err != nil {
				return err
			}
		}
		e.rec.LastSeen = session.Time(r.LastSeen)
		e.rec.IdleExpires = session.Time(r.IdleExpires)
		e.rec.Expires = session.Time(r.Expires)
		e.rec.Refresh = r.Refresh
		e.rec.Payload = bytes.Clone(r.Payload)
		e.rec.Revision++
		s.expiry.move(e, e.runsOut())
		return nil
	})
}

// End implements [session.Store].
func (s *Store) End(ctx context.Context, e session.Ending, now time.Time) ([]session.Ended, error) {
	if err := rules.CheckEnding(e); err != nil {
		return nil, err
	}
	now = session.Time(now)
	return rules.Batches(ctx, func(ctx context.Context) ([]session.Ended, bool, error) { return s.endBatch(ctx, e, now) })
}

// endBatch is one step of End. Everything that can fail comes before the first change.
func (s *Store) endBatch(ctx context.Context, e session.Ending, now time.Time) (ended []session.Ended, more bool, err error) {
	err = s.do(ctx, func() error {
		scope := realmOf(e.Who.Issuer, e.Who.ClientID)
		if known := s.jtis[jti{scope, e.JTI}]; e.JTI != "" && known != nil && now.Before(known.at) {
			return session.ErrReplayed
		}
		if e.Spare == 0 {
			s.leaveMarks(scope, e.Who, now)
		}
		named := s.named(e.Who, e.Spare, session.EndBatch)
		more = len(named) == session.EndBatch && e.Spare == 0
		if e.JTI != "" && !more {
			remember(s.jtis, &s.jtiTimes, jti{scope, strings.Clone(e.JTI)}, session.Time(e.JTIExpires), 0)
		}
		var gone []session.Record
		for _, found := range named {
			s.remove(found)
			if found.rec.Lives(now) {
				gone = append(gone, found.rec)
			}
		}
		for _, n := range rules.Notices(e, gone, more, now) {
			s.outbox.add(n)
		}
		ended = rules.Ended(e, gone, now)
		return nil
	})
	if err == nil {
		s.hub.Publish(ended)
	}
	return ended, more, err
}

// leaveMarks bars the logins under way that w names. A key names a session that exists, so no login.
func (s *Store) leaveMarks(in realm, w session.Who, now time.Time) {
	if !w.Key.IsZero() {
		return
	}
	subject, sid := strings.Clone(w.Subject), strings.Clone(w.SID)
	s.leaveMark(mark{in, subject, sid, false}, now)
	if subject != "" && sid != "" {
		s.leaveMark(mark{in, subject, "", true}, now)
	}
}

func (s *Store) leaveMark(k mark, now time.Time) {
	if m := s.marks[k]; m == nil || m.at.Before(now) {
		remember(s.marks, &s.markTimes, k, now, session.MarkLifetime)
	}
}

// remember keeps k until at and a while longer, in place of what was remembered of it before.
func remember[K comparable](all map[K]*memo[K], times *queue[*memo[K]], k K, at time.Time, longer time.Duration) {
	until := at.Add(longer).UnixMicro()
	if m := all[k]; m != nil {
		m.at = at
		times.move(m, until)
		return
	}
	m := &memo[K]{key: k, at: at}
	all[k] = m
	times.add(m, until)
}

// pruneBatch bounds what one Prune removes while everybody else waits.
const pruneBatch = 500

// Prune implements [session.Store].
func (s *Store) Prune(ctx context.Context, now time.Time) (int, error) {
	removed := 0
	err := s.do(ctx, func() error {
		at := session.Time(now).UnixMicro()
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

// Watch implements [session.Store]. What End does is heard of before End returns.
func (s *Store) Watch(ctx context.Context, fn func(session.Ended)) (session.Feed, error) {
	return s.hub.Watch(ctx, fn)
}

// Close forgets everything.
func (s *Store) Close() error {
	s.hub.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.sessions, s.subjects.heads, s.sids.heads, s.former, s.shelves, s.expiry = nil, nil, nil, nil, shelves{}, nil
	s.attempts, s.attemptTimes = nil, nil
	s.marks, s.markTimes, s.jtis, s.jtiTimes, s.outbox, s.vault = nil, nil, nil, nil, outbox{}, nil
	return nil
}

// Incarnation implements [session.Volatile].
func (s *Store) Incarnation() string { return s.incarnation }
