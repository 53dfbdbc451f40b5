//go:build unix

package bench

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/keyring"
	"example.com/curfew/oidc/oidctest"
)

// engine is a store by its name.
type engine struct {
	name  string
	start func(b *testing.B) (url string)
}

// shared are those that replicas can share.
func shared() []engine {
	return []engine{
		{"postgres", func(b *testing.B) string { return servers.Postgres(b).URL }},
		{"redis", func(b *testing.B) string { return servers.Redis(b, "--appendfsync", "always").URL }},
		{"cluster", func(b *testing.B) string { return servers.RedisCluster(b, "--appendfsync", "always").URL }},
	}
}

// BenchmarkRefused ends a session at one replica while another is asked about it over and over, on one connection. late
// is by how much its last 200 came after the 200 of the logout; it is negative where the session was refused before the
// caller of the ending knew. check is how long such a question takes while nothing ends: what the machine adds by
// itself.
func BenchmarkRefused(b *testing.B) {
	curfew := build(b)
	for _, e := range shared() {
		b.Run(e.name, func(b *testing.B) {
			s := serve(b, curfew, e.start(b), 2)
			b.ResetTimer()
			late, check := make([]time.Duration, b.N), make([]time.Duration, b.N)
			for i := range late {
				late[i], check[i] = s.refused(b)
			}
			for name, all := range map[string][]time.Duration{"late": late, "check": check} {
				slices.Sort(all)
				for p, permille := range map[string]int{"p50": 500, "p90": 900, "p99": 990, "max": 1000} {
					b.ReportMetric(float64(all[min(len(all)*permille/1000, len(all)-1)].Microseconds())/1000,
						name+"-"+p+"-ms")
				}
			}
			b.ReportMetric(0, "ns/op") // which has a sign-in in it
		})
	}
}

// BenchmarkWarm asks one process on each store about sessions that it has in its cache: the store behind it must not
// tell. The stores take turns, so that a machine that has something else to do has it for all of them. An operation is
// a check on each.
func BenchmarkWarm(b *testing.B) {
	curfew := build(b)
	stores := append(shared(),
		engine{"sqlite", func(b *testing.B) string { return "sqlite:" + filepath.Join(b.TempDir(), "curfew.db") }},
		engine{"memory", func(b *testing.B) string { return "memory:" }})
	sites, cookies, took := make([]*site, len(stores)), make([][]string, len(stores)),
		make([]time.Duration, len(stores))
	for i, e := range stores {
		sites[i] = serve(b, curfew, e.start(b), 1)
		for range 200 {
			cookie, _ := sites[i].signIn(b)
			cookies[i] = append(cookies[i], cookie)
		}
	}
	const turn = 1000
	b.ResetTimer()
	for left := b.N; left > 0; left -= turn {
		for i, s := range sites {
			began := time.Now()
			s.checks(b, min(turn, left), cookies[i])
			took[i] += time.Since(began)
		}
	}
	b.StopTimer()
	for i, e := range stores {
		b.ReportMetric(float64(b.N)/took[i].Seconds(), e.name+"-checks/s")
	}
}

// checks asks so many times, on all connections, and wants 200.
func (s *site) checks(b *testing.B, n int, cookies []string) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for i := int(next.Add(1) - 1); i < n; i = int(next.Add(1) - 1) {
				if status := s.check(b, 0, cookies[i%len(cookies)]); status != http.StatusOK {
					b.Errorf("a check was answered %d", status)
					return
				}
			}
		})
	}
	all.Wait()
}

// site is processes of `curfew serve`, as it is shipped.
type site struct {
	op     *oidctest.Provider
	listen []string
	client *http.Client
}

func build(b *testing.B) (curfew string) {
	curfew = filepath.Join(b.TempDir(), "curfew")
	cmd := exec.Command("go", "build", "-o", curfew, "../cmd/curfew")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	return curfew
}

