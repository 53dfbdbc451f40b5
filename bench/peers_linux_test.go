package bench

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"example.com/curfew/internal/servers"
)

// peers starts those of the other relying parties that are installed here, each as its own documentation recommends,
// and tries whether a logout ends a session. The others are named in the results.
func (r *run) peers() (all []*peer) {
	begin := func(name, store string, start func(p *peer) error) {
		p := &peer{target: target{name: name}, Store: store, batch: 200}
		if r.quick {
			p.batch = 50
		}
		p.addr = freeAddr(r.b)
		if err := start(p); err != nil {
			r.say("%s, %s: not here: %v", name, store, err)
			r.results.fault(name, fmt.Sprintf("%s: not measured: %v", store, err))
			return
		}
		if err := r.try(p); err != nil {
			r.say("%s, %s: %v", name, store, err)
			r.results.fault(name, fmt.Sprintf("%s: not measured: %v", store, err))
			return
		}
		all = append(all, p)
	}
	for _, store := range []string{"memory", "Redis"} {
		begin("express-openid-connect", store, r.express)
	}
	for _, store := range []string{"memory", "Redis"} {
		begin("mod_auth_openidc", store, r.apache)
	}
	begin("Spring Security", "memory", r.spring)
	for _, store := range []string{"SQLite", "PostgreSQL"} {
		for _, sessions := range []int{1_000, 10_000} {
			if r.quick && sessions > 1_000 {
				continue
			}
			begin("django-lasuite", store, func(p *peer) error { return r.django(p, sessions) })
		}
	}
	return all
}

// try signs one person in and out by sid and by sub, and says whether the session is refused afterwards. It returns an
// error when somebody who signed in is not let in.
func (r *run) try(p *peer) error {
	for _, op := range []string{"sid", "sub"} {
		c := &conn{addr: p.addr}
		s, err := r.browse(p, c)
		if err != nil {
			return err
		}
		before, err := c.ask("GET", p.check, s.cookie, "")
		sub, sid := "", s.sid
		if op == "sub" {
			sub, sid = s.sub, ""
		}
		told, err2 := c.ask("POST", p.logout, "", r.op.logoutToken(sub, sid, r.jti()))
		after, err3 := c.ask("GET", p.check, s.cookie, "")
		c.close()
		if err != nil || err2 != nil || err3 != nil || before != 200 {
			return fmt.Errorf("who signed in is answered %d: %w", before, errors.Join(err, err2, err3))
		}
		dead := "refused afterwards"
		if after == 200 {
			dead = "ALIVE afterwards"
		}
		r.say("%s, %s: a logout by %s is answered %d, and the session is %s", p.name, p.Store, op, told, dead)
		r.results.tried(p.name, p.Store, op, told, after != 200)
		if op == "sub" {
			p.bySub = after != 200
		} else {
			p.bySID = after != 200
		}
	}
	p.live = nil
	return nil
}

func (r *run) env(p *peer, more ...string) []string {
	return append([]string{"ADDR=" + p.addr, "ISSUER=" + r.op.issuer, "CLIENT_ID=" + clientID,
		"CLIENT_SECRET=" + clientSecret}, more...)
}

// exists returns the absolute path of what .ci/deps bench installs.
func exists(path string) (string, error) {
	full, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(full)
	}
	if err != nil {
		return "", fmt.Errorf("%s is missing: .ci/deps bench installs it", path)
	}
	return full, nil
}

func (r *run) express(p *peer) error {
	dir, err := exists("peers/express")
	if err != nil {
		return err
	}
	if _, err := exists("peers/express/node_modules/express-openid-connect"); err != nil {
		return err
	}
	env := r.env(p, "NODE_ENV=production")
	if p.Store == "Redis" {
		server := startRedis(r.b, serverCore)
		env, p.engine = append(env, "REDIS="+server.addr), []int{server.pid}
	}
	pid, log := spawn(r.b, serverCore, p.addr, dir, env, "node", "app.js")
	p.pid, p.log = []int{pid}, log
	p.login, p.check, p.logout = "/login", "/check", "/backchannel-logout"
	return nil
}

