package gateway

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/web"
)

// Rule says who may use some paths of a host, or of all. The first rule that covers a request decides. Paths without a
// rule are for all signed-in users, or with [Policy.DenyRest] for nobody.
//
// A user must meet all conditions of the rule. A rule without conditions that is not public requires a sign-in. A list
// that is nil is no condition; one that is empty is a fault, since nobody could meet it.
type Rule struct {
	Host    string   // default: any; `*.example.com` is all names one label below
	Path    string   // `/a` is that path, `/a/*` also all paths below it
	Methods []string // default: all; GET covers HEAD

	Public       bool                // no sign-in is required
	Groups       []string            // the user must be in one of these
	EmailDomains []string            // the user's address, not known to be unverified, must be at one of these
	Claims       map[string][]string // each claim must have one of these values; "a.b" is b inside a

	// Scopes is for access tokens alone, which must have one of these scopes (RFC 6749 §3.3). A person in a browser has
	// none, and needs none.
	Scopes []string

	// How the user must have signed in at the provider. A user who meets the conditions above but not these is sent to
	// the provider with just that request, and an API client is answered with the challenge of RFC 9470.
	ACR    []string      // `acr` must be one of these; requested as acr_values
	AMR    []string      // `amr` must have one of these
	MaxAge time.Duration // the sign-in must be no older; whole seconds; requested as max_age
}

type rule struct {
	Rule
	pattern
	number int
}

// Policy says who may use which path. Its zero value allows all signed-in users. [NewPolicy] returns one with rules.
type Policy struct {
	rules     []rule
	byMethods bool // a rule depends on the method
	denyRest  bool // for paths without a rule
}

// Hosts returns the hosts that the rules name.
func (p *Policy) Hosts() (all []string) {
	for i := range p.rules {
		if p.rules[i].Host != "" {
			all = append(all, p.rules[i].Host)
		}
	}
	return all
}

// DenyRest returns a policy that forbids all paths without a rule, for everybody. Otherwise all signed-in users may use
// them, which may include paths that an app treats like a protected one, such as /admin.json beside /admin/*.
func (p Policy) DenyRest() Policy {
	p.denyRest = true
	return p
}

// NewPolicy returns a policy with rules, in this order. The error lists every fault.
func NewPolicy(rules ...Rule) (Policy, error) {
	var p Policy
	var faults []error
	for i, r := range rules {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("rule %d: %w", i+1, fmt.Errorf(format, args...)))
		}
		pattern, ok := parsePattern(r.Path)
		if !ok {
			fault("%q is not a path; write it like /a for one path, or /a/* for all below it", r.Path)
		}
		if name, _ := strings.CutPrefix(r.Host, "*."); strings.ContainsAny(name, "/ @*:") || r.Host == "*." {
			fault("%q is not a host; write it like app.example.com, without a port, or *.example.com", r.Host)
		}
		if r.Public && (len(r.Groups) > 0 || len(r.EmailDomains) > 0 || len(r.Claims) > 0 || len(r.ACR) > 0 ||
			len(r.Scopes) > 0 || len(r.AMR) > 0 || r.MaxAge != 0) {
			fault("is public, but has conditions")
		}
		for _, list := range []struct {
			what   string
			values []string
		}{{"methods", r.Methods}, {"groups", r.Groups}, {"email_domains", r.EmailDomains}, {"scopes", r.Scopes},
			{"acr", r.ACR}, {"amr", r.AMR}} {
			if list.values != nil && len(list.values) == 0 {
				fault("%s is an empty list: leave it out, or name what is accepted", list.what)
			}
		}
		if r.Claims != nil && len(r.Claims) == 0 {
			fault("claims is empty: leave it out, or name what is accepted")
		}
		if slices.Contains(r.Groups, "") {
			fault("groups: a name is empty")
		}
		for _, v := range slices.Concat(r.ACR, r.AMR) {
			if badStepUpValue(v) {
				fault("%q is no value of acr or amr: it is empty or holds a space, a quote or a backslash", v)
			}
		}
		if len(strings.Join(r.ACR, " ")) > mostStepUp || len(strings.Join(r.AMR, " ")) > mostStepUp {
			fault("acr and amr may have %d bytes each, all values together", mostStepUp)
		}
		if r.MaxAge < 0 || r.MaxAge%time.Second != 0 {
			fault("max_age: %v is not a number of whole seconds, one or more", r.MaxAge)
		}
		for _, s := range r.Scopes {
			if badStepUpValue(s) {
				fault("%q is no scope: it is empty or holds a space, a quote or a backslash", s)
			}
		}
		for _, d := range r.EmailDomains {
			if d == "" || strings.ContainsAny(d, "@* ") {
				fault("%q is not a domain; write it like example.com", d)
			}
		}
		for _, m := range r.Methods {
			if m == "" || strings.Trim(m, methodChars) != "" {
				fault("%q is not a method; write it like GET", m)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(r.Claims)) {
			switch values := r.Claims[name]; {
			case len(values) == 0:
				fault("claim %q lists no values", name)
			case slices.Contains(values, ""):
				fault("claim %q: a value is empty", name)
			}
		}
		p.byMethods = p.byMethods || len(r.Methods) > 0
		p.rules = append(p.rules, rule{r, pattern, i + 1})
	}
	return p, errors.Join(faults...)
}

