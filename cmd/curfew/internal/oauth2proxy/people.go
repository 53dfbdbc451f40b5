package oauth2proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"example.com/curfew/gateway"
)

// conditions are what somebody must meet to use the site.
type conditions struct {
	groups, domains []string
	claims          map[string][]string
	unknown         []string // restrictions that Curfew cannot express: nobody meets them
}

func newRule() *conditions { return &conditions{claims: map[string][]string{}} }

// issuers are those of providers that need no --oidc-issuer-url.
func issuers() map[string]string {
	return map[string]string{
		"google": "https://accounts.google.com", "gitlab": "https://gitlab.com",
		"login.gov": "https://secure.login.gov/",
	}
}

// openID reports whether a provider of oauth2-proxy is an OpenID Provider.
func openID(provider string) bool {
	return slices.Contains([]string{"oidc", "keycloak-oidc", "google", "gitlab", "entra-id", "azure", "adfs", "cidaas",
		"login.gov"}, provider)
}

// signIn sets the provider.
func (t *translator) signIn() {
	p, d := "google", t.provider
	if s := t.get("provider"); s != nil {
		p = s.value()
	}
	issuer := t.value("oidc-issuer-url")
	if issuer == "" {
		issuer = issuers()[p]
		if tenant := t.value("azure-tenant"); p == "azure" && tenant != "common" {
			issuer = "https://login.microsoftonline.com/" + tenant + "/v2.0"
		}
	}
	switch s := t.get("provider"); {
	case issuer == "" && !openID(p):
		t.missing("provider", fmt.Sprintf("%q is not an OpenID Provider: put Dex or Keycloak before it, and give its "+
			"issuer with --oidc-issuer-url to this command", p))
	case issuer == "":
		t.missing("oidc-issuer-url", "is missing: give the issuer of the provider")
	case s == nil:
	case openID(p):
		t.say(s, Carried, "issuer")
	default:
		t.say(s, Differs, "it is taken to be behind the issuer given, which has to be an OpenID Provider")
	}
	d.set("name", "main")
	if s := t.get("provider-display-name"); s != nil {
		d.set("label", s.value())
		t.say(s, Carried, "label")
	}
	d.set("issuer", issuer)
	t.carry("issuer", "oidc-issuer-url")
	if s := t.get("azure-tenant"); s != nil {
		t.say(s, Differs, "issuer; it has to name one tenant, and a client with tokens of version 2")
	}
	if t.value("client-id") == "" {
		t.missing("client-id", "is missing")
	}
	d.set("client_id", t.value("client-id"))
	t.carry("client_id", "client-id")
	secret, file := t.get("client-secret"), t.get("client-secret-file")
	switch {
	case secret != nil: // oauth2-proxy takes the file only if there is no secret
		t.result.Secret = secret.value()
		d.set("client_secret_file", t.files.Secret)
		t.say(secret, Carried, "client_secret_file; it is in %s now", t.files.Secret)
		if file != nil {
			t.say(file, NotNeeded, "oauth2-proxy takes the client secret instead")
		}
	case file != nil:
		d.set("client_secret_file", file.value())
		t.say(file, Carried, "client_secret_file")
	}
	t.bearer(p)
	t.scopes(p)
	if s := t.get("prompt"); s != nil {
		d.set("prompt", s.value())
		t.say(s, Carried, "prompt")
	}
	if s := t.get("oidc-enabled-signing-alg"); s != nil {
		alg := s.value()
		if slices.Contains(s.values, "RS256") {
			alg = "RS256"
		}
		d.set("id_token_signed_response_alg", alg)
		if len(s.values) == 1 {
			t.say(s, Carried, "id_token_signed_response_alg")
		} else {
			t.say(s, Differs, "id_token_signed_response_alg, one algorithm: the one that is registered for the client")
		}
	}
	if s := t.get("skip-claims-from-profile-url"); s != nil {
		if s.value() == "true" {
			d.set("userinfo", "never")
		}
		t.say(s, Carried, "userinfo")
	}
	if s := t.get("insecure-oidc-allow-unverified-email"); s != nil {
		t.say(s, Differs, "people with an unverified address may sign in, but it counts as none: it meets no "+
			"email_domains, and the app is not told")
	} else if t.value("email-domain") == "*" {
		t.items = append(t.items, Item{"insecure_oidc_allow_unverified_email (false by default)", Differs,
			"an address that is not verified, or none, keeps nobody from signing in; it only counts as none. To keep them " +
				"out: require: {email_verified: true} under the provider"})
	}
}

// bearer translates the acceptance of tokens in the Authorization header. oauth2-proxy takes any JWT of the issuer
// whose audience is the client, ID Tokens too.
func (t *translator) bearer(provider string) {
	s := t.get("skip-jwt-bearer-tokens")
	if s == nil || s.value() != "true" {
		return
	}
	audiences := []string{t.value("client-id")}
	if extra := t.get("oidc-extra-audience"); extra != nil {
		audiences = append(audiences, extra.values...)
	}
	b := newDocument()
	b.set("audiences", audiences)
	switch provider {
	case "keycloak", "keycloak-oidc":
		b.set("form", "keycloak")
	case "azure", "entra-id":
		b.set("form", "entra")
	}
	t.provider.set("bearer", b)
	t.say(s, Differs, "bearer; access tokens whose `aud` is listed there are taken, and no ID Tokens; see "+
		"docs/machines.md")
}

