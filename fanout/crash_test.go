package fanout_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
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
	"example.com/curfew/session"
	"example.com/curfew/store/sqlite"
)

// What a second process of this test binary is told: at which step to die, on which database, and where the apps are.
const (
	childStep = "CURFEW_FANOUT_TEST_STEP"
	childPath = "CURFEW_FANOUT_TEST_PATH"
	childApps = "CURFEW_FANOUT_TEST_APPS"
)

const crashLogouts = 12

// crashApps are three apps on the server at base.
func crashApps(base string) (apps []fanout.App) {
	for _, name := range []string{"wiki", "mail", "chat"} {
		apps = append(apps, fanout.App{ClientID: name, URI: base + "/" + name, SessionRequired: name == "mail"})
	}
	return apps
}

// mortal is a desk at which the process dies, as by kill -9: nothing that it holds is put in order.
type mortal struct {
	*sqlite.Store
	step string

	mu      sync.Mutex
	settled int
}

func (m *mortal) die() {
	self, _ := os.FindProcess(os.Getpid())
	self.Kill()
	select {}
}

func (m *mortal) ClaimFor(ctx context.Context, kind session.NoticeKind, target string, now time.Time, lease time.Duration, max int) ([]session.Notice, error) {
	n, err := m.Store.ClaimFor(ctx, kind, target, now, lease, max)
	if m.step == "claimed" && len(n) > 0 {
		m.die()
	}
	return n, err
}

func (m *mortal) Settle(ctx context.Context, n session.Notice, o session.Outcome) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settled++
	if m.step == "posted" || m.step == "settled some" && m.settled > 7 {
		m.die()
	}
	return m.Store.Settle(ctx, n, o)
}

// childMain signs people in and out, says whom, tells the apps, and dies at its step.
func childMain(step string) int {
	ctx := context.Background()
	store, err := sqlite.Open(ctx, os.Getenv(childPath), sqlite.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ring, err := session.NewRing(make([]byte, 32))
	if err != nil {
		panic(err)
	}
	keys, err := fanout.NewKeys(fanout.KeysConfig{Vault: store, Ring: ring, Log: discard()})
	if err != nil {
		panic(err)
	}
	desk := &mortal{Store: store, step: step}
	s, err := fanout.New(fanout.Config{Desk: desk, Issuer: issuer, Signer: keys, Apps: crashApps(os.Getenv(childApps)), Log: discard()})
	if err != nil {
		panic(err)
	}
	m, err := session.NewManager(session.Config{Store: store, Ring: ring, Tell: s.Plan})
	if err != nil {
		panic(err)
	}
	for i := range crashLogouts {
		n := session.New{Provider: "main", Issuer: "https://id.example", ClientID: "curfew", Subject: fmt.Sprint("user", i), SID: fmt.Sprint("s", i), Began: time.Now()}
		_, about, err := m.Create(ctx, n)
		if err != nil {
			panic(err)
		}
		who := session.Who{Issuer: n.Issuer, ClientID: n.ClientID, SID: n.SID}
		if _, err := m.End(ctx, session.Ending{Who: who, Cause: session.CauseBackChannel}); err != nil {
			panic(err)
		}
		fmt.Println(about.Key)
	}
	if step == "ended" {
		desk.die()
	}
	s.Run(ctx)
	return 0
}

// Whenever the process dies, every app hears of every logout, and the outbox is empty in the end.
func TestEveryAppHearsOfEveryLogoutHoweverOftenWeAreKilled(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"ended", "claimed", "posted", "settled some"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			heard := make(map[string]int) // by app and sid
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				token := r.PostFormValue("logout_token")
				mu.Lock()
				defer mu.Unlock()
				heard[r.URL.Path[1:]+" "+sidOf(t, token)]++
			}))
			defer server.Close()
			path := filepath.Join(t.TempDir(), "curfew.db")
			ended := killedAt(t, step, path, server.URL)
			if len(ended) != crashLogouts {
				t.Fatalf("%d logouts were acknowledged, want %d", len(ended), crashLogouts)
			}
			before := len(heard)

			// The next process. Its clock says that the lease of the dead one has run out.
			store, err := sqlite.Open(t.Context(), path, sqlite.Options{})
			must(t, err)
			defer store.Close()
			later := func() time.Time { return time.Now().Add(time.Minute) }
			ring, err := session.NewRing(make([]byte, 32))
			must(t, err)
			keys, err := fanout.NewKeys(fanout.KeysConfig{Vault: store, Ring: ring, Log: discard(), Now: later})
			must(t, err)
			desk := &emptied{Store: store, empty: make(chan struct{})}
			s, err := fanout.New(fanout.Config{Desk: desk, Issuer: issuer, Signer: keys, Apps: crashApps(server.URL), Log: discard(), Now: later})
			must(t, err)
			ctx, stop := context.WithCancel(t.Context())
			var running sync.WaitGroup
			running.Go(func() { s.Run(ctx) })
			<-desk.empty
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
			if began := before > 0; began != (step == "posted" || step == "settled some") {
				t.Errorf("%d had been heard of before the kill: it was not at this step", before)
			}
		})
	}
}

// emptied is a desk that says when nothing is left on it.
type emptied struct {
	*sqlite.Store
	once  sync.Once
	empty chan struct{}
}

func (e *emptied) Settle(ctx context.Context, n session.Notice, o session.Outcome) error {
	if err := e.Store.Settle(ctx, n, o); err != nil {
		return err
	}
	tally, err := e.Tally(ctx)
	if err == nil && len(tally) == 0 {
		e.once.Do(func() { close(e.empty) })
	}
	return err
}

// killedAt runs a child until it has died at its step, and returns the sessions whose end it had acknowledged.
func killedAt(t *testing.T, step, path, apps string) (ended []session.Key) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childStep+"="+step, childPath+"="+path, childApps+"="+apps)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		k, err := session.ParseKey(lines.Text())
		must(t, err)
		ended = append(ended, k)
	}
	io.Copy(io.Discard, out)
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
