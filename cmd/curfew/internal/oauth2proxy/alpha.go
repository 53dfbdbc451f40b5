package oauth2proxy

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"example.com/curfew/cmd/curfew/internal/config"
)

// header is an entry of injectRequestHeaders or injectResponseHeaders.
type header struct{ name, where, claim, prefix string }

// route is an entry of upstreamConfig.upstreams.
type route struct{ where, path, uri, timeout string }

// alphaFields returns the fields of the alpha configuration (page "Alpha Configuration") with the option that each
// stands for. Those of a provider are below it. A field without an option has a fixed outcome.
func alphaFields() map[string]string {
	return map[string]string{
		"server.bindAddress": "http-address", "server.secureBindAddress": "https-address",
		"server.tls.key.fromFile": "tls-key-file", "server.tls.cert.fromFile": "tls-cert-file",
		"server.tls.minVersion": "tls-min-version", "server.tls.cipherSuites": "tls-cipher-suite",
		"metricsServer.bindAddress": "metrics-address", "metricsServer.secureBindAddress": "metrics-secure-address",
		"metricsServer.tls.key.fromFile": "metrics-tls-key-file", "metricsServer.tls.cert.fromFile": "metrics-tls-cert-file",

		"provider.clientID": "client-id", "provider.clientSecret": "client-secret",
		"provider.clientSecretFile": "client-secret-file", "provider.provider": "provider",
		"provider.name": "provider-display-name", "provider.caFiles": "provider-ca-file",
		"provider.useSystemTrustStore": "use-system-trust-store", "provider.loginURL": "login-url",
		"provider.authRequestResponseMode": "auth-request-response-mode", "provider.redeemURL": "redeem-url",
		"provider.profileURL": "profile-url", "provider.skipClaimsFromProfileURL": "skip-claims-from-profile-url",
		"provider.resource": "resource", "provider.validateURL": "validate-url", "provider.scope": "scope",
		"provider.allowedGroups": "allowed-group", "provider.code_challenge_method": "code-challenge-method",
		"provider.backendLogoutURL": "backend-logout-url",

		"provider.keycloakConfig.groups": "keycloak-group", "provider.keycloakConfig.roles": "allowed-role",
		"provider.azureConfig.tenant": "azure-tenant", "provider.azureConfig.graphGroupField": "azure-graph-group-field",
		"provider.microsoftEntraIDConfig.allowedTenants":     "entra-id-allowed-tenant",
		"provider.microsoftEntraIDConfig.federatedTokenAuth": "entra-id-federated-token-auth",
		"provider.bitbucketConfig.team":                      "bitbucket-team",
		"provider.bitbucketConfig.workspace":                 "bitbucket-workspace",
		"provider.bitbucketConfig.repository":                "bitbucket-repository",
		"provider.githubConfig.org":                          "github-org", "provider.githubConfig.team": "github-team",
		"provider.githubConfig.repo": "github-repo", "provider.githubConfig.token": "github-token",
		"provider.githubConfig.users":                            "github-user",
		"provider.gitlabConfig.group":                            "gitlab-group",
		"provider.gitlabConfig.projects":                         "gitlab-project",
		"provider.googleConfig.group":                            "google-group",
		"provider.googleConfig.adminEmail":                       "google-admin-email",
		"provider.googleConfig.serviceAccountJson":               "google-service-account-json",
		"provider.googleConfig.useApplicationDefaultCredentials": "google-use-application-default-credentials",
		"provider.googleConfig.targetPrincipal":                  "google-target-principal",
		"provider.googleConfig.useOrganizationID":                "google-use-organization-id",
		"provider.googleConfig.adminAPIUserScope":                "google-admin-api-user-scope",
		"provider.oidcConfig.issuerURL":                          "oidc-issuer-url",
		"provider.oidcConfig.insecureAllowUnverifiedEmail":       "insecure-oidc-allow-unverified-email",
		"provider.oidcConfig.insecureSkipIssuerVerification":     "insecure-oidc-skip-issuer-verification",
		"provider.oidcConfig.insecureSkipNonce":                  "insecure-oidc-skip-nonce",
		"provider.oidcConfig.skipDiscovery":                      "skip-oidc-discovery",
		"provider.oidcConfig.jwksURL":                            "oidc-jwks-url",
		"provider.oidcConfig.publicKeyFiles":                     "oidc-public-key-file",
		"provider.oidcConfig.emailClaim":                         "oidc-email-claim",
		"provider.oidcConfig.groupsClaim":                        "oidc-groups-claim",
		"provider.oidcConfig.userIDClaim":                        "user-id-claim",
		"provider.oidcConfig.audienceClaims":                     "oidc-audience-claim",
		"provider.oidcConfig.extraAudiences":                     "oidc-extra-audience",
		"provider.oidcConfig.enabledSigningAlgs":                 "oidc-enabled-signing-alg",
		"provider.loginGovConfig.jwtKey":                         "jwt-key",
		"provider.loginGovConfig.jwtKeyFile":                     "jwt-key-file",
		"provider.loginGovConfig.pubjwkURL":                      "pubjwk-url",
	}
}

