package e2e_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A proxy is one that people put in front of their apps, with the configuration in deploy/.
type proxy struct {
	name   string
	binary []string // where it may be
	must   bool     // CI fails without it
	folder string   // in deploy/
	leaks  bool     // our cookies to the app: it cannot take single ones out
	argv   func(dir string) []string
}

// pip is where .ci/deps puts what Debian has no package for.
const pip = "proxies/pip"

// proxies run each as one process, so that to kill it is to be rid of it.
var proxies = []proxy{
	{name: "nginx", binary: []string{"nginx", "/usr/sbin/nginx"}, must: true, folder: "nginx",
		argv: func(dir string) []string { return []string{"-p", dir, "-c", "nginx.conf", "-e", "stderr"} }},
	{name: "Caddy", binary: []string{"caddy"}, must: true, folder: "caddy",
		argv: func(dir string) []string { return []string{"run", "--config", dir + "/Caddyfile"} }},
	{name: "HAProxy", binary: []string{"haproxy", "/usr/sbin/haproxy"}, must: true, folder: "haproxy",
		argv: func(dir string) []string { return []string{"-db", "-f", dir + "/haproxy.cfg"} }},
	{name: "Traefik", binary: []string{"traefik", pip + "/bin/traefik"}, folder: "traefik", leaks: true,
		argv: func(dir string) []string { return []string{"--configFile=" + dir + "/traefik.yaml"} }},
	{name: "Envoy over HTTP", binary: []string{"envoy", pip + "/envoy/_bin/envoy"}, folder: "envoy",
		argv: func(dir string) []string {
			return []string{"-c", dir + "/envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "-l", "warning"}
		}},
	{name: "Envoy over gRPC", binary: []string{"envoy", pip + "/envoy/_bin/envoy"}, folder: "envoy",
		argv: func(dir string) []string {
			return []string{"-c", dir + "/envoy-grpc.yaml", "--concurrency", "1", "--disable-hot-restart", "-l",
				"warning"}
		}},
}

// settings of a gateway beside a proxy.
const settings = `
trusted_proxies: [127.0.0.1]
app: wiki
assertion: true
identity_headers: # those of the other preset too
  X-Forwarded-User: subject
  X-Forwarded-Email: email
  X-Forwarded-Groups: groups
  X-Forwarded-Preferred-Username: username
  X-Auth-Request-User: subject
  X-Auth-Request-Email: email
  X-Auth-Request-Groups: groups
  X-Auth-Request-Preferred-Username: username
policy:
  - {path: /public/*, public: true}
  - {path: /admin/*, groups: [admins]}
  - {path: /forms/*, methods: [DELETE], groups: [admins]}
`

// nginxMain is what a distribution's nginx.conf has around the files of its sites.
const nginxMain = `
daemon off;
master_process off;
pid nginx.pid;
error_log stderr;
events {}
http {
	access_log off;
	client_max_body_size 16m; # for the uploads of the tests
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	include app.conf;
}
`

// front is a proxy in front of an app, with a gateway at its side.
type front struct {
	*gateway
	kind     proxy
	provider *provider
	files    string // the folder of the proxy's
	proxy    *child
}

// fronts are all proxies, each with a gateway and an app of its own, and one provider for them all, which runs. The
// others are to be run.
func fronts(t *testing.T) []*front {
	t.Helper()
	p, all := world(t, clients(proxies)...)
	var fs []*front
	for i, x := range proxies {
		fs = append(fs, beside(t, x, p, all[i], liveApp(t)))
	}
	p.start(t)
	return fs
}

// clients are names of gateways beside proxies.
func clients(beside []proxy) (names []string) {
	for _, x := range beside {
		names = append(names, strings.ReplaceAll(x.name, " ", "-"))
	}
	return names
}

// beside configures a gateway to stand beside a proxy in front of an app. others are the apps at wiki.localhost and
// mail.localhost, if not the same. Neither runs yet: the provider has to be
// started first, and is told of the address of the proxy.
//
// The proxy runs on the very files in deploy/. Only the addresses and names in them and the folder of their own are
// replaced, as deploy/README.md says.
func beside(t *testing.T, x proxy, p *provider, g *gateway, app string, others ...string) *front {
	t.Helper()
	f := &front{gateway: g, kind: x, provider: p, files: t.TempDir()}
	site, grpc := reserve(t), reserve(t)
	f.url = "http://" + site
	f.set("--url", f.url)
	f.set("--upstream", app)
	if strings.HasSuffix(x.name, "gRPC") {
		f.set("--grpc-listen", grpc)
	}
	f.set("--config", f.write(t, "curfew.yaml", settings))

	_, port, _ := strings.Cut(site, ":")
	places := []string{"/etc/" + x.folder + "/", f.files + "/",
		"wiki.example.com:8080", "wiki.localhost:" + port, "mail.example.com:8080", "mail.localhost:" + port,
		"wiki.example.com", "wiki.localhost", "mail.example.com", "mail.localhost",
		"wiki[.]example[.]com", "wiki[.]localhost", "mail[.]example[.]com", "mail[.]localhost"}
	apps := map[string]string{"3000": app, "3001": app, "3002": app}
	for i, other := range others {
		apps[fmt.Sprint(3001+i)] = other
	}
	for from, to := range map[string]string{"8080": site, "4180": f.listen, "4182": grpc,
		"3000": strings.TrimPrefix(apps["3000"], "http://"), "3001": strings.TrimPrefix(apps["3001"], "http://"),
		"3002": strings.TrimPrefix(apps["3002"], "http://")} {
		places = append(places, "127.0.0.1:"+from, to, "127.0.0.1, port_value: "+from,
			strings.Replace(to, ":", ", port_value: ", 1))
	}
	files, err := os.ReadDir("../deploy/" + x.folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile("../deploy/" + x.folder + "/" + file.Name())
		if err != nil {
			t.Fatal(err)
		}
		placed := strings.NewReplacer(places...).Replace(string(text))
		if left := regexp.MustCompile(`(?m)^[^#\n]*(:|port_value: )(8080|4180|4182|300[0-2])\b.*`).
			FindString(placed); left != "" {
			t.Fatalf("%s has an address that deploy/README.md does not name: %s", file.Name(), left)
		}
		if err := os.WriteFile(filepath.Join(f.files, file.Name()), []byte(placed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if x.folder == "nginx" {
		if err := os.WriteFile(filepath.Join(f.files, "nginx.conf"), []byte(nginxMain), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// run starts the gateway and the proxy, or skips the test aloud.
func (f *front) run(t *testing.T) {
	t.Helper()
	x, dir, binary := f.kind, f.files, f.kind.find(t)
	f.start(t)
	env := append(environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir,
		"CADDY_ADMIN=unix/"+dir+"/admin.sock")
	f.proxy = start(t, x.name, dir, env, append([]string{binary}, x.argv(dir)...)...)
	nobody := newBrowser("nobody's browser")
	eventually(t, x.name+" passes requests on", func() string {
		select {
		case <-f.proxy.gone:
			t.Fatalf("%s ended (%v)", x.name, f.proxy.cmd.ProcessState)
		default:
		}
		got, err := nobody.try(http.MethodGet, f.url+"/auth/session", nil, "Accept", "application/json")
		if err != nil {
			return err.Error()
		}
		return unless(got.status == http.StatusUnauthorized, "%v", got)
	})
}

// set gives a flag another value.
func (g *gateway) set(flag, value string) {
	if i := slices.Index(g.flags, flag); i >= 0 {
		g.flags[i+1] = value
		return
	}
	g.flags = append(g.flags, flag, value)
}

// find returns the program, or skips the test aloud.
func (x proxy) find(t *testing.T) string {
	t.Helper()
	for _, name := range x.binary {
		if strings.HasPrefix(name, pip) {
			name, _ = filepath.Abs(name)
		}
		if file, err := exec.LookPath(name); err == nil {
			return file
		}
	}
	say := "SKIPPED: " + x.name + " is missing, so its configuration was not tried; `make deps` installs it"
	if x.must && os.Getenv("CI") == "true" {
		t.Fatal(say)
	}
	t.Skip(say)
	return ""
}
