package oidc

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Error is a check that a token or an answer of the provider failed. It is final: the same token fails again.
// What could not be decided is an [ErrUnavailable] instead.
type Error struct {
	// Check names the check: "shape", "jwe", "json", "alg", "crit", "typ", "iss", "aud", "iat", "exp", "nbf", "jti",
	// "events", "nonce", "sub", "sid", "kid", "signature" for logout tokens; "azp", "at_hash", "auth_time",
	// "session_expiry" besides for ID Tokens; "token_response", "userinfo", "revocation", "introspection", "par" for
	// what an endpoint answered, "cnf", "scope" and "dpop" for access tokens and proofs of
	// clients, "response" for an authorization response that is a JWT, and "revalidate" when a session
	// cannot be asked about. Whatever is wrong with
	// userinfo is "userinfo", and Err names the check. It may be a label of metrics.
	Check string
	// Err says what was wrong and, where something can be done about it, what. It never holds a token or a secret. What
	// it quotes of its input is escaped and cut.
	Err error
	// Provider and Settings are set when a logout token, which Provider signed, failed only because Settings ("name:
	// value") are not set for it.
	Provider string
	Settings []string
}

func (e *Error) Error() string { return e.Check + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// The errors that callers act on, beside [Error].
var (
	// ErrUnavailable: the provider could not be asked (network, 5xx, an answer that makes no sense): nothing is
	// known, try again later.
	ErrUnavailable = errors.New("the provider could not be asked")
	// ErrTooMany is the [ErrUnavailable] of a request that was not sent, since there were too many like it.
	ErrTooMany = fmt.Errorf("%w: too many requests at once", ErrUnavailable)
	// ErrInvalidGrant: the provider refuses the refresh token, or the code, for good (RFC 6749 §5.2).
	ErrInvalidGrant = errors.New("the provider refuses the grant (invalid_grant)")
	// ErrInvalidClient: the token endpoint does not take this client's id, secret or way of authentication (RFC 6749
	// §5.2).
	ErrInvalidClient = errors.New("the provider does not take this client's credentials")
	// ErrOtherPerson: a refreshed ID Token that the provider signed is of another issuer, client or subject (Core
	// §12.2).
	ErrOtherPerson = errors.New("the refreshed ID Token is of another issuer, client or subject than the session " +
		"(Core §12.2)")
	// ErrInvalidToken: the provider says of an access token that it has run out, was revoked or is invalid (RFC 6750
	// §3.1, RFC 7662 §2.2).
	ErrInvalidToken = errors.New("the provider says that the access token is not valid (any more)")
	// ErrUnsupported: the provider has no such endpoint.
	ErrUnsupported = errors.New("the provider has no such endpoint")
	// ErrUnsupportedTokenType: the provider does not revoke tokens of this kind (RFC 7009 §2.2.1).
	ErrUnsupportedTokenType = errors.New("the provider does not revoke tokens of this kind (unsupported_token_type)")
)

// Refusal is what an endpoint answered that did not do what it was asked, as far as that is known. It is wrapped in an
// [Error] or an [ErrUnavailable].
type Refusal struct {
	Status   int    // of HTTP
	Code     string // `error` of RFC 6749 §5.2, a short word; empty when there is none
	sentence string
}

func (r *Refusal) Error() string { return r.sentence }

func failed(check, format string, args ...any) error {
	return &Error{Check: check, Err: fmt.Errorf(format, args...)}
}

func unavailable(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUnavailable, fmt.Errorf(format, args...))
}

// quote shows what somebody sent, escaped and no longer than a line.
func quote(s string) string {
	const most = 120
	if len(s) > most {
		cut := most
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		return fmt.Sprintf("%+q…", s[:cut])
	}
	return fmt.Sprintf("%+q", s)
}

// quoteAll is quote for a list, of which it shows the first few.
func quoteAll(list []string) string {
	const most = 4
	var b strings.Builder
	for i, s := range list {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(list)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(s))
	}
	return b.String()
}
