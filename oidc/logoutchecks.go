package oidc

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Step is one step of the validation of a logout token, for `curfew token explain`.
type Step struct {
	Name    string // "alg", "iss", ...
	Status  string // "ok", "failed", "skipped"
	Detail  string // what was found, or what is wrong and what to do
	Section string // "Back-Channel Logout §2.6"
}

// ExplainLogoutToken runs every step of [VerifyLogoutToken], also those after one that failed where that makes sense,
// and says what each found. The signature is checked whenever the provider is known, so that an old token can be
// explained too.
func ExplainLogoutToken(ctx context.Context, providers []*Provider, raw string, now time.Time) []Step {
	v := &logoutVerification{candidates: providers, raw: raw, now: now, once: true}
	checks := logoutChecks()
	steps := make([]Step, len(checks))
	wrong := 0
	for i, c := range checks {
		steps[i] = Step{Name: c.name, Section: c.section}
		if !c.needs(v) {
			steps[i].Status, steps[i].Detail = "skipped", "an earlier step must pass first"
			continue
		}
		if err := c.run(v, ctx); err != nil {
			steps[i].Status, steps[i].Detail = "failed", reason(err)
			wrong++
			continue
		}
		steps[i].Status, steps[i].Detail = "ok", c.found(v)
	}
	if wrong == 1 && v.lacksExp && v.token.Provider != nil {
		for i := range steps {
			if steps[i].Status == "failed" {
				steps[i].Detail = reason(v.missingExpHint())
			}
		}
	}
	return steps
}

// reason leaves out the name of the check, which the step has already, unless it is another one.
func reason(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Err.Error()
	}
	return err.Error()
}

// logoutCheck is one step.
type logoutCheck struct {
	name    string
	section string
	run     func(*logoutVerification, context.Context) error
	// needs reports whether what this step looks at is there, when steps before it failed.
	needs func(*logoutVerification) bool
	// found says what a token that passed holds.
	found func(*logoutVerification) string
}

// logoutChecks are the steps by which a logout token is checked, in their order: what costs nothing first, the
// signature last.
func logoutChecks() [17]logoutCheck {
	const bcl = "Back-Channel Logout "
	type v = logoutVerification
	return [17]logoutCheck{
		{"shape", "RFC 7515 §3.1", (*v).checkShape, (*v).hasRaw,
			func(v *v) string { return fmt.Sprintf("%d parts, %d bytes", len(v.parts), len(v.raw)) }},
		{"jwe", bcl + "§2.6 (1)", (*v).decrypt, (*v).hasParts, (*v).foundEncryption},
		{"header", "RFC 7515 §4", (*v).checkHeader, (*v).hasParts,
			func(v *v) string { return "kid " + quote(v.signed.header.kid) }},
		{"alg", bcl + "§2.6 (3)", (*v).checkAlg, (*v).hasHeader, func(v *v) string { return v.signed.header.alg }},
		{"typ", bcl + "§4.1", (*v).checkTyp, (*v).hasHeader, (*v).foundTyp},
		{"json", "RFC 7519 §4", (*v).decodeClaims, (*v).hasHeader,
			func(v *v) string { return fmt.Sprintf("%d claims", len(v.claims)) }},
		{"iss", bcl + "§2.6 (4)", (*v).checkIss, (*v).hasClaims, func(v *v) string { return quote(v.token.Issuer) }},
		{"aud", bcl + "§2.6 (4)", (*v).checkAud, (*v).hasIssuer, func(v *v) string { return quote(v.token.ClientID) }},
		{"registration", bcl + "§2.6 (3)", (*v).checkRegistration, (*v).hasProvider,
			func(v *v) string { return "as registered for the provider " + quote(v.token.Provider.cfg.Name) }},
		{"iat", bcl + "§2.6 (4)", (*v).checkIat, (*v).hasClaims,
			func(v *v) string { return v.token.IssuedAt.UTC().Format(time.RFC3339) }},
		{"exp", bcl + "§2.6 (4)", (*v).checkExp, (*v).hasIat, (*v).foundExp},
		{"nbf", "RFC 7519 §4.1.5", (*v).checkNbf, (*v).hasClaims, func(*v) string { return "absent or past" }},
		{"jti", bcl + "§2.4", (*v).checkJTI, (*v).hasClaims, func(v *v) string { return quote(v.token.JTI) }},
		{"events", bcl + "§2.6 (6)", (*v).checkEvents, (*v).hasClaims,
			func(*v) string { return "holds " + backchannelEvent }},
		{"nonce", bcl + "§2.6 (7)", (*v).checkNonce, (*v).hasClaims, func(*v) string { return "absent" }},
		{"sub", bcl + "§2.6 (5)", (*v).checkNames, (*v).hasClaims,
			func(v *v) string { return "sub " + quote(v.token.Subject) + ", sid " + quote(v.token.SID) }},
		{"signature", bcl + "§2.6 (2)", (*v).checkSignature, (*v).canVerify,
			func(*v) string { return "made by the provider" }},
	}
}

func (v *logoutVerification) hasRaw() bool      { return true }
func (v *logoutVerification) hasParts() bool    { return v.parts != nil }
func (v *logoutVerification) hasHeader() bool   { return v.signed != nil }
func (v *logoutVerification) hasClaims() bool   { return v.claims != nil }
func (v *logoutVerification) hasIssuer() bool   { return v.token.Issuer != "" }
func (v *logoutVerification) hasProvider() bool { return v.token.Provider != nil }
func (v *logoutVerification) hasIat() bool      { return !v.token.IssuedAt.IsZero() }

// canVerify: the provider is known and the algorithm is the registered one; another is never tried.
func (v *logoutVerification) canVerify() bool {
	return v.hasProvider() && v.token.Provider.checkLogoutAlg(v.signed.header.alg) == nil
}

func (v *logoutVerification) foundEncryption() string {
	if v.encrypted {
		return "encrypted, and decrypted with the configured key"
	}
	return "not encrypted"
}

func (v *logoutVerification) foundTyp() string {
	if !v.signed.header.hasTyp {
		return "absent, which is allowed"
	}
	return quote(v.signed.header.typ)
}

func (v *logoutVerification) foundExp() string {
	if v.token.Expiry.IsZero() {
		return "absent, which `allow_missing_exp` allows"
	}
	return v.token.Expiry.UTC().Format(time.RFC3339)
}
