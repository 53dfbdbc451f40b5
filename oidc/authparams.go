package oidc

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxParams     = 16   // fixed ones of a provider, and as many that a link may set
	maxFixedParam = 4096 // bytes of a fixed value
	maxLinkParam  = 256  // bytes of a value in a link
	longestMaxAge = 10 * 365 * 24 * 3600
)

// ownParams are the parameters of an authentication request that this package sets itself, or that would change what it
// relies on, and what to set instead.
var ownParams = map[string]string{
	"response_type": "", "response_mode": "set response_mode", "client_id": "set client_id",
	"redirect_uri": "", "state": "", "nonce": "",
	"code_challenge": "", "code_challenge_method": "", "scope": "set scopes", "prompt": "set prompt",
	"login_hint": "a link may always set it", "id_token_hint": "", "request": "", "request_uri": "",
	"registration": "", "client_secret": "", "client_assertion": "", "client_assertion_type": "", "code": "",
	"code_verifier": "", "grant_type": "", "dpop_jkt": "",
}

// linkNames are the parameters of a link to the login route that have a meaning of their own there.
var linkNames = []string{"provider", "return_to", "silent", "iss", "step_up", "target_link_uri", "handover"}

func checkParamName(name string) error {
	if instead, ours := ownParams[strings.ToLower(name)]; ours {
		if instead != "" {
			instead = ": " + instead
		}
		return fmt.Errorf("%s is set by Curfew itself%s", quote(name), instead)
	}
	bad := func(r rune) bool { // RFC 6749 §8.2
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-._", r)
	}
	if name == "" || len(name) > 64 || strings.ContainsFunc(name, bad) {
		return fmt.Errorf("%s is not the name of a parameter: letters, digits, \"-\", \".\" and \"_\" only, at most 64",
			quote(name))
	}
	return nil
}

func checkParamValue(name, value string, most int) error {
	if value == "" || len(value) > most || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
		return fmt.Errorf("the value of %s is empty, has more than %d bytes, or holds a control character", quote(name),
			most)
	}
	if name == "max_age" {
		_, err := parseMaxAge(value)
		return err
	}
	return nil
}

func parseMaxAge(value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || n > longestMaxAge || value[0] == '+' {
		return 0, fmt.Errorf("max_age: %s is not a number of seconds (Core §3.1.2.1)", quote(value))
	}
	return n, nil
}

// validateParams checks AuthParams and LinkParams.
func (c *Config) validateParams(fault func(format string, args ...any)) {
	if len(c.AuthParams) > maxParams {
		fault("authorization_params: there are more than %d", maxParams)
	}
	for _, name := range slices.Sorted(maps.Keys(c.AuthParams)) {
		if err := errors.Join(checkParamName(name),
			checkParamValue(name, c.AuthParams[name], maxFixedParam)); err != nil {
			fault("authorization_params: %w", err)
		}
	}
	if len(c.LinkParams) > maxParams {
		fault("link_params: there are more than %d", maxParams)
	}
	for i, name := range c.LinkParams {
		err := checkParamName(name)
		switch {
		case err != nil:
			fault("link_params: %w", err)
		case slices.Contains(linkNames, name):
			fault("link_params: %s has a meaning of its own in a link", quote(name))
		case slices.Contains(c.LinkParams[:i], name):
			fault("link_params: %s is there twice", quote(name))
		}
	}
}

// CheckLinkParam refuses a value that a link, which a stranger may have made, gives a parameter of LinkParams.
func CheckLinkParam(name, value string) error { return checkParamValue(name, value, maxLinkParam) }

// MaxAge returns the smaller of the `max_age` of AuthParams and that of a link, nil when there is none. A link can ask
// for a newer sign-in than is configured, and not for an older one.
func (c *Config) MaxAge(link string) *int {
	var least *int
	for _, value := range []string{c.AuthParams["max_age"], link} {
		if value == "" {
			continue
		}
		if n, err := parseMaxAge(value); err == nil && (least == nil || n < *least) {
			least = &n
		}
	}
	return least
}
