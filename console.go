package curfew

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"

	"example.com/curfew/console"
	"example.com/curfew/fanout"
	"example.com/curfew/gateway"
	"example.com/curfew/session"
)

// ConsoleAccess is who may use the operators' console at the public URL; see [Config.Console].
type ConsoleAccess struct {
	// Provider is the name of the provider at which operators sign in. It may be left out if there is only one.
	Provider string
	// Require is what the claims of an operator must be: each must be, or contain, one of its values; see
	// [session.Meets]. Empty: there is no console at the public URL.
	Require map[string][]any
}

// check returns the operators that a configuration names.
func (c *ConsoleAccess) check(rp *RP) (gateway.Operators, error) {
	who := gateway.Operators{Provider: c.Provider, Require: c.Require}
	if len(c.Require) == 0 {
		if c.Provider != "" {
			return who, errors.New("names a provider, and no claim that operators must have: give Require")
		}
		return who, nil
	}
	var faults []error
	for name, values := range c.Require {
		if name == "" || len(values) == 0 {
			faults = append(faults, fmt.Errorf("the claim %q has no values, so nobody could be an operator", name))
		}
	}
	known := false
	for _, p := range rp.providers {
		known = known || p.Name() == c.Provider
	}
	switch {
	case c.Provider == "" && len(rp.providers) == 1:
		who.Provider = rp.providers[0].Name()
	case c.Provider == "":
		faults = append(faults, errors.New("say at which provider operators sign in, since another one may give anybody "+
			"the same claims"))
	case !known:
		faults = append(faults, fmt.Errorf("there is no provider %q", c.Provider))
	}
	return who, errors.Join(faults...)
}

// Console returns the console of this relying party, for a private listener; see [console.Console.Handler]. The caller
// sets Ready, Metrics and Hosts.
func (rp *RP) Console() *console.Console {
	c := &console.Console{
		Notices: rp.store, Retried: rp.fanout.Retry, Log: rp.log, Sessions: rp.sessions, Providers: rp.providers,
		Audit: rp.audit, Pages: rp.site.Pages,
		Replicas: func(ctx context.Context) (all []console.Replica, err error) {
			some, err := rp.Replicas(ctx)
			for _, r := range some {
				all = append(all, console.Replica(r))
			}
			return all, err
		},
		Traffic: func(ctx context.Context) (map[string]console.Traffic, error) {
			some, err := rp.Traffic(ctx)
			all := make(map[string]console.Traffic, len(some))
			for name, t := range some {
				all[name] = console.Traffic(t)
			}
			return all, err
		},
	}
	if rp.keys != nil {
		c.Keys = signingKeys{rp.keys}
	}
	return c
}

// signingKeys adapts the keys of package fanout for the console.
type signingKeys struct{ *fanout.Keys }

func (k signingKeys) List(ctx context.Context) ([]console.Key, error) {
	infos, err := k.Keys.List(ctx)
	all := make([]console.Key, len(infos))
	for i, info := range infos {
		all[i] = console.Key(info)
	}
	return all, err
}

// mountConsole adds the console for operators who are signed in.
func (rp *RP) mountConsole(mux *http.ServeMux, cfg Config, who gateway.Operators) {
	if len(who.Require) == 0 {
		return
	}
	path := rp.site.Path("console")
	pages := rp.Console().SignedIn(console.Access{
		Path: path, SignOut: rp.site.Path("logout"), Keyring: cfg.Keyring,
		Operator: func(r *http.Request) *session.Session { return gateway.SessionFrom(r.Context()) },
		Address: func(r *http.Request) string {
			if a := rp.site.ClientAddr(r); a.IsValid() {
				return a.String()
			}
			return cmp.Or(r.RemoteAddr, "unknown")
		},
	})
	h := rp.gateway.RequireOperator(who, pages)
	mux.Handle(path, h)
	mux.Handle(path+"/", h)
}
