package gateway

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"example.com/curfew/session"
	"example.com/curfew/web"
)

// Rule says who may use some paths. The first rule that covers a request decides; where none does, whoever is signed in
// may, or with [Policy.DenyRest] nobody.
//
// Of what it asks for, all must be there. A rule that asks for nothing and is not public asks for a sign-in.
type Rule struct {
	Path    string   // `/a` is that path, `/a/*` is it and all below it
	Methods []string // default: all; GET covers HEAD

	Public       bool                // nobody has to be signed in
	Groups       []string            // membership of one of these
	EmailDomains []string            // an e-mail address, not known to be unverified, at one of these
	Claims       map[string][]string // for each claim one of the values; "a.b" is b inside of a
}

type rule struct {
	Rule
	pattern
	number int
}

// Policy says who may use which path. Its zero value lets in whoever is signed in.
type Policy struct {
	rules     []rule
	byMethods bool // some rule depends on the method
	deny      bool // what no rule covers
}

// DenyRest returns the policy with all paths that no rule covers forbidden, for everybody. Without it they are for
// whoever is signed in, and a sibling that an app takes for the same, such as /admin.json beside /admin/*, is one.
func (p Policy) DenyRest() Policy {
	p.deny = true
	return p
}

// NewPolicy checks the rules, telling every fault at once.
func NewPolicy(rules ...Rule) (Policy, error) {
	var p Policy
	var faults []error
	for i, r := range rules {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("rule %d: %w", i+1, fmt.Errorf(format, args...)))
		}
		pattern, ok := parsePattern(r.Path)
		if !ok {
			fault("%q is no path; write it like /a for one path, or /a/* for all below it", r.Path)
		}
		if r.Public && (len(r.Groups) > 0 || len(r.EmailDomains) > 0 || len(r.Claims) > 0) {
			fault("is public, and asks for something all the same")
		}
		for _, d := range r.EmailDomains {
			if d == "" || strings.ContainsAny(d, "@* ") {
				fault("%q is no domain; write it like example.com", d)
			}
		}
		for _, m := range r.Methods {
			if m == "" || m != strings.ToUpper(m) {
				fault("%q is no method; write it like GET", m)
			}
		}
		for name, values := range r.Claims {
			if len(values) == 0 {
				fault("claim %q has no value to be met", name)
			}
		}
		p.byMethods = p.byMethods || len(r.Methods) > 0
		p.rules = append(p.rules, rule{r, pattern, i + 1})
	}
	return p, errors.Join(faults...)
}

// covers says whether the rule is about this request. A rule that opens is taken by the letter. One that demands is
// taken widely, since many apps serve /Admin as /admin and treat a `delete` as DELETE.
func (r *rule) covers(method, path string) bool {
	equal := strings.EqualFold
	if r.Public {
		equal = same
	}
	if len(r.Methods) > 0 && !slices.ContainsFunc(r.Methods, func(m string) bool {
		return equal(m, method) || m == http.MethodGet && equal(http.MethodHead, method)
	}) {
		return false
	}
	return r.pattern.covers(path, equal)
}

// find returns the rule for a request, or nil. Without any rule it does not look at the path.
func (p *Policy) find(r *http.Request, method, target string) (*rule, error) {
	if len(p.rules) == 0 && !p.deny {
		return nil, nil
	}
	path, ok := plainPath(target)
	if !ok {
		return nil, ambiguous(target)
	}
	if p.byMethods {
		// With these, in whatever spelling, some apps take a POST for whatever the header says.
		for name := range r.Header {
			switch fold(name) {
			case "x-http-method-override", "x-http-method", "x-method-override":
				return nil, web.Fail(http.StatusBadRequest, "A request must not name a second method.",
					errors.New("a method override under a policy that looks at methods"))
			}
		}
	}
	for i := range p.rules {
		if p.rules[i].covers(method, path) {
			return &p.rules[i], nil
		}
	}
	if p.deny {
		return nil, &web.Failure{Status: http.StatusForbidden,
			Message: web.Message{Text: "This address is open to nobody."},
			Event:   "forbidden", Attrs: []slog.Attr{slog.String("missing", "a rule for this path"),
				slog.String("target", path)}}
	}
	return nil, nil
}

func ambiguous(target string) error {
	return &web.Failure{Status: http.StatusBadRequest,
		Message: web.Message{Text: "This address can be read in more than one way."},
		Event:   "path_refused", Attrs: []slog.Attr{slog.String("target", target)}}
}

// allowed returns nil if the session has all that the rule asks for. A person is told what kind of thing is missing;
// which value would do is for the log alone.
func (h *Handler) allowed(r *rule, s *session.Session, target string) error {
	var missing, why string
	switch {
	case len(r.Groups) > 0 && !session.MeetsText(s.Claims, h.groupsClaim(), r.Groups):
		missing, why = "membership of a group", "groups"
	case len(r.EmailDomains) > 0 && !slices.ContainsFunc(r.EmailDomains,
		func(d string) bool { return session.EqualFold(d, emailDomain(s)) }):
		missing, why = "an e-mail address of a certain domain", "email_domains"
	}
	for name, values := range r.Claims {
		if missing == "" && !session.MeetsText(s.Claims, name, values) {
			missing, why = "a permission", "claims: "+name
		}
	}
	if missing == "" {
		return nil
	}
	again := h.Site.Path("login") + "?" + url.Values{"prompt": {"select_account"},
		"return_to": {web.ReturnTo(target)}}.Encode()
	return &web.Failure{
		Status: http.StatusForbidden,
		Message: web.Message{
			Text: "You are signed in, but for this page your account lacks " + missing +
				".\n\nAsk whoever looks after this site if you should have it.",
			// Where the provider lets the same account through again, signing out there helps.
			Actions: []web.Action{{Label: "Use another account", Href: again},
				{Label: "Sign out", Href: h.Site.Path("logout"), Post: true}},
		},
		Event: "forbidden",
		Attrs: []slog.Attr{slog.String("session", s.Key.Handle()), slog.Int("rule", r.number),
			slog.String("missing", why)},
	}
}

func (h *Handler) groupsClaim() string { return cmp.Or(h.GroupsClaim, "groups") }

// groups returns the groups of a session.
func (h *Handler) groups(s *session.Session) []string {
	return texts(session.Lookup(s.Claims, h.groupsClaim()))
}

// emailDomain returns the domain of the e-mail address of a session, or "" if that has not exactly one @: nobody knows
// where a@evil@corp.com is delivered.
func emailDomain(s *session.Session) string {
	local, domain, ok := strings.Cut(s.Email(), "@")
	if !ok || local == "" || strings.ContainsAny(domain, "@ ,;<>\"\t\r\n\x00") {
		return ""
	}
	return domain
}

// texts returns the values of a claim as text; one that is neither text, number nor bool has none.
func texts(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case json.Number: // with the digits that the provider wrote
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
