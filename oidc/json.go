package oidc

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4/json"
)

// maxDepth is how deep objects and arrays may lie in one another.
const maxDepth = 64

// claims are the members of a JSON object, each name as it was written and there once. Values are string, number, bool,
// nil, map[string]any and []any.
type claims map[string]any

// number is a JSON number as it was written.
type number string

// decodeObject decodes one JSON object and nothing after it. Names are case-sensitive, a name that is there twice is
// refused at every level, and so is what is not UTF-8 (RFC 7519 §4, RFC 8725 §3.7).
//
// It takes what go-jose's JSON takes, to a depth of maxDepth, and makes the same of it (a fuzz target holds the two against
// each other), in a quarter of the time: every token that anybody sends passes through here before anything else is known of it.
func decodeObject(data []byte) (claims, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	d := decoder{s: string(data)}
	d.space()
	if !d.next('{') {
		return nil, errors.New("not a JSON object")
	}
	m, err := d.object()
	if err != nil {
		return nil, fmt.Errorf("not valid JSON: %w", err)
	}
	if d.space(); d.at < len(d.s) {
		return nil, errors.New("not one JSON object: something follows it")
	}
	return m, nil
}

type decoder struct {
	s     string
	at    int
	depth int
}

func (d *decoder) space() {
	for d.at < len(d.s) && (d.s[d.at] == ' ' || d.s[d.at] == '\n' || d.s[d.at] == '\t' || d.s[d.at] == '\r') {
		d.at++
	}
}

// next skips c if it is what comes next.
func (d *decoder) next(c byte) bool {
	if d.at < len(d.s) && d.s[d.at] == c {
		d.at++
		return true
	}
	return false
}

func (d *decoder) fault() error { return fmt.Errorf("at byte %d", d.at) }

func (d *decoder) value() (any, error) {
	if d.at >= len(d.s) {
		return nil, d.fault()
	}
	switch c := d.s[d.at]; {
	case c == '"':
		return d.text()
	case c == '{':
		d.at++
		return d.object()
	case c == '[':
		d.at++
		return d.array()
	case c == '-' || c >= '0' && c <= '9':
		return d.number()
	}
	for _, w := range [...]struct {
		word string
		v    any
	}{{"true", true}, {"false", false}, {"null", nil}} {
		if strings.HasPrefix(d.s[d.at:], w.word) {
			d.at += len(w.word)
			return w.v, nil
		}
	}
	return nil, d.fault()
}

// object decodes what follows a "{".
func (d *decoder) object() (map[string]any, error) {
	if d.depth++; d.depth > maxDepth {
		return nil, errors.New("too deep")
	}
	m := map[string]any{}
	d.space()
	for !d.next('}') {
		if len(m) > 0 {
			if !d.next(',') {
				return nil, d.fault()
			}
			d.space()
		}
		name, err := d.text()
		if err != nil {
			return nil, err
		}
		if _, twice := m[name]; twice {
			return nil, errors.New("duplicate name " + quote(name))
		}
		if d.space(); !d.next(':') {
			return nil, d.fault()
		}
		d.space()
		if m[name], err = d.value(); err != nil {
			return nil, err
		}
		d.space()
	}
	d.depth--
	return m, nil
}

// array decodes what follows a "[".
func (d *decoder) array() ([]any, error) {
	if d.depth++; d.depth > maxDepth {
		return nil, errors.New("too deep")
	}
	list := []any{}
	d.space()
	for !d.next(']') {
		if len(list) > 0 {
			if !d.next(',') {
				return nil, d.fault()
			}
			d.space()
		}
		v, err := d.value()
		if err != nil {
			return nil, err
		}
		list = append(list, v)
		d.space()
	}
	d.depth--
	return list, nil
}

func (d *decoder) text() (string, error) {
	if !d.next('"') {
		return "", d.fault()
	}
	for start, escaped := d.at, false; d.at < len(d.s); d.at++ {
		switch c := d.s[d.at]; {
		case c < ' ':
			return "", d.fault()
		case c == '\\':
			escaped = true
			d.at++ // what follows is no end
		case c == '"':
			d.at++
			if !escaped {
				return d.s[start : d.at-1], nil
			}
			var s string
			if err := json.Unmarshal([]byte(d.s[start-1:d.at]), &s); err != nil {
				return "", d.fault()
			}
			return s, nil
		}
	}
	return "", d.fault()
}

func (d *decoder) number() (number, error) {
	start := d.at
	digits := func() bool {
		from := d.at
		for d.at < len(d.s) && d.s[d.at] >= '0' && d.s[d.at] <= '9' {
			d.at++
		}
		return d.at > from
	}
	d.next('-')
	if !d.next('0') && !digits() {
		return "", d.fault()
	}
	if d.next('.') && !digits() {
		return "", d.fault()
	}
	if d.next('e') || d.next('E') {
		if !d.next('+') {
			d.next('-')
		}
		if !digits() {
			return "", d.fault()
		}
	}
	return number(d.s[start:d.at]), nil
}

// plain turns numbers as they were written into int64, or float64 where that does not do, for callers who know
// nothing of this package's JSON.
func (c claims) plain() (map[string]any, error) {
	_, err := plain(map[string]any(c))
	if err != nil {
		return nil, failed("json", "the payload holds %w", err)
	}
	return c, nil
}

func plain(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case number:
		if i, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return i, nil
		}
		f, err := strconv.ParseFloat(string(v), 64)
		if err != nil {
			return nil, errors.New("a number that is out of range")
		}
		return f, nil
	case map[string]any:
		for name, e := range v {
			if v[name], err = plain(e); err != nil {
				return nil, err
			}
		}
	case []any:
		for i, e := range v {
			if v[i], err = plain(e); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}
