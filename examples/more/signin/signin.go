// Package signin is the sign-in of an app that does it by itself, with go-oidc, and its table of who is signed in.
package signin

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"sync"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Config is what the app is registered as at the provider.
type Config struct{ URL, Issuer, ClientID, ClientSecret string }

// Person is who an ID Token says is signed in. Issuer, ClientID, Subject and SID are what a logout token names.
type Person struct{ Issuer, ClientID, Subject, SID string }

// Attempt is a sign-in under way. The app keeps it with the browser's session, where the browser cannot change it.
type Attempt struct{ State, Nonce, Verifier, Began string }

// Flow signs people in.
type Flow struct {
	cfg      Config
	oauth    oauth2.Config
	verifier *oidc.IDTokenVerifier
}

// New reads the provider's metadata.
func New(ctx context.Context, cfg Config) (*Flow, error) {
	p, err := oidc.NewProvider(ctx, cfg.Issuer)
	if err != nil {
		return nil, err
	}
	return &Flow{cfg: cfg, verifier: p.Verifier(&oidc.Config{ClientID: cfg.ClientID}), oauth: oauth2.Config{
		ClientID: cfg.ClientID, ClientSecret: cfg.ClientSecret, Endpoint: p.Endpoint(),
		RedirectURL: cfg.URL + "/callback", Scopes: []string{oidc.ScopeOpenID},
	}}, nil
}

// Start returns where to send the browser. Began is the stamp of backchannel.Handler.Begin.
func (f *Flow) Start(began string) (to string, a Attempt) {
	a = Attempt{rand.Text(), rand.Text(), oauth2.GenerateVerifier(), began}
	return f.oauth.AuthCodeURL(a.State, oidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier)), a
}

// Finish returns who came back from the provider.
func (f *Flow) Finish(r *http.Request, a Attempt) (p Person, err error) {
	if a.State == "" || r.FormValue("state") != a.State {
		return p, errors.New("this sign-in did not begin in this browser")
	}
	tokens, err := f.oauth.Exchange(r.Context(), r.FormValue("code"), oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return p, err
	}
	raw, _ := tokens.Extra("id_token").(string)
	id, err := f.verifier.Verify(r.Context(), raw)
	if err != nil {
		return p, err
	}
	if id.Nonce != a.Nonce {
		return p, errors.New("the ID Token is of another sign-in")
	}
	var claims struct {
		SID string `json:"sid"`
	}
	if err := id.Claims(&claims); err != nil {
		return p, err
	}
	return Person{id.Issuer, f.cfg.ClientID, id.Subject, claims.SID}, nil
}

// Table says who is signed in, by the ID of a session. It stands for a table of a database, where End would be one
// DELETE with an index on subject and on sid.
//
// It alone decides: what a session library keeps for the same ID may be written back by a request that was under way
// when the session ended.
type Table struct {
	mu     sync.Mutex
	people map[string]Person
}

// Add signs a person in.
func (t *Table) Add(id string, p Person) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.people == nil {
		t.people = map[string]Person{}
	}
	t.people[id] = p
}

// Get returns who is signed in.
func (t *Table) Get(id string) (Person, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.people[id]
	return p, ok
}

// Remove signs one session out.
func (t *Table) Remove(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.people, id)
}

// End removes all whom named reports, and returns their sessions.
func (t *Table) End(named func(Person) bool) (ended []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, p := range t.people {
		if named(p) {
			delete(t.people, id)
			ended = append(ended, id)
		}
	}
	return ended
}
