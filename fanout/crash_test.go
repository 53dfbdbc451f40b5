package fanout_test

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/fanout"
	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/postgres"
	"example.com/curfew/store/redis"
	"example.com/curfew/store/sqlite"
)

// What a second process of this test binary is told: at which step to die, on which store, and where the apps are.
const (
	childStep  = "CURFEW_FANOUT_TEST_STEP"
	childStore = "CURFEW_FANOUT_TEST_STORE"
	childPlace = "CURFEW_FANOUT_TEST_PLACE"
	childApps  = "CURFEW_FANOUT_TEST_APPS"
)

// crashStores are the stores that outlive a process, by name: where a new one is, and how it is opened.
var crashStores = map[string]struct {
	place func(t *testing.T) string
	open  func(ctx context.Context, place string) (store.Store, error)
}{
	"sqlite": {
		func(t *testing.T) string { return filepath.Join(t.TempDir(), "curfew.db") },
		func(ctx context.Context, path string) (store.Store, error) {
			return sqlite.Open(ctx, path, sqlite.Options{})
		},
	},
	"postgres": {
		func(t *testing.T) string { return servers.Postgres(t).URL },
		func(ctx context.Context, url string) (store.Store, error) {
			return postgres.Open(ctx, url, postgres.Options{})
		},
	},
	"redis": {
		func(t *testing.T) string { return servers.Redis(t).URL },
		func(ctx context.Context, url string) (store.Store, error) {
			return redis.Open(ctx, url, redis.Options{Log: discard()})
		},
	},
}

const crashLogouts = 12

// crashApps are three apps on the server at base.
func crashApps(base string) (apps []fanout.App) {
	for _, name := range []string{"wiki", "mail", "chat"} {
		apps = append(apps, fanout.App{ClientID: name, URI: base + "/" + name, SessionRequired: name == "mail"})
	}
	return apps
}

// mortal is a store at which the process dies, as by kill -9: nothing that it holds is put in order.
type mortal struct {
	store.Store
	step string

	mu        sync.Mutex
	completed int
}

func (m *mortal) die() {
	self, _ := os.FindProcess(os.Getpid())
	self.Kill()
	select {}
}

func (m *mortal) Claim(ctx context.Context, kind store.NoticeKind, target string, now time.Time, lease time.Duration,
	max int) ([]store.Notice, error) {
	n, err := m.Store.Claim(ctx, kind, target, now, lease, max)
	if m.step == "claimed" && len(n) > 0 {
		m.die()
	}
	return n, err
}

func (m *mortal) Complete(ctx context.Context, n store.Notice, o store.Outcome) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.completed++
	if m.step == "posted" || m.step == "completed some" && m.completed > 7 {
		m.die()
	}
	return m.Store.Complete(ctx, n, o)
}

// childMain signs people in and out, says whom, tells the apps, and dies at its step.
func childMain(step string) int {
	ctx := context.Background()
	backend, err := crashStores[os.Getenv(childStore)].open(ctx, os.Getenv(childPlace))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ring, err := keyring.New(make([]byte, 32))
	if err != nil {
		panic(err)
	}
	keys, err := fanout.NewKeys(fanout.KeysConfig{Values: backend, Keyring: ring, Log: discard()})
	if err != nil {
		panic(err)
	}
	dying := &mortal{Store: backend, step: step}
	s, err := fanout.New(fanout.Config{Outbox: dying, Issuer: issuer, Signer: keys,
		Apps: crashApps(os.Getenv(childApps)), Log: discard()})
	if err != nil {
		panic(err)
	}
	m, err := session.NewManager(session.Config{Store: backend, Keyring: ring, Notices: s})
	if err != nil {
		panic(err)
	}
	for i := range crashLogouts {
		n := session.SignIn{Provider: "main", Issuer: "https://id.example", ClientID: "curfew",
			Subject: fmt.Sprint("user", i), SID: fmt.Sprint("s", i), Began: time.Now()}
		_, about, err := m.Create(ctx, n)
		if err != nil {
			panic(err)
		}
		who := store.Selector{Issuer: n.Issuer, ClientID: n.ClientID, SID: n.SID}
		if _, err := m.End(ctx, store.Ending{Selector: who, Cause: store.CauseBackChannel}); err != nil {
			panic(err)
		}
		fmt.Println(about.Key)
	}
	if step == "ended" {
		dying.die()
	}
	s.Run(ctx)
	return 0
}