// apache is mod_auth_openidc. Its shared memory has room for the sessions of this run: with its default of 500 entries
// it drops sessions that live.
func (r *run) apache(p *peer) error {
	const modules = "/usr/lib/apache2/modules"
	if _, err := exists(modules + "/mod_auth_openidc.so"); err != nil {
		return err
	}
	dir := r.b.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "htdocs"), 0o755); err != nil {
		return err
	}
	cache := "OIDCCacheType shm\nOIDCCacheShmMax 12000"
	if p.Store == "Redis" {
		server := startRedis(r.b, serverCore)
		cache = "OIDCCacheType redis\nOIDCRedisCacheServer " + server.addr
		p.engine = []int{server.pid}
	}
	conf := fmt.Sprintf(`ServerRoot %[1]s
ServerName 127.0.0.1
PidFile %[1]s/pid
Listen %[2]s
ErrorLog %[1]s/error.log
LogLevel crit
LoadModule mpm_event_module %[3]s/mod_mpm_event.so
LoadModule authn_core_module %[3]s/mod_authn_core.so
LoadModule authz_core_module %[3]s/mod_authz_core.so
LoadModule authz_user_module %[3]s/mod_authz_user.so
LoadModule auth_openidc_module %[3]s/mod_auth_openidc.so
User www-data
Group www-data
DocumentRoot %[1]s/htdocs
MaxKeepAliveRequests 0
KeepAliveTimeout 60
OIDCProviderMetadataURL %[4]s/.well-known/openid-configuration
OIDCClientID %[5]s
OIDCClientSecret "%[6]s"
OIDCRedirectURI http://%[2]s/callback
OIDCCryptoPassphrase "a passphrase of the bench alone, of enough bytes"
OIDCScope openid
OIDCSessionInactivityTimeout 3600
%[7]s
<Location />
  AuthType openid-connect
  Require valid-user
</Location>
`, dir, p.addr, modules, r.op.issuer, clientID, clientSecret, cache)
	for name, text := range map[string]string{"httpd.conf": conf, "htdocs/check": "ok\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for at := dir; strings.HasPrefix(at, os.TempDir()) && at != os.TempDir(); at = filepath.Dir(at) {
		_ = os.Chmod(at, 0o755) // its workers are another user
	}
	pid, _ := spawn(r.b, serverCore, p.addr, dir, nil, "apache2", "-f", filepath.Join(dir, "httpd.conf"),
		"-D", "FOREGROUND")
	p.pid, p.log = []int{pid}, filepath.Join(dir, "error.log")
	p.login, p.check, p.logout = "/check", "/check", "/callback?logout=backchannel"
	return nil
}

func (r *run) spring(p *peer) error {
	jar, err := exists("peers/spring/target/curfew-bench-spring-1.jar")
	if err != nil {
		return err
	}
	host, port, _ := strings.Cut(p.addr, ":")
	registration := "--spring.security.oauth2.client.registration.main."
	pid, log := spawn(r.b, serverCore, p.addr, r.b.TempDir(), nil, "java", "-jar", jar, "--server.address="+host,
		"--server.port="+port, "--logging.level.root=WARN", "--server.tomcat.max-keep-alive-requests=-1",
		registration+"client-id="+clientID, registration+"client-secret="+clientSecret, registration+"scope=openid",
		"--spring.security.oauth2.client.provider.main.issuer-uri="+r.op.issuer)
	p.pid, p.log = []int{pid}, log
	p.login, p.check, p.logout = "/oauth2/authorization/main", "/check", "/logout/connect/back-channel/main"
	r.say("Spring Security: warming the JVM up")
	p.live = nil
	r.signIn(p, 16, 200)
	r.checks(p, p.check, 16, 1<<30, 3*time.Second)
	bodies, _ := r.tokens(p, 200, false)
	r.logouts(&p.target, p.logout, 16, bodies, 200, 204)
	return nil
}

// django is the endpoint of django-lasuite on Django's own sessions in its database.
func (r *run) django(p *peer, sessions int) error {
	dir, err := exists("peers/django")
	if err != nil {
		return err
	}
	if _, err := exists("peers/django/pip/lasuite"); err != nil {
		return err
	}
	p.Sessions, p.batch = sessions, 20
	env := r.env(p, "PYTHONPATH=pip", "PYTHONDONTWRITEBYTECODE=1", "SQLITE="+filepath.Join(r.b.TempDir(), "django.db"))
	if p.Store == "PostgreSQL" {
		env, p.engine = append(env, "POSTGRES="+servers.Schema(r.b, r.postgres.URL)), []int{r.postgres.PID}
	}
	prepare := exec.Command("python3", "prepare.py", fmt.Sprint(sessions))
	prepare.Dir, prepare.Env = dir, append(os.Environ(), env...)
	if out, err := prepare.CombinedOutput(); err != nil {
		return fmt.Errorf("it cannot be prepared: %w\n%s", err, out)
	}
	pid, log := spawn(r.b, serverCore, p.addr, dir, env, "python3", "-m", "gunicorn", "--bind", p.addr, "--workers", "2",
		"--threads", "4", "--log-level", "warning", "peer:application")
	p.pid, p.log = []int{pid}, log
	p.login, p.check, p.logout = "/authenticate/", "/check", "/backchannel-logout/"
	return nil
}