func (t *translator) scopes(provider string) {
	s := t.get("scope")
	if s == nil {
		if t.get("allowed-group") != nil && provider == "oidc" { // there oauth2-proxy asks for groups by itself
			t.provider.set("scopes", []string{"openid", "profile", "email", "groups"})
		}
		return
	}
	all := strings.Fields(s.value())
	if slices.Contains(all, "openid") {
		t.say(s, Carried, "scopes")
	} else {
		all = append([]string{"openid"}, all...)
		t.say(s, Differs, "scopes, with openid before them")
	}
	t.provider.set("scopes", all)
}

// restrictions sets who may use the site.
func (t *translator) restrictions() {
	if s := t.get("oidc-groups-claim"); s != nil {
		t.top.set("groups_claim", s.value())
		t.say(s, Carried, "groups_claim")
	}
	for _, flag := range []string{"allowed-group", "gitlab-group", "keycloak-group"} {
		if s := t.get(flag); s != nil {
			t.people.groups = append(t.people.groups, s.values...)
			t.say(s, Carried, "policy, groups")
		}
	}
	if s := t.get("allowed-role"); s != nil {
		for _, role := range s.values {
			claim := "realm_access.roles"
			if client, name, ok := strings.Cut(role, ":"); ok {
				claim, role = "resource_access."+client+".roles", name
			}
			t.people.claims[claim] = append(t.people.claims[claim], role)
		}
		note := "policy, claims; Keycloak puts roles into access tokens alone: have its mapper add them to the ID Token"
		if t.get("allowed-group") != nil || len(t.people.claims) > 1 {
			note += ". Groups, realm roles and those of each client must all be met here, in oauth2-proxy one is enough"
		}
		t.say(s, Differs, "%s", note)
	}
	if s := t.get("entra-id-allowed-tenant"); s != nil {
		t.people.claims["tid"] = s.values
		t.say(s, Carried, "policy, claim tid")
	}
	for _, flag := range []string{"gitlab-project", "google-group", "bitbucket-repository", "bitbucket-team",
		"bitbucket-workspace", "github-org", "github-repo", "github-team", "github-user"} {
		if s := t.get(flag); s != nil {
			t.people.unknown = append(t.people.unknown, flag)
			t.say(s, Missing, "nobody gets in until you replace the last rule of policy: have the provider, or Dex or "+
				"Keycloak before it, put this into the groups claim, and name the groups")
		}
	}
	t.addresses()
}

// addresses sets which e-mail addresses may sign in: one of some domains, or one of a file.
func (t *translator) addresses() {
	domains, file := t.get("email-domain"), t.get("authenticated-emails-file")
	claim := t.value("oidc-email-claim")
	if claim == "" {
		claim = "email"
	}
	if domains != nil && slices.Contains(domains.values, "*") {
		t.say(domains, Carried, "all people that the provider signs in")
		if file != nil {
			t.say(file, NotNeeded, "every address may sign in")
		}
		return
	}
	if domains == nil && file == nil {
		t.missing("email-domain", "is missing, as is --authenticated-emails-file; give '*' for everybody")
		return
	}
	if domains != nil {
		exact := slices.DeleteFunc(slices.Clone(domains.values), func(d string) bool {
			_, err := gateway.NewPolicy(gateway.Rule{Path: "/*", EmailDomains: []string{d}})
			return err != nil || strings.HasPrefix(d, ".")
		})
		switch {
		case claim != "email" || len(exact) == 0:
			t.people.unknown = append(t.people.unknown, "email-domain")
			t.say(domains, Missing, "nobody gets in until you replace the last rule of policy: email_domains are whole "+
				"domains, of the claim email")
		case len(exact) < len(domains.values):
			t.people.domains = exact
			t.say(domains, Differs, "policy, email_domains, without those that stand for any domain below them")
		default:
			t.people.domains = exact
			t.say(domains, Carried, "policy, email_domains")
		}
		if file != nil {
			t.say(file, Differs, "addresses of other domains than email_domains are refused; add their domains, or use groups")
		}
		return
	}
	all, err := addressesOf(file.value())
	switch {
	case err != nil:
		t.fault(file.where, "%w", err)
	case len(all) == 0:
		t.people.unknown = append(t.people.unknown, "authenticated-emails-file")
		t.say(file, Missing, "the file is empty, so nobody gets in; replace the last rule of policy")
	default:
		t.require = map[string][]string{claim: all}
		t.say(file, Differs, "require, with %d addresses; the file is not read again", len(all))
	}
}

func addressesOf(name string) ([]string, error) {
	b, err := readBounded(name)
	if err != nil {
		return nil, err
	}
	var all []string
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		if line := strings.ToLower(strings.TrimSpace(lines.Text())); line != "" && !strings.HasPrefix(line, "#") {
			all = append(all, line)
		}
	}
	return all, lines.Err()
}

