package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tracing "go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"example.com/curfew/oidc/oidctest"
)

// spans is a receiver of OTLP, over HTTP and gRPC.
type spans struct {
	collector.UnimplementedTraceServiceServer
	mu       sync.Mutex
	all      []*otlp.Span
	resource string
	headers  []string // the values of x-api-key
	came     chan struct{}
}

func (s *spans) add(r *collector.ExportTraceServiceRequest, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.headers = append(s.headers, key)
	for _, rs := range r.GetResourceSpans() {
		s.resource = prototext.Format(rs.GetResource())
		for _, ss := range rs.GetScopeSpans() {
			s.all = append(s.all, ss.GetSpans()...)
		}
	}
	select {
	case s.came <- struct{}{}:
	default:
	}
}

func (s *spans) Export(ctx context.Context, r *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	s.add(r, strings.Join(md.Get("x-api-key"), ","))
	return &collector.ExportTraceServiceResponse{}, nil
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var request collector.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &request) != nil {
		http.Error(w, "not OTLP", http.StatusBadRequest)
		return
	}
	s.add(&request, r.Header.Get("x-api-key"))
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// named returns the spans with a name.
func (s *spans) named(name string) (found []*otlp.Span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		if one.GetName() == name {
			found = append(found, one)
		}
	}
	return found
}

// await waits for spans with a name.
func (s *spans) await(t *testing.T, name string) []*otlp.Span {
	t.Helper()
	late := time.After(2 * time.Minute)
	for {
		if found := s.named(name); len(found) > 0 {
			return found
		}
		select {
		case <-s.came:
		case <-late:
			s.mu.Lock()
			defer s.mu.Unlock()
			var names []string
			for _, one := range s.all {
				names = append(names, one.GetName())
			}
			t.Fatalf("no span is named %q, but %q", name, names)
		}
	}
}

// inTrace returns the names of the spans of a trace.
func (s *spans) inTrace(id []byte) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		if bytes.Equal(one.GetTraceId(), id) {
			names = append(names, one.GetName())
		}
	}
	slices.Sort(names)
	return names
}

func attr(s *otlp.Span, name string) string {
	for _, a := range s.GetAttributes() {
		if a.GetKey() == name {
			return a.GetValue().GetStringValue()
		}
	}
	return ""
}

