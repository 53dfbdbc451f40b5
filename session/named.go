package session

import (
	"sync"
	"time"

	"example.com/curfew/store"
)

// named are the sids and subjects of endings that this replica carried out, until the feed has proved that it delivered
// all that ended before. A copy of a session that one of them names is not used: another replica may have ended the
// session a moment earlier, so that this one found nothing, and the news may still be on its way. But a logout that was
// answered here is over here.
type named struct {
	mu  sync.RWMutex
	at  map[name]time.Time // when the ending was done
	all time.Time          // when there was no room for one: until the next proof no copy is used
}

type name struct{ issuer, sid, subject string }

const mostNamed = 10_000

func (n *named) add(w store.Selector, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.at) >= mostNamed {
		n.all, n.at = now, nil
	}
	if n.at == nil {
		n.at = map[name]time.Time{}
	}
	if w.SID != "" {
		n.at[name{issuer: w.Issuer, sid: w.SID}] = now
	}
	if w.Subject != "" {
		n.at[name{issuer: w.Issuer, subject: w.Subject}] = now
	}
}

// has reports whether an ending since the last proof names the session.
func (n *named) has(s *Session) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if len(n.at) == 0 && n.all.IsZero() {
		return false
	}
	has := func(sid, subject string) bool { _, ok := n.at[name{s.Issuer, sid, subject}]; return ok }
	if !n.all.IsZero() || has(s.SID, "") || has("", s.Subject) {
		return true
	}
	for _, sid := range s.Former {
		if has(sid, "") {
			return true
		}
	}
	return false
}

// proved removes what was done before began: the feed has delivered it.
func (n *named) proved(began time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for k, at := range n.at {
		if at.Before(began) {
			delete(n.at, k)
		}
	}
	if n.all.Before(began) {
		n.all = time.Time{}
	}
}
