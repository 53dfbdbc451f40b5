package session

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"example.com/curfew/store"
)

// Revalidation says how often a provider is asked whether a session in use goes on; see [Config.Revalidation].
//
// An answer that is younger than Every is not asked for again. While it is less than a quarter of Every older, a
// request waits for the new answer for half a second at most, and is served by the old one if that takes longer. With
// an older answer nobody is served before the provider has been asked; if that fails, see [Config.RefreshGrace].
type Revalidation struct {
	Every time.Duration // 0: it is not asked
	// PerMinute is how often a provider may be asked in a minute, by all replicas together, spread over the minute; 0:
	// as often as it takes. A session that finds no room is served, and asked about at a later request.
	PerMinute int
}

const (
	patience = 500 * time.Millisecond // of a request, while the last answer is fresh enough
	slotLife = 10 * time.Minute       // longer than clocks of replicas may differ
)

// revalidation returns how often the provider is asked about a session.
func (m *Manager) revalidation(s *Session) Revalidation {
	if m.cfg.Revalidation == nil || m.cfg.Revalidate == nil || s.IsToken {
		return Revalidation{}
	}
	return m.cfg.Revalidation(s.Issuer, s.ClientID)
}

// lastConfirmed returns when the provider last said that the session goes on: at the sign-in at the latest.
func (s *Session) lastConfirmed() time.Time {
	if s.confirmed.IsZero() {
		return s.Created // from before there were such times
	}
	return s.confirmed
}

// refreshable reports whether the session is to be refreshed because its access token has expired.
func (s *Session) refreshable(m *Manager, now time.Time) bool {
	return m.cfg.Refresh != nil && s.expired(now)
}

// revalidationDue reports whether the provider is to be asked about the session before it is served. A confirmation
// from the future, by a clock that has been corrected since, does not count.
func (m *Manager) revalidationDue(s *Session, now time.Time) bool {
	every := m.revalidation(s).Every
	if every <= 0 || s.refreshFailed && now.Before(s.refreshHeld) {
		return false
	}
	age := now.Sub(s.lastConfirmed())
	return age >= every || age < -time.Minute
}

// revalidated returns a session about which the provider is to be asked. Requests of this process, and of all replicas,
// share one question, which goes on after they have gone.
func (m *Manager) revalidated(ctx context.Context, s *Session, now time.Time, use bool) (*Session, error) {
	done := m.startRefresh(ctx, s.Key, use)
	every := m.revalidation(s).Every
	if age := now.Sub(s.lastConfirmed()); age < 0 || age >= every+every/4 {
		return awaitRefresh(ctx, done)
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case r := <-done:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*Session), nil
	case <-timer.C: // a logout may have been answered meanwhile
		return m.read(ctx, s.Key, m.Now())
	case <-ctx.Done():
		return nil, unavailable(ctx.Err())
	}
}

// Recheck returns the session of a key, as [Manager.Peek] does, and asks the provider about it if that is due. It does
// not count as use. It is for a handler that keeps a stream open: next is when to call it again, at the latest.
func (m *Manager) Recheck(ctx context.Context, key store.Key) (s *Session, next time.Time, err error) {
	if s, err = m.Peek(ctx, key); err != nil {
		return nil, next, err
	}
	if now := m.Now(); m.revalidationDue(s, now) {
		if s, err = m.revalidated(ctx, s, now, false); err != nil {
			return nil, next, err
		}
	}
	if every := m.revalidation(s).Every; every > 0 {
		if next = s.lastConfirmed().Add(every); s.refreshFailed && s.refreshHeld.After(next) {
			next = s.refreshHeld
		}
	}
	return s, next, nil
}

// slots says up to which slot this process has looked for a free one, for each provider.
type slots struct {
	mu     sync.Mutex
	tried  map[[2]string]int64
	warned map[[2]string]bool
}

// claimSlot reports whether the provider may be asked now. The time is cut into slots, and each slot is for one
// question of one replica: a claim in the store decides which. Slots of the last moments that are free can still be
// claimed. Of PerMinute a sixth is for such bursts, so that no minute has more than PerMinute questions.
func (m *Manager) claimSlot(ctx context.Context, s *Session, now time.Time) bool {
	limit := int64(m.revalidation(s).PerMinute)
	if limit <= 0 {
		return true
	}
	provider := [2]string{s.Issuer, s.ClientID}
	burst := max(1, limit/6)
	current := now.UnixNano() / (int64(time.Minute) / max(1, limit-burst))
	for {
		m.slots.mu.Lock()
		n := max(m.slots.tried[provider]+1, current-burst+1)
		if n <= current {
			if m.slots.tried == nil {
				m.slots.tried, m.slots.warned = make(map[[2]string]int64), make(map[[2]string]bool)
			}
			m.slots.tried[provider] = n
		}
		first := n > current && !m.slots.warned[provider]
		if first {
			m.slots.warned[provider] = true
		}
		m.slots.mu.Unlock()
		if n > current {
			if first {
				m.cfg.Log.WarnContext(ctx, "there are more sessions to ask the provider about than it may be asked: "+
					"some are served longer before it is. Allow more questions in a minute, or ask less often; this is "+
					"logged once", "event", "revalidation_limited", "provider", s.Provider, "per_minute", limit)
			}
			return false
		}
		held, err := m.ClaimAttempt(ctx, slotID(provider, n), []byte{1}, slotLife)
		if err != nil || held == nil {
			return err == nil // without the store there is no answer to write either
		}
	}
}

// slotID names a slot in the store.
func slotID(provider [2]string, n int64) store.AttemptID {
	h := sha256.New()
	for _, part := range []string{"revalidation slot", provider[0], provider[1]} {
		h.Write([]byte(part))
		h.Write([]byte{0})
	}
	return store.AttemptID(binary.BigEndian.AppendUint64(h.Sum(nil)[:24], uint64(n)))
}
