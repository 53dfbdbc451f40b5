package config

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.yaml.in/yaml/v3"

	"example.com/curfew/oidc"
)

// Provider is one provider of the configuration.
type Provider struct {
	oidc.Config

	encryptionAlg, encryptionEnc string
	userinfoAlg, userinfoEnc     string // of its encryption
	responseAlg, responseEnc     string // of authorization responses
	decryptionKeys               []oidc.PrivateKey
	certFile, certKeyFile        string
}

// settings returns the settings of one provider.
func (p *Provider) settings() []setting {
	return []setting{
		{"name", "main", "", "", p.set(func(c *oidc.Config) *string { return &c.Name })},
		{"label", "", "", "", text(&p.Label)},
		// before the addresses, which are checked with it
		{"allow_http_to_private_address", "false", "", "", boolean(&p.AllowHTTPToPrivate)},
		{"issuer", "", "URL", "the provider's issuer",
			p.setAddress(func(c *oidc.Config) *string { return &c.Issuer })},
		{"internal_url", "", "", "", p.setAddress(func(c *oidc.Config) *string { return &c.InternalURL })},
		{"ca_file", "", "", "", readCA(&p.CA)},
		{"proxy", "", "", "", p.setProxy},
		{"client_id", "", "ID", "the client ID at the provider",
			p.set(func(c *oidc.Config) *string { return &c.ClientID })},
		{"client_secret", "", "", "", text(&p.ClientSecret)},
		{"client_secret_file", "", "FILE", "holds the client secret (or CURFEW_CLIENT_SECRET in the environment)",
			p.readSecret},
		{"token_endpoint_auth_method", "", "METHOD",
			"client_secret_basic, client_secret_post, client_secret_jwt, private_key_jwt, tls_client_auth, " +
				"self_signed_tls_client_auth or none",
			oneOf(&p.AuthMethod, oidc.AuthBasic, oidc.AuthPost, oidc.AuthSecretJWT, oidc.AuthPrivateJWT,
				oidc.AuthTLS, oidc.AuthSelfSignedTLS, oidc.AuthNone)},
		{"private_key_file", "", "FILE", "holds the private keys of the client, in PEM form or as JWKs",
			privateKeys(&p.Keys)},
		{"token_endpoint_auth_signing_alg", "", "", "", text(&p.AuthSigningAlg)},
		{"client_assertion_audience", "issuer", "", "",
			oneOf(&p.AssertionAudience, oidc.AudienceIssuer, oidc.AudienceTokenEndpoint)},
		{"client_certificate_file", "", "", "", text(&p.certFile)},
		{"client_certificate_key_file", "", "", "", text(&p.certKeyFile)},
		{"pushed_authorization_requests", "false", "", "", boolean(&p.PushRequests)},
		{"request_object_signing_alg", "", "", "", text(&p.RequestObjectSigningAlg)},
		{"response_mode", "query", "", "", p.set(func(c *oidc.Config) *string { return &c.ResponseMode })},
		{"authorization_signed_response_alg", "", "", "", text(&p.ResponseSigningAlg)},
		{"authorization_encrypted_response_alg", "", "", "", encryptionAlg(&p.responseAlg)},
		{"authorization_encrypted_response_enc", "", "", "", encryptionEnc(&p.responseEnc)},
		{"dpop", "false", "", "", boolean(&p.DPoP)},
		{"id_token_signed_response_alg", "RS256", "ALG", "the algorithm registered for ID Tokens",
			p.set(func(c *oidc.Config) *string { return &c.SigningAlg })},
		{"scopes", "openid,profile,email", "LIST", "the scopes to request, separated by commas",
			p.setWords(func(c *oidc.Config) *[]string { return &c.Scopes })},
		{"prompt", "", "", "", p.set(func(c *oidc.Config) *string { return &c.Prompt })},
		{"authorization_params", "", "", "", p.setAuthParams},
		{"link_params", "", "", "", p.setWords(func(c *oidc.Config) *[]string { return &c.LinkParams })},
		{"userinfo", "always", "", "", p.setUserinfo},
		{"userinfo_signed_response_alg", "", "", "",
			p.set(func(c *oidc.Config) *string { return &c.UserinfoSigningAlg })},
		{"userinfo_encrypted_response_alg", "", "", "", encryptionAlg(&p.userinfoAlg)},
		{"userinfo_encrypted_response_enc", "", "", "", encryptionEnc(&p.userinfoEnc)},
		{"access_token_lifetime", "5m", "", "", duration(&p.AccessTokenLifetime, time.Second)},
		{"revalidate", "", "", "", duration(&p.Revalidate, time.Second)},
		{"revalidate_by", "refresh,introspection,userinfo", "", "",
			p.setWords(func(c *oidc.Config) *[]string { return &c.RevalidateBy })},
		{"revalidate_rate", "0", "", "", p.setRevalidateRate},
		{"id_token_encrypted_response_alg", "", "", "", encryptionAlg(&p.encryptionAlg)},
		{"id_token_encrypted_response_enc", "", "", "", encryptionEnc(&p.encryptionEnc)},
		{"decryption_key_file", "", "", "", privateKeys(&p.decryptionKeys)},
		{"require", "", "", "", p.setRequire},
		{"require_verified_email", "false", "", "", boolean(&p.RequireVerifiedEmail)},
		{"offline_access", "keep", "", "", p.setOfflineAccess},
		{"allow_missing_exp", "false", "", "", boolean(&p.Quirks.AllowMissingExp)},
		{"allow_unencrypted_logout_tokens", "false", "", "", boolean(&p.Quirks.PlainLogoutTokens)},
		{"logout_token_signed_response_alg", "", "", "",
			p.set(func(c *oidc.Config) *string { return &c.Quirks.LogoutSigningAlg })},
		{"require_typ", "false", "", "", boolean(&p.Quirks.RequireTyp)},
		{"logout_scope", "session", "", "", oneOf(&p.Quirks.LogoutScope, "session", "subject")},
		{"bearer", "", "", "", p.setBearer},
		{"sid_from_token_response", "false", "", "", boolean(&p.Quirks.SIDFromTokenResponse)},
	}
}

