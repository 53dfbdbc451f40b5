package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"example.com/curfew/session"
	"example.com/curfew/web"
)

// Identity says in which headers an app is told who the user is. Its zero value is [CurfewHeaders].
type Identity struct {
	headers []header
	names   map[string]bool // as [fold] returns them
}

type header struct{ name, fact string }

// CurfewHeaders returns Curfew's own header names with the value that each carries. Other values are "username"
// (preferred_username), "access_token", "bearer" (the access token as a value for Authorization) and "claim:NAME".
func CurfewHeaders() map[string]string {
	return map[string]string{
		"X-Auth-Subject": "subject", "X-Auth-Provider": "provider", "X-Auth-Name": "name", "X-Auth-Email": "email",
		"X-Auth-Groups": "groups", "X-Auth-Session": "session", "X-Auth-Assertion": "assertion",
	}
}

// OAuth2ProxyHeaders returns the header names that oauth2-proxy sets for apps, and for a proxy that uses it for
// forward-auth.
func OAuth2ProxyHeaders() map[string]string {
	return map[string]string{
		"X-Forwarded-User": "subject", "X-Forwarded-Email": "email", "X-Forwarded-Groups": "groups",
		"X-Forwarded-Preferred-Username": "username",
		"X-Auth-Request-User":            "subject", "X-Auth-Request-Email": "email", "X-Auth-Request-Groups": "groups",
		"X-Auth-Request-Preferred-Username": "username",
	}
}

// curfewHeaders is what NewIdentity returns for CurfewHeaders; a test compares them.
var curfewHeaders = []header{
	{"X-Auth-Assertion", "assertion"}, {"X-Auth-Email", "email"}, {"X-Auth-Groups", "groups"}, {"X-Auth-Name", "name"},
	{"X-Auth-Provider", "provider"}, {"X-Auth-Session", "session"}, {"X-Auth-Subject", "subject"},
}

// NewIdentity returns an Identity that sets each header to the value named (see [CurfewHeaders]). The error lists every
// invalid entry.
func NewIdentity(headers map[string]string) (Identity, error) {
	id := Identity{headers: []header{}, names: map[string]bool{}}
	var faults []error
	for name, fact := range headers {
		name = http.CanonicalHeaderKey(name)
		switch folded := fold(name); {
		case name == "" || strings.Trim(folded, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || !isToken(name):
			faults = append(faults, fmt.Errorf("%q is not a header name", name))
		case slices.Contains([]string{"connection", "content-length", "cookie", "forwarded", "host", "te", "trailer",
			"transfer-encoding", "upgrade", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto",
			"x-real-ip"}, folded):
			faults = append(faults, fmt.Errorf("%s already has another meaning", name))
		case id.names[folded]:
			faults = append(faults, fmt.Errorf("%s is given twice, in two spellings", name))
		default:
			id.names[folded] = true
		}
		known := slices.Contains([]string{"subject", "provider", "name", "username", "email", "groups", "session",
			"assertion", "access_token", "bearer"}, fact)
		if !known && (!strings.HasPrefix(fact, "claim:") || fact == "claim:") {
			faults = append(faults, fmt.Errorf("%s: there is no value called %q", name, fact))
		}
		id.headers = append(id.headers, header{name, fact})
	}
	slices.SortFunc(id.headers, func(a, b header) int { return strings.Compare(a.name, b.name) })
	return id, errors.Join(faults...)
}

func isToken(name string) bool {
	return !strings.ContainsFunc(name, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-_.", c))
	})
}

// identify sets the identity headers of a session on to, which goes to the app or to a proxy. The values come from the
// provider. One that would not arrive unchanged (see [printable]) is omitted; without its subject the request is
// refused. app is the client ID of the app, or empty. An assertion is added only if it is certain that this is the app.
// Assertions and access tokens are added only if may is true.
func (h *Handler) identify(r *http.Request, to http.Header, s *session.Session, app string, certain, may bool) error {
	headers := h.Identity.headers
	if headers == nil {
		headers = curfewHeaders
	}
	for _, n := range headers {
		if n.fact == "assertion" {
			if h.Assertion == nil || app == "" || !certain || !may {
				continue
			}
			jwt, err := h.assert(r.Context(), s, app)
			if err != nil {
				return web.Fail(http.StatusServiceUnavailable,
					"The app cannot be told at the moment who you are. Please try again.", err)
			}
			to[n.name] = []string{jwt}
			continue
		}
		if !may && (n.fact == "access_token" || n.fact == "bearer") {
			continue
		}
		value := h.fact(s, n.fact, app)
		if v := printable(value); v != "" {
			to[n.name] = []string{v}
		} else if value != "" && n.fact == "subject" {
			// With only the other headers an app could take the user for somebody else.
			return &web.Failure{
				Status: http.StatusForbidden,
				Message: web.Message{Text: "The name of your account cannot be told to the app: it has spaces " +
					"around it, or characters that a header cannot hold."},
				Err: errors.New("the subject would not arrive at the app as it is"), Event: "identity_refused",
				Attrs: []slog.Attr{slog.String("session", s.Key.Handle()), slog.String("header", n.name)},
			}
		}
	}
	return nil
}

