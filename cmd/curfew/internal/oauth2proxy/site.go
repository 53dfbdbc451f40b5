package oauth2proxy

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/gateway"
	"example.com/curfew/session"
	"example.com/curfew/web"
)

// site sets the listeners and addresses.
func (t *translator) site() {
	t.listeners()
	t.url()
	prefix := t.value("proxy-prefix")
	if err := web.CheckPrefix(prefix); err != nil {
		t.missing("proxy-prefix", "cannot be the prefix: "+err.Error())
	}
	t.top.set("prefix", prefix, "The paths of oauth2-proxy, such as "+prefix+"/start, are answered too, and the redirect",
		"URI stays as it is. Remove both lines when no link and no proxy names these paths any more.")
	t.top.set("oauth2_proxy_paths", true)
	t.carry("prefix and oauth2_proxy_paths", "proxy-prefix")

	t.hosts()
	trusted := t.get("trusted-proxy-ip")
	switch {
	case !t.on("reverse-proxy"):
		if trusted != nil {
			t.say(trusted, NotNeeded, "oauth2-proxy ignores it without --reverse-proxy")
		}
		if s := t.get("reverse-proxy"); s != nil {
			t.say(s, NotNeeded, "the default")
		}
		return
	case trusted != nil:
		t.top.set("trusted_proxies", networks(trusted.values))
		t.say(trusted, Carried, "trusted_proxies")
		t.carry("trusted_proxies", "reverse-proxy")
	default:
		t.top.set("trusted_proxies", []string{"127.0.0.1", "::1"},
			"The addresses of the proxy in front. oauth2-proxy believed everybody: replace these.")
		t.say(t.get("reverse-proxy"), Differs, "oauth2-proxy believes X-Forwarded-* of everybody; name the addresses of "+
			"your proxy under trusted_proxies, where loopback is now")
	}
}

// hosts sets the further hosts: those that the cookie of oauth2-proxy reaches and that a sign-in may lead to. The
// others on its list may be of somebody else, such as the provider.
func (t *translator) hosts() {
	white, cookies := t.get("whitelist-domain"), t.get("cookie-domain")
	var hosts []string
	if white != nil && cookies != nil && t.main != nil {
		for _, domain := range white.values {
			name := strings.TrimPrefix(strings.TrimPrefix(strings.ToLower(domain), "*"), ".")
			below := name != strings.ToLower(domain)
			if !slices.ContainsFunc(cookies.values, func(c string) bool {
				c = strings.TrimPrefix(strings.ToLower(c), ".")
				return name == c || strings.HasSuffix(name, "."+c)
			}) {
				continue
			}
			if below {
				name = "*." + name
			}
			if _, err := web.ParseHosts(t.main, []string{name}); err == nil && !slices.Contains(hosts, name) {
				hosts = append(hosts, name)
			}
		}
	}
	const note = "each host has a cookie of its own, and passes the prefix to Curfew; see docs/hosts.md"
	if len(hosts) > 0 {
		t.top.set("hosts", hosts, "One label each: list a.b.example.com by itself. Each host passes the prefix to Curfew.")
		t.say(white, Differs, "hosts; a wildcard stands for one label. A sign-out leads to pages of these hosts alone")
	} else if white != nil {
		t.say(white, Missing, "a sign-in leads to pages of url and of hosts alone: list the hosts of your apps; %s", note)
	}
	if cookies != nil {
		outcome := Differs
		if len(hosts) == 0 {
			outcome = Missing
		}
		t.say(cookies, outcome, "no cookie is for a whole domain: %s. Where a proxy cannot do that, see cookie_domain there",
			note)
	}
}

// networks leaves out what trusts everybody.
func networks(values []string) []string {
	return slices.DeleteFunc(slices.Clone(values), func(v string) bool { return strings.HasSuffix(v, "/0") })
}

