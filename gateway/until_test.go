package gateway_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
	"example.com/curfew/session"
)

// embedded serves a Go app behind the middleware of a stage.
func (st *stage) embedded(wrap func(http.Handler) http.Handler, app http.HandlerFunc) *httptest.Server {
	st.T.Helper()
	return rig.Serve(st.T, wrap(app))
}

// openAt sends a request and returns the answer as soon as it has begun.
func (st *stage) openAt(s *httptest.Server, b session.Bearer) *http.Response {
	st.T.Helper()
	r, _ := http.NewRequestWithContext(st.T.Context(), http.MethodGet, s.URL+"/", nil)
	r.AddCookie(&http.Cookie{Name: "curfew", Value: b.Reveal()})
	resp, err := bounded().RoundTrip(r)
	rig.Must(st.T, err)
	st.T.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestAStreamOfAGoAppEndsWithItsSessionAndNoOtherDoes(t *testing.T) {
	t.Parallel()
	for name, middleware := range map[string]func(*gateway.Handler) func(http.Handler) http.Handler{
		"Require":  func(h *gateway.Handler) func(http.Handler) http.Handler { return h.Require },
		"Optional": func(h *gateway.Handler) func(http.Handler) http.Handler { return h.Optional },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st := newStage(t)
			over := make(chan error, 10)
			app := st.embedded(middleware(st.gateway), func(w http.ResponseWriter, r *http.Request) {
				ctx, stop := gateway.UntilEnded(r.Context())
				defer stop()
				w.Header().Set("Content-Type", "text/event-stream")
				io.WriteString(w, "data: hello\n\n")
				http.NewResponseController(w).Flush()
				<-ctx.Done()
				over <- context.Cause(ctx)
				io.WriteString(w, "data: goodbye\n\n")
			})
			b, s := st.signIn(nil)
			other, otherSession := st.signIn(nil)
			one, two, third := st.openAt(app, b), st.openAt(app, b), st.openAt(app, other)
			st.end(s)
			for _, resp := range []*http.Response{one, two} {
				body, err := io.ReadAll(resp.Body)
				if cause := rig.Soon(t, "the handler to end", over); !errors.Is(cause, gateway.ErrEnded) ||
					err != nil || !strings.HasSuffix(string(body), "goodbye\n\n") {
					t.Errorf("%q, %v; the cause is %v", body, err, cause)
				}
			}
			select {
			case cause := <-over:
				t.Errorf("another session's stream ended: %v", cause)
			default:
			}
			st.end(otherSession)
			if _, err := io.ReadAll(third.Body); err != nil ||
				!errors.Is(rig.Soon(t, "the handler to end", over), gateway.ErrEnded) {
				t.Errorf("the other's: %v", err)
			}
		})
	}
}

func TestAStreamOfAGoAppWhoseClientLeavesIsNotTakenForEnded(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	over := make(chan error, 1)
	app := st.embedded(st.gateway.Require, func(w http.ResponseWriter, r *http.Request) {
		ctx, stop := gateway.UntilEnded(r.Context())
		defer stop()
		http.NewResponseController(w).Flush()
		<-ctx.Done()
		over <- context.Cause(ctx)
	})
	b, _ := st.signIn(nil)
	st.openAt(app, b).Body.Close()
	if cause := rig.Soon(t, "the handler to end", over); !errors.Is(cause, context.Canceled) ||
		errors.Is(cause, gateway.ErrEnded) {
		t.Errorf("the cause is %v", cause)
	}
}

func TestAConnectionThatAGoAppTookOverEndsWithItsSessionToo(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	taken := make(chan func(), 1)
	app := st.embedded(st.gateway.Require, func(w http.ResponseWriter, r *http.Request) {
		ctx, stop := gateway.UntilEnded(context.WithoutCancel(r.Context()))
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		context.AfterFunc(ctx, func() { conn.Close() })
		taken <- stop // it returns, and the connection goes on
	})
	b, s := st.signIn(nil)
	open := func() net.Conn {
		conn := rig.Dial(t, app)
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\nCookie: "+cookie(b)+
			"\r\n\r\n")
		head := make([]byte, len("HTTP/1.1 101 "))
		if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 101 " {
			t.Fatalf("%q, %v", head, err)
		}
		return conn
	}
	first := open()
	rig.Soon(t, "the app to take the connection", taken)() // and is closed by who took it
	if _, err := io.ReadAll(first); err != nil {
		t.Error(err)
	}
	second := open()
	stop := rig.Soon(t, "the app to take the connection", taken)
	defer stop()
	st.end(s)
	second.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadAll(second); err != nil {
		t.Errorf("after the logout: %v", err)
	}
}

func TestASessionThatEndedBeforeItWasWatchedIsFound(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	b, s := st.signIn(nil)
	app := st.embedded(st.gateway.Require, func(w http.ResponseWriter, r *http.Request) {
		st.end(s) // between the check and the watch
		ctx, stop := gateway.UntilEnded(r.Context())
		defer stop()
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), gateway.ErrEnded) {
			t.Errorf("the cause is %v", context.Cause(ctx))
		}
	})
	st.openAt(app, b)
}

func TestWithoutASessionNothingEnds(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	app := st.embedded(st.gateway.Optional, func(w http.ResponseWriter, r *http.Request) {
		ctx, stop := gateway.UntilEnded(r.Context())
		if ctx.Err() != nil {
			t.Errorf("it is done: %v", context.Cause(ctx))
		}
		stop()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("stopped, it is done by %v", ctx.Err())
		}
	})
	st.openAt(app, session.NewBearer("a", "b", "c"))
	ctx, stop := gateway.UntilEnded(t.Context()) // of a request that went through no middleware
	defer stop()
	if ctx.Err() != nil {
		t.Error(ctx.Err())
	}
}
