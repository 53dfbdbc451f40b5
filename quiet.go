package curfew

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// A provider that has signed in so many people, over so long, and has sent no logout is worth a warning: its
// back-channel logout URI may never have been registered, and nothing else would tell.
const (
	quietSignIns = 10
	quietFor     = 24 * time.Hour
)

// quiet looks for providers that sign people in and never send a logout. It counts from the start of the process.
type quiet struct {
	log *slog.Logger
	now func() time.Time
	uri string // of the back channel

	mu        sync.Mutex
	providers map[string]*signIns // by name
}

type signIns struct {
	first time.Time
	count int
	over  bool // a logout has come, or it was told that none does
}

func (q *quiet) of(provider string) *signIns {
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

// signedIn counts a sign-in, and warns once if it is time to.
func (q *quiet) signedIn(provider string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := q.of(provider)
	s.count++
	since := q.now().Sub(s.first)
	if s.over || s.count < quietSignIns || since < quietFor {
		return
	}
	s.over = true
	q.log.WarnContext(context.Background(), "this provider signs people in and has sent no logout: "+
		"see that the back-channel logout URI is registered there, with session required",
		"event", "provider_quiet", "provider", provider, "sign_ins", s.count,
		"for", since.Round(time.Minute).String(), "backchannel_logout_uri", q.uri)
}

// heard notes that a provider has sent a logout, here or to another replica.
func (q *quiet) heard(provider string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.of(provider).over = true
}