func (t *translator) listeners() {
	cert, key := t.get("tls-cert-file"), t.get("tls-key-file")
	plain, tls := t.get("http-address"), t.get("https-address")
	from, flag := plain, "http-address"
	if cert != nil && key != nil {
		from, flag = tls, "https-address"
		if plain != nil {
			t.say(plain, Missing, "with a certificate there is one listener, for https; redirect http in front of it")
		}
		t.top.set("tls_cert_file", cert.value())
		t.top.set("tls_key_file", key.value())
		t.carry("the same names; read again when the files change", "tls-cert-file", "tls-key-file")
	} else {
		for _, s := range []*setting{cert, key} {
			if s != nil {
				t.say(s, NotNeeded, "oauth2-proxy uses no certificate without its key, and no key without a certificate")
			}
		}
		if tls != nil {
			t.say(tls, NotNeeded, "oauth2-proxy does not listen there without a certificate")
		}
	}
	if s := t.get("tls-min-version"); s != nil {
		if s.isDefault() {
			t.say(s, Carried, "TLS 1.2 is the least")
		} else {
			t.say(s, Differs, "TLS 1.2 is the least, and cannot be raised; refuse it in the proxy in front")
		}
	}
	raw := t.value(flag)
	address := raw
	for _, scheme := range []string{"http://", "https://"} {
		address = strings.TrimPrefix(address, scheme)
	}
	if path, unix := strings.CutPrefix(raw, "unix://"); unix && strings.HasPrefix(path, "/") {
		t.top.set("listen", "unix:"+path)
		t.say(from, Differs, "listen; the user and the group of Curfew alone can connect to the socket")
		return
	}
	if strings.HasPrefix(raw, "fd:") {
		t.top.set("listen", "systemd")
		t.say(from, Differs, "listen: systemd, which takes the one socket that systemd opened")
		return
	}
	if _, port, err := net.SplitHostPort(address); err != nil || strings.Contains(port, "/") { // "-", "unix://x"
		if from != nil {
			t.say(from, Missing, "listen takes a host and a port, unix:PATH or systemd; it is the default now")
		}
		return
	}
	t.top.set("listen", address)
	if from != nil {
		t.say(from, Carried, "listen")
	}
}

// url takes the address of the site from the redirect URI.
func (t *translator) url() {
	s := t.get("redirect-url")
	const how = "give --redirect-url https://HOST" + "/oauth2/callback, with the host that people see, to this command too"
	if s == nil {
		t.missing("redirect-url", "is not set, and Curfew has to know its own address: "+how)
		return
	}
	u, err := url.Parse(s.value())
	if err != nil || u.Host == "" {
		t.missing("redirect-url", "is not an absolute URL: "+how)
		return
	}
	site := u.Scheme + "://" + u.Host
	if t.main, err = web.ParseURL(site); err != nil {
		t.missing("redirect-url", strings.ReplaceAll(err.Error(), "\n", "; ")+": "+how)
		return
	}
	t.top.set("url", site)
	if want := t.value("proxy-prefix") + "/callback"; u.Path != want {
		t.say(s, Differs, "the redirect URI is %s; register it at the provider", site+want)
		return
	}
	t.say(s, Carried, "url; the redirect URI at the provider stays as it is")
}

// apps sets the apps behind the gateway.
func (t *translator) apps() {
	var timeout time.Duration
	if s := t.get("upstream-timeout"); s != nil {
		timeout, _ = time.ParseDuration(s.value())
		if timeout > 0 {
			t.top.set("upstream_timeout", s.value())
		}
		t.say(s, Carried, "upstream_timeout")
	}
	all := t.routes
	if s := t.get("upstream"); s != nil {
		for _, uri := range s.values {
			all = append(all, route{where: s.where, uri: uri})
		}
	}
	var routes []*document
	root := ""
	seen := map[string]bool{}
	for _, r := range all {
		if path, target, ok := t.upstream(r); ok {
			if seen[path] {
				t.fault(r.where, "two upstreams have the path %s", path)
			}
			seen[path] = true
			if path == "/*" {
				root = target
				continue
			}
			d := newDocument()
			d.set("path", path)
			d.set("upstream", target)
			if r.timeout != "" {
				d.set("timeout", r.timeout)
			}
			routes = append(routes, d)
		}
	}
	// oauth2-proxy takes the longest path, Curfew the first.
	length := func(d *document) int { return len(strings.TrimSuffix(d.node.Content[1].Value, "*")) }
	slices.SortStableFunc(routes, func(a, b *document) int { return length(b) - length(a) })
	if len(routes) > 0 {
		t.top.set("routes", routes)
	}
	if root != "" {
		t.top.set("upstream", root)
	}
	for _, flag := range []string{"pass-host-header", "proxy-websockets"} {
		s := t.get(flag)
		switch {
		case s == nil:
		case s.value() == "true":
			t.say(s, Carried, "always so; the host is that of url")
		case flag == "pass-host-header":
			t.say(s, Differs, "the app is told the host of url; let it accept that")
		default:
			t.say(s, Differs, "WebSockets go to the app, and end with their session")
		}
	}
}

