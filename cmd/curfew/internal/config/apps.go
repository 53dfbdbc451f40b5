package config

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"example.com/curfew/fanout"
)

// app is one entry under `apps:` in the file.
type app struct{ fanout.App }

// settings returns the settings of one app. They exist only in the file, where apps are a list.
func (a *app) settings() []setting {
	return []setting{
		{"client_id", "", "", "", text(&a.ClientID)},
		{"backchannel_logout_uri", "", "", "", text(&a.URI)},
		{"session_required", "false", "", "", boolean(&a.SessionRequired)},
		{"logout_scope", "session", "", "", oneOf(&a.Scope, fanout.ScopeSession, fanout.ScopeSubject)},
		{"signing_alg", "ES256", "", "", oneOf(&a.Alg, fanout.ES256, fanout.RS256)},
		{"insecure", "false", "", "", boolean(&a.Insecure)},
		{"concurrency", "4", "", "", whole(&a.Concurrency, 1, 256)},
		{"deadline", "24h", "", "", duration(&a.Deadline, time.Minute)},
	}
}

// assuming returns the app with a good value in place of each that is missing or has a fault.
func (a *app) assuming(failed map[string]bool) fanout.App {
	one := a.App
	one.ClientID, one.URI = cmp.Or(one.ClientID, "?"), cmp.Or(one.URI, "https://app.invalid")
	one.Insecure = one.Insecure || failed["insecure"]
	return one
}

// applyApps creates the apps, and checks that the one behind the gateway is among them.
func (l *loader) applyApps(c *Config, given map[string]value, failed map[string]bool) {
	names := map[string]string{}
	for i, b := range l.apps {
		a, path := new(app), fmt.Sprintf("apps[%d].", i)
		given := b.values
		failed := l.apply(a.settings(), given, path)
		for _, key := range []string{"client_id", "backchannel_logout_uri"} {
			if _, ok := given[key]; !ok {
				at := b.at
				at.path = path + key
				l.faults.add(at, errors.New("is missing: every app needs it"))
			}
		}
		if err := a.assuming(failed).Validate(); err != nil {
			for line := range strings.SplitSeq(err.Error(), "\n") {
				l.faults.add(b.at, errors.New(line))
			}
		}
		if first, taken := names[a.ClientID]; taken && a.ClientID != "" {
			l.faults.add(given["client_id"], fmt.Errorf("%q is another app (%s)", a.ClientID, first))
		}
		names[a.ClientID] = b.at.where
		c.Apps = append(c.Apps, a.App)
	}
	if _, nameless := names[""]; nameless || l.unread["apps"] {
		return // which of them the names below are for is not known
	}
	for _, r := range c.Routes {
		if _, known := names[r.App]; r.App != "" && !known && len(l.apps) > 0 {
			l.faults.add(given["routes"], fmt.Errorf("there is no app %q; list it under apps, with this client_id",
				r.App))
		}
	}
	switch _, known := names[c.App]; {
	case failed["app"]:
	case c.Assertion && c.App == "" && len(l.apps) == 0:
		l.faults.add(given["assertion"],
			errors.New("the app needs a name, which becomes the `aud` of its assertions: give app"))
	case c.Assertion && len(l.apps) == 0: // a client ID is enough: no app is notified of logouts
	case c.App != "" && !known:
		l.faults.add(given["app"], fmt.Errorf("there is no app %q; list it under apps, with this client_id", c.App))
	}
}
