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

// addFanout makes what plans and carries out notices.
func (rp *RP) addFanout(cfg Config, clock *session.Clock, log *slog.Logger) (err error) {
	config := fanout.Config{Outbox: rp.store, Issuer: fanout.Issuer(rp.site), Apps: cfg.Apps, Providers: rp.providers,
		Keyring: cfg.Keyring, Now: clock.Now, Log: log}
	if cfg.Observe.Notice != nil {
		config.OnAttempt = func(kind store.NoticeKind, target,
			result string) {
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

// assertion returns what tells apps who is there, signed by the keys that sign their logout tokens; nil where that is
// not wanted.
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

// behind returns the app that the proxy leads to. One that is not told of logouts may have a name for its assertions,
// if there is no other app: else it might be one of these, spelled wrong.
func behind(cfg Config) (string, error) {
	switch {
	case cfg.App == "" && len(cfg.Apps) == 1:
		return cfg.Apps[0].ClientID, nil
	case cfg.App == "" && len(cfg.Apps) == 0 && cfg.Assertion:
		return "", errors.New("with Assertion the app needs a name, which is the `aud` of its assertions")
	case len(cfg.Apps) == 0 && cfg.Assertion:
	case cfg.App != "" && !slices.ContainsFunc(cfg.Apps, func(a fanout.App) bool { return a.ClientID == cfg.App }):
		return "", fmt.Errorf("there is no app %q among Apps", cfg.App)
	}
	return cfg.App, nil
}

// Notices returns what carries out the notices that endings leave, for callers that look at them or steer them.
func (rp *RP) Notices() *fanout.Sender { return rp.fanout }

// Keys returns the keys that sign what apps are told. It is nil when there is nothing to tell apps.
func (rp *RP) Keys() *fanout.Keys { return rp.keys }
