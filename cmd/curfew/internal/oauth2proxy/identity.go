package oauth2proxy

import (
	"net/http"

	"example.com/curfew/gateway"
)

// identity sets what the app is told.
func (t *translator) identity() {
	t.preset, t.headers = "none", map[string]string{}
	// --pass-basic-auth includes the headers of --pass-user-headers.
	user := t.value("pass-user-headers") == "true" || t.value("pass-basic-auth") == "true"
	if t.alpha {
		t.injected()
	} else if user || t.on("set-xauthrequest") {
		t.preset = "oauth2-proxy"
	}
	for _, flag := range []string{"pass-user-headers", "pass-basic-auth", "set-xauthrequest"} {
		s := t.get(flag)
		switch {
		case s == nil:
		case t.alpha:
			t.say(s, NotNeeded, "oauth2-proxy takes injectRequestHeaders instead")
		case s.value() == "true" || t.preset == "none":
			t.say(s, Carried, "identity: %s", t.preset)
		default:
			t.say(s, Differs, "identity: %s sets X-Forwarded-* and X-Auth-Request-* both", t.preset)
		}
	}
	if s := t.get("prefer-email-to-user"); s != nil {
		if s.value() == "true" && t.preset != "none" {
			t.headers["X-Forwarded-User"] = "email"
		}
		t.say(s, Carried, "identity_headers")
	}
	if s := t.get("pass-access-token"); s != nil {
		if s.value() == "true" {
			t.headers["X-Forwarded-Access-Token"] = "access_token"
			if t.on("set-xauthrequest") {
				t.headers["X-Auth-Request-Access-Token"] = "access_token"
			}
		}
		t.say(s, Carried, "identity_headers; from forward-auth only trusted_proxies get it")
	}
	if s := t.get("user-id-claim"); s != nil {
		switch fact := claims()[s.value()]; {
		case t.preset == "none":
			t.say(s, NotNeeded, "no header has the user")
		case fact != "":
			t.user(fact)
			t.say(s, Carried, "identity_headers")
		default:
			t.user("claim:" + s.value())
			t.say(s, Carried, "identity_headers")
		}
	}
	if s := t.get("oidc-email-claim"); s != nil {
		if t.preset != "none" && !s.isDefault() {
			t.headers["X-Forwarded-Email"] = "claim:" + s.value()
			t.headers["X-Auth-Request-Email"] = "claim:" + s.value()
		}
		if s.isDefault() {
			t.say(s, NotNeeded, "the default")
		} else {
			t.say(s, Differs, "identity_headers; rules about addresses compare the claim email")
		}
	}
	t.top.set("identity", t.preset)
	if len(t.headers) > 0 {
		t.top.set("identity_headers", t.headers)
	}
}

// user sets what the headers with the user carry.
func (t *translator) user(fact string) {
	if t.headers["X-Forwarded-User"] == "" {
		t.headers["X-Forwarded-User"] = fact
	}
	t.headers["X-Auth-Request-User"] = fact
}

// claims returns oauth2-proxy's names of values that are no claims here.
func claims() map[string]string {
	return map[string]string{"user": "subject", "sub": "subject", "email": "email", "groups": "groups",
		"preferred_username": "username", "access_token": "access_token"}
}

// injected sets the headers of the alpha configuration.
func (t *translator) injected() {
	for _, h := range t.input.headers {
		fact := claims()[h.claim]
		say := func(outcome Outcome, note string) {
			t.items = append(t.items, Item{h.where, outcome, note})
		}
		switch h.claim {
		case "id_token", "refresh_token", "created_at", "expires_on":
			say(Missing, "the app is not told "+h.claim+"; see assertion, and /auth/session for the times")
			continue
		}
		switch {
		case fact == "":
			fact = "claim:" + h.claim
		case h.prefix == "Bearer " && fact == "access_token":
			fact, h.prefix = "bearer", ""
		}
		if h.prefix != "" {
			say(Missing, "a value has no prefix; let the app do without")
			continue
		}
		if _, err := gateway.NewIdentity(map[string]string{h.name: fact}); err != nil {
			say(Missing, "this header cannot be set: "+err.Error())
			continue
		}
		if name := http.CanonicalHeaderKey(h.name); t.headers[name] != "" && t.headers[name] != fact {
			say(Missing, "the header is there already, with another value")
			continue
		} else {
			t.headers[name] = fact
		}
		say(Carried, "identity_headers")
	}
}
