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

// protocol names the claims by which an ID Token speaks of itself; nobody else has a say in them.
var protocol = [...]string{"iss", "sub", "aud", "azp", "exp", "iat", "nbf", "auth_time", "acr", "amr", "sid", "jti",
	"nonce", "at_hash", "c_hash", "s_hash"}

// together names claims that mean something only with one another. The first of each is what the others speak of.
var together = [...][2]string{
	{"email", "email_verified"},
	{"phone_number", "phone_number_verified"},
	{"_claim_names", "_claim_sources"}, // Core §5.6.2
}

// merge returns the claims of a session: those of the ID Token, and over them those of userinfo, which are fresher.
// What is null is absent. Claims that belong together come from one source: the one whose address it is says whether
// that is verified.
func merge(id, info map[string]any) map[string]any {
	absent := func(_ string, v any) bool { return v == nil }
	claims, fresh := maps.Clone(id), maps.Clone(info)
	if claims == nil {
		claims = make(map[string]any)
	}
	maps.DeleteFunc(claims, absent)
	maps.DeleteFunc(fresh, absent)
	for _, pair := range together {
		what, about := pair[0], pair[1]
		switch {
		case fresh[what] == nil:
			delete(fresh, about) // it speaks of something that is not there
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

// restore sets the protocol's claims to what the ID Token says, and leaves out those of this one exchange.
func restore(claims, id map[string]any) {
	for _, name := range protocol {
		delete(claims, name)
		if v := id[name]; v != nil {
			claims[name] = v
		}
	}
	for _, name := range []string{"nonce", "at_hash", "c_hash", "s_hash"} {
		delete(claims, name)
	}
}

// onlyVerified removes an address that the provider does not say is verified, where that is demanded.
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

// lackingError: a claim is not as [oidc.Config.Require] says.
type lackingError struct{ claim string }

func (e lackingError) Error() string { return fmt.Sprintf("the claim %q is not as required", e.claim) }

// Claims returns the claims that a session of this provider has: those of the ID Token and of userinfo (nil: it was not
// asked), and what [Handler.OnLogin] adds. The error says why there is to be no session: a claim is not as
// [oidc.Config.Require] says, or the app says no.
//
// Both arguments are left as they are.
func (h *Handler) Claims(ctx context.Context, p *oidc.Provider, id, info map[string]any) (map[string]any, error) {
	claims := merge(id, info)
	onlyVerified(p, claims)
	if err := h.Required(p, claims); err != nil || h.OnLogin == nil {
		return claims, err
	}
	before := maps.Clone(claims)
	if err := h.OnLogin(ctx, claims); err != nil {
		return claims, appError{err}
	}
	// What was said of the old address says nothing of one that the app put in its place.
	for _, pair := range together {
		what, about := pair[0], pair[1]
		if !sameAddress(before[what], claims[what]) && before[what] != nil &&
			scalarEqual(before[about], claims[about]) {
			delete(claims, about)
		}
	}
	onlyVerified(p, claims)
	restore(claims, id)
	return normal(claims)
}

// Required returns an error if a claim is not as [oidc.Config.Require] says.
func (h *Handler) Required(p *oidc.Provider, claims map[string]any) error {
	require := p.Config().Require
	for _, name := range slices.Sorted(maps.Keys(require)) {
		if !session.Meets(claims, name, require[name]) {
			return lackingError{name}
		}
	}
	return nil
}

// appError is what [Handler.OnLogin] answered.
type appError struct{ error }

func (e appError) Unwrap() error { return e.error }

// IsTemporary reports whether an error of [Handler.Claims] is temporary: the context of [Handler.OnLogin] was done, or
// it returned a [web.Failure] of status 500 or more. Any other error refuses the person.
func IsTemporary(err error) bool {
	f, said := errors.AsType[*web.Failure](err)
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || said && f.Status >= 500
}

// scalarEqual compares two values that are no object and no array; those are equal to nothing.
func scalarEqual(a, b any) bool {
	switch a.(type) {
	case nil, bool, string, json.Number:
		return a == b
	}
	return false
}

// normal returns claims as they will be when the session is read from its store: what the app put there may have any
// type of Go.
func normal(claims map[string]any) (map[string]any, error) {
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
