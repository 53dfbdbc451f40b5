package gateway

import (
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"example.com/curfew/web"
)

// plainPath returns the decoded path of a target (a path as sent, with or without a query), and false if not every
// server would read the same path in it. Such a path must be refused: the path that was checked may not be the one that
// the app serves.
//
// Servers differ over empty and dot segments, encoded separators (`%2f`, `%5c`), backslashes, what follows a `;`, a `#`
// or an encoded `?`, double decoding, control characters, and bytes that are not UTF-8.
func plainPath(target string) (string, bool) {
	raw, _, _ := strings.Cut(target, "?")
	if raw == "" || raw[0] != '/' {
		return "", false
	}
	path := raw
	if strings.Contains(raw, "%") {
		var err error
		if path, err = url.PathUnescape(raw); err != nil || strings.Count(path, "/") != strings.Count(raw, "/") ||
			strings.Count(path, ".") != strings.Count(raw, ".") {
			return "", false
		}
	}
	if !utf8.ValidString(path) {
		return "", false
	}
	start := 0 // of the segment
	for i := range len(path) {
		switch c := path[i]; {
		case c < ' ' || c == 0x7f || c == '\\' || c == ';' || c == '#' || c == '?' || c == '%':
			return "", false
		case c == '/':
			if i > 0 && (start == i || isDots(path[start:i])) {
				return "", false
			}
			start = i + 1
		}
	}
	return path, !isDots(path[start:])
}

// sentPath is [url.URL.EscapedPath], but the path as it was sent if that is not plain: where that has a character that
// should have been encoded, EscapedPath writes it anew, with `/` for `%2f`.
func sentPath(u *url.URL) string {
	if u.RawPath != "" {
		if _, ok := plainPath(u.RawPath); !ok {
			return u.RawPath
		}
	}
	return u.EscapedPath()
}

// ambiguous refuses a target that servers may read differently. The log has it without its query.
func ambiguous(target string) error {
	if end := strings.IndexAny(target, "?#"); end >= 0 {
		target = target[:end]
	}
	return &web.Failure{Status: http.StatusBadRequest,
		Message: web.Message{Text: "This address can be read in more than one way."},
		Event:   "path_refused", Attrs: []slog.Attr{slog.String("target", target)}}
}

func isDots(segment string) bool { return segment == "." || segment == ".." }

// pattern is a set of paths: `/a` is that path, with or without a slash at its end; `/a/*` is it and all below it.
type pattern struct {
	base  string // without a slash at its end
	below bool
}

// parsePattern parses a pattern. It accepts only paths that plainPath accepts, written without encoding.
func parsePattern(text string) (pattern, bool) {
	base, below := strings.CutSuffix(text, "/*")
	if base == "" && below {
		return pattern{"", true}, true
	}
	path, ok := plainPath(base)
	// `//*` would be every path, and `/a//*` would be `/a/*`.
	if !ok || path != base || strings.Contains(base, "*") || below && strings.HasSuffix(base, "/") {
		return pattern{}, false
	}
	return pattern{strings.TrimSuffix(base, "/"), below}, true
}

// covers reports whether a plain path is in the set, comparing with equal.
func (p pattern) covers(path string, equal func(a, b string) bool) bool {
	path = strings.TrimSuffix(path, "/")
	if equal(path, p.base) {
		return true
	}
	if !p.below {
		return false
	}
	for i := range len(path) {
		if path[i] == '/' && equal(path[:i], p.base) {
			return true
		}
	}
	return false
}

func exact(a, b string) bool { return a == b }