// serve starts so many replicas on a store.
func serve(b *testing.B, curfew, backend string, n int) *site {
	b.Helper()
	dir := b.TempDir()
	secret, keys := filepath.Join(dir, "secret"), filepath.Join(dir, "curfew.key")
	if err := errors.Join(os.WriteFile(secret, []byte("secret"), 0o600),
		os.WriteFile(keys, keyring.NewFile(), 0o600)); err != nil {
		b.Fatal(err)
	}
	s := &site{client: &http.Client{Timeout: time.Minute,
		Transport:     &http.Transport{MaxIdleConnsPerHost: callers},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	b.Cleanup(s.client.CloseIdleConnections)
	for range n {
		s.listen = append(s.listen, free(b))
	}
	url := "http://" + s.listen[0]
	s.op = oidctest.Start(b, oidctest.Config{SigningAlg: "ES256", AutoLogin: "alice",
		Clients: []oidctest.Client{{ID: "app", Secret: "secret", RedirectURIs: []string{url + "/auth/callback"},
			NoRefreshToken: true}}})
	for _, addr := range s.listen {
		run(b, dir, curfew, "serve", "--listen", addr, "--admin-listen", "off", "--url", url, "--issuer", s.op.Issuer(),
			"--client-id", "app",
			"--client-secret-file", secret, "--id-token-signed-response-alg", "ES256", "--scopes", "openid", "--store",
			backend, "--key-file", keys)
	}
	return s
}

// free is an address on loopback where nobody listens.
func free(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// run starts a process, which is killed when the benchmark ends, and returns when it serves.
func run(b *testing.B, dir string, argv ...string) {
	b.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, w, w
	if err := errors.Join(cmd.Start(), w.Close()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		r.Close()
	})
	r.SetReadDeadline(time.Now().Add(time.Minute))
	said := ""
	for lines := bufio.NewScanner(r); lines.Scan(); said += lines.Text() + "\n" {
		if strings.Contains(lines.Text(), "event=serving") {
			r.SetReadDeadline(time.Time{}) // until the benchmark ends
			go io.Copy(io.Discard, r)
			return
		}
	}
	b.Fatal(said)
}

// do sends a request to a replica, and returns the answer without its body.
func (s *site) do(b *testing.B, replica int, method, path, cookie string, form url.Values) *http.Response {
	r, err := http.NewRequest(method, "http://"+s.listen[replica]+path, strings.NewReader(form.Encode()))
	if err != nil {
		b.Error(err)
		return new(http.Response)
	}
	r.Host = s.listen[0]
	r.Header.Set("Cookie", cookie)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	resp, err := s.client.Do(r)
	if err != nil {
		b.Error(err)
		return new(http.Response)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp
}

func (s *site) check(b *testing.B, replica int, cookie string) (status int) {
	return s.do(b, replica, http.MethodGet, "/auth/verify", cookie, nil).StatusCode
}

// signIn signs alice in with another browser, at the first replica.
func (s *site) signIn(b *testing.B) (cookie, sid string) {
	b.Helper()
	begun := s.do(b, 0, http.MethodGet, "/auth/login?return_to=/", "", nil)
	r, w := httptest.NewRequest(http.MethodGet, begun.Header.Get("Location"), nil), httptest.NewRecorder()
	s.op.Handler().ServeHTTP(w, r)
	back, err := url.Parse(w.Header().Get("Location"))
	if err != nil || len(begun.Cookies()) == 0 || len(w.Result().Cookies()) == 0 {
		b.Fatalf("a sign-in begins: %d, %d, %v", begun.StatusCode, w.Code, err)
	}
	r.AddCookie(w.Result().Cookies()[0])
	at, _ := s.op.BrowserSession(r)
	attempt := begun.Cookies()[0]
	done := s.do(b, 0, http.MethodGet, back.RequestURI(), attempt.Name+"="+attempt.Value, nil)
	for _, c := range done.Cookies() {
		if c.MaxAge >= 0 {
			cookie = c.Name + "=" + c.Value
		}
	}
	if done.StatusCode != http.StatusSeeOther || cookie == "" || at.SID == "" {
		b.Fatalf("a sign-in comes back: %d", done.StatusCode)
	}
	return cookie, at.SID
}

// refused ends a session at the first replica, and returns by how much the last 200 of the other came after that was
// done, and how long that took for one of the answers before.
func (s *site) refused(b *testing.B) (late, check time.Duration) {
	cookie, sid := s.signIn(b)
	token := url.Values{"logout_token": {s.op.SignLogoutToken("app", "", sid)}}
	cached := make(chan time.Duration)
	served := make(chan time.Time)
	go func() {
		var last time.Time
		for n, asked := 0, time.Now(); s.check(b, 1, cookie) == http.StatusOK; n, asked = n+1, time.Now() {
			if last = time.Now(); n == 2 { // the first was not from its cache
				cached <- last.Sub(asked)
			}
		}
		served <- last
	}()
	check = rig.Soon(b, "an answer from the cache", cached)
	got := s.do(b, 0, http.MethodPost, "/auth/backchannel-logout", "", token)
	done := time.Now()
	if got.StatusCode != http.StatusOK {
		b.Fatalf("a logout was answered %d", got.StatusCode)
	}
	return rig.Soon(b, "the last answer of 200", served).Sub(done), check
}
