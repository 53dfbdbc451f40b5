package fanout_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"example.com/curfew/fanout"
	"example.com/curfew/internal/rig"
	"example.com/curfew/keyring"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

const issuer = "https://curfew.example/auth"

// stage is a store and a sender in a bubble with a network and a time of its own.
type stage struct {
	*testing.T
	store  *memory.Store
	ring   *keyring.Keyring
	keys   *fanout.Keys
	sender *fanout.Sender
	net    *network
	log    *rig.Log

	mu      sync.Mutex
	results []string
	stop    func()
}

// newStage makes a stage of apps, by name, whose machines answer as given, once run is called.
func newStage(t *testing.T, change func(*fanout.Config), apps ...fanout.App) *stage {
	algs := []string{fanout.ES256}
	for _, a := range apps {
		if a.Alg == fanout.RS256 {
			algs = append(algs, a.Alg)
		}
	}
	t.Helper()
	s := &stage{T: t, store: memory.New(), net: newNetwork(t), log: new(rig.Log), ring: rig.Keyring(t)}
	t.Cleanup(func() { s.store.Close() })
	log := s.log.Logger()
	var err error
	s.keys, err = fanout.NewKeys(fanout.KeysConfig{Values: s.store, Keyring: s.ring, Algs: algs, Log: log})
	rig.Must(t, err)
	s.sender = s.another(change, apps...)
	return s
}

// another returns a sender at the same store, as one that was configured anew.
func (s *stage) another(change func(*fanout.Config), apps ...fanout.App) *fanout.Sender {
	s.Helper()
	cfg := fanout.Config{Outbox: s.store, Issuer: issuer, Signer: s.keys, Apps: apps, Keyring: s.ring, Log: s.log.Logger(),
		OnAttempt: func(kind store.NoticeKind, target, result string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.results = append(s.results, target+" "+result)
		}}
	if change != nil {
		change(&cfg)
	}
	sender, err := fanout.New(cfg)
	rig.Must(s.T, err)
	sender.Dial(s.net.dial)
	return sender
}

// run has the sender work until the test ends, or stop is called.
func (s *stage) run() { s.stop = s.runs(s.sender) }

// runs is run for another sender; it returns its stop.
func (s *stage) runs(sender *fanout.Sender) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); sender.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	s.Cleanup(stop)
	return stop
}

// app is an app of the stage, reached by https or http as it says.
func app(name string, change ...func(*fanout.App)) fanout.App {
	a := fanout.App{ClientID: name, URI: "http://" + name + ".example/logout?tenant=7", Insecure: true}
	for _, f := range change {
		f(&a)
	}
	return a
}

func (s *stage) enqueue(app string, subjects ...string) {
	s.Helper()
	for _, subject := range subjects {
		rig.Must(s.T, s.sender.Notify(context.Background(), fanout.Logout{ClientID: app, Subject: subject}))
	}
}

// pass lets time pass, until everybody has nothing to do but wait.
func (s *stage) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// letters returns what is in the outbox.
func (s *stage) letters(state store.NoticeState) []store.Notice {
	s.Helper()
	page, err := s.store.Notices(context.Background(), store.NoticeQuery{State: state, Limit: 1000})
	rig.Must(s.T, err)
	return page.Notices
}

// wantCounted fails unless the notices in the outbox count as many attempts, in all, as were made.
func (s *stage) wantCounted(made int) {
	s.Helper()
	counted := 0
	for _, n := range s.letters("") {
		counted += n.Attempts
	}
	if counted != made {
		s.Errorf("the notices count %d attempts, and %d were made", counted, made)
	}
}

func (s *stage) attempts() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.results...)
}

// verify reads a token as strictly as an app can.
func (s *stage) verify(token string) (header jose.Header, claims map[string]any) {
	s.Helper()
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
	rig.Must(s.T, err)
	set, err := s.keys.Public(context.Background())
	rig.Must(s.T, err)
	keys := set.Key(jws.Signatures[0].Header.KeyID)
	if len(keys) != 1 {
		s.Fatalf("%d keys have the kid %q", len(keys), jws.Signatures[0].Header.KeyID)
	}
	payload, err := jws.Verify(keys[0])
	rig.Must(s.T, err)
	rig.Must(s.T, json.Unmarshal(payload, &claims))
	return jws.Signatures[0].Protected, claims
}

// network is machines by host and port, and connections between them that know no wire.
type network struct {
	t     *testing.T
	mu    sync.Mutex
	hosts map[string]func(net.Conn)
	all   sync.WaitGroup
}

func newNetwork(t *testing.T) *network {
	n := &network{t: t, hosts: make(map[string]func(net.Conn))}
	t.Cleanup(n.all.Wait)
	return n
}

func (n *network) dial(_ context.Context, _, address string) (net.Conn, error) {
	n.mu.Lock()
	serve := n.hosts[address]
	n.mu.Unlock()
	if serve == nil {
		return nil, errors.New("connection refused")
	}
	here, there := net.Pipe()
	n.all.Go(func() { defer there.Close(); serve(there) })
	return here, nil
}

// machine puts an app on the network, or takes it off.
func (n *network) machine(name string, serve func(net.Conn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[name+".example:80"] = serve
}

// says returns a machine that reads a request, and then has answer write what it likes.
func says(answer func(w io.Writer)) func(net.Conn) {
	return func(c net.Conn) {
		if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			io.Copy(io.Discard, r.Body)
			answer(c)
		}
	}
}

// answers returns a machine that gives one answer.
func answers(raw string) func(net.Conn) {
	return says(func(w io.Writer) { io.WriteString(w, raw) })
}

// mailbox is an app that takes logout tokens.
type mailbox struct {
	mu     sync.Mutex
	tokens []string
	urls   []string
	forms  []string
	busy   int
	most   int // at the same time
	takes  time.Duration
	status func(nth int) int // default 200
}

func (m *mailbox) serve(c net.Conn) {
	l := &oneConn{conn: c, gone: make(chan struct{})}
	server := &http.Server{Handler: m, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				l.Close()
			}
		}}
	server.Serve(l)
}

func (m *mailbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	m.mu.Lock()
	m.busy++
	m.most = max(m.most, m.busy)
	m.tokens = append(m.tokens, strings.TrimPrefix(string(body), "logout_token="))
	m.urls = append(m.urls, r.Method+" "+r.Host+r.URL.RequestURI())
	m.forms = append(m.forms, r.Header.Get("Content-Type"))
	nth := len(m.tokens)
	m.mu.Unlock()
	time.Sleep(m.takes)
	m.mu.Lock()
	m.busy--
	m.mu.Unlock()
	if m.status != nil {
		w.WriteHeader(m.status(nth))
	}
}

func (m *mailbox) got() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.tokens...)
}

// oneConn is a listener of one connection.
type oneConn struct {
	conn net.Conn
	once sync.Once
	shut sync.Once
	gone chan struct{}
}

func (l *oneConn) Accept() (c net.Conn, err error) {
	l.once.Do(func() { c = l.conn })
	if c == nil {
		<-l.gone
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l *oneConn) Close() error   { l.shut.Do(func() { close(l.gone) }); return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

func names(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprint(prefix, i)
	}
	return all
}