// public is a rule for paths without a sign-in.
type public struct {
	path    string
	methods []string
}

// policy sets who may use which path.
func (t *translator) policy() {
	var rules []*document
	add := func(path string, methods []string, open bool) {
		d := newDocument()
		d.set("path", path)
		if len(methods) > 0 {
			d.set("methods", methods)
		}
		if open {
			d.set("public", true)
		} else {
			t.conditions(d)
		}
		rules = append(rules, d)
	}
	paths, negated := t.exemptions()
	for _, p := range paths {
		add(p.path, p.methods, true)
	}
	if s := t.get("skip-auth-preflight"); s != nil {
		if s.value() == "true" {
			add("/*", []string{"OPTIONS"}, true)
		}
		t.say(s, Carried, "policy")
	}
	if negated != nil {
		for _, p := range negated.except {
			add(p, negated.methods, false)
		}
		add("/*", negated.methods, true)
	}
	last := newDocument()
	last.set("path", "/*")
	if t.conditions(last); !negatedAll(negated) && len(last.node.Content) > 2 {
		rules = append(rules, last)
	}
	if len(rules) > 0 {
		t.top.set("policy", rules)
	}
}

func negatedAll(n *negation) bool { return n != nil && len(n.methods) == 0 }

// conditions adds the conditions that everybody must meet to a rule.
func (t *translator) conditions(d *document) {
	c := t.people
	if len(c.unknown) > 0 {
		// A group that nobody is in keeps everybody out.
		d.set("groups", []string{"replace this: " + strings.Join(c.unknown, ", ")},
			"Curfew cannot express a restriction of oauth2-proxy, so nobody meets this rule until you replace it.")
	} else if len(c.groups) > 0 {
		d.set("groups", c.groups)
	}
	if len(c.domains) > 0 {
		d.set("email_domains", c.domains)
	}
	if len(c.claims) > 0 {
		claims := newDocument()
		for _, name := range slices.Sorted(maps.Keys(c.claims)) {
			claims.set(name, c.claims[name])
		}
		d.set("claims", claims)
	}
}

// negation is an exemption of all paths but some.
type negation struct {
	except  []string
	methods []string
}

// exemptions returns the paths that need no sign-in. One that cannot be expressed is left out.
func (t *translator) exemptions() (all []public, negated *negation) {
	for _, flag := range []string{"skip-auth-route", "skip-auth-regex"} {
		s := t.get(flag)
		if s == nil {
			continue
		}
		for _, raw := range s.values {
			method, expression, not := "", raw, false
			// As oauth2-proxy does: the first = of a route ends the method, and any != negates, even inside an expression.
			if before, after, ok := strings.Cut(raw, "="); ok && flag == "skip-auth-route" {
				method, expression, not = strings.TrimSuffix(before, "!"), after, strings.Contains(raw, "!=")
			}
			var methods []string
			if method != "" {
				methods = []string{strings.ToUpper(method)}
			}
			say := func(outcome Outcome, note string) {
				t.items = append(t.items, Item{s.where + ": " + raw, outcome, note})
			}
			paths, note, ok := patterns(expression, not)
			switch {
			case !ok:
				say(Missing, "these paths need a sign-in now: paths are /a, or /a/* for all below; write rules under policy")
			case not && negated != nil:
				say(Missing, "these paths need a sign-in now: there is another exemption with !=; write rules under policy")
			case not:
				negated = &negation{paths, methods}
				say(Differs, "policy: the exceptions first, then a public rule for the rest")
			default:
				for _, p := range paths {
					all = append(all, public{p, methods})
				}
				say(map[bool]Outcome{true: Carried, false: Differs}[note == ""], "policy"+note)
			}
		}
	}
	return all, negated
}

// patterns returns the paths of rules for an expression. With all, they cover at least what it accepts, otherwise at
// most, save that a path with and without a slash at its end are one. The note says what differs.
func patterns(expression string, all bool) (paths []string, note string, ok bool) {
	matches, loose, ok := expand(expression)
	if !ok || all && loose {
		return nil, "", false
	}
	if loose {
		note = "; a dot in the expression is taken as a dot"
	}
	for _, m := range matches {
		path := m.path
		// As a pattern, /* is no path, and // at the end is one slash; a part of a character can match nothing.
		_, err := gateway.NewPolicy(gateway.Rule{Path: path})
		if path != "" && err != nil || strings.ContainsAny(path, "*\ufffd") {
			return nil, "", false
		}
		switch slash := strings.HasSuffix(path, "/"); {
		case m.prefix && path == "":
			path = "/*"
		case m.prefix && slash:
			path += "*"
		case m.prefix && all:
			return nil, "", false // /admin has to cover /administration
		case m.prefix:
			note += "; " + path + " and what is below it, but not other names that begin so"
			path += "/*"
		case slash && path != "/":
			path = strings.TrimSuffix(path, "/")
		}
		if !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths, note, true
}
