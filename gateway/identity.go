package gateway

import (
	"net/http"
	"strings"

	"example.com/curfew/session"
)

// The headers in which an app is told who is signed in. All of ours are listed in isOurs.
const (
	headerSubject  = "X-Auth-Subject"
	headerName     = "X-Auth-Name"
	headerEmail    = "X-Auth-Email"
	headerProvider = "X-Auth-Provider"
	headerSession  = "X-Auth-Session"
)

// identity sets the headers, for one app, or for one that is told of no logouts. Values come from the provider, so they
// are cut to what a header may hold.
func identity(h http.Header, s *session.Session, app string) {
	set := func(name, value string) {
		if value = printable(value); value != "" {
			h.Set(name, value)
		}
	}
	set(headerSubject, s.Subject)
	set(headerProvider, s.Provider)
	if app != "" {
		set(headerSession, s.Key.SIDFor(app))
	}
	set(headerName, s.Claim("name"))
	if verified, said := s.Claims["email_verified"].(bool); verified || !said {
		set(headerEmail, s.Claim("email"))
	}
}

// printable returns s without what would end a header line, and nothing of a value that is not text.
func printable(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return ""
		}
	}
	return strings.TrimSpace(s)
}

// strip removes what a client sent that an app might take for our word, in every spelling that some server folds into
// one name: WSGI and PHP read X_Auth_Subject as X-Auth-Subject, others X.Auth.Subject (CVE-2025-64484 and its kin).
func strip(h http.Header) {
	for name := range h {
		if isOurs(fold(name)) {
			delete(h, name)
		}
	}
}

// isOurs says whether a folded header name is one that only the gateway may set.
func isOurs(folded string) bool {
	switch folded {
	case "x-auth-subject", "x-auth-name", "x-auth-email", "x-auth-provider", "x-auth-groups", "x-auth-session",
		"forwarded", "x-real-ip":
		return true
	}
	return strings.HasPrefix(folded, "x-forwarded-")
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
func stripCookies(h http.Header, ours string) {
	lines := h["Cookie"]
	h.Del("Cookie")
	for _, line := range lines {
		kept := make([]string, 0, 8)
		for part := range strings.SplitSeq(line, ";") {
			part = strings.TrimSpace(part)
			name, _, _ := strings.Cut(part, "=")
			if name = strings.TrimSpace(name); part != "" && name != ours && !strings.HasPrefix(name, ours+"-") {
				kept = append(kept, part)
			}
		}
		if len(kept) > 0 {
			h.Add("Cookie", strings.Join(kept, "; "))
		}
	}
}