// fact returns a named value of a session, or "".
func (h *Handler) fact(s *session.Session, name, app string) string {
	switch name {
	case "subject":
		return s.Subject
	case "provider":
		return s.Provider
	case "name":
		return s.Claim("name")
	case "username":
		return s.Claim("preferred_username")
	case "email":
		return s.Email()
	case "groups":
		return list(h.groups(s))
	case "session":
		if app != "" {
			return s.Key.SIDFor(app)
		}
	case "access_token":
		return s.Tokens.AccessToken
	case "bearer":
		if s.Tokens.AccessToken != "" {
			return "Bearer " + s.Tokens.AccessToken
		}
	}
	if name, ok := strings.CutPrefix(name, "claim:"); ok {
		v := session.Lookup(s.Claims, name)
		if text, ok := v.(string); ok {
			return text
		}
		return list(texts(v))
	}
	return ""
}

// list joins values with commas. A value that contains a comma, or has spaces around it, would be read as another
// value, so it is omitted.
func list(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return strings.Join(slices.DeleteFunc(slices.Clone(values), func(v string) bool {
		return strings.Contains(v, ",") || printable(v) == ""
	}), ",")
}

// printable returns s if every app receives it unchanged, and "" otherwise. Space around a header value is removed on
// the way (RFC 9110 §5.5), and by apps that split a list, so " admins" would become "admins". Control characters and
// line separators may end a line. Other UTF-8 text is allowed.
func printable(s string) string {
	plain := true // printable ASCII
	for i := range len(s) {
		plain = plain && ' ' <= s[i] && s[i] <= '~'
	}
	if plain {
		if strings.Trim(s, " ") != s {
			return ""
		}
		return s
	}
	endsLine := func(r rune) bool { return unicode.IsControl(r) || unicode.In(r, unicode.Zl, unicode.Zp) }
	if !utf8.ValidString(s) || strings.TrimFunc(s, trimmable) != s || strings.ContainsFunc(s, endsLine) {
		return ""
	}
	return s
}

// trimmable reports whether the "trim" function of some language removes a character.
func trimmable(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) }

// strip removes headers from a client that an app might take for the gateway's, in every spelling that some server
// folds into one name: WSGI and PHP read X_Auth_Subject as X-Auth-Subject, others X.Auth.Subject (CVE-2025-64484 and
// similar).
func (i *Identity) strip(h http.Header) {
	for name := range h {
		if i.lookalike(name) {
			delete(h, name)
		}
	}
}

// lookalike reports whether a header name could be taken for one that only the gateway may set, or, like X-Original-Url
// and X-Rewrite-Url, could make the app serve another path than the one that was checked.
func (i *Identity) lookalike(name string) bool {
	folded := fold(name)
	switch folded {
	case "forwarded", "x-real-ip", "x-rewrite-url":
		return true
	}
	return strings.HasPrefix(folded, "x-forwarded-") || strings.HasPrefix(folded, "x-original-") ||
		strings.HasPrefix(folded, "x-auth-request-") || isPreset(folded) || i.names[folded]
}

// isPreset reports whether a folded name belongs to a preset. These names are removed whichever preset is in use,
// because an app may read the other. Those of oauth2-proxy all begin with "x-forwarded-" or "x-auth-request-", so only
// Curfew's are checked here.
func isPreset(folded string) bool {
	return slices.ContainsFunc(curfewHeaders, func(h header) bool { return strings.EqualFold(h.name, folded) })
}

// fold returns a header name as the most lenient server would read it.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		}
		return '-'
	}, name)
}

// stripCookies removes Curfew's cookies from a request to an app, which must not see the bearer.
func stripCookies(h http.Header, ours session.Cookie) {
	lines := h["Cookie"]
	h.Del("Cookie")
	for _, line := range lines {
		kept := make([]string, 0, 8)
		for part := range strings.SplitSeq(line, ";") {
			part = strings.TrimSpace(part)
			name, _, _ := strings.Cut(part, "=")
			if part != "" && !ours.Ours(strings.TrimSpace(name)) {
				kept = append(kept, part)
			}
		}
		if len(kept) > 0 {
			h.Add("Cookie", strings.Join(kept, "; "))
		}
	}
}

// stripSetCookies prevents an app from setting or deleting Curfew's cookies: it could sign a browser in as somebody
// else.
func stripSetCookies(h http.Header, ours session.Cookie) {
	lines := h["Set-Cookie"]
	if len(lines) == 0 {
		return
	}
	h["Set-Cookie"] = slices.DeleteFunc(lines, func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		name, _, _ = strings.Cut(name, ";") // if it has no value
		return ours.Ours(strings.TrimSpace(name))
	})
}