// set returns a setter for a text that package oidc checks. Each value is checked by itself, so that a fault can be
// shown with its line. One with a fault is not set, so that the fault is not found again in the whole.
func (p *Provider) set(field func(*oidc.Config) *string) func(value) error {
	return parsed(func(s string) error { return p.try(func(c *oidc.Config) { *field(c) = s }) })
}

// setWords is set for a list of words.
func (p *Provider) setWords(field func(*oidc.Config) *[]string) func(value) error {
	return words(field(&p.Config), func(all []string) error {
		return checkAlone(func(c *oidc.Config) { *field(c) = all })
	})
}

// setAddress is set for an address of the provider.
func (p *Provider) setAddress(field func(*oidc.Config) *string) func(value) error {
	return parsed(func(s string) error {
		plain := p.AllowHTTPToPrivate
		return masked(p.try(func(c *oidc.Config) { *field(c), c.AllowHTTPToPrivate = s, plain }), s)
	})
}

// try applies a value, if package oidc finds no fault in it.
func (p *Provider) try(apply func(*oidc.Config)) error {
	if err := checkAlone(apply); err != nil {
		return err
	}
	apply(&p.Config)
	return nil
}

// checkAlone returns the error of package oidc for one value, in an otherwise valid configuration.
func checkAlone(apply func(*oidc.Config)) error {
	c := oidc.Config{Name: "main", Issuer: "https://provider.invalid", ClientID: "client"}
	apply(&c)
	if _, err := oidc.New(c); err != nil {
		// The place of the fault already names the provider.
		return errors.New(strings.ReplaceAll(OneLine(err).Error(), fmt.Sprintf("provider %q: ", c.Name), ""))
	}
	return nil
}

func encryptionAlg(to *string) func(value) error {
	return oneOf(to, "RSA-OAEP", "RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A128KW", "ECDH-ES+A256KW")
}

func encryptionEnc(to *string) func(value) error {
	return oneOf(to, "A128CBC-HS256", "A256CBC-HS512", "A128GCM", "A256GCM")
}

