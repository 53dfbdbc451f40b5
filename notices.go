package curfew

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"example.com/curfew/fanout"
	"example.com/curfew/session"
)

// addFanout makes what carries out notices, and returns what plans them. A store that keeps none leaves none: then nothing is
// revoked, and no app can be told.
func (rp *RP) addFanout(cfg Config, log *slog.Logger) (plan func(session.Ending) []session.Telling, err error) {
	desk, isDesk := rp.store.(session.Desk)
	vault, isVault := rp.store.(session.Vault)
	if !isDesk || !isVault {
		if len(cfg.Apps) > 0 {
			return nil, errors.New("curfew: Apps: this store keeps neither notices nor keys, so no app can be told")
		}
		log.Warn("this store keeps no notices: no refresh token is revoked when its session ends", "event", "no_notices")
		return nil, nil
	}
	rp.revokeOffline = cfg.RevokeOffline
	// The clock of the sessions, which are not made yet: replicas share it.
	now := func() time.Time { return rp.sessions.Now() }
	config := fanout.Config{Desk: desk, Issuer: fanout.Issuer(rp.site), Apps: cfg.Apps, Providers: rp.providers, Ring: cfg.Ring,
		RevokeOffline: cfg.RevokeOffline, Now: now, Log: log}
	if cfg.Observe.Notice != nil {
		config.OnAttempt = func(kind session.NoticeKind, target, result string) { cfg.Observe.Notice(string(kind), target, result) }
	}
	if len(cfg.Apps) > 0 {
		var algs []string
		for _, a := range cfg.Apps {
			if alg := a.SigningAlg(); !slices.Contains(algs, alg) {
				algs = append(algs, alg)
			}
		}
		slices.Sort(algs)
		rp.keys, err = fanout.NewKeys(fanout.KeysConfig{Vault: vault, Ring: cfg.Ring, Algs: algs, Every: cfg.KeyRotation, Now: now, Log: log})
		if err != nil {
			return nil, fmt.Errorf("curfew: %w", err)
		}
		config.Signer = rp.keys
	}
	if rp.fanout, err = fanout.New(config); err != nil {
		return nil, fmt.Errorf("curfew: Apps: %w", err)
	}
	return rp.fanout.Plan, nil
}

// behind returns the app that the proxy leads to.
func behind(cfg Config) (string, error) {
	switch {
	case cfg.App == "" && len(cfg.Apps) == 1:
		return cfg.Apps[0].ClientID, nil
	case cfg.App != "" && !slices.ContainsFunc(cfg.Apps, func(a fanout.App) bool { return a.ClientID == cfg.App }):
		return "", fmt.Errorf("there is no app %q among Apps", cfg.App)
	}
	return cfg.App, nil
}

func (rp *RP) nudge() {
	if rp.fanout != nil {
		rp.fanout.Nudge()
	}
}

// Notices returns what carries out notices, for who wants to steer it. It is nil when the store keeps none.
func (rp *RP) Notices() *fanout.Sender { return rp.fanout }

// Keys returns the keys that sign what apps are told. It is nil when there is no app to tell.
func (rp *RP) Keys() *fanout.Keys { return rp.keys }
