package console

import (
	"context"
	"net/http"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/web"
)

// Provider describes a provider and its health.
type Provider struct {
	Name     string        `json:"name"`
	Label    string        `json:"label,omitempty"`
	Issuer   string        `json:"issuer"`
	ClientID string        `json:"client_id"`
	Fault    string        `json:"fault,omitempty"` // why it cannot be used; empty: it answers
	Keys     []ProviderKey `json:"keys,omitempty"`
	Traffic
	Silent string `json:"silent,omitempty"` // says that it sends no logouts
}

// ProviderKey is a key that a provider signs with.
type ProviderKey struct {
	ID      string `json:"kid,omitempty"`
	Alg     string `json:"alg,omitempty"`
	Type    string `json:"kty,omitempty"`
	Problem string `json:"problem,omitempty"` // why it is not used
}

// ProviderList is the response with all providers.
type ProviderList struct {
	Providers []Provider `json:"providers"`
}

// Replica is one process on the store.
type Replica struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Started time.Time `json:"started"`
	Seen    time.Time `json:"seen"`
	InSync  bool      `json:"in_sync"` // it hears of what ends on other replicas
	Gone    bool      `json:"gone,omitempty"`
}

// ReplicaList is the response with all replicas.
type ReplicaList struct {
	Replicas []Replica `json:"replicas"`
}

func (c *Console) listProviders(ctx context.Context, _ *http.Request) (any, error) {
	traffic, err := c.traffic(ctx)
	if err != nil {
		return nil, err
	}
	all := ProviderList{Providers: []Provider{}}
	for _, p := range c.Providers {
		all.Providers = append(all.Providers, c.provider(ctx, p, traffic[p.Name()]))
	}
	return all, nil
}

const providerTimeout = 5 * time.Second

func (c *Console) provider(ctx context.Context, p *oidc.Provider, t Traffic) Provider {
	ctx, cancel := context.WithTimeout(ctx, providerTimeout)
	defer cancel()
	v := Provider{Name: p.Name(), Label: p.Config().Label, Issuer: p.Config().Issuer, ClientID: p.Config().ClientID,
		Traffic: t, Silent: t.silence(time.Now())}
	if err := p.Ready(ctx); err != nil {
		v.Fault = web.Printable(err.Error())
		return v
	}
	keys, err := p.Keys(ctx)
	if err != nil {
		v.Fault = web.Printable(err.Error())
	}
	for i, k := range keys {
		if i == 50 {
			break
		}
		v.Keys = append(v.Keys, ProviderKey{web.Clip(k.KID), web.Clip(k.Alg), web.Clip(k.Kty), web.Clip(k.Problem)})
	}
	return v
}

func (c *Console) listReplicas(ctx context.Context, _ *http.Request) (any, error) {
	all := ReplicaList{Replicas: []Replica{}}
	if c.Replicas == nil {
		return all, nil
	}
	some, err := c.Replicas(ctx)
	all.Replicas = append(all.Replicas, some...)
	return all, err
}