// The exporters read the environment of the process, so this cannot run beside others.
func TestOneTraceFromALogoutToTheApp(t *testing.T) {
	received := &spans{came: make(chan struct{}, 1)}
	receiver := httptest.NewServer(received)
	t.Cleanup(receiver.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=of-the-collector")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "100")

	op := oidctest.Start(t, oidctest.Config{AutoLogin: "alice", Clients: []oidctest.Client{{ID: "app",
		RedirectURIs: []string{"http://127.0.0.1:4180/auth/callback"}}}})
	var mu sync.Mutex
	seen := map[string][]string{} // by path, the traceparents
	secrets := map[string]bool{"alice": true}
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.URL.Path] = append(seen[r.URL.Path], r.Header.Values("Traceparent")...)
		if r.URL.Path == "/logout" && r.ParseForm() == nil {
			secrets[r.PostForm.Get("logout_token")] = true
		}
	}))
	t.Cleanup(app.Close)
	const stranger = "00-11111111111111111111111111111111-2222222222222222-01"
	serve := func(more string) *gateway {
		return startGateway(t, "--config", writeFile(t, "url: http://127.0.0.1:4180\nstore: 'sqlite:"+
			filepath.Join(t.TempDir(), "t.db")+"'\ntraces: otlp\nupstream: "+app.URL+"\nproviders:\n  - {issuer: '"+
			op.Issuer()+"', client_id: app}\napps:\n  - {client_id: wiki, backchannel_logout_uri: '"+app.URL+"/logout'}\n"+
			more))
	}
	g := serve("")
	b := g.arrive(t, "a browser")
	b.client.CheckRedirect = func(r *http.Request, _ []*http.Request) error {
		for name, values := range r.URL.Query() {
			if name == "code" || name == "state" || name == "nonce" {
				secrets[values[0]] = true
			}
		}
		return nil
	}
	b.signIn("alice")
	here, _ := url.Parse("http://127.0.0.1:4180/")
	for _, c := range b.client.Jar.Cookies(here) {
		secrets[c.Value] = true
	}
	r, _ := http.NewRequest(http.MethodGet, "http://127.0.0.1:4180/private/of-alice?q=hidden", nil)
	r.Header.Set("Traceparent", stranger)
	r.Header.Set("Tracestate", "evil=1")
	resp, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	sid := op.Sessions()[0].SID
	secrets[sid], secrets["hidden"], secrets["of-alice"] = true, true, true
	token := op.SignLogoutToken("app", "alice", sid)
	secrets[token] = true
	if status, body := g.logout(t, token); status != http.StatusOK {
		t.Fatal(status, body)
	}
	notice := received.await(t, "notice logout")[0]
	if status := g.stop(); status != 0 {
		t.Errorf("it ended with %d: %s", status, g.logs)
	}

	mu.Lock()
	defer mu.Unlock()
	parent := func(s *otlp.Span) []string {
		return []string{"00-" + hex.EncodeToString(s.GetTraceId()) + "-" + hex.EncodeToString(s.GetSpanId()) + "-01"}
	}
	logout := received.await(t, "POST /auth/backchannel-logout")[0]
	names := received.inTrace(logout.GetTraceId())
	for _, want := range []string{"POST /auth/backchannel-logout", "store end", "notice logout"} {
		if !slices.Contains(names, want) {
			t.Errorf("the trace of the logout has no %q, but %q", want, names)
		}
	}
	if attr(logout, "curfew.result") != "ok" || attr(logout, "curfew.provider") != "main" ||
		attr(notice, "curfew.notice.target") != "wiki" || attr(notice, "curfew.result") != "ok" {
		t.Errorf("attributes: %v, %v", logout, notice)
	}
	callback := received.await(t, "GET /auth/callback")[0]
	names = received.inTrace(callback.GetTraceId())
	for _, want := range []string{"provider POST", "store create", "store claim_attempt"} {
		if !slices.Contains(names, want) {
			t.Errorf("the trace of the callback has no %q, but %q", want, names)
		}
	}
	login := received.await(t, "GET /auth/login")[0]
	if l := callback.GetLinks(); len(l) != 1 || !bytes.Equal(l[0].GetTraceId(), login.GetTraceId()) {
		t.Errorf("the callback is not linked to the login: %v", l)
	}
	received.await(t, "GET proxy")
	var proxied *otlp.Span
	for _, s := range received.named("GET proxy") {
		if slices.Equal(seen["/private/of-alice"], parent(s)) { // the sign-in led to another page first
			proxied = s
		}
	}
	if proxied == nil {
		t.Fatalf("the app got %q, which no span sent", seen["/private/of-alice"])
	}
	if attr(proxied, "curfew.result") != "allowed" || attr(proxied, "curfew.reason") != "session" ||
		len(proxied.GetParentSpanId()) != 0 || len(proxied.GetTraceState()) != 0 {
		t.Errorf("the proxied request: %v", proxied)
	}
	if !slices.Equal(seen["/logout"], parent(notice)) {
		t.Errorf("the app got %q with its notice, want %q", seen["/logout"], parent(notice))
	}
	if !strings.Contains(received.resource, `"curfew"`) ||
		!strings.Contains(received.resource, "deployment.environment") ||
		received.headers[0] != "of-the-collector" {
		t.Errorf("resource %s, key %q", received.resource, received.headers[0])
	}
	// No span has a secret, nor who it was about.
	for _, s := range received.all {
		text := prototext.Format(s)
		for secret := range secrets {
			if len(secret) > 3 && strings.Contains(text, secret) {
				t.Errorf("a span has %q: %s", secret, text)
			}
		}
	}

	// A trusted proxy may say which trace a request belongs to.
	g = serve("trusted_proxies: [127.0.0.1]\n")
	r, _ = http.NewRequest(http.MethodGet, "http://"+g.public+"/auth/verify", nil)
	r.Header.Set("Traceparent", stranger)
	if status, _ := g.do(t, r); status != http.StatusUnauthorized {
		t.Error(status)
	}
	verify := received.await(t, "GET /auth/verify")[0]
	if hex.EncodeToString(verify.GetTraceId()) != strings.Repeat("1", 32) ||
		hex.EncodeToString(verify.GetParentSpanId()) != strings.Repeat("2", 16) ||
		attr(verify, "curfew.result") != "signed_out" {
		t.Errorf("the trace of a trusted proxy: %v", verify)
	}
}

func TestTracesAreExportedOverGRPC(t *testing.T) {
	received := &spans{came: make(chan struct{}, 1)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, received)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+l.Addr().String())
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-api-key=of-the-collector")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_TRACES_EXPORTER", "otlp")
	tracer, stop, err := newTracer(t.Context(), "", os.Environ(), slog.New(slog.DiscardHandler))
	if err != nil || tracer == nil {
		t.Fatal(tracer, err)
	}
	_, span := tracer.Tracer("test").Start(t.Context(), "over gRPC")
	span.End()
	if err := stop(); err != nil {
		t.Error(err)
	}
	received.await(t, "over gRPC")
	if received.headers[0] != "of-the-collector" {
		t.Errorf("the headers are %q", received.headers)
	}
}

