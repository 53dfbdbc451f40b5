package oauth2proxy

import (
	"cmp"
	"strings"
)

// Outcome is what became of a setting.
type Outcome string

// The outcomes, in the order in which a report shows them.
const (
	Missing   Outcome = "not there"    // Curfew has nothing like it; the note says what to do
	Differs   Outcome = "differs"      // carried over, but not exactly; the note says how
	NotNeeded Outcome = "not needed"   // the note says why
	Carried   Outcome = "carried over" // as it was
)

type kind int

const (
	text kind = iota
	list
	boolean
	number
	duration
)

// option is one option of oauth2-proxy.
type option struct {
	flag   string
	kind   kind
	key    string // in the file, and in capitals in the environment; default: the flag with underscores
	def    string // a value that changes nothing
	secret bool
	// What becomes of it, whatever its value; empty if the translation decides.
	outcome Outcome
	note    string
}

func (o *option) fileKey() string { return cmp.Or(o.key, strings.ReplaceAll(o.flag, "-", "_")) }

// The notes of several options.
const (
	noteNoProvider = "Curfew needs an OpenID Provider: put Dex or Keycloak before this provider, and let it check this"
	noteDiscovery  = "the provider's metadata is used (OpenID Connect Discovery); a provider without it cannot be used"
	noteLogs       = "the log goes to standard error, which the system rotates; see log_format and log_level"
	noteOnPurpose  = "left out on purpose: it would turn a check off"
	notePages      = "the pages are Curfew's own; give the provider a name with label"
	noteFixed      = "always so"
	noteProbes     = "/healthz and /readyz are on admin_listen: change the probe"
	noteCookie     = "the cookie is always Secure, HttpOnly, SameSite=Lax and __Host-, for this host alone"
	noteExtraJWT   = "list each issuer among providers, with bearer: {audiences: […]}; see docs/machines.md"
	noteFallback   = "a request with a bad token is answered 401, and never sent to sign in"
	noteBasic      = "Curfew sends no password to an app; let the app read a header of identity_headers, or the assertion"
)

