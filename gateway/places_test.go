package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"example.com/curfew/gateway"
	"example.com/curfew/web"
)

// Strangers have half of the places, and a place is free again when its request is over.
func TestRequestsThatAreOpenHaveSoManyPlaces(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	st.gateway.MaxOpen = 4
	policy, err := gateway.NewPolicy(gateway.Rule{Path: "/public/*", Public: true})
	if err != nil {
		t.Fatal(err)
	}
	st.gateway.Policy = policy
	begun, let := make(chan struct{}, 10), make(chan struct{})
	st.upstream = func(_ http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/held") {
			begun <- struct{}{}
			<-let
		}
	}
	b, _ := st.signIn(nil)
	answered := make(chan int, 10)
	hold := func(path string, headers ...string) {
		go func() {
			resp, err := bounded().RoundTrip(asking(t, st.public.URL+path, headers...))
			if err != nil {
				t.Error(err)
				answered <- 0
				return
			}
			resp.Body.Close()
			answered <- resp.StatusCode
		}()
		receive(t, begun, "a request at the app")
	}
	want := func(what string, status int, path string, headers ...string) {
		t.Helper()
		resp, body := st.send("GET", path, headers...)
		if resp.StatusCode != status {
			t.Errorf("%s: %d %s, want %d", what, resp.StatusCode, body, status)
		}
		if status == http.StatusServiceUnavailable && (resp.Header.Get("Retry-After") == "" ||
			!strings.Contains(body, "Too many requests")) {
			t.Errorf("%s: %v %s", what, resp.Header, body)
		}
	}
	hold("/public/held")
	hold("/public/held")
	want("a third stranger", http.StatusServiceUnavailable, "/public/x")
	want("who is signed in, on a public path", http.StatusOK, "/public/x", "Cookie", cookie(b))
	hold("/held", "Cookie", cookie(b))
	hold("/held", "Cookie", cookie(b))
	want("a fifth request", http.StatusServiceUnavailable, "/x", "Cookie", cookie(b))
	want("an event stream", http.StatusServiceUnavailable, "/auth/events", "Cookie", cookie(b))
	want("a page about its own session", http.StatusOK, "/auth/session", "Cookie", cookie(b))
	want("who is not let in", http.StatusUnauthorized, "/x")
	close(let)
	for range 4 {
		if status := receive(t, answered, "an answer"); status != http.StatusOK {
			t.Errorf("a request with a place: %d", status)
		}
	}
	want("a stranger, later", http.StatusOK, "/public/x")
	want("who is signed in, later", http.StatusOK, "/x", "Cookie", cookie(b))
}

func asking(t *testing.T, where string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(http.MethodGet, where, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// timed is a ResponseWriter that is told deadlines.
type timed struct {
	*httptest.ResponseRecorder
	last time.Time
}

func (w *timed) SetWriteDeadline(t time.Time) error { w.last = t; return nil }

// What a proxied answer leaves in a buffer is written in time; web tests the rest.
func TestAProxiedAnswerMakesProgressOrEnds(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	u, err := url.Parse(st.app.URL)
	if err != nil {
		t.Fatal(err)
	}
	w := &timed{ResponseRecorder: httptest.NewRecorder()}
	st.gateway.Proxy(u).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if left := time.Until(w.last); left <= 0 || left > web.WriteTime {
		t.Errorf("the end of the answer may take %v, want %v", left, web.WriteTime)
	}
}