const methodChars = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ" // RFC 9110 §5.6.2, in upper case

const mostStepUp = 512 // they go into a header, and into the address of the provider's page

// covers reports whether the rule applies to a request. A public rule is matched exactly. A rule with conditions is
// matched without regard to case, since many apps serve /Admin as /admin and treat `delete` as DELETE.
func (r *rule) covers(host, method, path string) bool {
	if r.Host != "" && !sameHost(r.Host, host) {
		return false
	}
	equal := strings.EqualFold
	if r.Public {
		equal = exact
	}
	if len(r.Methods) > 0 && !slices.ContainsFunc(r.Methods, func(m string) bool {
		return equal(m, method) || m == http.MethodGet && equal(http.MethodHead, method)
	}) {
		return false
	}
	return r.pattern.covers(path, equal)
}

// find returns the rule for a request, or nil. If there are no rules, it does not look at the path.
func (p *Policy) find(r *http.Request, host, method, target string) (*rule, error) {
	if len(p.rules) == 0 && !p.denyRest {
		return nil, nil
	}
	path, ok := plainPath(target)
	if !ok {
		return nil, ambiguous(target)
	}
	if p.byMethods {
		// With these headers, in any spelling, some apps take a POST for another method.
		for name := range r.Header {
			switch fold(name) {
			case "x-http-method-override", "x-http-method", "x-method-override":
				return nil, web.Fail(http.StatusBadRequest, "A request must not name a second method.",
					errors.New("a method override, and the policy has rules with methods"))
			}
		}
	}
	for i := range p.rules {
		if p.rules[i].covers(host, method, path) {
			return &p.rules[i], nil
		}
	}
	if p.denyRest {
		return nil, &web.Failure{Status: http.StatusForbidden,
			Message: web.Message{Text: "Nobody may open this address."},
			Event:   "forbidden", Attrs: []slog.Attr{slog.String("missing", "a rule for this path"),
				slog.String("target", path)}}
	}
	return nil, nil
}

// allowedFor is allowed, and logs at debug what was asked for and what was there: names of groups, and of claims.
func (h *Handler) allowedFor(r *http.Request, by *rule, s *session.Session, target string) error {
	err := h.allowed(r, by, s, target)
	f, ok := errors.AsType[*web.Failure](err)
	if !ok || !cmp.Or(h.Site.Log, slog.Default()).Enabled(r.Context(), slog.LevelDebug) {
		return err
	}
	attrs := append(slices.Clone(f.Attrs), slog.String("claims", session.ClaimNames(s.Claims)))
	if len(by.Groups) > 0 {
		has := make(map[string]any)
		for _, g := range h.groups(s) {
			has[g] = nil
		}
		attrs = append(attrs, slog.String("groups_claim", h.groupsClaim()),
			slog.String("wanted_groups", strings.Join(by.Groups, " ")), slog.String("groups", session.ClaimNames(has)))
	}
	if len(by.EmailDomains) > 0 {
		attrs = append(attrs, slog.String("wanted_email_domains", strings.Join(by.EmailDomains, " ")))
	}
	for _, name := range slices.Sorted(maps.Keys(by.Claims)) {
		attrs = append(attrs, slog.String("wanted_"+name, strings.Join(by.Claims[name], " ")))
	}
	h.Site.Event(r, slog.LevelDebug, "forbidden_detail", attrs...)
	return err
}

