package e2e_test

import (
	"net/http"
	"testing"
)

// subjects are scenarios in which the `sub` of ID Tokens is not that of logout tokens, which is always the user's ID.
func (k *keycloak) subjects() []scenario {
	mapped := func(mapper object) changes {
		config := object{"id.token.claim": "true", "access.token.claim": "true", "userinfo.token.claim": "true"}
		for name, v := range mapper["config"].(object) {
			config[name] = v
		}
		return changes{client: object{"protocolMappers": []object{{"name": "sub", "protocol": "openid-connect",
			"protocolMapper": mapper["protocolMapper"], "config": config}}}}
	}
	username := mapped(object{"protocolMapper": "oidc-usermodel-attribute-mapper",
		"config": object{"user.attribute": "username", "claim.name": "sub", "jsonType.label": "String"}})
	bare := username
	bare.attributes = object{"backchannel.logout.session.required": "false"}
	pairwise := mapped(object{"protocolMapper": "oidc-sha256-pairwise-sub-mapper",
		"config": object{"pairwiseSubAlgorithmSalt": "salt"}})
	logout := func(t *testing.T, c changes, ends bool) (string, string) {
		t.Helper()
		r, g := k.start(t, c)
		b, bob := r.signIn(t, g, "alice"), r.signIn(t, g, "bob")
		told, err := b.told(g, "application/json")
		if err != nil || told.Header.Get("X-Auth-Subject") == r.users["alice"] {
			t.Fatalf("the sub of alice is %q, which is her ID (error %v)", told.Header.Get("X-Auth-Subject"), err)
		}
		end := func() { r.admin(t, http.MethodPost, "/users/"+r.users["alice"]+"/logout", nil, nil) }
		if !ends {
			from := g.said()
			end()
			eventually(t, "a logout token arrives", func() string {
				return unless(len(g.logouts(from)) > 0, "none yet")
			})
			b.in(t, g)
			bob.in(t, g)
			return "a logout token without `sid`",
				"finds nobody of that `sub`: the session ends when it is next refreshed"
		}
		sends, curfew := g.ended(t, b, end)
		bob.in(t, g)
		return sends, curfew
	}
	return []scenario{
		{what: "a mapper sets `sub` to the user name", run: func(t *testing.T) (string, string) {
			return logout(t, username, true)
		}},
		{what: "pairwise subjects", run: func(t *testing.T) (string, string) { return logout(t, pairwise, true) }},
		{what: "**a mapper sets `sub`, and \"Backchannel logout session required\" is off**",
			run: func(t *testing.T) (string, string) { return logout(t, bare, false) }},
	}
}
