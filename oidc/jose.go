package oidc

import (
	"encoding/base64"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxToken bounds a token, signed or encrypted. The form it comes in is bounded to the same.
const maxToken = 64 << 10

// signed is a JWS in compact serialization (RFC 7515 §3.1), taken apart and not yet verified.
type signed struct {
	header    header
	payload   []byte
	raw       string // all of it
	input     string // what is signed: the first two parts as they came
	signature []byte
}

// header is what is used of a JOSE header. `jku`, `jwk`, `x5u` and `x5c` are never looked at: keys come from the
// provider's metadata alone (RFC 8725 §3.10).
type header struct {
	alg, kid, typ string
	hasTyp        bool
}

// splitCompact returns the parts of a compact serialization: three of a JWS or five of a JWE.
func splitCompact(raw string) ([]string, error) {
	switch {
	case raw == "":
		return nil, failed("shape", "the token is empty")
	case len(raw) > maxToken:
		return nil, failed("shape", "the token has %d bytes, more than %d", len(raw), maxToken)
	}
	switch n := strings.Count(raw, ".") + 1; n {
	case 3, 5:
		return strings.SplitN(raw, ".", n), nil
	default:
		return nil, failed("shape", "a token has three parts, or five when it is encrypted; this has %d", n)
	}
}

// parseSigned takes a JWS apart. It refuses whatever does not have exactly one spelling: padding, line ends,
// stray bits, bytes after the JSON.
func parseSigned(parts []string, raw string) (*signed, error) {
	if len(parts) != 3 {
		return nil, failed("shape", "a signed token has three parts; this has %d", len(parts))
	}
	s := &signed{raw: raw, input: raw[:len(parts[0])+1+len(parts[1])]}
	head, err := decodePart(parts[0])
	if err != nil {
		return nil, failed("shape", "the header is %w", err)
	}
	if s.payload, err = decodePart(parts[1]); err != nil {
		return nil, failed("shape", "the payload is %w", err)
	}
	if s.signature, err = decodePart(parts[2]); err != nil {
		return nil, failed("shape", "the signature is %w", err)
	}
	if s.header, err = parseHeader(head); err != nil {
		return nil, err
	}
	return s, nil
}

// parseHeader reads a JOSE header, of a JWS or a JWE.
func parseHeader(data []byte) (header, error) {
	members, err := decodeObject(data)
	if err != nil {
		return header{}, failed("json", "the header is %w", err)
	}
	var h header
	for _, m := range [...]struct {
		name string
		to   *string
	}{{"alg", &h.alg}, {"kid", &h.kid}, {"typ", &h.typ}} {
		v := members[m.name]
		s, ok := v.(string)
		if v != nil && !ok {
			return header{}, failed(m.name, "`%s` in the header is not a string", m.name)
		}
		*m.to = s
	}
	h.hasTyp = members.has("typ")
	if h.alg == "" {
		return header{}, failed("alg", "the header names no algorithm")
	}
	if len(h.kid) > maxKID {
		return header{}, failed("kid", "`kid` has %d bytes, more than %d", len(h.kid), maxKID)
	}
	// No extension is understood here, so none may be critical (RFC 7515 §4.1.11). `b64` and `zip` change what is
	// signed or encrypted, and are refused whether they claim to be critical or not.
	for _, name := range [...]string{"crit", "b64", "zip"} {
		if _, there := members[name]; there {
			return header{}, failed("crit", "the header holds `%s`, which is not supported", name)
		}
	}
	return h, nil
}

// decodePart decodes base64url without padding. There is one spelling for each value and no other is taken.
func decodePart(s string) ([]byte, error) {
	if strings.IndexByte(s, '\n') >= 0 || strings.IndexByte(s, '\r') >= 0 { // which the decoder would skip
		return nil, errors.New("not base64url: it holds a line end")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("not base64url without padding")
	}
	return b, nil
}

func encodePart(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// text returns a claim that is a name: a non-empty string of at most most bytes of UTF-8 without control characters.
// U+FFFD is refused as well: it stands for what could not be read, and two names must not become one.
func (c claims) text(name string, most int) (string, error) {
	v := c[name]
	if v == nil {
		return "", failed(name, "`%s` is missing", name)
	}
	s, ok := v.(string)
	switch {
	case !ok:
		return "", failed(name, "`%s` is not a string", name)
	case s == "":
		return "", failed(name, "`%s` is empty", name)
	case len(s) > most:
		return "", failed(name, "`%s` has %d bytes, more than %d", name, len(s), most)
	}
	for _, r := range s {
		if r == utf8.RuneError || unicode.IsControl(r) {
			return "", failed(name, "`%s` holds a control character or one that is not valid", name)
		}
	}
	return s, nil
}

// time returns a NumericDate (RFC 7519 §2): seconds since 1970, perhaps with a fraction, within years of four digits.
func (c claims) time(name string) (time.Time, error) {
	v := c[name]
	if v == nil {
		return time.Time{}, failed(name, "`%s` is missing", name)
	}
	n, ok := v.(number)
	if !ok {
		return time.Time{}, failed(name, "`%s` is not a number", name)
	}
	if sec, err := strconv.ParseInt(string(n), 10, 64); err == nil && sec >= 0 && sec <= maxDate {
		return time.Unix(sec, 0), nil
	}
	f, err := strconv.ParseFloat(string(n), 64)
	if err != nil || !(f >= 0 && f <= maxDate) {
		return time.Time{}, failed(name, "`%s` is not a date: %s", name, quote(string(n)))
	}
	sec, frac := math.Modf(f)
	return time.Unix(int64(sec), int64(frac*1e9)), nil
}

const maxDate = 253402300799 // 9999-12-31T23:59:59Z

// audience returns `aud`, which is a string or an array of strings (RFC 7519 §4.1.3).
func (c claims) audience() ([]string, error) {
	switch v := c["aud"].(type) {
	case string:
		return []string{v}, nil
	case []any:
		list := make([]string, 0, len(v))
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return nil, failed("aud", "`aud` holds something that is not a string")
			}
			list = append(list, s)
		}
		if len(list) == 0 {
			return nil, failed("aud", "`aud` is empty")
		}
		return list, nil
	case nil:
		return nil, failed("aud", "`aud` is missing")
	}
	return nil, failed("aud", "`aud` is neither a string nor an array of strings")
}

// mediaType compares `typ` as RFC 7515 §4.1.9 says: without regard to case, "application/" left out or not.
func mediaType(typ string) string {
	t := strings.ToLower(typ)
	if short, ok := strings.CutPrefix(t, "application/"); ok && !strings.Contains(short, "/") {
		return short
	}
	return t
}