// setProxy sets the proxy by which the provider is reached. Its URL may hold a password, which no error repeats.
func (p *Provider) setProxy(v value) error {
	return parsed(func(s string) error {
		u, err := url.Parse(s)
		if err != nil {
			return errors.New("is not a URL; write it like http://proxy.example.com:3128")
		}
		return p.try(func(c *oidc.Config) { c.Proxy = u })
	})(v)
}

// setAuthParams reads a map from parameters to values, also as text (`{ui_locales: de}`).
func (p *Provider) setAuthParams(v value) error {
	all := make(map[string]string)
	err := each(v, "parameters and their values, like {acr_values: gold, ui_locales: de}",
		func(name string, v value) error {
			return parsed(func(s string) error { all[name] = s; return nil })(v)
		})
	return OneLine(errors.Join(err, p.try(func(c *oidc.Config) { c.AuthParams = all })))
}

func (p *Provider) setRevalidateRate(v value) error {
	var rate int
	if err := whole(&rate, 0, 1_000_000)(v); err != nil {
		return err
	}
	return p.try(func(c *oidc.Config) { c.RevalidateRate = rate })
}

// setBearer reads the settings of access tokens.
func (p *Provider) setBearer(v value) error {
	b := new(oidc.Bearer)
	const example = "{audiences: [https://api.example.com]}"
	n := v.tree()
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		return fmt.Errorf("want settings, like %s", example)
	}
	faults := settingsOf(n, example, []setting{
		{key: "issuer", set: text(&b.Issuer)},
		{key: "audiences", set: texts(&b.Audiences)},
		{key: "algorithms", set: words(&b.SigningAlgs, nil)},
		{key: "form", set: oneOf(&b.Form, oidc.FormRFC9068, oidc.FormKeycloak, oidc.FormEntra)},
		{key: "introspection", set: boolean(&b.Introspection)},
	})
	if len(faults) > 0 && b.Audiences == nil {
		b.Audiences = []string{"unknown"} // whose fault may be among those
	}
	if err := checkAlone(func(c *oidc.Config) { c.Bearer, c.ClientSecret = b, "secret" }); err != nil {
		faults = append(faults, err)
	}
	if len(faults) == 0 {
		p.Bearer = b
	}
	return OneLine(errors.Join(faults...))
}

func (p *Provider) setUserinfo(v value) error {
	var when string
	if err := oneOf(&when, "always", "never")(v); err != nil {
		return err
	}
	p.SkipUserinfo = when == "never"
	return nil
}

// setOfflineAccess sets what happens to refresh tokens for offline use when their session ends.
func (p *Provider) setOfflineAccess(v value) error {
	var policy string
	if err := oneOf(&policy, "keep", "revoke")(v); err != nil {
		return err
	}
	p.RevokeOffline = policy == "revoke"
	return nil
}

func (p *Provider) readSecret(v value) error {
	return parsed(func(name string) error {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		p.ClientSecret = strings.TrimRight(string(b), "\r\n")
		if p.ClientSecret == "" {
			return fmt.Errorf("%s is empty; write the client secret into it", name)
		}
		return nil
	})(v)
}

// privateKeys reads the keys of one file, or of several in their order.
func privateKeys(to *[]oidc.PrivateKey) func(value) error {
	return func(v value) error {
		names := []string{v.text}
		if v.node != nil {
			var err error
			if names, err = v.texts(); err != nil {
				return err
			}
		}
		var all []oidc.PrivateKey
		var faults []error
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			keys, err := oidc.ParsePrivateKeys(b)
			if err != nil {
				faults = append(faults, fmt.Errorf("%s: %w", name, err))
			}
			all = append(all, keys...)
		}
		*to = all
		return OneLine(errors.Join(faults...))
	}
}

// setRequire reads a map from claims to a value or a list of values, also as text (`{groups: [staff]}`).
func (p *Provider) setRequire(v value) (err error) {
	p.Require, err = requirements(v, "sign in")
	return err
}

// requirements reads a map from claims to a value or a list of values. to is what nobody could do without a value.
func requirements(v value, to string) (map[string][]any, error) {
	require := make(map[string][]any)
	err := each(v, "claims and their values, like {groups: [staff]}", func(claim string, v value) (err error) {
		require[claim], err = accepted(v, to)
		return err
	})
	if err != nil {
		return nil, err
	}
	return require, nil
}

