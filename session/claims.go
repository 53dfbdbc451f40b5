package session

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Lookup returns the claim with this name. If there is none, the dots of the name make a path: "a.b" is b inside the
// object a. So a claim whose own name has dots, like "https://app.example/roles", is found too, and first. The result
// is nil if there is no such claim or it is null.
//
// An e-mail address that the provider calls not verified counts as absent (Core §5.1). This holds for `email` beside
// `email_verified`, at the top or inside an object. An app uses [Session.Claim] for a text, and Lookup for lists and
// objects.
func Lookup(claims map[string]any, name string) any {
	if v := claims[name]; v != nil {
		if isAddress(name) {
			if a := address(claims, name); a != "" {
				return a
			}
			return nil
		}
		return v
	}
	for i := range len(name) {
		if name[i] != '.' {
			continue
		}
		if inner, ok := claims[name[:i]].(map[string]any); ok {
			if v := Lookup(inner, name[i+1:]); v != nil {
				return v
			}
		}
	}
	return nil
}

// address returns an `email`, unless the `email_verified` beside it says that it is not verified. If that is absent or
// null, the address counts. Some providers write "true" for true. Any other value does not verify the address.
func address(claims map[string]any, name string) string {
	switch v := claims[name+"_verified"]; v {
	case nil, true, "true":
		a, _ := claims[name].(string)
		return a
	}
	return ""
}

// Email returns the person's e-mail address, or "" if there is none or the provider says that it is not verified.
func (s *Session) Email() string { return s.Claim("email") }

// Claim returns a claim that is a text or a number, as text, and "" for anything else, for instance
// s.Claim("preferred_username"). Names are those of [Lookup]. A number has the digits that the provider wrote.
func (s *Session) Claim(name string) string {
	switch v := Lookup(s.Claims, name).(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

// Meets reports whether a claim is one of the values or, if it is an array, contains one of them. Names are those of
// [Lookup]. An app uses it to require a role in OnLogin. Types count: "true" is not true, and "1" is not 1. Numbers are
// compared by value, however they are written and whatever Go type they have. Addresses (a name that is, or ends with,
// `email`) are compared without regard to the case of ASCII letters.
func Meets(claims map[string]any, name string, values []any) bool {
	return anyValue(claims, name, func(got any) bool {
		return slices.ContainsFunc(values, func(want any) bool { return same(got, want, isAddress(name)) })
	})
}

// MeetsText is [Meets] for values that are written as text, for instance in a configuration file: "true" matches true,
// and "1" and "1.0" match the number 1.
func MeetsText(claims map[string]any, name string, values []string) bool {
	return anyValue(claims, name, func(got any) bool {
		return slices.ContainsFunc(values, func(want string) bool {
			if b, ok := got.(bool); ok {
				return strconv.FormatBool(b) == want
			}
			if _, ok := decimalOf(got); ok {
				return same(got, json.Number(want), false)
			}
			return same(got, want, isAddress(name))
		})
	})
}

// anyValue reports whether ok accepts the claim or, if it is an array, one of its elements.
func anyValue(claims map[string]any, name string, ok func(any) bool) bool {
	switch v := Lookup(claims, name).(type) {
	case nil:
		return false
	case []any:
		return slices.ContainsFunc(v, ok)
	case []string: // from OnLogin
		return slices.ContainsFunc(v, func(s string) bool { return ok(s) })
	default:
		return ok(v)
	}
}

func isAddress(name string) bool { return name == "email" || strings.HasSuffix(name, ".email") }

// same compares two JSON values that are neither an array nor an object.
func same(a, b any, fold bool) bool {
	x, isNumber := decimalOf(a)
	y, isNumberToo := decimalOf(b)
	if isNumber || isNumberToo {
		return isNumber && isNumberToo && x == y
	}
	switch a := a.(type) {
	case string:
		b, ok := b.(string)
		return ok && (a == b || fold && EqualFold(a, b))
	case bool:
		return a == b
	}
	return false
}

// EqualFold compares without regard to the case of ASCII letters only. [strings.EqualFold] equates the Kelvin sign with
// K, and so one domain with another.
func EqualFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// decimal is a number by its value: its digits without zeros at either end, and the power of ten that multiplies them.
// Two decimals are equal exactly if the numbers are, however large.
type decimal struct {
	negative bool
	digits   string
	exponent int
}

// decimalOf reads a number from JSON, from Go code or from a configuration. It returns false for anything else.
func decimalOf(v any) (decimal, bool) {
	if n, ok := v.(json.Number); ok {
		return parseDecimal(n.String())
	}
	switch r := reflect.ValueOf(v); {
	case !r.IsValid() || r.Kind() == reflect.Uintptr:
	case r.CanInt():
		return parseDecimal(strconv.FormatInt(r.Int(), 10))
	case r.CanUint():
		return parseDecimal(strconv.FormatUint(r.Uint(), 10))
	case r.CanFloat():
		return parseDecimal(strconv.FormatFloat(r.Float(), 'g', -1, r.Type().Bits()))
	}
	return decimal{}, false
}

func parseDecimal(s string) (decimal, bool) {
	var d decimal
	s, d.negative = strings.CutPrefix(s, "-")
	mantissa, power := s, 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		var err error
		if power, err = strconv.Atoi(s[i+1:]); err != nil || power < math.MinInt32 || power > math.MaxInt32 {
			return decimal{}, false
		}
		mantissa = s[:i]
	}
	whole, fraction, point := strings.Cut(mantissa, ".")
	if whole == "" || len(whole) > 1 && whole[0] == '0' || point && fraction == "" ||
		strings.Trim(whole+fraction, "0123456789") != "" {
		return decimal{}, false
	}
	d.digits, d.exponent = whole+fraction, power-len(fraction)
	short := strings.TrimRight(d.digits, "0")
	d.exponent += len(d.digits) - len(short)
	if d.digits = strings.TrimLeft(short, "0"); d.digits == "" {
		return decimal{}, true // zero has no sign
	}
	return d, true
}

// ClaimNames returns the names of claims for a log line, in their order and bounded. It shows no values.
func ClaimNames(claims map[string]any) string {
	const most, longest = 50, 100
	names := slices.Sorted(maps.Keys(claims))
	left := max(0, len(names)-most)
	names = names[:len(names)-left]
	for i, name := range names {
		if len(name) > longest {
			name = name[:longest]
		}
		if quoted := strconv.QuoteToASCII(name); quoted != `"`+name+`"` || strings.Contains(name, " ") {
			name = quoted
		}
		names[i] = name
	}
	text := strings.Join(names, " ")
	if left > 0 {
		text += fmt.Sprintf(" and %d more", left)
	}
	return text
}
