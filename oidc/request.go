package oidc

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// requestObjectLife is how long a signed authentication request may be used: a browser takes it to the provider at
// once.
const requestObjectLife = 5 * time.Minute

// requestObject puts the parameters of an authentication request into a signed JWT (RFC 9101 §4). alone is whether
// nothing else is sent, as RFC 9126 §3 wants it for a pushed request. Otherwise `response_type` and `scope` are there
// twice, since Core §6.1 requires them outside too.
func (p *Provider) requestObject(q url.Values, alone bool) (url.Values, error) {
	now := p.cfg.Now()
	claims := map[string]any{
		"iss": p.cfg.ClientID, "aud": p.cfg.Issuer, "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(requestObjectLife).Unix(),
	}
	for name, values := range q {
		switch {
		case claims[name] != nil:
			return nil, fmt.Errorf("an authentication request cannot set %s", quote(name))
		case len(values) > 1:
			claims[name] = values
		case name == "max_age":
			n, err := strconv.Atoi(values[0])
			if err != nil {
				return nil, errors.New("max_age is not a number")
			}
			claims[name] = n
		case name == "claims" && json.Valid([]byte(values[0])): // an object (Core §6.1)
			claims[name] = json.RawMessage(values[0])
		case len(values) == 1:
			claims[name] = values[0]
		}
	}
	signed, err := p.sign("oauth-authz-req+jwt", p.cfg.RequestObjectSigningAlg, claims)
	if err != nil {
		return nil, fmt.Errorf("the authentication request cannot be signed: %w", err)
	}
	outside := url.Values{"client_id": {p.cfg.ClientID}, "request": {signed}}
	if !alone {
		outside["response_type"], outside["scope"] = q["response_type"], q["scope"]
	}
	return outside, nil
}

// Whoever opens the login route has one request pushed to the provider. So they are limited, for each provider and in
// each process: this many at once, and then one each pushEvery, which is more than people who sign in need.
const (
	pushBurst = 100
	pushEvery = 20 * time.Millisecond
)

// mayPush counts a request that is to be pushed. It is an [ErrTooMany] when there are too many.
func (p *Provider) mayPush() error {
	if p.pushes.AllowN(p.cfg.Now(), 1) {
		return nil
	}
	return fmt.Errorf("%w: this process pushes no more than %d authorization requests at once, and %d in a second",
		ErrTooMany, pushBurst, time.Second/pushEvery)
}

// push hands an authentication request to the provider and returns what to send the browser with (RFC 9126 §2).
func (p *Provider) push(ctx context.Context, m *Metadata, q url.Values) (url.Values, error) {
	if m.PushedRequestEndpoint == "" {
		return nil, failed("par", "requests are to be pushed (pushed_authorization_requests), and the provider has no "+
			"pushed_authorization_request_endpoint")
	}
	form := url.Values{}
	for name, values := range q {
		form[name] = values
	}
	a, err := p.post(ctx, m.PushedRequestEndpoint, form)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusCreated && a.status != http.StatusOK {
		return nil, p.refusedAt("par", "the pushed authorization request endpoint", a)
	}
	p.clientTaken()
	c, err := decodeObject(a.body)
	if err != nil {
		return nil, unavailable("the pushed authorization request endpoint did not answer with a JSON object")
	}
	uri, err := c.text("request_uri", maxState)
	if err != nil || strings.ContainsAny(uri, " ") {
		return nil, failed("par", "the answer has no `request_uri` that can be used")
	}
	return url.Values{"client_id": {p.cfg.ClientID}, "request_uri": {uri}}, nil
}

const maxState = 4 << 10 // bytes of what a browser carries for the provider