// upstream returns the path of a route and the app that it leads to.
func (t *translator) upstream(r route) (path, target string, ok bool) {
	say := func(outcome Outcome, format string, args ...any) {
		t.items = append(t.items, Item{r.where, outcome, fmt.Sprintf(format, args...)})
	}
	u, err := url.Parse(r.uri)
	switch {
	case err != nil || r.uri == "":
		t.fault(r.where, "is not a URL")
		return "", "", false
	case u.Scheme == "static":
		say(NotNeeded, "%s/auth and %s/verify answer the proxy; a proxy that asks at / has to ask at one of these, "+
			"with ?redirect=true if it passes redirects on", t.value("proxy-prefix"), t.value("proxy-prefix"))
		return "", "", false
	case u.Scheme == "file":
		say(Missing, "serve files with a web server, and name it as an upstream")
		return "", "", false
	case u.Scheme == "unix":
		say(Missing, "an app is reached over TCP: let it listen on loopback")
		return "", "", false
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "":
		t.fault(r.where, "is not the address of an app; write it like http://127.0.0.1:3000")
		return "", "", false
	}
	at := r.path // of the alpha configuration: there the path of the URI is put before that of the request
	target = u.Scheme + "://" + u.Host
	if at == "" {
		at = u.Path
	} else if u.Path != "/" {
		target += u.Path
	}
	switch {
	case at == "" || at == "/":
		path = "/*"
	case strings.HasSuffix(at, "/"):
		path = at + "*"
	default:
		path = at
	}
	if _, err := gateway.NewPolicy(gateway.Rule{Path: path}); err != nil {
		say(Missing, "the path is a pattern; write a route for each path under routes")
		return "", "", false
	}
	say(Carried, "%s", map[bool]string{true: "upstream", false: "routes, path " + path}[path == "/*"])
	return path, target, true
}

// sessions sets how long sessions last, and where they are kept.
func (t *translator) sessions() {
	if s := t.get("cookie-name"); s != nil {
		name := strings.TrimPrefix(strings.TrimPrefix(s.value(), "__Host-"), "__Secure-")
		if session.CheckCookieName(name) == nil {
			t.top.set("cookie_name", name)
			t.say(s, Differs, "cookie_name; __Host- is put before it. A session of oauth2-proxy is not carried over")
		} else {
			t.say(s, NotNeeded, "the cookie has Curfew's own name: nobody else reads it")
		}
	}
	for _, flag := range []string{"cookie-secure", "cookie-httponly", "cookie-samesite"} {
		s := t.get(flag)
		switch {
		case s == nil:
		case s.isDefault() || s.value() == "lax":
			t.say(s, Carried, "always so")
		default:
			t.say(s, Differs, noteCookie)
		}
	}
	if s := t.get("cookie-expire"); s != nil {
		switch d, _ := time.ParseDuration(s.value()); {
		case d == 0:
			t.say(s, Differs, "the cookie ends with the browser, and the session after session_lifetime (24h)")
		default:
			t.top.set("session_lifetime", s.value())
			t.top.set("idle_timeout", s.value())
			t.top.set("remember", true)
			t.say(s, Carried, "session_lifetime, idle_timeout and remember; a shorter idle_timeout is safer")
		}
	} else {
		t.items = append(t.items, Item{"cookie_expire (168h by default)", Differs,
			"a session lasts 24h, and 2h without use; see session_lifetime and idle_timeout"})
	}
	t.store()
}

