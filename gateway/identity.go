package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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
	headers   []header
	names     map[string]bool // as [fold] returns them
	separator byte            // of a list; 0: a comma
	encoding  Encoding
}

// Encoding is how a value that is not plain ASCII is written into a header.
type Encoding string

// The encodings.
const (
	UTF8    Encoding = "utf-8"   // as it is; the default
	Percent Encoding = "percent" // each byte beyond printable ASCII, and each %, as %XX (RFC 3986 §2.1)
	// RFC8187 writes a value that is not plain ASCII as UTF-8''%XX… (RFC 8187 §3.2.1).
	RFC8187 Encoding = "rfc8187"
)

// WithSeparator returns an identity whose lists, such as groups, are separated by a character: ASCII punctuation.
func (i Identity) WithSeparator(separator string) (Identity, error) {
	if len(separator) != 1 || !strings.Contains("!#$&'()*+,-./:;<=>?@[]^_`{|}~", separator) {
		return i, fmt.Errorf("%q is not a separator: want one character such as , ; or |", separator)
	}
	i.separator = separator[0]
	return i, nil
}

// WithEncoding returns an identity whose values are written in an encoding.
func (i Identity) WithEncoding(e Encoding) (Identity, error) {
	if !slices.Contains([]Encoding{UTF8, Percent, RFC8187}, e) {
		return i, fmt.Errorf("%q is not an encoding: want %s, %s or %s", e, UTF8, Percent, RFC8187)
	}
	i.encoding = e
	return i, nil
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

// AccessTokens returns the names of the headers that carry the access token.
func (i Identity) AccessTokens() (names []string) {
	for _, h := range i.headers {
		if h.fact == "access_token" || h.fact == "bearer" {
			names = append(names, h.name)
		}
	}
	return names
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
		values, isList := h.fact(s, n.fact, app)
		v, left := h.Identity.write(values, isList)
		if left > 0 && n.fact != "subject" {
			h.logDropped(r, s, n.name, left)
		}
		if v != "" {
			to[n.name] = []string{v}
		} else if left > 0 && n.fact == "subject" {
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

// logDropped logs that an app is not told all values of a header. It does so once for each header, not at each request.
func (h *Handler) logDropped(r *http.Request, s *session.Session, header string, left int) {
	if _, logged := h.dropped.LoadOrStore(header, true); logged {
		return
	}
	h.Site.Event(r, slog.LevelWarn, "identity_dropped", slog.String("session", s.Key.Handle()),
		slog.String("header", header), slog.Int("values", left),
		slog.String("error", "the app would read these values as others: they contain the separator, or characters that "+
			"a header cannot hold; choose another list_separator or header_encoding. This is logged once for each header"))
}

// fact returns a named value of a session, and whether it is a list. Without a value it is empty.
func (h *Handler) fact(s *session.Session, name, app string) (values []string, isList bool) {
	one := func(v string) ([]string, bool) {
		if v == "" {
			return nil, false
		}
		return []string{v}, false
	}
	switch name {
	case "subject":
		return one(s.Subject)
	case "provider":
		return one(s.Provider)
	case "name":
		return one(s.Claim("name"))
	case "username":
		return one(s.Claim("preferred_username"))
	case "email":
		return one(s.Email())
	case "groups":
		return h.groups(s), true
	case "session":
		if app != "" {
			return one(s.Key.SIDFor(app))
		}
	case "access_token":
		return one(s.Tokens.AccessToken)
	case "bearer":
		if s.Tokens.AccessToken != "" {
			return one("Bearer " + s.Tokens.AccessToken)
		}
	}
	if name, ok := strings.CutPrefix(name, "claim:"); ok {
		v := session.Lookup(s.Claims, name)
		if text, ok := v.(string); ok {
			return one(text)
		}
		return texts(v), true
	}
	return nil, false
}

// write returns values as one header value, and how many of them are left out because an app would read them as others.
func (i *Identity) write(values []string, isList bool) (text string, left int) {
	separator := cmp.Or(i.separator, ',')
	kept := make([]string, 0, len(values))
	for _, v := range values {
		if v == "" {
			continue
		}
		v = i.encode(v, isList, separator)
		if v == "" || isList && strings.IndexByte(v, separator) >= 0 {
			left++
			continue
		}
		kept = append(kept, v)
	}
	return strings.Join(kept, string(rune(separator))), left
}

// encode returns a value as it is written, or "" if it cannot be: see [printable].
func (i *Identity) encode(v string, inList bool, separator byte) string {
	plain := printable(v) != "" && isASCII(v) && !(inList && strings.IndexByte(v, separator) >= 0)
	switch {
	case i.encoding == "" || i.encoding == UTF8:
		return printable(v)
	case !utf8.ValidString(v):
		return ""
	case i.encoding == RFC8187 && plain && !strings.HasPrefix(strings.ToUpper(v), "UTF-8'"):
		return v
	}
	var b strings.Builder
	if i.encoding == RFC8187 {
		b.WriteString("UTF-8''")
	}
	for at := range len(v) {
		c := v[at]
		var safe bool
		if i.encoding == RFC8187 { // attr-char
			safe = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
				strings.IndexByte("!#$&+-.^_`|~", c) >= 0
		} else {
			safe = ' ' <= c && c <= '~' && c != '%' && (c != ' ' || at > 0 && at < len(v)-1)
		}
		if safe && !(inList && c == separator) {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
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
// else. A cookie without a name counts as what the browser sends back, which is its value alone (RFC 6265bis §5.6,
// §5.8.3): after `=curfew=x` that is `curfew=x`.
func stripSetCookies(h http.Header, ours session.Cookie) {
	lines := h["Set-Cookie"]
	if len(lines) == 0 {
		return
	}
	h["Set-Cookie"] = slices.DeleteFunc(lines, func(line string) bool {
		pair, _, _ := strings.Cut(line, ";")
		name, _, _ := strings.Cut(strings.TrimLeft(pair, "= \t"), "=")
		return ours.Ours(strings.TrimSpace(name))
	})
}

// trailerFilter is the body of an answer, after which [stripSetCookies] is applied to its trailers. No browser reads a
// cookie there (RFC 9110 §6.5.1), but a proxy in front may put trailers among the headers.
type trailerFilter struct {
	io.ReadCloser
	answer *http.Response
	ours   session.Cookie
}

func (f *trailerFilter) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err != nil {
		stripSetCookies(f.answer.Trailer, f.ours)
	}
	if err != nil && err != io.EOF && f.answer.Request.Context().Err() != nil {
		err = context.Canceled // the client or the gateway ended it: ReverseProxy logs all but this
	}
	return n, err
}

func (f *trailerFilter) Close() error {
	err := f.ReadCloser.Close()
	stripSetCookies(f.answer.Trailer, f.ours)
	return err
}
