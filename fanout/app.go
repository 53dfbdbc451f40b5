package fanout

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"
)

const (
	defaultConcurrency = 4
	defaultDeadline    = 24 * time.Hour
)

// App is a relying party that is notified of logouts: an app behind this one, or a client of a provider. ClientID and
// URI are required.
type App struct {
	ClientID string // `aud` of its logout tokens, and its name in Curfew
	// URI is its backchannel_logout_uri (Back-Channel Logout §2.2): https, or http on loopback. It may have a query.
	URI string
	// SessionRequired is its backchannel_logout_session_required: every token has a `sid`.
	SessionRequired bool
	// Scope is what a logout token ends: with [ScopeSession] (the default) one session, if it is known which; with
	// [ScopeSubject] all sessions of the person.
	Scope string
	Alg   string // the algorithm that signs its tokens: ES256 (the default) or RS256
	// Insecure allows http to another machine. Everybody on the network between can read and withhold the tokens.
	Insecure    bool
	Concurrency int           // how many requests each replica sends it at a time; default 4, at most 256
	Deadline    time.Duration // for how long a notice is tried; default 24 h, at least 1 min
}

func (a App) withDefaults() App {
	a.Scope = cmp.Or(a.Scope, ScopeSession)
	a.Alg = cmp.Or(a.Alg, ES256)
	a.Concurrency = cmp.Or(a.Concurrency, defaultConcurrency)
	a.Deadline = cmp.Or(a.Deadline, defaultDeadline)
	return a
}

// SigningAlg returns the algorithm that signs its tokens: Alg or its default.
func (a App) SigningAlg() string { return a.withDefaults().Alg }

// The values of [App.Scope].
const (
	ScopeSession = "session"
	ScopeSubject = "subject"
)

// Validate returns an error that lists every fault of a, with its client ID.
func (a App) Validate() error {
	var faults []error
	fault := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf("app %q: %w", a.ClientID, fmt.Errorf(format, args...)))
	}
	unprintable := func(r rune) bool { return r < ' ' || r == 0x7f }
	if a.ClientID == "" || len(a.ClientID) > 255 || strings.ContainsFunc(a.ClientID, unprintable) {
		fault("client_id must have 1 to 255 bytes, all of them printable")
	}
	if err := checkURI(a.URI, a.Insecure); err != nil {
		fault("backchannel_logout_uri %w", err)
	}
	switch a.Scope {
	case "", ScopeSession, ScopeSubject:
	default:
		fault("logout_scope %q is neither session nor subject", a.Scope)
	}
	if a.Scope == ScopeSubject && a.SessionRequired {
		fault("session_required and logout_scope: subject contradict each other")
	}
	switch a.Alg {
	case "", ES256, RS256:
	default:
		fault("%q is not one of the algorithms: ES256, RS256", a.Alg)
	}
	if a.Concurrency < 0 || a.Concurrency > 256 {
		fault("concurrency must be between 1 and 256")
	}
	if a.Deadline < 0 || a.Deadline > 0 && a.Deadline < time.Minute {
		fault("deadline must be at least a minute")
	}
	return errors.Join(faults...)
}

// checkURI returns an error unless raw is an absolute URI without a fragment (Back-Channel Logout §2.2). Its errors do
// not quote raw, which may hold a secret.
func checkURI(raw string, insecure bool) error {
	if raw == "" {
		return errors.New("is missing")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return errors.New("is not a URL")
	}
	switch {
	case u.Scheme == "" || !u.IsAbs():
		return errors.New("must be absolute: begin it with https://")
	case u.Scheme != "https" && u.Scheme != "http":
		return fmt.Errorf("has the unknown scheme %q: use https", u.Scheme)
	case u.Hostname() == "" || u.Opaque != "":
		return errors.New("has no host")
	case u.User != nil:
		return errors.New("must have no user and no password")
	case strings.Contains(raw, "#"):
		return errors.New("must have no fragment (Back-Channel Logout §2.2)")
	case u.Scheme == "http" && !insecure && !loopback(u.Hostname()):
		return errors.New("is http: use https, or set `insecure: true` if the network between is yours alone")
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
