package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/netip"
	"net/url"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"example.com/curfew"
	"example.com/curfew/fanout"
	"example.com/curfew/keyring"
	"example.com/curfew/oidc"
	"example.com/curfew/store"
)

const envPrefix = "CURFEW_"

// config is the finished configuration: every value has been read and checked.
type config struct {
	Listen         string
	AdminListen    string // empty: no private listener
	AdminHosts     []string
	URL            *url.URL
	Prefix         string
	CookieName     string
	Home           string
	AfterLogout    string // empty: a page of ours
	GRPCListen     string // empty: no ext_authz
	MaxConnections int    // of the public listener; 0: as many as the open files permit, see connections
	TLSCert        string // empty: no TLS of our own
	TLSKey         string
	Store          storeURL
	KeyFile        string
	Idle           time.Duration
	Lifetime       time.Duration
	Grace          time.Duration
	Ceiling        time.Duration // 0: no cache
	CacheSize      int
	PerSubject     int // 0: any number
	SuccessStatus  int
	FailureStatus  int
	TrustedProxies []netip.Prefix
	LogFormat      string
	LogLevel       slog.Level
	Providers      []*provider
	Apps           []fanout.App  // told of logouts
	App            string        // the one behind us; empty: the only one
	KeyRotation    time.Duration // negative: never
	RevokeExpired  bool

	gatewayConfig
}

// faults is everything that is wrong with a configuration, a line for each.
type faults []error

