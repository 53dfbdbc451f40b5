package curfew

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"example.com/curfew/gateway"
	"example.com/curfew/login"
	"example.com/curfew/oidc"
)

// The bounds of [Config.BearerLifetime].
const (
	DefaultBearerLifetime = time.Hour
	MaxBearerLifetime     = 24 * time.Hour
)

// checkBearer returns the faults of what concerns access tokens.
func checkBearer(cfg *Config) error {
	var faults []error
	if l := cfg.BearerLifetime; l != 0 && (l < time.Minute || l > MaxBearerLifetime) {
		faults = append(faults, errors.New("BearerLifetime must be between a minute and 24 hours"))
	}
	asked := 0
	for _, p := range cfg.Providers {
		if p.Bearer != nil && p.Bearer.Introspection {
			asked++
		}
	}
	if asked > 1 {
		faults = append(faults, errors.New("one provider at most may have introspection: such a token does not say whose "+
			"it is, and must not be shown to another provider"))
	}
	return errors.Join(faults...)
}

// bearerLifetime returns how long access tokens may live; 0: none are taken.
func bearerLifetime(cfg *Config) time.Duration {
	for _, p := range cfg.Providers {
		if p.Bearer != nil {
			return cmp.Or(cfg.BearerLifetime, DefaultBearerLifetime)
		}
	}
	return 0
}

// bearer returns what the gateway needs for access tokens; nil: none are taken.
func (rp *RP) bearer(cfg *Config) *gateway.Bearer {
	lifetime := bearerLifetime(cfg)
	if lifetime == 0 {
		return nil
	}
	return &gateway.Bearer{
		Providers: rp.providers, Lifetime: lifetime,
		CertificateHeader: http.CanonicalHeaderKey(cfg.ClientCertificateHeader),
		Claims: func(ctx context.Context, p *oidc.Provider, claims map[string]any) (map[string]any, error) {
			return rp.login.Claims(ctx, p, claims, nil)
		},
		Temporary: login.IsTemporary,
		Observe:   cfg.Observe.Bearer,
	}
}
