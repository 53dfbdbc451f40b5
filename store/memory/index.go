package memory

import (
	"bytes"
	"slices"
	"strings"

	"example.com/curfew/store"
)

// entry is a session and its position in every index, so that it can be removed from them without a search.
type entry struct {
	timer
	rec       store.Record
	in        namespace
	bySubject links
	bySID     links
	place     int // in its shard of the keyIndex
}

func newEntry(r store.Record) *entry {
	in := namespaceOf(r.Issuer, r.ClientID)
	scope := in.Value()
	// Strings are cloned, since the caller's may be parts of larger ones, which they would keep in memory.
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

// runsOut returns when the session stops living, in microseconds since 1970.
func (e *entry) runsOut() int64 {
	return min(e.rec.Expires.UnixMicro(), e.rec.IdleExpires.UnixMicro())
}

// name is a key of an index. The index of subjects uses the subject. The index of sids uses the sid, or the subject for
// sessions without a sid.
type name struct {
	in           namespace
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

// add puts e before the sessions that are not newer: as a rule at the head. One that stands for an access token goes
// behind those of browsers.
func (x *index) add(n name, e *entry) {
	var prev *entry
	next := x.heads[n]
	for next != nil && next.rec.Created.After(e.rec.Created) {
		prev, next = next, x.links(next).next
	}
	*x.links(e) = links{prev, next}
	if next != nil {
		x.links(next).prev = e
	}
	if prev != nil {
		x.links(prev).next = e
	} else {
		x.heads[n] = e
	}
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

// appendTo appends to found the sessions under n that w names, without the first skip of them, until found has limit.
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

// named returns up to limit sessions that w names, without the newest skip of them.
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
	s.byKey.add(e)
	s.expiry.add(e, e.runsOut(), 0)
}

func (s *Store) remove(e *entry) {
	bySubject, bySID := e.names()
	delete(s.sessions, e.rec.Key)
	s.subjects.drop(bySubject, e)
	s.sids.drop(bySID, e)
	s.dropFormer(e)
	s.byKey.drop(e)
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

// keyIndex keeps the sessions in shards, by the first twelve bits of their keys, which are part of a hash. So the
// shards are in the order of the keys, and a page of a list sorts only the few shards that it needs.
type keyIndex [1 << 12][]*entry

func shardOf(k store.Key) int { return int(k[0])<<4 | int(k[1])>>4 }

func (s *keyIndex) add(e *entry) {
	shard := &s[shardOf(e.rec.Key)]
	e.place = len(*shard)
	*shard = append(*shard, e)
}

func (s *keyIndex) drop(e *entry) {
	shard := &s[shardOf(e.rec.Key)]
	last := len(*shard) - 1
	moved := (*shard)[last]
	(*shard)[e.place] = moved
	moved.place = e.place
	(*shard)[last] = nil
	*shard = (*shard)[:last]
}

// after returns the sessions of a shard whose keys come after k, in order.
func (s *keyIndex) after(shard int, k store.Key) []*entry {
	return inOrder(s[shard], k)
}

// inOrder returns the entries whose keys come after a key, in order.
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
