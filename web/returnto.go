package web

import (
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

const maxReturnTo = 2048 // bytes; it has to fit into a cookie

// ReturnTo returns where to go after a login or a logout: a path on this site, with its query and fragment, and "/"
// for everything that is not plainly that.
//
// Browsers read more as another host than RFC 3986 does: they strip tabs and line ends wherever they are, take \ for /,
// and pass over dots and slashes in front of a host. Apps and proxies decode a path once more. So a path must begin with
// one slash, however often it is decoded, and hold no control character, no backslash and no dot segment.
func ReturnTo(raw string) string {
	if len(raw) > maxReturnTo || !utf8.ValidString(raw) || strings.ContainsFunc(raw, unicode.IsControl) {
		return "/"
	}
	end := strings.IndexAny(raw, "?#")
	if end < 0 {
		end = len(raw)
	}
	if !safePath(raw[:end]) {
		return "/"
	}
	to := escapeRest(raw)
	if len(to) > maxReturnTo {
		return "/"
	}
	return to
}

// ReturnTo is like the function of that name, and takes absolute URLs of exactly this site too.
func (s *Site) ReturnTo(raw string) string {
	if n := len(s.Origin()); len(raw) >= n && strings.EqualFold(raw[:n], s.Origin()) {
		switch rest := raw[n:]; {
		case rest == "":
			return "/"
		case rest[0] == '/':
			return ReturnTo(rest)
		case rest[0] == '?' || rest[0] == '#':
			return ReturnTo("/" + rest)
		}
	}
	return ReturnTo(raw)
}

func safePath(path string) bool {
	for {
		if path == "" || path[0] != '/' || strings.HasPrefix(path, "//") || strings.Contains(path, `\`) ||
			!utf8.ValidString(path) || strings.ContainsFunc(path, unicode.IsControl) {
			return false
		}
		for segment := range strings.SplitSeq(path, "/") {
			if segment == "." || segment == ".." {
				return false
			}
		}
		decoded, err := url.PathUnescape(path)
		if err != nil {
			return false
		}
		if decoded == path {
			return true
		}
		path = decoded
	}
}

// escapeRest escapes what does not belong into a header or a URL as it is, and leaves the rest alone.
func escapeRest(raw string) string {
	var b strings.Builder
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c > '~' || strings.IndexByte("\\\"<>`", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