// store sets where sessions are kept. An address with a password goes into the environment.
func (t *translator) store() {
	kind := t.get("session-store-type")
	redis := []string{"redis-connection-url", "redis-username", "redis-password", "redis-use-cluster",
		"redis-cluster-connection-urls", "redis-use-sentinel", "redis-sentinel-connection-urls",
		"redis-sentinel-master-name", "redis-sentinel-password", "redis-ca-path"}
	if t.value("session-store-type") != "redis" {
		if kind != nil {
			t.say(kind, Differs, "a session that exists only in a cookie cannot be ended: it is in an SQLite file; see store")
		}
		for _, flag := range redis {
			if s := t.get(flag); s != nil {
				t.say(s, NotNeeded, "oauth2-proxy ignores it without --session-store-type=redis")
			}
		}
		return
	}
	cluster, sentinel := t.on("redis-use-cluster"), t.on("redis-use-sentinel")
	from, plus, path := "redis-connection-url", "", ""
	switch {
	case cluster && sentinel:
		t.missing("redis-use-cluster", "is set together with --redis-use-sentinel; keep one of the two")
	case cluster:
		from, plus = "redis-cluster-connection-urls", "+cluster"
	case sentinel:
		from, plus, path = "redis-sentinel-connection-urls", "+sentinel", t.value("redis-sentinel-master-name")
		if path == "" {
			t.missing("redis-sentinel-master-name", "is missing")
		}
	}
	urls := t.get(from)
	if urls == nil {
		t.missing(from, "is missing")
		return
	}
	scheme, user, query := "redis", url.UserPassword("", ""), url.Values{}
	var hosts []string
	for _, raw := range urls.values {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "redis" && u.Scheme != "rediss" || u.Host == "" {
			t.missing(from, "is not an address like redis://HOST:PORT; a Unix socket cannot be used")
			return
		}
		if u.Scheme == "rediss" {
			scheme = "rediss"
		}
		if u.User != nil {
			user = u.User
		}
		hosts = append(hosts, u.Host)
		if plus == "" {
			path = strings.Trim(u.Path, "/")
		}
	}
	password, _ := user.Password()
	name := user.Username()
	if s := t.get("redis-username"); s != nil {
		name = s.value()
	}
	if s := t.get("redis-password"); s != nil {
		password = s.value()
	}
	if s := t.get("redis-ca-path"); s != nil {
		query.Set("cacert", s.value())
		scheme = "rediss"
	}
	address := func(who string, query url.Values) string {
		a := scheme + plus + "://" + who + strings.Join(hosts, ",")
		if path != "" {
			a += "/" + path
		}
		if len(query) > 0 {
			a += "?" + query.Encode()
		}
		return a
	}
	where := "store"
	t.top.set("store", address("", query))
	if s := t.get("redis-sentinel-password"); s != nil && sentinel {
		query.Set("sentinel_password", s.value())
	}
	if password != "" || query.Has("sentinel_password") {
		t.result.Env = "CURFEW_STORE=" + address(url.UserPassword(name, password).String()+"@", query) + "\n"
		where = "store; with its password it is CURFEW_STORE in " + t.files.Env
	}
	t.top.set("key_file", "curfew.key", "All replicas share it. Make it once: "+config.KeyCommand("curfew.key"))
	if kind != nil {
		t.say(kind, Carried, "store and key_file")
	}
	for _, flag := range redis {
		s := t.get(flag)
		used := flag == from || !strings.HasSuffix(flag, "-urls") && flag != "redis-connection-url" &&
			(sentinel || !strings.Contains(flag, "sentinel"))
		switch {
		case s == nil:
		case used:
			t.say(s, Carried, "%s", where)
		default:
			t.say(s, NotNeeded, "oauth2-proxy does not use it beside --%s", from)
		}
	}
}

func (t *translator) logs() {
	if s := t.get("request-id-header"); s != nil {
		if s.isDefault() {
			t.say(s, Carried, "always so, from trusted_proxies")
		} else {
			t.say(s, Missing, "the number of a request is taken from X-Request-Id, of trusted_proxies")
		}
	}
	if s := t.get("skip-provider-button"); s != nil {
		if s.value() == "true" {
			t.say(s, Carried, "with one provider there is no page before it")
		} else {
			t.say(s, Differs, "with one provider there is no page before it")
		}
	}
}