func (f faults) Error() string {
	lines := make([]string, len(f))
	for i, err := range f {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// fault is something wrong with one value.
type fault struct {
	value
	err error
}

func (f fault) Unwrap() error { return f.err }

// Error says where: the file and line, variable or flag, and in a file the setting too.
func (f fault) Error() string {
	at := make([]string, 0, 3)
	for _, s := range []string{f.where, f.path} {
		if s != "" {
			at = append(at, s)
		}
	}
	key := f.path[strings.LastIndexByte(f.path, '.')+1:]
	return printable(strings.Join(append(at, strings.TrimPrefix(f.err.Error(), key+": ")), ": "))
}

func (f *faults) add(v value, err error) { *f = append(*f, fault{v, err}) }

// sort puts the faults of the file in the order of its lines, before all others.
func (f faults) sort() {
	line := func(err error) int {
		if f, ok := errors.AsType[fault](err); ok && f.layer == layerFile {
			return f.line
		}
		return math.MaxInt
	}
	slices.SortStableFunc(f, func(a, b error) int { return line(a) - line(b) })
}

// loadConfig reads what the flags, the environment and the file say, and tells every fault at once. A later one of
// defaults, file, environment and flags overrides an earlier one.
func loadConfig(flags map[string]string, environ []string) (*config, error) {
	l := &loader{globals: map[string]value{}, single: map[string]value{}}
	for k, v := range flags {
		if k == "config" {
			l.file = v
			continue
		}
		l.put(strings.ReplaceAll(k, "-", "_"), value{text: v, where: "--" + k, layer: layerFlag})
	}
	l.readEnviron(environ)
	if l.file != "" {
		l.readFile()
	}
	c := new(config)
	given := l.apply(c.settings(), l.globals, "")
	l.applyProviders(c)
	l.applyApps(c, given)
	l.finish(c, given)
	if len(l.faults) > 0 {
		l.faults.sort()
		return nil, l.faults
	}
	return c, nil
}

// loader gathers values by setting, and faults.
type loader struct {
	file      string
	globals   map[string]value
	single    map[string]value // what flags and environment say about the one provider
	providers []block
	apps      []block
	faults    faults
}

// block is one entry under `providers:` or `apps:`.
type block struct {
	at     value
	values map[string]value
}

// put keeps the value of a setting that is known, unless a later layer has spoken.
func (l *loader) put(key string, v value) bool {
	for _, half := range []struct {
		settings []setting
		values   map[string]value
	}{{new(config).settings(), l.globals}, {new(provider).settings(), l.single}} {
		if slices.ContainsFunc(half.settings, func(s setting) bool { return s.key == key }) {
			if half.values[key].layer < v.layer {
				half.values[key] = v
			}
			return true
		}
	}
	return false
}

// readEnviron takes CURFEW_*; an empty variable says nothing. What Kubernetes sets for a service that is called curfew
// (CURFEW_PORT_4180_TCP and the like) is passed over.
func (l *loader) readEnviron(environ []string) {
	seen := map[string]bool{}
	for _, line := range slices.Sorted(slices.Values(environ)) {
		name, text, _ := strings.Cut(line, "=")
		key, ours := strings.CutPrefix(name, envPrefix)
		if !ours || text == "" || key == "PORT" || strings.HasPrefix(key, "PORT_") || strings.HasPrefix(key, "SERVICE_") {
			continue
		}
		v := value{text: text, where: name, layer: layerEnv}
		if seen[name] {
			l.faults.add(v, errors.New("is set twice"))
		}
		seen[name] = true
		switch {
		case key == "CONFIG":
			if l.file == "" {
				l.file = text
			}
		case key != strings.ToUpper(key) || !l.put(strings.ToLower(key), v):
			l.faults.add(v, errors.New("there is no such setting; see curfew serve --help for the names"))
		}
	}
}

// readFile takes the one document of the file. Keys are looked up by hand rather than decoded into a struct, since that
// tells the line of each fault, semantic ones too, and does not stop at the first.
func (l *loader) readFile() {
	at := value{where: l.file, layer: layerFile}
	f, err := os.Open(l.file)
	if err != nil {
		l.faults = append(l.faults, fmt.Errorf("--config: %w", err))
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		l.faults.add(at, errors.New("is not a file"))
		return
	}
	decoder := yaml.NewDecoder(io.LimitReader(f, 1<<20))
	var doc yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF): // an empty file says nothing
		return
	case err != nil:
		l.faults.add(at, errors.New(strings.TrimPrefix(err.Error(), "yaml: ")))
		return
	}
	if err := decoder.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		l.faults.add(at, errors.New("holds more than one document (---); keep one"))
	}
	known := map[string]bool{"providers": true, "apps": true}
	for _, s := range new(config).settings() {
		known[s.key] = true
	}
	for key, v := range l.readMap(doc.Content[0], "", known) {
		switch {
		case key == "providers":
			l.providers = l.readList(v, "provider", new(provider).settings())
		case key == "apps":
			l.apps = l.readList(v, "app", new(app).settings())
		case l.globals[key].layer < layerFile:
			l.globals[key] = v
		}
	}
	l.readableByOthers(info.Mode())
}

// readList takes a list with an entry for each provider, or each app.
func (l *loader) readList(v value, what string, settings []setting) (all []block) {
	n := resolve(v.node)
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		l.faults.add(v, fmt.Errorf("want a list with one entry for each %s", what))
		return nil
	}
	known := map[string]bool{}
	for _, s := range settings {
		known[s.key] = true
	}
	for i, item := range n.Content {
		path := fmt.Sprintf("%ss[%d]", what, i)
		all = append(all, block{l.at(item, path), l.readMap(item, path+".", known)})
	}
	return all
}

// readMap returns the values of a map by key. Unknown keys and keys that are there twice are faults.
func (l *loader) readMap(n *yaml.Node, path string, known map[string]bool) map[string]value {
	found := map[string]value{}
	if n = resolve(n); n.Kind != yaml.MappingNode {
		l.faults.add(l.at(n, strings.TrimSuffix(path, ".")), errors.New("want settings here, each as `key: value`"))
		return found
	}
	for i := 0; i < len(n.Content); i += 2 {
		key := resolve(n.Content[i]).Value
		v := l.at(n.Content[i], path+key)
		v.node = n.Content[i+1]
		before, twice := found[key]
		switch {
		case !known[key]:
			l.faults.add(v, fmt.Errorf("there is no such setting%s", nearest(key, known)))
		case twice:
			l.faults.add(v, fmt.Errorf("is there already, at %s", before.where))
		default:
			found[key] = v
		}
	}
	return found
}

