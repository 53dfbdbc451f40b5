package curfew

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"example.com/curfew/fanout"
	"example.com/curfew/gateway"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

// addFanout makes the sender of notices, and the signing keys if something is signed.
func (rp *RP) addFanout(cfg Config, clock *session.Clock, log *slog.Logger) (err error) {
	config := fanout.Config{Outbox: rp.store, Issuer: fanout.Issuer(rp.site), Apps: cfg.Apps, Providers: rp.providers,
		Keyring: cfg.Keyring, Now: clock.Now, Log: log, Tracer: cfg.Tracer}
	if cfg.Observe.Notice != nil {
		config.OnAttempt = func(kind store.NoticeKind, target, result string) {
			cfg.Observe.Notice(string(kind), target, result)
		}
	}
	if len(cfg.Apps) > 0 || cfg.Assertion {
		var algs []string
		for _, a := range cfg.Apps {
			algs = append(algs, a.SigningAlg())
		}
		if len(algs) == 0 {
			algs = append(algs, fanout.ES256)
		}
		slices.Sort(algs)
		algs = slices.Compact(algs)
		rp.keys, err = fanout.NewKeys(fanout.KeysConfig{Values: rp.store, Keyring: cfg.Keyring, Algs: algs,
			Every: cfg.KeyRotation, Now: clock.Now, Log: log})
		if err != nil {
			return fmt.Errorf("curfew: %w", err)
		}
		config.Signer = rp.keys
	}
	if rp.fanout, err = fanout.New(config); err != nil {
		return fmt.Errorf("curfew: Apps: %w", err)
	}
	return nil
}

// assertion returns the settings of the signed tokens that tell an app who is signed in, or nil without
// [Config.Assertion]. They are signed by the keys that sign logout tokens.
func (rp *RP) assertion(cfg Config) *gateway.Assertion {
	if !cfg.Assertion {
		return nil
	}
	algs := make(map[string]string, len(cfg.Apps))
	for _, a := range cfg.Apps {
		algs[a.ClientID] = a.SigningAlg()
	}
	return &gateway.Assertion{Issuer: fanout.Issuer(rp.site), Claims: cfg.AssertionClaims,
		Sign: func(ctx context.Context, app string, claims []byte) (string, error) {
			return rp.keys.SignAs(ctx, gateway.AssertionType, cmp.Or(algs[app], fanout.ES256), claims)
		}}
}

// proxiedApp returns the client ID of the app that the proxy forwards to. If Apps is not empty it must be one of them,
// since it may be misspelled. Without Apps any name will do for the assertions.
func proxiedApp(cfg Config) (string, error) {
	switch {
	case cfg.App == "" && len(cfg.Apps) == 1:
		return cfg.Apps[0].ClientID, nil
	case cfg.App == "" && len(cfg.Apps) == 0 && cfg.Assertion:
		return "", errors.New("with Assertion the app needs a name, which is the `aud` of its assertions")
	case len(cfg.Apps) == 0 && cfg.Assertion:
	case cfg.App != "" && !slices.ContainsFunc(cfg.Apps, func(a fanout.App) bool { return a.ClientID == cfg.App }):
		return "", fmt.Errorf("there is no app %q in Apps", cfg.App)
	}
	return cfg.App, nil
}

// Notices returns the sender of notices, for callers that wake it or send notices of their own.
func (rp *RP) Notices() *fanout.Sender { return rp.fanout }

// Keys returns the keys that sign logout tokens and assertions, for callers that list or rotate them. It is nil if
// nothing is signed for apps.
func (rp *RP) Keys() *fanout.Keys { return rp.keys }
