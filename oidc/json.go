package oidc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
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
// Members of the object that are named in twice may be there again, if the value is the same string.
//
// The grammar is jsontext's, the reader that is to become Go's own; only the maps are ours, to keep numbers as written.
func decodeObject(data []byte, twice ...string) (claims, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("not UTF-8")
	}
	d := jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(len(twice) > 0))
	if d.PeekKind() != '{' {
		return nil, errors.New("not a JSON object")
	}
	v, err := decodeValue(d, twice)
	if err != nil {
		return nil, fmt.Errorf("not valid JSON: %w", err)
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return nil, errors.New("not one JSON object: something follows it")
	}
	return claims(v.(map[string]any)), nil
}

var errDuplicate = errors.New("duplicate name")

func decodeValue(d *jsontext.Decoder, twice []string) (any, error) {
	t, err := d.ReadToken()
	if err != nil {
		return nil, fault(d, err)
	}
	switch t.Kind() {
	case '{':
		if d.StackDepth() > maxDepth {
			return nil, errors.New("too deep")
		}
		m := map[string]any{}
		for d.PeekKind() != '}' {
			name, err := d.ReadToken()
			if err != nil {
				return nil, fault(d, err)
			}
			key := name.String()
			before, again := m[key]
			if m[key], err = decodeValue(d, nil); err != nil {
				return nil, err
			}
			if again {
				text, ok := m[key].(string)
				if !ok || before != text || !slices.Contains(twice, key) {
					return nil, errDuplicate
				}
			}
		}
		_, err = d.ReadToken()
		return m, err
	case '[':
		if d.StackDepth() > maxDepth {
			return nil, errors.New("too deep")
		}
		list := []any{}
		for d.PeekKind() != ']' {
			v, err := decodeValue(d, nil)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.ReadToken()
		return list, err
	case '"':
		return t.String(), nil
	case '0':
		return number(t.String()), nil
	case 't', 'f':
		return t.Bool(), nil
	}
	return nil, nil
}

// fault says where, and nothing of what is there.
func fault(d *jsontext.Decoder, err error) error {
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return errDuplicate
	}
	return fmt.Errorf("at byte %d", d.InputOffset())
}

// plain turns numbers into [json.Number], which keeps their digits, for callers outside this package.
func (c claims) plain() map[string]any {
	plain(map[string]any(c))
	return c
}

func plain(v any) any {
	switch v := v.(type) {
	case number:
		return json.Number(v)
	case map[string]any:
		for name, e := range v {
			v[name] = plain(e)
		}
	case []any:
		for i, e := range v {
			v[i] = plain(e)
		}
	}
	return v
}

// has reports whether a claim is there. One that is null is not: presence is not value.
func (c claims) has(name string) bool { return c[name] != nil }
