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
	refreshTimeout = 15 * time.Second       // for one refresh; as long it holds the session on all replicas
	refreshPause   = 30 * time.Second       // between two tries while the provider is away
	refreshPoll    = 100 * time.Millisecond // how often to look whether another replica is done
)

// errTooManySIDs: the provider gives the session another sid at each refresh.
var errTooManySIDs = fmt.Errorf("its refreshes brought more than %d other sids", maxFormer)

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
//  2. Hold it, by an update that only one replica can win. The others wait until it has been released, or the hold has
//     run out because its holder died.
//  3. Ask the provider.
//  4. Write what came of it. The update never creates: when a logout came meanwhile, the session stays dead.
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
		case !s.refreshFailed && m.held(s):
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

// held says whether a replica may still be asking the provider, by whichever clock it set the hold.
func (m *Manager) held(s *Session) bool {
	early, _ := m.clock.between()
	return early.Before(s.refreshHeld)
}

// exchange asks the provider, for a session that this process holds.
func (m *Manager) exchange(ctx context.Context, s *Session, failedBefore bool) (*Session, error) {
	began, era, err := m.Begin(ctx) // a logout after it that names the session by a new sid bars it
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
		m.troubled.Delete(provider)
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
		if _, told := m.troubled.LoadOrStore(provider, true); !told && !failedBefore {
			level = slog.LevelWarn
		}
		m.cfg.Log.Log(ctx, level, "an access token could not be refreshed; sessions go on for the grace, and this "+
			"is told once until it works again",
			"event", "refresh_failed", "provider", s.Provider, "session", s.Key.Handle(), "error", err)
		next, err := m.saveRenewal(ctx, s.Key, began, era, func(s *Session) {
			s.refreshHeld, s.refreshFailed = store.Time(now.Add(refreshPause)), true
			if s.refreshHeld.After(graceEnds) {
				s.refreshHeld = store.Time(graceEnds)
			}
			if got.Tokens.RefreshToken != "" { // the provider may have spent the old one
				s.Tokens.RefreshToken = got.Tokens.RefreshToken
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
	who := store.Selector{Issuer: s.Issuer, ClientID: s.ClientID, Key: s.Key}
	for {
		_, err := m.End(ctx, store.Ending{Selector: who, Cause: cause})
		if err == nil {
			break
		}
		if !wait.Sleep(ctx, refreshPoll) { // who is to be out must not stay in because the store was away for a moment
			return nil, err
		}
	}
	switch newer := got.Tokens; {
	case cause == store.CauseBackChannel: // they are orphaned already
	case newer.RefreshToken != s.Tokens.RefreshToken, // the store knew the old one alone
		// no ending for this cause revokes anything, and the provider gave tokens: it takes the refresh token still
		cause == store.CauseRefreshRejected && newer.AccessToken != s.Tokens.AccessToken:
		m.orphan(ctx, s, newer)
	}
	return nil, store.ErrNotFound
}

// orphan hands over tokens that came for a session that has ended.
func (m *Manager) orphan(ctx context.Context, s *Session, t Tokens) {
	if m.cfg.Notices != nil && t.RefreshToken != "" {
		m.cfg.Notices.Orphaned(ctx, s, t)
	}
}

// settle writes the outcome of a refresh over whatever else was written meanwhile. It does not give up before ctx is
// done: the refresh token that the store holds may be worth nothing any more.
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
