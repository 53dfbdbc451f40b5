package bench

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/rueidis"

	"example.com/curfew/internal/servers"
	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/postgres"
	"example.com/curfew/store/redis"
	"example.com/curfew/store/sqlite"
)

// redisServer is a Redis that writes each change to its disk before it answers, as docs/stores-redis.md recommends.
type redisServer struct {
	addr string
	pid  int
}

func startRedis(b *testing.B, core int) redisServer {
	addr, dir := freeAddr(b), b.TempDir()
	_, port, _ := strings.Cut(addr, ":")
	pid, _ := spawn(b, core, addr, dir, nil, "redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", dir,
		"--save", "", "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction")
	return redisServer{addr, pid}
}

// flush sets when the server flushes its file of changes.
func (s redisServer) flush(b *testing.B, when string) {
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.addr}, DisableCache: true})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	set := client.B().ConfigSet().ParameterValue().ParameterValue("appendfsync", when).Build()
	if err := client.Do(b.Context(), set).Error(); err != nil {
		b.Fatal(err)
	}
}

// build builds the command as `make build` does. overlay replaces files of the source.
func build(b *testing.B, name, overlay string) string {
	out := filepath.Join(b.TempDir(), name)
	args := []string{"build", "-trimpath", "-o", out}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	cmd := exec.Command("go", append(args, "./cmd/curfew")...)
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, text)
	}
	return out
}

// buildLoaded builds the same command with a memory store that has so many sessions when it starts: nothing outside the
// process could put a million into it in time.
func buildLoaded(b *testing.B) string {
	source, err := filepath.Abs("../store/memory/memory.go")
	if err != nil {
		b.Fatal(err)
	}
	text, err := os.ReadFile(source)
	if err != nil {
		b.Fatal(err)
	}
	const head = "func New() *Store {\n"
	changed := strings.Replace(string(text), head, loadedNew, 1)
	changed = strings.Replace(changed, "import (\n", "import (\n\"os\"\n\"strconv\"\n", 1)
	if !strings.Contains(string(text), head) {
		b.Fatal("store/memory has no New of the expected form")
	}
	dir := b.TempDir()
	replaced, overlay := filepath.Join(dir, "memory.go"), filepath.Join(dir, "overlay.json")
	list, _ := json.Marshal(map[string]any{"Replace": map[string]string{source: replaced}})
	if err := errors.Join(os.WriteFile(replaced, []byte(changed), 0o600), os.WriteFile(overlay, list, 0o600)); err != nil {
		b.Fatal(err)
	}
	return build(b, "curfew-loaded", overlay)
}

const loadedNew = `func New() *Store {
	s, now := empty(), time.Now()
	n, err := strconv.Atoi(os.Getenv("BENCH_LOADED_SESSIONS"))
	if err != nil {
		panic(err)
	}
	for i := range n {
		r := store.Record{Issuer: "https://op.example.com", ClientID: "app", Payload: make([]byte, 600),
			Created: now, LastSeen: now, IdleExpires: now.Add(24*time.Hour), Expires: now.Add(24*time.Hour)}
		r.Subject, r.SID = "loaded-"+strconv.Itoa(i/2), "sid-loaded-"+strconv.Itoa(i)
		rand.Read(r.Key[:])
		if err := s.Create(context.Background(), r, now, now); err != nil {
			panic(err)
		}
	}
	return s
}

func empty() *Store {
`

