package curfew

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// After this many sign-ins over this time without a logout from the provider, a warning is logged: the back-channel
// logout URI may never have been registered, and nothing else would show that.
const (
	quietSignIns = 10
	quietFor     = 24 * time.Hour
)

// quietProviders finds providers that sign people in and never send a logout. It counts from the start of the process.
type quietProviders struct {
	log *slog.Logger
	now func() time.Time
	uri string // the back-channel logout URI

	mu        sync.Mutex
	providers map[string]*signIns // by name
}

type signIns struct {
	first time.Time
	count int
	done  bool // a logout has come, or the warning has been logged
}

func (q *quietProviders) of(provider string) *signIns {
	if q.providers == nil {
		q.providers = make(map[string]*signIns)
	}
	s := q.providers[provider]
	if s == nil {
		s = &signIns{first: q.now()}
		q.providers[provider] = s
	}
	return s
}

// signedIn counts a sign-in, and logs the warning once when it is due.
func (q *quietProviders) signedIn(provider string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.of(provider)
	s.count++
	since := q.now().Sub(s.first)
	if s.done || s.count < quietSignIns || since < quietFor {
		return
	}
	s.done = true
	q.log.WarnContext(context.Background(), "this provider signs people in and has sent no logout: "+
		"check that the back-channel logout URI is registered there, with session required",
		"event", "provider_quiet", "provider", provider, "sign_ins", s.count,
		"for", since.Round(time.Minute).String(), "backchannel_logout_uri", q.uri)
}

// sentLogout notes that a provider has sent a logout, to this replica or to another.
func (q *quietProviders) sentLogout(provider string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.of(provider).done = true
}
