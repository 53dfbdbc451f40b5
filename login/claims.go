package login

import (
	"encoding/json"
	"maps"
	"math/big"
	"reflect"
	"slices"
)

// protocol names the claims by which an ID Token speaks of itself; nobody else has a say in them.
var protocol = [...]string{"iss", "sub", "aud", "azp", "exp", "iat", "nbf", "auth_time", "acr", "amr", "sid", "jti",
	"nonce", "at_hash", "c_hash", "s_hash"}

// merge returns the claims of a session: those of the ID Token, and over them those of userinfo, which are fresher.
func merge(id, info map[string]any) map[string]any {
	claims := maps.Clone(id)
	if claims == nil {
		claims = make(map[string]any)
	}
	maps.Copy(claims, info)
	restore(claims, id)
	return claims
}

// restore sets the protocol's claims to what the ID Token says, and leaves out those of this one exchange.
func restore(claims, id map[string]any) {
	for _, name := range protocol {
		delete(claims, name)
		if v, ok := id[name]; ok {
			claims[name] = v
		}
	}
	for _, name := range []string{"nonce", "at_hash", "c_hash", "s_hash"} {
		delete(claims, name)
	}
}

// lacking returns the first claim, by name, that is not as required, or "".
func lacking(claims map[string]any, require map[string][]any) string {
	for _, name := range slices.Sorted(maps.Keys(require)) {
		got, there := claims[name]
		if !there {
			return name
		}
		ok := slices.ContainsFunc(require[name], func(want any) bool { return holds(got, want) })
		if !ok {
			return name
		}
	}
	return ""
}

// holds says whether a claim is the value or, if it is an array, contains it.
func holds(got, want any) bool {
	if list, ok := got.([]any); ok {
		return slices.ContainsFunc(list, func(v any) bool { return same(v, want) })
	}
	return same(got, want)
}

// same compares two values of JSON. Numbers are equal by value, whatever Go type they were decoded into.
func same(a, b any) bool {
	x, isNumber := number(a)
	y, isNumberToo := number(b)
	if isNumber && isNumberToo {
		return x.Cmp(y) == 0
	}
	switch a.(type) {
	case string, bool:
		return a == b
	}
	return false
}

func number(v any) (*big.Float, bool) {
	if n, ok := v.(json.Number); ok {
		f, _, err := big.ParseFloat(n.String(), 10, 64, big.ToNearestEven)
		return f, err == nil
	}
	switch r := reflect.ValueOf(v); {
	case r.CanInt():
		return new(big.Float).SetInt64(r.Int()), true
	case r.CanUint():
		return new(big.Float).SetUint64(r.Uint()), true
	case r.CanFloat() && r.Float() == r.Float():
		return new(big.Float).SetFloat64(r.Float()), true
	}
	return nil, false
}