// allowed returns nil if the session meets all conditions of the rule. The page says what kind of condition is not met;
// only the log says which value would be accepted.
func (h *Handler) allowed(r *http.Request, by *rule, s *session.Session, target string) error {
	var say, why string
	switch {
	case len(by.Groups) > 0 && !session.MeetsText(s.Claims, h.groupsClaim(), by.Groups):
		why = "groups"
		say = "You are signed in, but for this page your account lacks membership of a group.\n\nAsk the people who " +
			"run this site if you should have it."
	case len(by.EmailDomains) > 0 && !slices.ContainsFunc(by.EmailDomains,
		func(d string) bool { return session.EqualFold(d, emailDomain(s)) }):
		why = "email_domains"
		say = "You are signed in, but for this page your account lacks an e-mail address of a certain domain.\n\nAsk " +
			"the people who run this site if you should have it."
	case s.IsToken && len(by.Scopes) > 0 && !hasScope(s.Claims, by.Scopes):
		why = "scopes"
		say = "You are signed in, but for this page your account lacks a scope.\n\nAsk the people who run this site if " +
			"you should have it."
	}
	for name, values := range by.Claims {
		if say == "" && !session.MeetsText(s.Claims, name, values) {
			why = "claims: " + name
			say = "You are signed in, but for this page your account lacks a permission.\n\nAsk the people who run this " +
				"site if you should have it."
		}
	}
	if say == "" {
		return nil
	}
	prompt, label := "select_account", "Use another account"
	if slices.Contains([]string{"claims: acr", "claims: amr", "claims: auth_time"}, why) {
		prompt, label = "login", "Sign in again" // else the session at the provider answers at once, with the same
	}
	again := h.loginLink(r, h.returnTo(r, target), url.Values{"prompt": {prompt}})
	return &web.Failure{
		Status: http.StatusForbidden,
		Message: web.Message{
			Text: say,
			// If the provider signs the same account in again, signing out there helps.
			Actions: []web.Action{{Label: label, Href: again}, h.signOut(r)},
		},
		Event: "forbidden",
		Attrs: []slog.Attr{slog.String("session", s.Key.Handle()), slog.Int("rule", by.number),
			slog.String("missing", why)},
	}
}

func (h *Handler) groupsClaim() string { return cmp.Or(h.GroupsClaim, "groups") }

// groups returns the groups of a session.
func (h *Handler) groups(s *session.Session) []string {
	return texts(session.Lookup(s.Claims, h.groupsClaim()))
}

// emailDomain returns the domain of the session's e-mail address, or "" unless the address has exactly one @: it is
// unclear where a@evil@corp.com is delivered.
func emailDomain(s *session.Session) string {
	local, domain, ok := strings.Cut(s.Email(), "@")
	if !ok || local == "" || strings.ContainsAny(domain, "@ ,;<>\"\t\r\n\x00") {
		return ""
	}
	return domain
}

// texts returns the strings, numbers and booleans of a claim as text; other values are left out.
func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case json.Number: // with the provider's digits
		return []string{v.String()}
	case bool:
		return []string{strconv.FormatBool(v)}
	case []string:
		return v
	case []any:
		all := make([]string, 0, len(v))
		for _, item := range v {
			if _, list := item.([]any); !list {
				all = append(all, texts(item)...)
			}
		}
		return all
	}
	return nil
}
