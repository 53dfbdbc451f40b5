package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"example.com/curfew/internal/wait"
	"example.com/curfew/store"
)

const (
	refreshTimeout = 15 * time.Second       // of one refresh, and how long it holds the session on all replicas
	refreshPause   = 30 * time.Second       // between two tries while the provider does not answer
	refreshPoll    = 100 * time.Millisecond // how often to check whether another replica is done
)

// errTooManySIDs means that the session would need more than maxFormer earlier sids.
var errTooManySIDs = fmt.Errorf("its refreshes brought more than %d other sids", maxFormer)

// refreshed gets new tokens for a session whose access token has expired, and returns the session as it is then.
// Requests of this process share one refresh. It goes on after they have gone: otherwise a rotated refresh token would
// be lost.
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

// refresh refreshes a session:
//
//  1. Read the session again: another replica may have been faster.
//  2. Hold it, by an update that only one replica can win. The others wait until it is released, or until the hold has
//     expired because its holder crashed.
//  3. Ask the provider.
//  4. Write the result. The update never creates: if a logout came meanwhile, the session stays dead.
func (m *Manager) refresh(ctx context.Context, key store.Key) (*Session, error) {
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
		case !s.refreshFailed && m.refreshUnderWay(s):
			if !wait.Sleep(ctx, refreshPoll) {
				return nil, unavailable(ctx.Err())
			}
			continue
		}
		held, failedBefore := *s, s.refreshFailed
		_, late := m.clock.between()
		held.refreshHeld, held.refreshFailed = store.Time(late.Add(refreshTimeout)), false
		s, err = m.write(ctx, &held, now)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return m.exchange(ctx, s, failedBefore)
	}
}

// refreshUnderWay reports whether a replica may still be asking the provider, whichever clock it set the hold by.
func (m *Manager) refreshUnderWay(s *Session) bool {
	early, _ := m.clock.between()
	return early.Before(s.refreshHeld)
}

// exchange asks the provider, for a session that this process holds, and writes the result or ends the session.
func (m *Manager) exchange(ctx context.Context, s *Session, failedBefore bool) (*Session, error) {
	began, era, err := m.Begin(ctx) // a logout after this that names the session by its new sid ends it
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, refreshTimeout)
	got, err := m.cfg.Refresh(asking, s)
	cancel()
	now := m.Now()
	graceEnds := s.Tokens.Expires.Add(m.cfg.RefreshGrace)
	provider := [2]string{s.Issuer, s.ClientID}
	var cause store.Cause
	switch {
	case err == nil:
		m.refreshFailing.Delete(provider)
		next, err := m.saveRenewal(ctx, s.Key, began, era, func(s *Session) {
			s.Tokens, s.Claims, s.refreshHeld, s.refreshFailed = got.Tokens, got.Claims, time.Time{}, false
			s.rename(got.SID)
		})
		if err == nil {
			return next, nil
		}
		if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrEnded) {
			m.orphan(ctx, s, got.Tokens)
		}
		switch {
		case errors.Is(err, store.ErrEnded):
			cause = store.CauseBackChannel
		case errors.Is(err, errTooManySIDs):
			cause = store.CauseTooManySIDs
		default:
			return nil, err
		}
	case errors.Is(err, ErrRefreshRejected):
		cause = store.CauseRefreshRejected
	case errors.Is(err, ErrRefused):
		cause = store.CauseRequire
	case now.Before(graceEnds):
		level := slog.LevelDebug
		if _, logged := m.refreshFailing.LoadOrStore(provider, true); !logged && !failedBefore {
			level = slog.LevelWarn
		}
		m.cfg.Log.Log(ctx, level, "an access token could not be refreshed: sessions go on for the grace; this is "+
			"logged once until it works again",
			"event", "refresh_failed", "provider", s.Provider, "session", s.Key.Handle(), "error", err)
		next, err := m.saveRenewal(ctx, s.Key, began, era, func(s *Session) {
			s.refreshHeld, s.refreshFailed = store.Time(now.Add(refreshPause)), true
			if s.refreshHeld.After(graceEnds) {
				s.refreshHeld = store.Time(graceEnds)
			}
			if got.Tokens.RefreshToken != "" { // the old one may be used up
				s.Tokens.RefreshToken, s.Tokens.DPoPKey = got.Tokens.RefreshToken, got.Tokens.DPoPKey
			}
		})
		if (errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrEnded)) &&
			got.Tokens.RefreshToken != s.Tokens.RefreshToken {
			m.orphan(ctx, s, got.Tokens)
		}
		return next, err
	default:
		cause = store.CauseProviderSilent
	}
	m.cfg.Log.InfoContext(ctx, "the session ends: its tokens can no longer be refreshed",
		"event", "session_ended", "cause", cause, "provider", s.Provider, "session", s.Key.Handle(), "error", err)
	key := store.Selector{Issuer: s.Issuer, ClientID: s.ClientID, Key: s.Key}
	for {
		_, err := m.End(ctx, store.Ending{Selector: key, Cause: cause})
		if err == nil {
			break
		}
		if !wait.Sleep(ctx, refreshPoll) { // the session must not live on because the store failed for a moment
			return nil, err
		}
	}
	switch newer := got.Tokens; {
	case cause == store.CauseBackChannel: // they are orphaned already
	case newer.RefreshToken != s.Tokens.RefreshToken, // the ending revokes only the one that the store has
		// An ending for this cause revokes nothing, and the provider gave tokens: it still accepts the refresh token.
		cause == store.CauseRefreshRejected && newer.AccessToken != s.Tokens.AccessToken:
		m.orphan(ctx, s, newer)
	}
	return nil, store.ErrNotFound
}

// orphan passes on tokens that came for a session that has ended.
func (m *Manager) orphan(ctx context.Context, s *Session, t Tokens) {
	if m.cfg.Notices != nil && t.RefreshToken != "" {
		m.cfg.Notices.Orphaned(ctx, s, t)
	}
}

// saveRenewal writes the outcome of a refresh, over any other change made meanwhile. It retries until ctx is done,
// since the refresh token in the store may be worthless by now.
func (m *Manager) saveRenewal(ctx context.Context, key store.Key, began time.Time, era string,
	change func(*Session)) (*Session, error) {
	for {
		now := m.Now()
		s, err := m.read(ctx, key, now)
		if err == nil {
			next := *s
			change(&next)
			switch {
			case next.SID == s.SID:
				s, err = m.write(ctx, &next, now)
			case len(next.Former) > maxFormer:
				return nil, errTooManySIDs
			default:
				s, err = m.rename(ctx, &next, began, era, now)
			}
		}
		switch {
		case err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrEnded):
			return s, err
		case errors.Is(err, store.ErrConflict):
		case !wait.Sleep(ctx, refreshPoll):
			return nil, err
		}
	}
}
