package oidc

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

const (
	describedMost = 30  // claims
	describedText = 256 // bytes of a value
)

// Describe returns what a token says of itself, for an operator who looks into why it was refused: the header and the
// claims by which it is checked. Nothing of it is verified. Of any other claim only the name is there, since its value
// may be personal or secret. It is nil when the token cannot be read, as an encrypted one cannot. It is bounded,
// however large the token; its texts may hold any character.
func Describe(raw string) map[string]any {
	parts, err := splitCompact(raw)
	if err != nil {
		return nil
	}
	t, err := parseSigned(parts, raw)
	if err != nil {
		return nil
	}
	c, err := decodeObject(t.payload)
	if err != nil {
		return nil
	}
	said := map[string]any{}
	for name, v := range map[string]string{"alg": t.header.alg, "kid": t.header.kid, "typ": t.header.typ} {
		if v != "" {
			said["header "+name] = describedString(v)
		}
	}
	names := slices.SortedFunc(maps.Keys(c), func(a, b string) int { // what is checked comes first
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
	for _, name := range names {
		if len(said) == describedMost {
			said["…"] = "more"
			break
		}
		said[describedString(name)] = describedValue(name, c[name])
	}
	return said
}

func checkedClaims() []string {
	return []string{"iss", "aud", "iat", "exp", "nbf", "jti", "sub", "sid", "events", "nonce", "azp"}
}

func rank(name string) int {
	if slices.Contains(checkedClaims(), name) {
		return 0
	}
	return 1
}

func describedValue(name string, v any) any {
	if rank(name) > 0 {
		return "(not shown)"
	}
	switch v := v.(type) {
	case nil, bool:
		return v
	case number:
		return describedNumber(string(v))
	case string:
		if name == "nonce" {
			return "(not shown)"
		}
		return describedString(v)
	case []any:
		var all []any
		for i, one := range v {
			if i == 8 {
				return append(all, "…")
			}
			if text, ok := one.(string); ok {
				all = append(all, describedString(text))
			} else {
				all = append(all, "(not a string)")
			}
		}
		return all
	case map[string]any:
		var names []any
		for i, one := range slices.Sorted(maps.Keys(v)) {
			if i == 8 {
				names = append(names, "…")
				break
			}
			names = append(names, describedString(one))
		}
		return names
	}
	return "(not shown)"
}

// describedNumber is a number with its digits, unless it is longer than any that is meant.
func describedNumber(s string) any {
	if len(s) > 32 {
		return "(a long number)"
	}
	return json.Number(s)
}

func describedString(s string) string {
	if len(s) > describedText {
		s = s[:describedText] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
