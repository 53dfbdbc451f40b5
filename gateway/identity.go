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

// Identity says in which headers an app is told who is signed in. Its zero value is [CurfewHeaders].
type Identity struct {
	headers []header
	ours    map[string]bool // folded
}

type header struct{ name, fact string }

// CurfewHeaders returns our own names. What an app can be told, beside what stands here, are the facts "username"
// (preferred_username), "access_token", "bearer" (the access token as a value for Authorization) and "claim:NAME".
func CurfewHeaders() map[string]string {
	return map[string]string{
		"X-Auth-Subject": "subject", "X-Auth-Provider": "provider", "X-Auth-Name": "name", "X-Auth-Email": "email",
		"X-Auth-Groups": "groups", "X-Auth-Session": "session", "X-Auth-Assertion": "assertion",
	}
}

// OAuth2ProxyHeaders returns the names that oauth2-proxy gives to apps behind it, and to the proxy that asks it.
func OAuth2ProxyHeaders() map[string]string {
	return map[string]string{
		"X-Forwarded-User": "subject", "X-Forwarded-Email": "email", "X-Forwarded-Groups": "groups",
		"X-Forwarded-Preferred-Username": "username",
		"X-Auth-Request-User":            "subject", "X-Auth-Request-Email": "email", "X-Auth-Request-Groups": "groups",
		"X-Auth-Request-Preferred-Username": "username",
	}
}

// curfewHeaders is what NewIdentity makes of CurfewHeaders; a test holds them together.
var curfewHeaders = []header{
	{"X-Auth-Assertion", "assertion"}, {"X-Auth-Email", "email"}, {"X-Auth-Groups", "groups"}, {"X-Auth-Name", "name"},
	{"X-Auth-Provider", "provider"}, {"X-Auth-Session", "session"}, {"X-Auth-Subject", "subject"},
}

// NewIdentity makes an Identity of header names and the fact that each tells.
func NewIdentity(headers map[string]string) (Identity, error) {
	id := Identity{headers: []header{}, ours: map[string]bool{}}
	var faults []error
	for name, fact := range headers {
		name = http.CanonicalHeaderKey(name)
		switch folded := fold(name); {
		case name == "" || strings.Trim(folded, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || !token(name):
			faults = append(faults, fmt.Errorf("%q is no name of a header", name))
		case slices.Contains([]string{"connection", "content-length", "cookie", "forwarded", "host", "te", "trailer",
			"transfer-encoding",
			"upgrade", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"}, folded):
			faults = append(faults, fmt.Errorf("%s means something else already", name))
		case id.ours[folded]:
			faults = append(faults, fmt.Errorf("%s is there twice, in two spellings", name))
		default:
			id.ours[folded] = true
		}
		known := slices.Contains([]string{"subject", "provider", "name", "username", "email", "groups", "session",
			"assertion", "access_token", "bearer"}, fact)
		if !known && (!strings.HasPrefix(fact, "claim:") || fact == "claim:") {
			faults = append(faults, fmt.Errorf("%s: there is nothing called %q to tell", name, fact))
		}
		id.headers = append(id.headers, header{name, fact})
	}
	slices.SortFunc(id.headers, func(a, b header) int { return strings.Compare(a.name, b.name) })
	return id, errors.Join(faults...)
}

func token(name string) bool {
	return !strings.ContainsFunc(name, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-_.", c))
	})
}

// tell sets the headers of a session on what goes to the app, or to the proxy that asks. Values come from the provider.
// One that would not arrive as it is (see [printable]) is left out; without its subject nobody is let in. app is the
// client ID of the app that is told, or empty; it is given an assertion if it is certainly that one. Assertions and
// access tokens are for whoever may have more than a header's word.
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
			// An app that is told the rest could take the person for somebody else.
			return &web.Failure{
				Status: http.StatusForbidden,
				Message: web.Message{Text: "The name of your account cannot be told to the app: it has spaces " +
					"around it, or signs that no header can hold."},
				Err: errors.New("the subject would not arrive at the app as it is"), Event: "identity_refused",
				Attrs: []slog.Attr{slog.String("session", s.Key.Handle()), slog.String("header", n.name)},
			}
		}
	}
	return nil
}

// fact returns one thing to be told about a session, or "".
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

// list joins values with commas. One that holds a comma would be read as two, and one with spaces around it as another
// one, so these are left out, each by itself.
func list(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return strings.Join(slices.DeleteFunc(slices.Clone(values), func(v string) bool {
		return strings.Contains(v, ",") || printable(v) == ""
	}), ",")
}

// printable returns s if it arrives at every app as it is, and otherwise nothing. What surrounds a value in a header is
// taken off on the way (RFC 9110 §5.5), and by apps that split a list, so " admins" would become "admins". Control
// characters and line separators may end a line. Other text, as UTF-8, passes.
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
	if !utf8.ValidString(s) || strings.TrimFunc(s, invisible) != s ||
		strings.ContainsFunc(s, func(r rune) bool {
			return unicode.IsControl(r) ||
				unicode.In(r, unicode.Zl, unicode.Zp)
		}) {
		return ""
	}
	return s
}

// invisible says whether some language's "trim" takes a character off the end of a text.
func invisible(r rune) bool { return unicode.IsSpace(r) || unicode.Is(unicode.Cf, r) }

// strip removes what a client sent that an app might take for our word, in every spelling that some server folds into
// one name: WSGI and PHP read X_Auth_Subject as X-Auth-Subject, others X.Auth.Subject (CVE-2025-64484 and its kin).
func (i *Identity) strip(h http.Header) {
	for name := range h {
		if i.lookalike(name) {
			delete(h, name)
		}
	}
}

// lookalike says whether a header name could be taken for one that only the gateway may set, or, as X-Original-Url and
// X-Rewrite-Url, would have the app serve another path than the one that was checked.
func (i *Identity) lookalike(name string) bool {
	folded := fold(name)
	switch folded {
	case "forwarded", "x-real-ip", "x-rewrite-url":
		return true
	}
	return strings.HasPrefix(folded, "x-forwarded-") || strings.HasPrefix(folded, "x-original-") ||
		strings.HasPrefix(folded, "x-auth-request-") || preset(folded) || i.ours[folded]
}

// preset says whether a folded name is one of a preset. It is removed whichever is in use: an app may know the other
// one. The names of oauth2-proxy all begin with "x-forwarded-" or "x-auth-request-", so ours are left to look at.
func preset(folded string) bool {
	return slices.ContainsFunc(curfewHeaders, func(h header) bool { return strings.EqualFold(h.name, folded) })
}

// fold returns a header's name as the most forgiving server would read it.
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

// stripCookies removes our cookies from what an app gets to see: the bearer is no business of its.
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

// stripSetCookies keeps an app from setting or taking our cookies: it could sign a browser in as somebody else.
func stripSetCookies(h http.Header, ours session.Cookie) {
	lines := h["Set-Cookie"]
	if len(lines) == 0 {
		return
	}
	h["Set-Cookie"] = slices.DeleteFunc(lines, func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		name, _, _ = strings.Cut(name, ";") // of one without a value
		return ours.Ours(strings.TrimSpace(name))
	})
}