// alphaNotes returns what becomes of fields that stand for no option.
func alphaNotes() map[string]Item {
	secret := Item{Outcome: Missing, Note: "write it into a file, and name the file with fromFile"}
	return map[string]Item{
		"provider.id":               {Outcome: NotNeeded, Note: "addresses name the provider main; see name"},
		"provider.additionalClaims": {Outcome: NotNeeded, Note: "a session keeps all claims"},
		"provider.loginURLParameters": {Outcome: Differs, Note: "only prompt can be set, with prompt or in a link to " +
			"the sign-in; the other parameters are not sent"},
		"provider.ADFSConfig.skipScope": {Outcome: Missing, Note: "scopes are always sent"},
		"server.tls.key.value":          secret, "server.tls.cert.value": secret,
		"server.tls.key.fromEnv": secret, "server.tls.cert.fromEnv": secret,
		"metricsServer.tls.key.value": secret, "metricsServer.tls.cert.value": secret,
		"metricsServer.tls.key.fromEnv": secret, "metricsServer.tls.cert.fromEnv": secret,
		"metricsServer.tls.minVersion":   {Outcome: NotNeeded, Note: "admin_listen has no TLS"},
		"metricsServer.tls.cipherSuites": {Outcome: NotNeeded, Note: "admin_listen has no TLS"},
		"upstreamConfig.proxyRawPath": {Outcome: NotNeeded,
			Note: "the path goes to the app as it came; with a policy an ambiguous one is answered 400"},
	}
}

var variable = regexp.MustCompile(`\$\$|\$\{([A-Za-z_][A-Za-z0-9_]*)(:?[-=]([^}]*))?\}|\$([A-Za-z_][A-Za-z0-9_]*)`)

// substitute replaces ${NAME}, ${NAME:-default} and $NAME, as oauth2-proxy does.
func substitute(file []byte, environ []string) []byte {
	return variable.ReplaceAllFunc(file, func(match []byte) []byte {
		if string(match) == "$$" {
			return []byte("$")
		}
		parts := variable.FindSubmatch(match)
		name := cmp.Or(string(parts[1]), string(parts[4]))
		for _, line := range environ {
			if value, ok := strings.CutPrefix(line, name+"="); ok && value != "" {
				return []byte(value)
			}
		}
		return parts[3]
	})
}

// readAlpha reads the alpha configuration.
func (in *input) readAlpha(name string, environ []string) {
	in.alpha = true
	b, err := readBounded(name)
	if err != nil {
		in.fault("--alpha-config", "%w", err)
		return
	}
	var doc yaml.Node
	switch err := yaml.NewDecoder(bytes.NewReader(substitute(b, environ))).Decode(&doc); {
	case err != nil && !errors.Is(err, io.EOF): // the message of the library may quote a secret
		said, _, _ := strings.Cut(strings.TrimPrefix(err.Error(), "yaml: "), ": ")
		said, _, _ = strings.Cut(said, " '")
		in.fault(name, "is not valid YAML: %s", said)
		return
	case err != nil || doc.Content[0].Kind != yaml.MappingNode: // or nothing
		in.fault(name, "want a map")
		return
	}
	for key, value := range pairs(doc.Content[0]) {
		where := fmt.Sprintf("%s:%d: %s", name, key.Line, key.Value)
		switch key.Value {
		case "server", "metricsServer":
			in.readFields(name, key.Value, value)
		case "providers":
			for i, item := range items(value) {
				if i > 0 { // "Multiple-providers is not yet working"
					in.items = append(in.items, Item{where, Differs,
						"oauth2-proxy uses only the first provider; list the others under providers, by hand"})
					break
				}
				in.readFields(name, "provider", item)
			}
		case "injectRequestHeaders", "injectResponseHeaders":
			in.readHeaders(name, value)
		case "upstreamConfig":
			in.readUpstreams(name, value)
		default:
			known := map[string]bool{"server": true, "metricsServer": true, "providers": true, "upstreamConfig": true,
				"injectRequestHeaders": true, "injectResponseHeaders": true}
			in.fault(where, "the alpha configuration has no such field%s", config.Nearest(key.Value, known))
		}
	}
}

// pairs yields the keys of a map and their values, and items the entries of a list, both without aliases (*name).
func pairs(n *yaml.Node) func(func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if !yield(resolve(n.Content[i]), resolve(n.Content[i+1])) {
				return
			}
		}
	}
}

func items(n *yaml.Node) (all []*yaml.Node) {
	for _, item := range n.Content {
		all = append(all, resolve(item))
	}
	return all
}