// Whenever the process dies, every app hears of every logout, and the outbox is empty in the end.
func TestEveryAppHearsOfEveryLogoutHoweverOftenWeAreKilled(t *testing.T) {
	t.Parallel()
	for name, kind := range crashStores {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			place := kind.place(t)
			for _, step := range []string{"ended", "claimed", "posted", "completed some"} {
				t.Run(step, func(t *testing.T) { crashedAt(t, step, name, place) })
			}
		})
	}
}

func crashedAt(t *testing.T, step, backend, place string) {
	var mu sync.Mutex
	heard := make(map[string]int) // by app and sid
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.PostFormValue("logout_token")
		mu.Lock()
		defer mu.Unlock()
		heard[r.URL.Path[1:]+" "+sidOf(t, token)]++
	}))
	defer server.Close()
	ended := killedAt(t, step, backend, place, server.URL)
	if len(ended) != crashLogouts {
		t.Fatalf("%d logouts were acknowledged, want %d", len(ended), crashLogouts)
	}
	mu.Lock()
	before := len(heard)
	mu.Unlock()

	// The next process. Its clock says that the lease of the dead one has run out.
	next, err := crashStores[backend].open(t.Context(), place)
	rig.Must(t, err)
	defer next.Close()
	later := func() time.Time { return time.Now().Add(time.Minute) }
	ring, err := keyring.New(make([]byte, 32))
	rig.Must(t, err)
	keys, err := fanout.NewKeys(fanout.KeysConfig{Values: next, Keyring: ring, Log: discard()})
	rig.Must(t, err)
	watched := &emptied{Store: next, empty: make(chan struct{})}
	s, err := fanout.New(fanout.Config{Outbox: watched, Issuer: issuer, Signer: keys, Apps: crashApps(server.URL),
		Log: discard(), Now: later})
	rig.Must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	rig.Soon(t, "all is told", watched.empty)
	stop()
	running.Wait()

	want := make(map[string]bool)
	for _, k := range ended {
		for _, a := range crashApps(server.URL) {
			want[a.ClientID+" "+k.SIDFor(a.ClientID)] = true
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if got := slices.Sorted(maps.Keys(heard)); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
		t.Errorf("the apps heard of\n%v\nwant\n%v", got, slices.Sorted(maps.Keys(want)))
	}
	repeats := 0
	for _, n := range heard {
		repeats += n - 1
	}
	t.Logf("%d had been heard of before the kill; %d were heard of again", before, repeats)
	if began := before > 0; began != (step == "posted" || step == "completed some") {
		t.Errorf("%d had been heard of before the kill: it was not at this step", before)
	}
}

// emptied is a store that says when no notice is left in it.
type emptied struct {
	store.Store
	once  sync.Once
	empty chan struct{}
}

func (e *emptied) Complete(ctx context.Context, n store.Notice, o store.Outcome) error {
	if err := e.Store.Complete(ctx, n, o); err != nil {
		return err
	}
	stats, err := e.Stats(ctx)
	if err == nil && len(stats) == 0 {
		e.once.Do(func() { close(e.empty) })
	}
	return err
}

// killedAt runs a child until it has died at its step, and returns the sessions whose end it had acknowledged.
func killedAt(t *testing.T, step, backend, place, apps string) (ended []store.Key) {
	t.Helper()
	self, err := os.Executable()
	rig.Must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childStep+"="+step, childStore+"="+backend, childPlace+"="+place, childApps+"="+apps)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	rig.Must(t, err)
	rig.Must(t, cmd.Start())
	rig.Must(t, out.(*os.File).SetReadDeadline(time.Now().Add(2*time.Minute)))
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		k, err := store.ParseKey(lines.Text())
		rig.Must(t, err)
		ended = append(ended, k)
	}
	if lines.Err() != nil {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("the child hangs: %v", lines.Err())
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("the child ended with %v, want that it was killed", err)
	}
	return ended
}

// sidOf returns the sid of a token that nobody doubts.
func sidOf(t *testing.T, token string) string {
	claims := unverified(t, token)
	sid, _ := claims["sid"].(string)
	return sid
}