// load puts sessions of others into a store, two of a person.
func load(b *testing.B, s store.Store, issuer string, sessions int) {
	now := store.Time(time.Now())
	var next atomic.Int64
	var running sync.WaitGroup
	for range 256 {
		running.Go(func() {
			payload := make([]byte, 600)
			rand.Read(payload)
			for i := int(next.Add(1)); i <= sessions; i = int(next.Add(1)) {
				sid := fmt.Sprint("sid-loaded-", i)
				bearer := session.NewBearer(issuer, clientID, fmt.Sprint("loaded-", i/2))
				err := s.Create(context.Background(), store.Record{Key: bearer.Key(), Issuer: issuer,
					ClientID: clientID, Subject: fmt.Sprint("loaded-", i/2), SID: sid, Created: now,
					LastSeen: now, IdleExpires: now.Add(24 * time.Hour), Expires: now.Add(24 * time.Hour),
					Payload: payload}, now, now)
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	if err := s.Close(); err != nil || b.Failed() {
		b.Fatal("sessions could not be loaded: ", err)
	}
}

// loadPostgres is load by one statement, since Curfew refuses a server that may forget what it has committed. The
// hashes are those of nobody: these sessions are never looked for.
func loadPostgres(ctx context.Context, at, issuer string, sessions int) error {
	conn, err := pgx.Connect(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	hash := `('x' || left(md5('%s' || %s), 16))::bit(64)::bigint`
	_, err = conn.Exec(ctx, fmt.Sprintf(`INSERT INTO curfew_sessions (key, subject_hash, sid_hash, created, last_seen,
			idle_expires, expires, revision, refresh, issuer, client, subject, sid, payload)
		SELECT sha256(i::text::bytea), %s, %s, $2, $2, $3, $3, 1, 0, $4, $5, 'loaded-' || i / 2, 'sid-loaded-' || i,
			decode(repeat(md5(i::text), 37), 'hex') FROM generate_series(1, $1::int) i`,
		fmt.Sprintf(hash, "p", "i / 2"), fmt.Sprintf(hash, "s", "i")), sessions, store.Micros(time.Now()),
		store.Micros(time.Now().Add(24*time.Hour)), issuer, clientID)
	if err == nil {
		_, err = conn.Exec(ctx, `VACUUM ANALYZE curfew_sessions`)
	}
	if err == nil {
		_, err = conn.Exec(ctx, `CHECKPOINT`)
	}
	return err
}

// curfew starts `curfew serve` on the server's core, on a store that has so many sessions.
func (r *run) curfew(kind string, sessions int) *peer {
	b, ctx := r.b, r.b.Context()
	dir, addr, program := b.TempDir(), freeAddr(b), r.program
	began := time.Now()
	must := func(err error) {
		if err != nil {
			b.Fatal(err)
		}
	}
	var at string
	var engine []int
	var env []string
	switch kind {
	case "memory":
		at = "memory:"
		if sessions > loadedBy {
			r.builtLoaded.Do(func() { r.loaded = buildLoaded(b) })
			program, env = r.loaded, []string{fmt.Sprint("BENCH_LOADED_SESSIONS=", sessions)}
		}
	case "SQLite":
		file := filepath.Join(dir, "curfew.db")
		s, err := sqlite.Open(ctx, file, sqlite.Options{})
		must(err)
		load(b, s, r.op.issuer, sessions)
		at = "sqlite:" + file
	case "PostgreSQL":
		at = servers.Schema(b, r.postgres.URL)
		s, err := postgres.Open(ctx, at, postgres.Options{})
		must(err)
		must(s.Close())
		must(loadPostgres(ctx, at, r.op.issuer, sessions))
		engine = []int{r.postgres.PID}
	case "Redis":
		server := startRedis(b, serverCore)
		at = "redis://" + server.addr
		server.flush(b, "no") // while it is loaded
		s, err := redis.Open(ctx, at, redis.Options{})
		must(err)
		load(b, s, r.op.issuer, sessions)
		server.flush(b, "always")
		engine = []int{server.pid}
	}
	pid, log := r.serve(program, dir, addr, addr, at, env...)
	r.say("Curfew, %s, %d sessions: ready after %.0f s", kind, sessions, time.Since(began).Seconds())
	p := &peer{target: target{name: "Curfew, " + kind, addr: addr, log: log, pid: []int{pid}, engine: engine},
		Store: kind, Sessions: sessions, login: "/auth/login?return_to=/", check: "/auth/verify", proxied: "/",
		logout: "/auth/backchannel-logout", ours: true}
	if kind == "memory" && sessions <= loadedBy {
		r.signIn(p, 64, sessions)
		p.live = nil
	}
	return p
}

// loadedBy is how many sessions a memory store gets by signing in.
const loadedBy = 1000

// serve starts the command at addr, for browsers at host.
func (r *run) serve(program, dir, addr, host, at string, env ...string) (pid int, log string) {
	secret, keys := filepath.Join(dir, "secret"), filepath.Join(dir, "curfew.key")
	if _, err := os.Stat(keys); err != nil {
		if err := errors.Join(os.WriteFile(secret, []byte(clientSecret), 0o600),
			os.WriteFile(keys, r.keys(), 0o600)); err != nil {
			r.b.Fatal(err)
		}
	}
	return spawn(r.b, serverCore, addr, dir, env, program, "serve", "--listen", addr, "--admin-listen", "off",
		"--url", "http://"+host, "--issuer", r.op.issuer, "--client-id", clientID, "--client-secret-file", secret,
		"--scopes", "openid", "--store", at, "--key-file", keys, "--upstream", "http://"+r.app)
}

// keys are those of all processes of a run, so that several can share a store.
func (r *run) keys() []byte {
	r.once.Do(func() { r.keyFile = keyring.NewFile() })
	return r.keyFile
}