// accepted reads the values of a claim, which keep their types.
func accepted(v value, to string) (all []any, err error) {
	nodes := []*yaml.Node{resolve(v.node)}
	if list := nodes[0]; list.Kind == yaml.SequenceNode {
		if nodes = list.Content; len(nodes) == 0 {
			return nil, fmt.Errorf("the list is empty, so nobody could %s", to)
		}
	} else if strings.Contains(list.Value, ",") {
		return nil, errComma
	}
	for _, n := range nodes {
		n = resolve(n)
		var one any
		if err := n.Decode(&one); err != nil || n.Kind != yaml.ScalarNode || one == nil {
			return nil, errors.New("want a text, a number, true or false, or a list of these")
		}
		if _, inexact := one.(float64); inexact && json.Valid([]byte(n.Value)) {
			one = json.Number(n.Value) // with all its digits
		}
		all = append(all, one)
	}
	return all, nil
}

// finish sets what depends on several settings, and checks all of it with package oidc. Those in failed have a fault,
// and so no value: nothing follows from that.
func (p *Provider) finish(failed map[string]bool) error {
	encryption := func(what, alg, enc string, needed bool) (*oidc.Encryption, error) {
		switch key := what + "_encrypted_response_alg"; {
		case alg == "" && enc == "" && !needed, failed[key], failed["decryption_key_file"]:
			return nil, nil
		case alg == "" || len(p.decryptionKeys) == 0:
			return nil, fmt.Errorf("encrypted %s need %s and decryption_key_file, both",
				map[string]string{"id_token": "ID Tokens", "userinfo": "answers of userinfo",
					"authorization": "authorization responses"}[what], key)
		}
		return &oidc.Encryption{Alg: alg, Enc: enc, Keys: p.decryptionKeys}, nil
	}
	others := p.userinfoAlg != "" || p.responseAlg != "" || failed["userinfo_encrypted_response_alg"] ||
		failed["authorization_encrypted_response_alg"]
	var err1, err2, err3 error
	p.Encryption, err1 = encryption("id_token", p.encryptionAlg, p.encryptionEnc, len(p.decryptionKeys) > 0 && !others)
	p.UserinfoEncryption, err2 = encryption("userinfo", p.userinfoAlg, p.userinfoEnc, false)
	p.ResponseEncryption, err3 = encryption("authorization", p.responseAlg, p.responseEnc, false)
	err4 := p.readCertificate(failed)
	_, err5 := oidc.New(p.assuming(failed, err4 != nil))
	return OneLine(errors.Join(err1, err2, err3, err4, err5))
}

// assuming returns the configuration with a value that goes with all others in place of each that has a fault.
func (p *Provider) assuming(failed map[string]bool, noCertificate bool) oidc.Config {
	c := p.Config
	c.Issuer, c.ClientID = cmp.Or(c.Issuer, "https://provider.invalid"), cmp.Or(c.ClientID, "client")
	if failed["response_mode"] {
		c.ResponseMode = "jwt"
	}
	if noCertificate || failed["client_certificate_file"] || failed["client_certificate_key_file"] {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return nil, errors.ErrUnsupported
		}
	}
	for _, key := range []string{"client_secret", "client_secret_file", "token_endpoint_auth_method", "private_key_file",
		"token_endpoint_auth_signing_alg", "client_assertion_audience", "request_object_signing_alg"} {
		if failed[key] { // these are good or bad only together
			c.AuthMethod, c.ClientSecret, c.Keys = oidc.AuthPost, "secret", nil
			c.AuthSigningAlg, c.AssertionAudience, c.RequestObjectSigningAlg = "", "", ""
		}
	}
	return c
}

