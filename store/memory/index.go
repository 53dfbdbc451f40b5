package memory

import (
	"bytes"
	"slices"
	"strings"

	"example.com/curfew/store"
)

// entry is a session in its places: each knows where it lies in every index, so that it leaves them without a search.
type entry struct {
	timer
	rec       store.Record
	in        namespace
	bySubject links
	bySID     links
	place     int // on its shelf
}

func newEntry(r store.Record) *entry {
	in := namespaceOf(r.Issuer, r.ClientID)
	scope := in.Value()
	// The caller's strings may be parts of something larger, which they would keep alive.
	r.Issuer, r.ClientID = scope.issuer, scope.clientID
	r.Subject, r.SID, r.Former = strings.Clone(r.Subject), strings.Clone(r.SID), cloneAll(r.Former)
	r.Created, r.LastSeen = store.Time(r.Created), store.Time(r.LastSeen)
	r.IdleExpires, r.Expires = store.Time(r.IdleExpires), store.Time(r.Expires)
	r.Payload = bytes.Clone(r.Payload)
	r.Revision = 1
	return &entry{rec: r, in: in}
}

func cloneAll(texts []string) []string {
	var all []string
	for _, t := range texts {
		all = append(all, strings.Clone(t))
	}
	return all
}

// runsOut returns when the session stops living.
func (e *entry) runsOut() int64 {
	return min(e.rec.Expires.UnixMicro(), e.rec.IdleExpires.UnixMicro())
}

// name is what sessions are found by: in the index of subjects a subject; in the index of sids a sid, or the subject of
// those that have none.
type name struct {
	realm        namespace
	subject, sid string
}

func (e *entry) names() (bySubject, bySID name) {
	bySubject = name{e.in, e.rec.Subject, ""}
	if e.rec.SID == "" {
		return bySubject, bySubject
	}
	return bySubject, name{e.in, "", e.rec.SID}
}

// index keeps the sessions of each name in a list that runs through the entries themselves, the newest first.
type index struct {
	heads map[name]*entry
	links func(*entry) *links
}

type links struct{ prev, next *entry }

func (x *index) add(n name, e *entry) {
	head := x.heads[n]
	if head != nil {
		x.links(head).prev = e
		x.links(e).next = head
	}
	x.heads[n] = e
}

func (x *index) drop(n name, e *entry) {
	l := x.links(e)
	if l.next != nil {
		x.links(l.next).prev = l.prev
	}
	switch {
	case l.prev != nil:
		x.links(l.prev).next = l.next
	case l.next != nil:
		x.heads[n] = l.next
	default:
		delete(x.heads, n)
	}
	*l = links{}
}

// appendTo appends those of name n that w names, after the first skip of them, until there are limit.
func (x *index) appendTo(found []*entry, n name, w store.Selector, skip, limit int) []*entry {
	for e := x.heads[n]; e != nil && len(found) < limit; e = x.links(e).next {
		if !w.Names(&e.rec) {
			continue
		}
		if skip--; skip < 0 {
			found = append(found, e)
		}
	}
	return found
}

// named returns the sessions that w names, up to limit, after the newest skip of them.
func (s *Store) named(w store.Selector, skip, limit int) []*entry {
	in := namespaceOf(w.Issuer, w.ClientID)
	switch {
	case !w.Key.IsZero():
		if e := s.sessions[w.Key]; e != nil && w.Names(&e.rec) {
			return []*entry{e}
		}
		return nil
	case w.SID == "":
		return s.subjects.appendTo(nil, name{in, w.Subject, ""}, w, skip, limit)
	}
	found := s.sids.appendTo(nil, name{in, "", w.SID}, w, skip, limit)
	for e := range s.former[name{in, "", w.SID}] {
		if len(found) == limit {
			break
		}
		if w.Names(&e.rec) {
			found = append(found, e)
		}
	}
	if w.Subject != "" {
		found = s.sids.appendTo(found, name{in, w.Subject, ""}, w, skip, limit)
	}
	return found
}

func (s *Store) insert(e *entry) {
	bySubject, bySID := e.names()
	s.sessions[e.rec.Key] = e
	s.subjects.add(bySubject, e)
	s.sids.add(bySID, e)
	s.addFormer(e)
	s.shelves.add(e)
	s.expiry.add(e, e.runsOut())
}

func (s *Store) remove(e *entry) {
	bySubject, bySID := e.names()
	delete(s.sessions, e.rec.Key)
	s.subjects.drop(bySubject, e)
	s.sids.drop(bySID, e)
	s.dropFormer(e)
	s.shelves.drop(e)
	s.expiry.drop(e)
}

func (s *Store) addFormer(e *entry) {
	for _, sid := range e.rec.Former {
		n := name{e.in, "", sid}
		if s.former[n] == nil {
			s.former[n] = make(map[*entry]struct{})
		}
		s.former[n][e] = struct{}{}
	}
}

func (s *Store) dropFormer(e *entry) {
	for _, sid := range e.rec.Former {
		n := name{e.in, "", sid}
		if delete(s.former[n], e); len(s.former[n]) == 0 {
			delete(s.former, n)
		}
	}
}

// shelves keep the sessions in the rough order of their keys, by the first twelve bits, which are those of a hash. A
// page of a list sorts the few shelves that it needs; nothing else pays for the order.
type keyIndex [1 << 12][]*entry

func slotOf(k store.Key) int { return int(k[0])<<4 | int(k[1])>>4 }

func (s *keyIndex) add(e *entry) {
	shelf := &s[slotOf(e.rec.Key)]
	e.place = len(*shelf)
	*shelf = append(*shelf, e)
}

func (s *keyIndex) drop(e *entry) {
	shelf := &s[slotOf(e.rec.Key)]
	last := len(*shelf) - 1
	moved := (*shelf)[last]
	(*shelf)[e.place] = moved
	moved.place = e.place
	(*shelf)[last] = nil
	*shelf = (*shelf)[:last]
}

// after returns a shelf's sessions whose keys come after k, in order.
func (s *keyIndex) after(shelf int, k store.Key) []*entry {
	return inOrder(s[shelf], k)
}

func inOrder(entries []*entry, after store.Key) []*entry {
	var later []*entry
	for _, e := range entries {
		if compareKeys(e.rec.Key, after) > 0 {
			later = append(later, e)
		}
	}
	slices.SortFunc(later, func(a, b *entry) int { return compareKeys(a.rec.Key, b.rec.Key) })
	return later
}

func compareKeys(a, b store.Key) int { return bytes.Compare(a[:], b[:]) }