func (l *loader) at(n *yaml.Node, path string) value {
	return value{node: n, where: fmt.Sprintf("%s:%d", l.file, n.Line), line: n.Line, path: path, layer: layerFile}
}

// readableByOthers refuses secrets in a file that is none.
func (l *loader) readableByOthers(mode os.FileMode) {
	if mode.Perm()&0o077 == 0 || runtime.GOOS == "windows" {
		return
	}
	for _, b := range l.providers {
		if v, ok := b.values["client_secret"]; ok {
			l.faults.add(v, fmt.Errorf("others can read this file (mode %04o): run chmod 600 %s, or use client_secret_file", mode.Perm(), l.file))
		}
	}
}

// apply sets what was given, and the default of everything else. It returns where things were said.
func (l *loader) apply(settings []setting, values map[string]value, path string) map[string]value {
	for _, s := range settings {
		v, given := values[s.key]
		if !given {
			if s.def == "" {
				continue
			}
			v = value{text: s.def, path: path + s.key}
		}
		if err := s.set(v); err != nil {
			l.faults.add(v, err)
		}
	}
	return values
}

// applyProviders makes the providers. Flags and environment describe one; with a list of one in the file they override
// it, with a list of several nobody could say which they mean.
func (l *loader) applyProviders(c *config) {
	switch {
	case len(l.providers) == 0:
		l.providers = []block{{values: l.single}}
	case len(l.providers) == 1:
		for key, v := range l.single {
			l.providers[0].values[key] = v
		}
	default:
		for _, key := range sortedKeys(l.single) {
			l.faults.add(l.single[key], fmt.Errorf("the file lists %d providers, and this does not say which it is for; set it in the file", len(l.providers)))
		}
	}
	names, clients := map[string]string{}, map[[2]string]string{}
	for i, b := range l.providers {
		p, path := new(provider), ""
		if b.at.where != "" {
			path = fmt.Sprintf("providers[%d].", i)
		}
		oneSecret(l, b.values)
		before := len(l.faults)
		given := l.apply(p.settings(), b.values, path)
		for _, key := range []string{"issuer", "client_id", "name"} {
			if _, ok := given[key]; ok || key == "name" && len(l.providers) == 1 {
				continue
			}
			at := b.at
			at.path = path + key
			l.faults.add(at, fmt.Errorf("is missing: %s", l.howToSay(key)))
		}
		c.Providers = append(c.Providers, p)
		if len(l.faults) > before {
			continue
		}
		if err := p.finish(); err != nil {
			at := b.at
			if at.where == "" {
				at.path = "provider"
			}
			l.faults.add(at, err)
		}
		client := [2]string{p.Issuer, p.ClientID}
		if first, taken := names[p.Name]; taken {
			l.faults.add(given["name"], fmt.Errorf("%q is the name of another provider (%s)", p.Name, first))
		}
		if first, taken := clients[client]; taken {
			l.faults.add(given["client_id"], fmt.Errorf("this client of this issuer is there already (%s)", first))
		}
		names[p.Name], clients[client] = b.at.where, b.at.where
	}
}