// readCertificate reads the client's certificate. It is read again for each connection, so that it can be replaced; one
// that cannot be read then leaves the last one in use.
func (p *Provider) readCertificate(failed map[string]bool) error {
	switch {
	case p.certFile == "" && p.certKeyFile == "", failed["client_certificate_file"], failed["client_certificate_key_file"]:
		return nil
	case p.certFile == "" || p.certKeyFile == "":
		return errors.New("a certificate needs its key, and a key its certificate: give client_certificate_file and " +
			"client_certificate_key_file")
	}
	first, err := tls.LoadX509KeyPair(p.certFile, p.certKeyFile)
	if err != nil {
		return fmt.Errorf("client_certificate_file %s with the key %s: %w", p.certFile, p.certKeyFile, err)
	}
	var last atomic.Pointer[tls.Certificate]
	last.Store(&first)
	certFile, keyFile := p.certFile, p.certKeyFile
	p.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if newer, err := tls.LoadX509KeyPair(certFile, keyFile); err == nil {
			last.Store(&newer)
		}
		return last.Load(), nil
	}
	return nil
}

// Quirks returns the departures from the standards in force, as they are written in the file.
func Quirks(q oidc.Quirks) []string {
	var all []string
	add := func(on bool, text string) {
		if on {
			all = append(all, text)
		}
	}
	add(q.AllowMissingExp, "allow_missing_exp: true")
	add(q.PlainLogoutTokens, "allow_unencrypted_logout_tokens: true")
	add(q.LogoutSigningAlg != "", "logout_token_signed_response_alg: "+q.LogoutSigningAlg)
	add(q.RequireTyp, "require_typ: true")
	add(q.LogoutScope == "subject", "logout_scope: subject")
	add(q.SIDFromTokenResponse, "sid_from_token_response: true")
	return all
}

// applyProviders creates the providers. Flags and environment describe one provider. They override a list of one in the
// file; with a list of several they are faults, since it is unclear which one they are for.
func (l *loader) applyProviders(c *Config) {
	switch {
	case l.unread["providers"]:
		return
	case len(l.providers) == 0:
		l.providers = []block{{values: l.single}}
	case len(l.providers) == 1:
		for key, v := range l.single {
			l.providers[0].values[key] = v
		}
	default:
		for _, key := range slices.Sorted(maps.Keys(l.single)) {
			l.faults.add(l.single[key], fmt.Errorf(
				"the file lists %d providers, and this does not say which it is for; "+
					"set it in the file", len(l.providers)))
		}
	}
	names, clients := map[string]string{}, map[[2]string]string{}
	for i, b := range l.providers {
		p, path := new(Provider), ""
		if b.at.where != "" {
			path = fmt.Sprintf("providers[%d].", i)
		}
		l.oneSecret(b.values)
		given := b.values
		failed := l.apply(p.settings(), given, path)
		if l.unread[""] {
			continue
		}
		for _, key := range []string{"issuer", "client_id", "name"} {
			if _, ok := given[key]; ok || key == "name" && len(l.providers) == 1 {
				continue
			}
			at := b.at
			at.path = path + key
			l.faults.add(at, fmt.Errorf("is missing: %s", l.howToSet(key)))
		}
		c.Providers = append(c.Providers, p)
		if err := p.finish(failed); err != nil {
			at := b.at
			if at.where == "" {
				at.path = "provider"
			}
			l.faults.add(at, err)
		}
		if name, ok := given["name"]; ok && !failed["name"] {
			if first, taken := names[p.Name]; taken {
				l.faults.add(name, fmt.Errorf("%q is the name of another provider (%s)", p.Name, first))
			}
			names[p.Name] = b.at.where
		}
		if client := [2]string{p.Issuer, p.ClientID}; p.Issuer != "" && p.ClientID != "" {
			if first, taken := clients[client]; taken {
				l.faults.add(given["client_id"], fmt.Errorf("this client of this issuer is there already (%s)", first))
			}
			clients[client] = b.at.where
		}
	}
}

// oneSecret keeps the client secret of the later layer, whether given as text or as a file.
func (l *loader) oneSecret(values map[string]value) {
	secret, a := values["client_secret"]
	file, b := values["client_secret_file"]
	switch {
	case !a || !b:
	case secret.layer > file.layer:
		delete(values, "client_secret_file")
	case secret.layer < file.layer:
		delete(values, "client_secret")
	default:
		l.faults.add(file, errors.New("there is a client_secret as well; keep one of the two"))
	}
}

func (l *loader) howToSet(key string) string {
	switch {
	case key == "name":
		return "with several providers each needs a name of its own"
	case len(l.providers) > 1:
		return "every provider needs it"
	}
	return howToSet(key) + " under providers in the file"
}
