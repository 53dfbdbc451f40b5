package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"example.com/curfew/internal/guard"
	"example.com/curfew/internal/span"
	"example.com/curfew/internal/wait"
	"example.com/curfew/store"
	"go.opentelemetry.io/otel/trace"
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
	return awaitRefresh(ctx, m.startRefresh(ctx, s.Key, true))
}

// startRefresh calls refresh, once for all requests of this process.
func (m *Manager) startRefresh(ctx context.Context, key store.Key, use bool) <-chan guard.Result {
	return m.refreshes.DoChan(m.cfg.Log, "a refresh", string(key[:]), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*refreshTimeout)
		defer cancel()
		return m.refresh(ctx, key, use)
	})
}

func awaitRefresh(ctx context.Context, done <-chan guard.Result) (*Session, error) {
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

// refresh refreshes a session whose access token has expired, and asks the provider whether a session goes on of which
// it was last asked long enough ago:
//
//  1. Read the session again: another replica may have been faster.
//  2. Hold it, by an update that only one replica can win. The others wait until it is released, or until the hold has
//     expired because its holder crashed.
//  3. Ask the provider.
//  4. Write the result. The update never creates: if a logout came meanwhile, the session stays dead.
func (m *Manager) refresh(ctx context.Context, key store.Key, use bool) (*Session, error) {
	for slot := false; ; {
		now := m.Now()
		s, err := m.read(ctx, key, now)
		if err != nil {
			return nil, err
		}
		switch {
		case !s.refreshable(m, now) && !m.revalidationDue(s, now):
			return s, nil
		case s.refreshFailed && now.Before(s.refreshHeld):
			return s, nil
		case !s.refreshFailed && m.refreshUnderWay(s):
			if !wait.Sleep(ctx, refreshPoll) {
				return nil, unavailable(ctx.Err())
			}
			continue
		}
		if !slot && !s.refreshable(m, now) {
			if slot = m.claimSlot(ctx, s, now); !slot {
				return s, nil
			}
			continue // that took time
		}
		held, failedBefore := *s, s.refreshFailed
		_, late := m.clock.between()
		held.refreshHeld, held.refreshFailed = store.Time(late.Add(refreshTimeout)), false
		s, err = m.write(ctx, &held, now, use)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if s, err = m.exchange(ctx, s, failedBefore, use); err != nil || !m.revalidationDue(s, m.Now()) {
			return s, err
		}
		slot = false // the refresh did not say whether the session goes on
	}
}

// refreshUnderWay reports whether a replica may still be asking the provider, whichever clock it set the hold by.
func (m *Manager) refreshUnderWay(s *Session) bool {
	early, _ := m.clock.between()
	return early.Before(s.refreshHeld)
}

// exchange asks the provider, for a session that this process holds, and writes the result or ends the session.
func (m *Manager) exchange(ctx context.Context, s *Session, failedBefore, use bool) (*Session, error) {
	began, era, err := m.Begin(ctx) // a logout after this that names the session by its new sid ends it
	if err != nil {
		return nil, err
	}
	asked := m.Now()
	every := m.revalidation(s).Every
	ask, event, failure := m.cfg.Refresh, "refresh_failed", "an access token could not be refreshed"
	graceEnds, pause := s.Tokens.Expires.Add(m.cfg.RefreshGrace), refreshPause
	if !s.refreshable(m, asked) {
		ask, event, failure = m.cfg.Revalidate, "revalidation_failed", "the provider could not be asked whether a "+
			"session goes on"
		graceEnds, pause = s.lastConfirmed().Add(every+m.cfg.RefreshGrace), max(refreshPause, every)
	}
	asking, cancel := context.WithTimeout(ctx, refreshTimeout)
	asking, end := span.Start(asking, "session "+strings.TrimSuffix(event, "_failed"), trace.SpanKindInternal,
		"curfew.provider", s.Provider)
	got, err := guarded(m.cfg.Log, ask)(asking, s)
	end(err != nil)
	cancel()
	now := m.Now()
	if err == nil && !got.Expires.IsZero() && !now.Before(got.Expires) {
		err = fmt.Errorf("%w: it lasted until %v", ErrProviderEnded, got.Expires.UTC())
	}
	provider := [3]string{event, s.Issuer, s.ClientID}
	kind := strings.TrimSuffix(event, "_failed")
	var cause store.Cause
	var change func(*Session)
	switch {
	case err == nil:
		m.renewed(kind, s.Provider, "ok")
		m.refreshFailing.Delete(provider)
		change = func(s *Session) {
			s.Tokens, s.Claims, s.refreshHeld, s.refreshFailed = got.Tokens, got.Claims, time.Time{}, false
			if got.Confirmed {
				s.confirmed = asked
			}
			if latest := s.Created.Add(m.cfg.Lifetime); !got.Expires.IsZero() {
				s.Expires = store.Time(got.Expires)
				if latest.Before(s.Expires) {
					s.Expires = latest
				}
			}
		}
	case errors.Is(err, ErrRefreshRejected):
		cause = store.CauseRefreshRejected
	case errors.Is(err, ErrProviderEnded):
		cause = store.CauseProviderEnded
	case errors.Is(err, ErrRefused):
		cause = store.CauseRequire
	case now.Before(graceEnds):
		m.renewed(kind, s.Provider, "deferred")
		level := slog.LevelDebug
		if _, logged := m.refreshFailing.LoadOrStore(provider, true); !logged && !failedBefore {
			level = slog.LevelWarn
		}
		m.cfg.Log.Log(ctx, level, failure+": sessions go on for the grace; this is logged once until it works again",
			"event", event, "provider", s.Provider, "session", s.Key.Handle(), "error", err)
		change = func(s *Session) {
			s.refreshHeld, s.refreshFailed = store.Time(now.Add(pause)), true
			if s.refreshHeld.After(graceEnds) {
				s.refreshHeld = store.Time(graceEnds)
			}
			if got.Tokens.RefreshToken != "" { // the old one may be used up
				s.Tokens.RefreshToken, s.Tokens.DPoPKey = got.Tokens.RefreshToken, got.Tokens.DPoPKey
			}
		}
	default:
		cause = store.CauseProviderSilent
	}
	if change != nil {
		next, err := m.saveRenewal(ctx, s.Key, began, era, use, func(s *Session) {
			change(s)
			s.rename(got.SID) // also after a failure: a logout token may name the session by it
		})
		if (errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrEnded)) &&
			(got.Tokens.RefreshToken != s.Tokens.RefreshToken || got.Tokens.AccessToken != s.Tokens.AccessToken) {
			m.orphan(ctx, s, got.Tokens)
		}
		switch {
		case errors.Is(err, store.ErrEnded):
			cause = store.CauseBackChannel
		case errors.Is(err, errTooManySIDs):
			cause = store.CauseTooManySIDs
		default:
			return next, err
		}
	}
	if change == nil {
		m.renewed(kind, s.Provider, "ended")
	}
	m.cfg.Log.InfoContext(ctx, "the session ends: the provider no longer confirms it",
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
	if n := len(s.Tokens.Inherited); n > 0 && cause == store.CauseRefreshRejected {
		earlier := s.Tokens.Inherited
		m.orphan(ctx, s, Tokens{RefreshToken: earlier[n-1], Inherited: earlier[:n-1], Offline: s.Tokens.Offline})
	}
	return nil, store.ErrNotFound
}

// guarded has a panic of [Config.Refresh] or [Config.Revalidate] be a temporary error.
func guarded(log *slog.Logger, ask func(context.Context, *Session) (Renewal, error),
) func(context.Context, *Session) (Renewal, error) {
	return func(ctx context.Context, s *Session) (got Renewal, err error) {
		defer guard.Recover(log, "the question to a provider", &err)
		return ask(ctx, s)
	}
}

func (m *Manager) renewed(kind, provider, result string) {
	if m.cfg.OnRenewal != nil {
		m.cfg.OnRenewal(kind, provider, result)
	}
}

// orphan passes on tokens that came for a session that has ended.
func (m *Manager) orphan(ctx context.Context, s *Session, t Tokens) {
	if m.cfg.Notices != nil && t.RefreshToken != "" {
		m.cfg.Notices.Orphaned(ctx, s, t)
	}
}

// saveRenewal writes the outcome of a refresh, over any other change made meanwhile. It retries until ctx is done,
// since the refresh token in the store may be worthless by now.
func (m *Manager) saveRenewal(ctx context.Context, key store.Key, began time.Time, era string, use bool,
	change func(*Session)) (*Session, error) {
	for {
		now := m.Now()
		s, err := m.read(ctx, key, now)
		if err == nil {
			next := *s
			change(&next)
			switch {
			case next.SID == s.SID:
				s, err = m.write(ctx, &next, now, use)
			case len(next.Former) > maxFormer:
				return nil, errTooManySIDs
			default:
				s, err = m.rename(ctx, &next, began, era, now, use)
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
