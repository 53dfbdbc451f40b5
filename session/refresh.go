package session

import (
	"context"
	"errors"
	"time"
)

const (
	refreshTimeout = 15 * time.Second       // for one refresh; as long it holds the session on all replicas
	refreshPause   = 30 * time.Second       // between two tries while the provider is away
	refreshPoll    = 100 * time.Millisecond // how often to look whether another replica is done
)

// refreshed gets new tokens for a session whose access token has run out, and returns the session as it is then.
// Requests of this process share one call, which goes on when they go away: a rotated refresh token that nobody
// received would be lost.
func (m *Manager) refreshed(ctx context.Context, s *Session) (*Session, error) {
	if m.cfg.Refresh == nil {
		return s, nil
	}
	done := m.refreshes.DoChan(string(s.Key[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*refreshTimeout)
		defer cancel()
		return m.refresh(ctx, s.Key)
	})
	select {
	case <-ctx.Done():
		return nil, unavailable(ctx.Err())
	case r := <-done:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*Session), nil
	}
}

// refresh does it:
//
//  1. Read the session anew: another replica may have been faster.
//  2. Hold it, by an update that only one replica can win. The others wait until it has been released, or the hold has run
//     out because its holder died.
//  3. Ask the provider.
//  4. Write what came of it. The update never creates: when a logout came meanwhile, the session stays dead.
func (m *Manager) refresh(ctx context.Context, key Key) (*Session, error) {
	for {
		now := m.Now()
		s, err := m.read(ctx, key, now)
		if err != nil {
			return nil, err
		}
		switch {
		case !s.expired(now):
			return s, nil
		case s.refreshFailed && now.Before(s.refreshHeld):
			return s, nil
		case !s.refreshFailed && m.held(s):
			if !sleep(ctx, refreshPoll) {
				return nil, unavailable(ctx.Err())
			}
			continue
		}
		held := *s
		_, late := m.clock.between()
		held.refreshHeld, held.refreshFailed = Time(late.Add(refreshTimeout)), false
		s, err = m.write(ctx, &held, now)
		if errors.Is(err, ErrConflict) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return m.exchange(ctx, s)
	}
}

// held says whether a replica may still be asking the provider, by whichever clock it set the hold.
func (m *Manager) held(s *Session) bool {
	early, _ := m.clock.between()
	return early.Before(s.refreshHeld)
}

// exchange asks the provider, for a session that this process holds.
func (m *Manager) exchange(ctx context.Context, s *Session) (*Session, error) {
	asking, cancel := context.WithTimeout(ctx, refreshTimeout)
	tokens, err := m.cfg.Refresh(asking, s)
	cancel()
	now := m.Now()
	cause := CauseRefreshRejected
	switch {
	case err == nil:
		next, err := m.settle(ctx, s.Key, func(s *Session) {
			s.Tokens, s.refreshHeld, s.refreshFailed = tokens, time.Time{}, false
		})
		if errors.Is(err, ErrNotFound) && m.cfg.Orphaned != nil {
			m.cfg.Orphaned(ctx, s, tokens)
		}
		return next, err
	case errors.Is(err, ErrRefreshRejected):
	case now.Before(s.Tokens.Expires.Add(m.cfg.Grace)):
		m.cfg.Log.WarnContext(ctx, "the access token could not be refreshed; the session goes on for the grace",
			"event", "refresh_failed", "provider", s.Provider, "session", s.Key.Handle(), "error", err)
		return m.settle(ctx, s.Key, func(s *Session) {
			s.refreshHeld, s.refreshFailed = Time(now.Add(refreshPause)), true
		})
	default:
		cause = CauseProviderSilent
	}
	m.cfg.Log.InfoContext(ctx, "the session ends: its tokens can no longer be refreshed",
		"event", "session_ended", "cause", cause, "provider", s.Provider, "session", s.Key.Handle(), "error", err)
	who := Who{Issuer: s.Issuer, ClientID: s.ClientID, Key: s.Key}
	if _, err := m.End(ctx, Ending{Who: who, Cause: cause}); err != nil {
		return nil, err
	}
	return nil, ErrNotFound
}

// settle writes the outcome of a refresh over whatever else was written meanwhile. It does not give up before ctx is
// done: the refresh token that the store holds may be worth nothing any more.
func (m *Manager) settle(ctx context.Context, key Key, change func(*Session)) (*Session, error) {
	for {
		now := m.Now()
		s, err := m.read(ctx, key, now)
		if err == nil {
			next := *s
			change(&next)
			s, err = m.write(ctx, &next, now)
		}
		switch {
		case err == nil || errors.Is(err, ErrNotFound):
			return s, err
		case errors.Is(err, ErrConflict):
		case !sleep(ctx, refreshPoll):
			return nil, err
		}
	}
}
