package web

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"example.com/curfew/internal/span"
)

// A request that is not sampled pays for no recording, and what is below it still learns which trace it is in.
func TestATraceThatIsNotSampledIsPassedOn(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	for _, row := range []struct {
		name, from, want string
		sampler          sdk.Sampler
	}{
		{"ours", "203.0.113.1:1", "-00", sdk.NeverSample()},
		{"of a trusted proxy", "127.0.0.1:1", "-00", sdk.ParentBased(sdk.AlwaysSample())},
		{"of a stranger, who does not decide", "203.0.113.1:1", "-01", sdk.ParentBased(sdk.AlwaysSample())},
	} {
		provider := sdk.NewTracerProvider(sdk.WithSampler(row.sampler))
		t.Cleanup(func() { provider.Shutdown(t.Context()) })
		site := &Site{Tracer: provider, TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = row.from
		r.Header.Set("Traceparent", parent)
		w := httptest.NewRecorder()
		got, r, end := site.Trace(w, r, "proxy")
		end()
		if sampled := row.want == "-01"; (got == http.ResponseWriter(w)) == sampled {
			t.Errorf("%s: sampled is %t, and the writer is %T", row.name, sampled, got)
		}
		on := http.Header{}
		span.Inject(r.Context(), on)
		trusted := row.from == "127.0.0.1:1"
		if text := on.Get("Traceparent"); !strings.HasSuffix(text, row.want) ||
			strings.HasPrefix(text, parent[:35]) != trusted || !trace.SpanContextFromContext(r.Context()).IsValid() {
			t.Errorf("%s: passes on %q, want one that ends in %s", row.name, text, row.want)
		}
	}
}

// Apps ask a writer for what else it can do, so a traced one can exactly what the one below it can.
func TestATracedWriterCanDoWhatTheOneBelowItCan(t *testing.T) {
	t.Parallel()
	type (
		writer = http.ResponseWriter
		also   struct {
			http.Flusher
			http.Hijacker
			io.ReaderFrom
		}
	)
	provider := sdk.NewTracerProvider()
	t.Cleanup(func() { provider.Shutdown(t.Context()) })
	site := &Site{Tracer: provider}
	for _, row := range []struct {
		under writer
		want  string
	}{
		{struct{ writer }{}, ""},
		{struct {
			writer
			http.Flusher
		}{}, "F"},
		{struct {
			writer
			http.Hijacker
		}{}, "H"},
		{struct {
			writer
			io.ReaderFrom
		}{}, "R"},
		{struct {
			writer
			http.Flusher
			http.Hijacker
		}{}, "FH"},
		{struct {
			writer
			http.Flusher
			io.ReaderFrom
		}{}, "FR"},
		{struct {
			writer
			http.Hijacker
			io.ReaderFrom
		}{}, "HR"},
		{struct {
			writer
			also
		}{}, "FHR"},
	} {
		w, _, _ := site.Trace(row.under, httptest.NewRequest(http.MethodGet, "/", nil), "require")
		got := ""
		if _, ok := w.(http.Flusher); ok {
			got += "F"
		}
		if _, ok := w.(http.Hijacker); ok {
			got += "H"
		}
		if _, ok := w.(io.ReaderFrom); ok {
			got += "R"
		}
		if got != row.want {
			t.Errorf("over a writer with %q the traced one has %q", row.want, got)
		}
	}
}

// The span has the status that the client gets, whichever way the answer is sent.
func TestASpanHasTheStatusThatTheClientGets(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		send   func(http.ResponseWriter)
		status int
		body   string
	}{
		"a status": {func(w http.ResponseWriter) { w.WriteHeader(418) }, 418, ""},
		"a flush":  {func(w http.ResponseWriter) { w.(http.Flusher).Flush(); w.WriteHeader(418) }, 200, ""},
		"a flush by its controller": {func(w http.ResponseWriter) {
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			w.WriteHeader(418)
		}, 200, ""},
		"a copy": {func(w http.ResponseWriter) {
			w.(io.ReaderFrom).ReadFrom(strings.NewReader("text"))
			w.WriteHeader(418)
		}, 200, "text"},
		"a connection taken over": {func(w http.ResponseWriter) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntook")
			conn.Close()
		}, 200, "took"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spans := tracetest.NewSpanRecorder()
			provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(spans))
			site := &Site{Tracer: provider}
			done := make(chan struct{})
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(done)
				w, _, end := site.Trace(w, r, "require")
				defer end()
				row.send(w)
			}))
			server.Config.ErrorLog = log.New(io.Discard, "", 0) // superfluous WriteHeader
			server.Start()
			t.Cleanup(server.Close)
			resp, err := http.Get(server.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if body, err := io.ReadAll(resp.Body); string(body) != row.body || resp.StatusCode != row.status {
				t.Errorf("%d %q, %v; want %d %q", resp.StatusCode, body, err, row.status, row.body)
			}
			<-done
			for _, a := range spans.Ended()[0].Attributes() {
				if a.Key == "http.response.status_code" && a.Value.AsInt64() != int64(row.status) {
					t.Errorf("the span has the status %d, want %d", a.Value.AsInt64(), row.status)
				}
			}
		})
	}
}