func TestTracesAreOffUnlessAskedFor(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		setting string
		environ []string
		fault   string
	}{
		{"", nil, ""},
		{"", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9"}, ""},
		{"none", []string{"OTEL_TRACES_EXPORTER=otlp"}, ""},
		{"", []string{"OTEL_TRACES_EXPORTER=none"}, ""},
		{"otlp", []string{"OTEL_SDK_DISABLED=true"}, ""},
		{"", []string{"OTEL_TRACES_EXPORTER=zipkin"}, "OTEL_TRACES_EXPORTER: want otlp or none"},
		{"otlp", []string{"OTEL_EXPORTER_OTLP_PROTOCOL=http/json"},
			"OTEL_EXPORTER_OTLP_PROTOCOL: want http/protobuf or grpc"},
	} {
		tracer, stop, err := newTracer(t.Context(), row.setting, row.environ, slog.New(slog.DiscardHandler))
		if tracer != tracing.TracerProvider(nil) || (err == nil) != (row.fault == "") ||
			err != nil && err.Error() != row.fault {
			t.Errorf("%q with %q: %v, %v", row.setting, row.environ, tracer, err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}

// A collector that is away costs spans, and a line in the log each minute. It holds up nothing.
func TestACollectorThatIsAwayHoldsUpNothing(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "a secret without an equals sign")
	t.Setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	g := memoryGateway(t, "http://127.0.0.1:9", "--traces", "otlp")
	for range 20 {
		if status, _ := g.get(t, g.public+"/auth/verify"); status != http.StatusUnauthorized {
			t.Error(status)
		}
	}
	if status := g.stop(); status != 0 {
		t.Errorf("it ended with %d", status)
	}
	if n := strings.Count(g.logs.String(), "spans could not be exported, and are lost"); n > 1 {
		t.Errorf("logged %d times", n)
	}
	if strings.Contains(g.logs.String(), "a secret") {
		t.Error("the log has the headers for the collector")
	}
}

func TestProfilesAreOnThePrivateListenerWhenAskedFor(t *testing.T) {
	t.Parallel()
	g := memoryGateway(t, "http://127.0.0.1:9")
	if status, _ := g.get(t, g.private+"/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("without being asked for: %d", status)
	}
	g = memoryGateway(t, "http://127.0.0.1:9", "--pprof=true")
	for path, want := range map[string]int{"/debug/pprof/": 200, "/debug/pprof/goroutine?debug=1": 200,
		"/debug/pprof/heap": 200, "/debug/pprof/cmdline": 404, "/debug/": 404} {
		if status, _ := g.get(t, g.private+path); status != want {
			t.Errorf("%s: %d, want %d", path, status, want)
		}
		if status, body := g.get(t, g.public+path); status != http.StatusNotFound || !strings.Contains(body, "forward-auth") {
			t.Errorf("the public listener at %s: %d %s", path, status, body)
		}
	}
	r, _ := http.NewRequest(http.MethodGet, "http://"+g.private+"/debug/pprof/profile?seconds=1", nil)
	r.Host = "evil.example.com"
	if status, _ := g.do(t, r); status != http.StatusMisdirectedRequest {
		t.Errorf("under another name: %d", status)
	}
	r.Host = ""
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if status, _ := g.do(t, r); status != http.StatusForbidden {
		t.Errorf("from a page of another site: %d", status)
	}
}

func TestTheLevelOfTheLogCanBeChangedAndItIsOnRecordWhoDidIt(t *testing.T) {
	t.Parallel()
	o := operate(t)
	if out, _, status := o.run("log-level"); status != 0 || out != "info\n" {
		t.Errorf("%d %q", status, out)
	}
	if strings.Contains(o.logs.String(), "event=login_started") {
		t.Error("info shows what is logged at debug")
	}
	if out, stderr, status := o.run("log-level", "debug"); status != 0 || out != "debug\n" {
		t.Errorf("%d %q %q", status, out, stderr)
	}
	o.get(t, o.public+"/auth/login")
	o.logs.await(t, "event=login_started")
	if out, _, _ := o.run("log-level", "error"); out != "error\n" {
		t.Errorf("%q", out)
	}
	if !strings.Contains(o.logs.String(), "event=log_level_changed to=error was=debug operator=") {
		t.Errorf("the log does not say who turned it down: %s", grep(o.logs.String(), "log_level"))
	}
	if out, stderr, status := o.run("log-level", "loud"); status != 2 || !strings.Contains(stderr, "want debug, info") {
		t.Errorf("%d %q %q", status, out, stderr)
	}
	r, _ := http.NewRequest(http.MethodPost, "http://"+o.private+"/api/log-level?level=debug", nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if status, _ := o.do(t, r); status != http.StatusForbidden {
		t.Errorf("from a page of another site: %d", status)
	}
	o.stop()
	text, err := os.ReadFile(o.audit)
	if err != nil || strings.Count(string(text), "from info to debug") != 1 ||
		strings.Count(string(text), "from debug to error") != 1 {
		t.Errorf("the audit record: %v\n%s", err, grep(string(text), "level"))
	}
}