func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// readFields reads a map whose fields stand for options.
func (in *input) readFields(file, path string, n *yaml.Node) {
	fields, notes, known := alphaFields(), alphaNotes(), byFlag()
	names := map[string]bool{}
	for _, f := range slices.Concat(slices.Collect(maps.Keys(fields)), slices.Collect(maps.Keys(notes))) {
		names[f] = true
	}
	below := func(at string) bool {
		return slices.ContainsFunc(slices.Collect(maps.Keys(names)), func(f string) bool {
			return strings.HasPrefix(f, at+".")
		})
	}
	for key, value := range pairs(n) {
		at := path + "." + key.Value
		where := fmt.Sprintf("%s:%d: %s", file, key.Line, at)
		note, noted := notes[at]
		switch flag := fields[at]; {
		case flag != "":
			// The text of a value and not what YAML makes of it: a secret may look like a number.
			var given any = value.Value
			switch {
			case value.Kind == yaml.SequenceNode:
				all := []any{}
				for _, item := range items(value) {
					if item.Kind != yaml.ScalarNode {
						in.fault(where, "want a list of single values")
					}
					all = append(all, item.Value)
				}
				given = all
			case value.Kind != yaml.ScalarNode:
				in.fault(where, "want a single value or a list")
				continue
			case value.ShortTag() == "!!null":
				continue
			}
			if s := in.fromFile(known[flag], where, given); s != nil {
				in.settings[flag] = s
			}
		case noted:
			note.Name = where
			in.items = append(in.items, note)
		case value.Kind == yaml.MappingNode && below(at): // not for ever, in a map that holds itself
			in.readFields(file, at, value)
		default:
			in.fault(where, "the alpha configuration has no such field%s", config.Nearest(at, names))
		}
	}
}

// readHeaders reads headers for the app. Until 7.13 the fields of a source stood beside it.
func (in *input) readHeaders(file string, n *yaml.Node) {
	for _, item := range items(n) {
		var h struct {
			Name   string      `yaml:"name"`
			Values []yaml.Node `yaml:"values"`
		}
		where := fmt.Sprintf("%s:%d: headers", file, item.Line)
		if item.Decode(&h) != nil || h.Name == "" {
			in.fault(where, "want a name and values")
			continue
		}
		where = fmt.Sprintf("%s:%d: header %s", file, item.Line, h.Name)
		if len(h.Values) != 1 {
			in.items = append(in.items, Item{where, Missing, "a header has one value"})
			continue
		}
		type source struct {
			Claim  string     `yaml:"claim"`
			Prefix string     `yaml:"prefix"`
			Basic  *yaml.Node `yaml:"basicAuthPassword"`
		}
		var v struct {
			source `yaml:",inline"`
			Nested *source `yaml:"claimSource"`
		}
		if err := h.Values[0].Decode(&v); err != nil {
			in.fault(where, "want a claimSource or a secretSource")
			continue
		}
		from := v.source
		if v.Nested != nil {
			from = *v.Nested
		}
		switch {
		case from.Claim == "":
			in.items = append(in.items, Item{where, Missing,
				"no header has a fixed value: the app could not tell who set it. Use assertion"})
		case from.Basic != nil:
			in.items = append(in.items, Item{where, Missing, noteBasic})
		default:
			in.headers = append(in.headers, header{h.Name, where, from.Claim, from.Prefix})
		}
	}
}

func (in *input) readUpstreams(file string, n *yaml.Node) {
	for key, value := range pairs(n) {
		where := fmt.Sprintf("%s:%d: upstreamConfig.%s", file, key.Line, key.Value)
		if note, ok := alphaNotes()["upstreamConfig."+key.Value]; ok {
			note.Name = where
			in.items = append(in.items, note)
			continue
		}
		if key.Value != "upstreams" {
			in.fault(where, "the alpha configuration has no such field%s",
				config.Nearest(key.Value, map[string]bool{"upstreams": true, "proxyRawPath": true}))
			continue
		}
		for _, item := range items(value) {
			r := route{where: fmt.Sprintf("%s:%d: upstream", file, item.Line)}
			static, code := false, "200"
			say := func(field *yaml.Node, outcome Outcome, note string) {
				name := fmt.Sprintf("%s:%d: upstream %s", file, field.Line, field.Value)
				in.items = append(in.items, Item{name, outcome, note})
			}
			rewritten := false
			for key, value := range pairs(item) {
				switch on := value.Value == "true"; key.Value {
				case "id":
				case "path":
					r.path = value.Value
				case "uri":
					r.uri = value.Value
				case "timeout":
					r.timeout = value.Value
				case "static":
					static = on
				case "staticCode":
					code = value.Value
				case "rewriteTarget":
					rewritten = value.Value != ""
					say(key, Missing, "the path goes to the app as it came; serve it there under its own path")
				case "insecureSkipTLSVerify":
					if on {
						say(key, Missing, noteOnPurpose+"; name the CA with upstream_ca_file")
					}
				case "flushInterval", "disableKeepAlives":
					say(key, NotNeeded, "streams are not held back, connections are kept")
				case "passHostHeader":
					if !on {
						say(key, Differs, "the app is told the host of url")
					}
				case "proxyWebSockets":
					if !on {
						say(key, Differs, "WebSockets go to the app, and end with their session")
					}
				default:
					in.fault(fmt.Sprintf("%s:%d: upstream %s", file, key.Line, key.Value),
						"the alpha configuration has no such field")
				}
			}
			if static {
				r.uri = "static://" + code
			}
			if !rewritten {
				in.routes = append(in.routes, r)
			}
		}
	}
}
