package web

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
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
