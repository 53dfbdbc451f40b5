package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/web"
)

// protocolClaims are the claims of the ID Token about itself. Neither userinfo nor the app can change them.
var protocolClaims = [...]string{"iss", "sub", "aud", "azp", "exp", "iat", "nbf", "auth_time", "acr", "amr", "sid",
	"jti", "nonce", "at_hash", "c_hash", "s_hash", "session_expiry"}

// claimPairs are pairs of a claim and another that describes it, which has no meaning without it.
var claimPairs = [...][2]string{
	{"email", "email_verified"},
	{"phone_number", "phone_number_verified"},
	{"_claim_names", "_claim_sources"}, // Core §5.6.2
}

// merge returns the claims of the ID Token, replaced by those of userinfo, which are newer. A claim that is null is
// absent. Both claims of a pair come from one source: email_verified must be about the address beside it.
func merge(id, info map[string]any) map[string]any {
	absent := func(_ string, v any) bool { return v == nil }
	claims, fresh := maps.Clone(id), maps.Clone(info)
	if claims == nil {
		claims = make(map[string]any)
	}
	maps.DeleteFunc(claims, absent)
	maps.DeleteFunc(fresh, absent)
	for _, pair := range claimPairs {
		what, about := pair[0], pair[1]
		switch {
		case fresh[what] == nil:
			delete(fresh, about) // it describes a claim that is absent
		case !sameAddress(claims[what], fresh[what]):
			delete(claims, about)
		}
	}
	maps.Copy(claims, fresh)
	restore(claims, id)
	return claims
}

func sameAddress(a, b any) bool {
	x, ok := a.(string)
	y, okToo := b.(string)
	return ok && okToo && session.EqualFold(x, y)
}

// restore sets the claims of the ID Token about itself to what it says, and removes those of this one exchange.
func restore(claims, id map[string]any) {
	for _, name := range protocolClaims {
		delete(claims, name)
		if v := id[name]; v != nil {
			claims[name] = v
		}
	}
	for _, name := range []string{"nonce", "at_hash", "c_hash", "s_hash"} {
		delete(claims, name)
	}
}

// onlyVerified removes the e-mail address if the provider is configured to require a verified one and it is not.
func onlyVerified(p *oidc.Provider, claims map[string]any) {
	switch claims["email_verified"] {
	case true, "true":
		return
	}
	if p.Config().RequireVerifiedEmail {
		delete(claims, "email")
		delete(claims, "email_verified")
	}
}

// requirementError means that a claim is not as [oidc.Config.Require] requires.
type requirementError struct{ claim string }

func (e requirementError) Error() string {
	return fmt.Sprintf("the claim %q is not as required", e.claim)
}

// Claims returns the claims of a session: those of the ID Token and of userinfo (nil if that was not requested), and
// what [Handler.OnLogin] adds. An error refuses the session: a claim is not as [oidc.Config.Require] requires, or
// OnLogin returned an error; see [IsTemporary]. Both arguments stay unchanged.
func (h *Handler) Claims(ctx context.Context, p *oidc.Provider, id, info map[string]any) (map[string]any, error) {
	claims := merge(id, info)
	onlyVerified(p, claims)
	if err := h.required(p, claims); err != nil || h.OnLogin == nil {
		return claims, err
	}
	before := maps.Clone(claims)
	if err := h.OnLogin(ctx, claims); err != nil {
		return claims, appError{err}
	}
	// What the provider said about an address does not hold for one that the app replaced it with.
	for _, pair := range claimPairs {
		what, about := pair[0], pair[1]
		if !sameAddress(before[what], claims[what]) && before[what] != nil &&
			scalarEqual(before[about], claims[about]) {
			delete(claims, about)
		}
	}
	onlyVerified(p, claims)
	restore(claims, id)
	return normalize(claims)
}

// required returns an error if a claim is not as [oidc.Config.Require] requires.
func (h *Handler) required(p *oidc.Provider, claims map[string]any) error {
	require := p.Config().Require
	for _, name := range slices.Sorted(maps.Keys(require)) {
		if !session.Meets(claims, name, require[name]) {
			return requirementError{name}
		}
	}
	return nil
}

// appError is an error of [Handler.OnLogin].
type appError struct{ error }

func (e appError) Unwrap() error { return e.error }

// IsTemporary reports whether an error of [Handler.Claims] is temporary: the context of [Handler.OnLogin] was done, or
// it returned a [web.Failure] of status 500 or more. Any other error refuses the person.
func IsTemporary(err error) bool {
	f, said := errors.AsType[*web.Failure](err)
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || said && f.Status >= 500
}

// scalarEqual compares two values that are neither objects nor arrays; those are never equal.
func scalarEqual(a, b any) bool {
	switch a.(type) {
	case nil, bool, string, json.Number:
		return a == b
	}
	return false
}

// normalize returns claims as they will be when the session is read from its store: the app may have added any Go type.
func normalize(claims map[string]any) (map[string]any, error) {
	text, err := json.Marshal(claims)
	if err != nil {
		return claims, fmt.Errorf("the claims that OnLogin left are no JSON: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var same map[string]any
	err = d.Decode(&same)
	return same, err
}
