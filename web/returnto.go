package web

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"unicode"
)

const (
	// MaxReturnTo is the maximum length in bytes of a return path.
	MaxReturnTo = 8 << 10
	maxDecoded  = 8 // how often a path may be encoded
)

// ParseReturnTo returns where to go after a login or a logout: a path on this site with its query and fragment,
// unchanged except that characters not allowed in a URL (RFC 3986 §2) are escaped. The error says why the path is
// refused.
//
// Browsers read more as another host than RFC 3986 does: they remove tabs and line ends everywhere, treat \ as /, and
// skip dots and slashes before a host. Apps and proxies may decode a path again. So a path must begin with exactly one
// slash, however often it is decoded, and contain no control character and no dot segment.
func ParseReturnTo(raw string) (string, error) {
	if len(raw) > MaxReturnTo {
		return "", fmt.Errorf("the return path has %d bytes, and no more than %d are kept", len(raw), MaxReturnTo)
	}
	if strings.ContainsFunc(raw, unicode.IsControl) {
		return "", errControl
	}
	if err := checkPath(pathOf(raw)); err != nil {
		return "", err
	}
	to := escapeRest(raw)
	if len(to) > MaxReturnTo {
		return "", fmt.Errorf("the return path has %d bytes when escaped, and no more than %d are kept", len(to),
			MaxReturnTo)
	}
	return to, nil
}

// ParseQuery is [url.ParseQuery] with the rules of browsers: a semicolon has no special meaning.
func ParseQuery(raw string) (url.Values, error) {
	return url.ParseQuery(strings.ReplaceAll(raw, ";", "%3B"))
}

// DecodedPath returns the path in the result of [ParseReturnTo], decoded until nothing is left to decode, and without
// empty segments. It is for comparing the path with a route of this site.
func DecodedPath(to string) string {
	path := pathOf(to)
	for decoded := unescape(path); decoded != path; decoded = unescape(path) {
		path = decoded
	}
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

// pathOf returns the part before the query and the fragment.
func pathOf(raw string) string {
	if end := strings.IndexAny(raw, "?#"); end >= 0 {
		return raw[:end]
	}
	return raw
}

var (
	errControl = errors.New("the return path holds a control character")
	errOffSite = errors.New("the return path could lead to another site")
)

func checkPath(path string) error {
	for range maxDecoded {
		seen := strings.ReplaceAll(path, `\`, "/")
		if !strings.HasPrefix(path, "/") || strings.HasPrefix(seen, "//") || overlong(path) {
			return errOffSite
		}
		if strings.ContainsFunc(path, unicode.IsControl) {
			return errControl
		}
		for segment := range strings.SplitSeq(seen, "/") {
			if segment == "." || segment == ".." {
				return errors.New("the return path holds a dot segment")
			}
		}
		decoded := unescape(path)
		if decoded == path {
			return nil
		}
		path = decoded
	}
	return errors.New("the return path is encoded too many times")
}

// unescape decodes a path once. Invalid escapes stay unchanged, as in browsers.
func unescape(path string) string {
	if !strings.Contains(path, "%") {
		return path
	}
	b := make([]byte, 0, len(path))
	for i := 0; i < len(path); i++ {
		if path[i] == '%' && i+2 < len(path) && isHex(path[i+1]) && isHex(path[i+2]) {
			b = append(b, unhex(path[i+1])<<4|unhex(path[i+2]))
			i += 2
		} else {
			b = append(b, path[i])
		}
	}
	return string(b)
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}

// overlong reports whether a text has a character in more bytes than UTF-8 allows, which careless decoders take for a
// slash or a line end (RFC 3629 §10). Other text that is not UTF-8, such as Latin-1, may be the name of a page and is
// accepted.
func overlong(s string) bool {
	for i := 0; i+1 < len(s); i++ {
		c, next := s[i], s[i+1]
		if next&0xc0 != 0x80 {
			continue
		}
		if c == 0xc0 || c == 0xc1 || c == 0xe0 && next < 0xa0 || c == 0xf0 && next < 0x90 || c >= 0xf8 {
			return true
		}
	}
	return false
}

// escapeRest escapes the characters that are not allowed in a header or a URL, and leaves the rest unchanged.
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