// options returns all options of oauth2-proxy 7, as documented on its pages "Overview", "Alpha Configuration" and
// "OAuth Provider Configuration".
func options() []option {
	return []option{
		// The provider.
		{flag: "provider"},
		{flag: "provider-display-name"},
		{flag: "client-id"},
		{flag: "client-secret", secret: true},
		{flag: "client-secret-file"},
		{flag: "oidc-issuer-url"},
		{flag: "redirect-url"},
		{flag: "relative-redirect-url", kind: boolean, def: "false", outcome: NotNeeded,
			note: "the redirect URI is made of url"},
		{flag: "scope"},
		{flag: "prompt"},
		{flag: "approval-prompt", def: "force", outcome: Missing, note: "use prompt, for instance consent"},
		{flag: "acr-values", outcome: Missing, note: "set the level of authentication for this client at the provider"},
		{flag: "auth-request-response-mode", outcome: NotNeeded,
			note: "the answer comes in the query (Core §3.1.2.5)"},
		{flag: "resource", outcome: Missing, note: "set the audience of access tokens at the provider"},
		{flag: "code-challenge-method", outcome: NotNeeded, note: "always S256"},
		{flag: "force-code-challenge-method", outcome: NotNeeded, note: "always S256"},
		{flag: "login-url", outcome: NotNeeded, note: noteDiscovery},
		{flag: "redeem-url", outcome: NotNeeded, note: noteDiscovery},
		{flag: "profile-url", outcome: NotNeeded, note: noteDiscovery},
		{flag: "validate-url", outcome: NotNeeded, note: noteDiscovery},
		{flag: "oidc-jwks-url", outcome: NotNeeded, note: noteDiscovery},
		{flag: "oidc-public-key-file", kind: list, key: "oidc_public_key_files", outcome: NotNeeded,
			note: noteDiscovery},
		{flag: "skip-oidc-discovery", kind: boolean, def: "false", outcome: Missing, note: noteDiscovery},
		{flag: "skip-claims-from-profile-url", kind: boolean, def: "false"},
		{flag: "oidc-email-claim", def: "email"},
		{flag: "user-id-claim"},
		{flag: "oidc-groups-claim", def: "groups"},
		{flag: "oidc-audience-claim", kind: list, key: "oidc_audience_claims", def: "aud", outcome: Missing,
			note: "aud of an ID Token has to name the client (Core §3.1.3.7)"},
		{flag: "oidc-extra-audience", kind: list, key: "oidc_extra_audiences", outcome: Missing,
			note: "aud of an ID Token has to name the client (Core §3.1.3.7)"},
		{flag: "oidc-enabled-signing-alg", kind: list, key: "oidc_enabled_signing_algs"},
		{flag: "insecure-oidc-allow-unverified-email", kind: boolean, def: "false"},
		{flag: "insecure-oidc-skip-issuer-verification", kind: boolean, def: "false", outcome: Missing,
			note: noteOnPurpose + "; name one tenant in the issuer"},
		{flag: "insecure-oidc-skip-nonce", kind: boolean, def: "true", outcome: NotNeeded,
			note: "the nonce is always checked"},
		{flag: "ssl-insecure-skip-verify", kind: boolean, def: "false", outcome: Missing,
			note: noteOnPurpose + "; trust the provider's CA with SSL_CERT_FILE in the environment"},
		{flag: "provider-ca-file", kind: list, key: "provider_ca_files", outcome: Differs,
			note: "start curfew with SSL_CERT_FILE=FILE in the environment, or add the CA to the system's"},
		{flag: "use-system-trust-store", kind: boolean, def: "false", outcome: NotNeeded,
			note: "the system's CAs are used, and SSL_CERT_DIR adds to them"},
		{flag: "backend-logout-url", outcome: NotNeeded,
			note: "a sign-out goes to the provider's end_session_endpoint, and refresh tokens are revoked"},
		{flag: "jwt-key", secret: true, outcome: Missing, note: "clients have a secret; private_key_jwt is not there"},
		{flag: "jwt-key-file", outcome: Missing, note: "clients have a secret; private_key_jwt is not there"},
		{flag: "pubjwk-url", outcome: Missing, note: "clients have a secret; private_key_jwt is not there"},

		// Which people of the provider may use the site.
		{flag: "allowed-group", kind: list, key: "allowed_groups"},
		{flag: "allowed-role", kind: list, key: "allowed_roles"},
		{flag: "email-domain", kind: list, key: "email_domains"},
		{flag: "authenticated-emails-file"},
		{flag: "gitlab-group", kind: list, key: "gitlab_groups"},
		{flag: "keycloak-group", kind: list, key: "keycloak_groups"},
		{flag: "entra-id-allowed-tenant", kind: list, key: "entra_id_allowed_tenants"},
		{flag: "gitlab-project", kind: list, key: "gitlab_projects"},
		{flag: "google-group", kind: list, key: "google_groups"},
		{flag: "bitbucket-repository"},
		{flag: "bitbucket-team"},
		{flag: "bitbucket-workspace"},
		{flag: "github-org"},
		{flag: "github-repo"},
		{flag: "github-team"},
		{flag: "github-user", kind: list, key: "github_users"},
		{flag: "github-token", secret: true, outcome: NotNeeded, note: noteNoProvider},
		{flag: "azure-tenant", def: "common"},
		{flag: "azure-graph-group-field", outcome: Missing,
			note: "groups are what the token says: choose the groups claim in the app registration"},
		{flag: "entra-id-federated-token-auth", kind: boolean, def: "false", outcome: Missing,
			note: "give the client a secret, in client_secret_file"},
		{flag: "google-admin-email", outcome: NotNeeded, note: "Google's directory is not asked"},
		{flag: "google-admin-api-user-scope", outcome: NotNeeded, note: "Google's directory is not asked"},
		{flag: "google-service-account-json", outcome: NotNeeded, note: "Google's directory is not asked"},
		{flag: "google-target-principal", outcome: NotNeeded, note: "Google's directory is not asked"},
		{flag: "google-use-application-default-credentials", outcome: NotNeeded,
			note: "Google's directory is not asked"},
		{flag: "google-use-organization-id", outcome: Missing, note: "the user is the subject (sub)"},
		{flag: "htpasswd-file", outcome: Missing, note: "give these people accounts at the provider"},
		{flag: "htpasswd-user-group", kind: list, key: "htpasswd_user_groups", outcome: Missing,
			note: "give these people accounts at the provider"},
		{flag: "display-htpasswd-form", kind: boolean, def: "true", outcome: NotNeeded,
			note: "there is no password form"},

		// Who needs no sign-in.
		{flag: "skip-auth-route", kind: list, key: "skip_auth_routes"},
		{flag: "skip-auth-regex", kind: list},
		{flag: "skip-auth-preflight", kind: boolean, def: "false"},
		{flag: "trusted-ip", kind: list, key: "trusted_ips", outcome: Missing,
			note: "addresses admit nobody; make the paths public that these machines need"},
		{flag: "skip-jwt-bearer-tokens", kind: boolean, def: "false"},
		{flag: "extra-jwt-issuers", kind: list, outcome: Missing, note: noteExtraJWT},
		{flag: "bearer-token-login-fallback", kind: boolean, def: "true", outcome: Differs, note: noteFallback},
		{flag: "api-route", kind: list, key: "api_routes", outcome: Differs,
			note: "a request that does not accept HTML is answered 401 on every path; only a page is redirected"},
		{flag: "force-json-errors", kind: boolean, def: "false", outcome: Differs,
			note: "a request that does not accept HTML is answered with JSON; only a page is redirected"},
		{flag: "whitelist-domain", kind: list, key: "whitelist_domains"},

		// Sessions and their cookie.
		{flag: "cookie-name", def: "_oauth2_proxy"},
		{flag: "cookie-secret", secret: true, outcome: NotNeeded, note: "see key_file"},
		{flag: "cookie-secret-file", outcome: NotNeeded, note: "see key_file"},
		{flag: "cookie-domain", kind: list, key: "cookie_domains"},
		{flag: "cookie-path", def: "/", outcome: Differs, note: noteCookie},
		{flag: "cookie-expire", kind: duration},
		{flag: "cookie-refresh", kind: duration, def: "0s", outcome: NotNeeded,
			note: "a session is refreshed when its access token expires"},
		{flag: "cookie-secure", kind: boolean, def: "true"},
		{flag: "cookie-httponly", kind: boolean, def: "true"},
		{flag: "cookie-samesite"},
		{flag: "cookie-csrf-per-request", kind: boolean, def: "false", outcome: NotNeeded,
			note: "each sign-in has a cookie of its own"},
		{flag: "cookie-csrf-per-request-limit", kind: number, outcome: NotNeeded, note: "the number is bounded"},
		{flag: "cookie-csrf-expire", kind: duration, def: "15m0s", outcome: Differs, note: "15 minutes"},
		{flag: "cookie-csrf-samesite", outcome: NotNeeded, note: "always Lax"},
		{flag: "encode-state", kind: boolean, def: "false", outcome: NotNeeded, note: noteFixed},
		{flag: "session-store-type", def: "cookie"},
		{flag: "session-cookie-minimal", kind: boolean, def: "false", outcome: NotNeeded,
			note: "the cookie holds no token"},
		{flag: "redis-connection-url", secret: true},
		{flag: "redis-username"},
		{flag: "redis-password", secret: true},
		{flag: "redis-use-cluster", kind: boolean, def: "false"},
		{flag: "redis-cluster-connection-urls", kind: list, secret: true},
		{flag: "redis-use-sentinel", kind: boolean, def: "false"},
		{flag: "redis-sentinel-connection-urls", kind: list, secret: true},
		{flag: "redis-sentinel-master-name"},
		{flag: "redis-sentinel-password", secret: true},
		{flag: "redis-ca-path"},
		{flag: "redis-insecure-skip-tls-verify", kind: boolean, def: "false", outcome: Missing,
			note: noteOnPurpose + "; name the CA with ?cacert=FILE in store"},
		{flag: "redis-connection-idle-timeout", kind: number, def: "0", outcome: NotNeeded,
			note: "a connection that the server closed is opened again"},

		// What the app is told.
		{flag: "pass-user-headers", kind: boolean, def: "true"},
		{flag: "pass-basic-auth", kind: boolean, def: "true"},
		{flag: "set-xauthrequest", kind: boolean, def: "false"},
		{flag: "prefer-email-to-user", kind: boolean, def: "false"},
		{flag: "pass-access-token", kind: boolean, def: "false"},
		{flag: "pass-authorization-header", kind: boolean, def: "false", outcome: Missing,
			note: "the ID Token is for Curfew alone; see assertion, or pass_access_token for the access token"},
		{flag: "set-authorization-header", kind: boolean, def: "false", outcome: Missing,
			note: "the ID Token is for Curfew alone; see assertion, or pass_access_token for the access token"},
		{flag: "set-basic-auth", kind: boolean, def: "false", outcome: Missing, note: noteBasic},
		{flag: "basic-auth-password", secret: true, outcome: Missing, note: noteBasic},
		{flag: "skip-auth-strip-headers", kind: boolean, def: "true", outcome: NotNeeded,
			note: "headers of these names from clients are always removed"},
		{flag: "signature-key", secret: true, outcome: Missing, note: "use assertion: a signed token for the app"},

		// The apps.
		{flag: "upstream", kind: list, key: "upstreams"},
		{flag: "upstream-timeout", kind: duration},
		{flag: "pass-host-header", kind: boolean, def: "true"},
		{flag: "ssl-upstream-insecure-skip-verify", kind: boolean, def: "false", outcome: Missing,
			note: noteOnPurpose + "; name the CA with upstream_ca_file"},
		{flag: "flush-interval", kind: duration, def: "1s", outcome: NotNeeded, note: "streams are not held back"},
		{flag: "proxy-websockets", kind: boolean, def: "true"},
		{flag: "disable-keep-alives", kind: boolean, def: "false", outcome: NotNeeded,
			note: "a request that is not safe to repeat has a connection of its own"},
		{flag: "allow-query-semicolons", kind: boolean, def: "false", outcome: NotNeeded,
			note: "the query goes to the app as it came"},

		// The listeners.
		{flag: "http-address", def: "127.0.0.1:4180"},
		{flag: "https-address", def: ":443"},
		{flag: "tls-cert-file"},
		{flag: "tls-key-file"},
		{flag: "tls-min-version", def: "TLS1.2"},
		{flag: "tls-cipher-suite", kind: list, key: "tls_cipher_suites", outcome: Differs,
			note: "TLS 1.2 and later with the suites that Go regards as secure"},
		{flag: "force-https", kind: boolean, def: "false", outcome: Missing,
			note: "redirect http to https in the proxy in front; cookies are sent over https only in any case"},
		{flag: "reverse-proxy", kind: boolean, def: "false"},
		{flag: "trusted-proxy-ip", kind: list, key: "trusted_proxy_ips"},
		{flag: "real-client-ip-header", def: "X-Real-IP", outcome: NotNeeded,
			note: "an address admits nobody, so it is only logged, from X-Forwarded-For"},
		{flag: "proxy-prefix", def: "/oauth2"},
		{flag: "skip-provider-button", kind: boolean, def: "false"},
		{flag: "metrics-address", outcome: Differs,
			note: "/metrics is on admin_listen (127.0.0.1:4181), beside what operators use: keep it private"},
		{flag: "metrics-secure-address", outcome: Differs, note: "/metrics is on admin_listen, without TLS"},
		{flag: "metrics-tls-cert-file", outcome: Missing, note: "keep admin_listen on loopback or a private network"},
		{flag: "metrics-tls-key-file", outcome: Missing, note: "keep admin_listen on loopback or a private network"},
		{flag: "ping-path", def: "/ping", outcome: Differs, note: noteProbes},
		{flag: "ping-user-agent", outcome: Missing, note: "no user agent opens anything; " + noteProbes},
		{flag: "ready-path", def: "/ready", outcome: Differs, note: noteProbes},
		{flag: "gcp-healthchecks", kind: boolean, def: "false", outcome: Differs, note: noteProbes},

		// Logs and pages.
		{flag: "request-id-header", def: "X-Request-Id"},
		{flag: "auth-logging", kind: boolean, def: "true", outcome: NotNeeded, note: noteLogs},
		{flag: "auth-logging-format", outcome: NotNeeded, note: noteLogs},
		{flag: "request-logging", kind: boolean, def: "true", outcome: NotNeeded, note: noteLogs},
		{flag: "request-logging-format", outcome: NotNeeded, note: noteLogs},
		{flag: "standard-logging", kind: boolean, def: "true", outcome: NotNeeded, note: noteLogs},
		{flag: "standard-logging-format", outcome: NotNeeded, note: noteLogs},
		{flag: "errors-to-info-log", kind: boolean, def: "false", outcome: NotNeeded, note: noteLogs},
		{flag: "exclude-logging-path", kind: list, key: "exclude_logging_paths", outcome: NotNeeded, note: noteLogs},
		{flag: "logging-filename", outcome: Differs, note: noteLogs},
		{flag: "logging-compress", kind: boolean, def: "false", outcome: NotNeeded, note: noteLogs},
		{flag: "logging-local-time", kind: boolean, def: "true", outcome: NotNeeded, note: noteLogs},
		{flag: "logging-max-age", kind: number, outcome: NotNeeded, note: noteLogs},
		{flag: "logging-max-backups", kind: number, outcome: NotNeeded, note: noteLogs},
		{flag: "logging-max-size", kind: number, outcome: NotNeeded, note: noteLogs},
		{flag: "silence-ping-logging", kind: boolean, def: "false", outcome: NotNeeded, note: "probes are not logged"},
		{flag: "show-debug-on-error", kind: boolean, def: "false", outcome: NotNeeded,
			note: "details are in the log, with the number that the page shows"},
		{flag: "banner", outcome: Missing, note: notePages},
		{flag: "footer", outcome: Missing, note: notePages},
		{flag: "custom-sign-in-logo", outcome: Missing, note: notePages},
		{flag: "custom-templates-dir", outcome: Missing, note: notePages},
	}
}