// oneSecret lets the later layer's secret win, in whatever form it comes.
func oneSecret(l *loader, values map[string]value) {
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

func (l *loader) howToSay(key string) string {
	switch {
	case key == "name":
		return "with several providers each needs a name of its own"
	case len(l.providers) > 1:
		return "every provider needs it"
	}
	return howToSay(key)
}

func howToSay(key string) string {
	s := setting{key: key}
	return fmt.Sprintf("give --%s, %s, or %s in the file", s.flag(), s.env(), key)
}

// finish looks at what takes more than one setting.
func (l *loader) finish(c *config, given map[string]value) {
	at := func(key string) value {
		if v, ok := given[key]; ok {
			return v
		}
		return value{path: key}
	}
	if _, ok := given["url"]; !ok {
		l.faults.add(at("url"), fmt.Errorf("is missing: %s", howToSay("url")))
	}
	if c.Idle > c.Lifetime && c.Lifetime > 0 {
		l.faults.add(at("idle_timeout"), fmt.Errorf("%s is longer than the session_lifetime of %s", c.Idle, c.Lifetime))
	}
	if c.Listen == c.AdminListen && !strings.HasSuffix(c.Listen, ":0") {
		l.faults.add(at("admin_listen"), fmt.Errorf("%s is the public listener's address as well", c.AdminListen))
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		l.faults.add(at("tls_cert_file"), errors.New("a certificate needs its key, and a key its certificate: give tls_cert_file and tls_key_file"))
	}
	if _, ok := given["policy"]; !ok && c.policyDefault == "deny" {
		l.faults.add(at("policy_default"), errors.New("with deny and no policy nobody could use any path: say under policy who may use which"))
	}
	if err := c.gatewayConfig.finish(); err != nil {
		l.faults.add(at("identity_headers"), err)
	}
	reached := slices.ContainsFunc([]string{"upstream", "routes", "trusted_proxies", "grpc_listen"}, func(key string) bool {
		_, ok := given[key]
		return ok
	})
	for _, key := range []string{"assertion", "pass_access_token"} {
		if on := map[string]bool{"assertion": c.Assertion, "pass_access_token": c.token}[key]; on && !reached {
			l.faults.add(at(key), errors.New("nobody would be given it: name the proxy that asks /auth/verify under trusted_proxies, or the app under upstream"))
		}
	}
	if c.Upstream != nil && c.Upstream.Host == c.Listen {
		l.faults.add(at("upstream"), fmt.Errorf("%s is our own public listener", c.Upstream.Host))
	}
	if c.KeyFile == "" && c.Store.kind.keyFile != nil {
		c.KeyFile = c.Store.kind.keyFile(c.Store.rest)
	}
	if c.KeyFile == "" && c.Store.scheme != "" && !c.Store.kind.embedded {
		l.faults.add(at("key_file"), fmt.Errorf("is missing: with %s: all replicas share one; make it once, with %s, give every replica the same, and name it here",
			c.Store.scheme, keyCommand("curfew.key")))
	}
}

// relyingParty is the configuration as package curfew takes it.
func (c *config) relyingParty(backend store.Store, ring *keyring.Keyring, log *slog.Logger, observe curfew.Observer) curfew.Config {
	rp := curfew.Config{
		URL: c.URL.String(), Prefix: c.Prefix, CookieName: c.CookieName, Home: c.Home, AfterLogout: c.AfterLogout, Store: backend, Keyring: ring,
		IdleTimeout: c.Idle, Lifetime: c.Lifetime, RefreshGrace: c.Grace, MaxStale: c.Ceiling, CacheSize: c.CacheSize, MaxPerSubject: c.PerSubject,
		Policy: c.Policy, Identity: c.Identity, GroupsClaim: c.GroupsClaim,
		StreamsAreUse: c.StreamsAreUse, WebSocketOrigins: c.SocketOrigins,
		SuccessStatus: c.SuccessStatus, FailureStatus: c.FailureStatus, TrustedProxies: c.TrustedProxies,
		Log: log, Observe: observe, Providers: c.oidc(),
		Apps: c.Apps, App: c.App, Assertion: c.Assertion, AssertionClaims: c.AssertionClaims, NoForwardAuth: !c.ForwardAuth,
		KeyRotation: c.KeyRotation, RevokeExpired: c.RevokeExpired,
	}
	if rp.MaxPerSubject == 0 {
		rp.MaxPerSubject = -1
	}
	if rp.MaxStale == 0 {
		rp.MaxStale = -1 // what "no cache" is called there
	}
	return rp
}

func (c *config) oidc() []oidc.Config {
	all := make([]oidc.Config, len(c.Providers))
	for i, p := range c.Providers {
		all[i] = p.Config
	}
	return all
}
