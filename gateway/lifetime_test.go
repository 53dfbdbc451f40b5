package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/web"
)

// hiccups is a store that fails when told to.
type hiccups struct {
	*memory.Store
	fail atomic.Int64 // how many more reads
}

func (h *hiccups) Find(ctx context.Context, k store.Key, now time.Time) (store.Record, error) {
	if h.fail.Add(-1) >= 0 {
		return store.Record{}, errors.New("connection refused")
	}
	return h.Store.Find(ctx, k, now)
}

// lasting runs a test with one stream, on a clock of its own. The context is done when the stream has been ended.
func lasting(t *testing.T, test func(t *testing.T, h *Handler, backend *hiccups, st *stream, ctx context.Context)) {
	t.Helper()
	lastingWith(t, session.Config{}, test)
}

func lastingWith(t *testing.T, cfg session.Config,
	test func(t *testing.T, h *Handler, backend *hiccups, st *stream, ctx context.Context)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		backend := &hiccups{Store: memory.New()}
		ring, err := keyring.Parse(keyring.NewFile())
		if err != nil {
			t.Fatal(err)
		}
		log := slog.New(slog.DiscardHandler)
		cfg.Store, cfg.Keyring, cfg.MaxStale, cfg.Log = backend, ring, -1, log
		sessions, err := session.NewManager(cfg)
		if err != nil {
			t.Fatal(err)
		}
		h := &Handler{
			Site: &web.Site{URL: &url.URL{Scheme: "http", Host: "localhost"}, Log: log}, Sessions: sessions,
			Cookie: session.Cookie{Insecure: true},
		}
		b, s, err := sessions.Create(t.Context(), session.SignIn{Issuer: "i", ClientID: "c", Subject: "alice",
			Began: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		st := &stream{handler: h, key: s.Key, bearer: b, cancel: cancel, timer: time.AfterFunc(time.Hour, func() {})}
		test(t, h, backend, st, ctx)
		st.release()
		synctest.Wait() // the watching goroutine is gone, or synctest says so
	})
}

func TestAStreamThatIsNoUseLastsAsLongAsAnIdleSession(t *testing.T) {
	t.Parallel()
	lasting(t, func(t *testing.T, h *Handler, _ *hiccups, st *stream, ctx context.Context) {
		began := time.Now()
		st.markLasting()
		<-ctx.Done()
		if d := time.Since(began); d < 2*time.Hour || d > 2*time.Hour+time.Second ||
			!errors.Is(context.Cause(ctx), ErrEnded) {
			t.Errorf("ended after %v: %v; want the idle lifetime of 2 h", d, context.Cause(ctx))
		}
	})
}

func TestAStreamThatIsUseKeepsItsSessionButNotBeyondItsLifetime(t *testing.T) {
	t.Parallel()
	lasting(t, func(t *testing.T, h *Handler, _ *hiccups, st *stream, ctx context.Context) {
		began := time.Now()
		h.StreamsAreUse = true
		st.markLasting()
		<-ctx.Done()
		if d := time.Since(began); d < 24*time.Hour || d > 24*time.Hour+time.Second {
			t.Errorf("ended after %v; want the absolute lifetime of 24 h", d)
		}
	})
}

func TestTheProviderIsAskedAboutAnOpaqueTokenAMinuteAfterTheLastTime(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		token  string
		known  *oidc.AccessToken
		before time.Duration // that it was asked last
		want   time.Duration
	}{
		"a minute ago":   {"opaque", &oidc.AccessToken{Opaque: true}, time.Minute, recheckRetry},
		"half of it":     {"opaque", &oidc.AccessToken{Opaque: true}, 30 * time.Second, 30*time.Second + recheckRetry},
		"forgotten":      {"opaque", nil, 0, recheckRetry},
		"a JWT":          {"ey.ey.x", &oidc.AccessToken{}, time.Hour, 2 * time.Hour},
		"forgotten, JWT": {"ey.ey.x", nil, 0, 2 * time.Hour},
		"a browser":      {"", nil, 0, 2 * time.Hour},
	} {
		lasting(t, func(t *testing.T, h *Handler, _ *hiccups, st *stream, ctx context.Context) {
			began := time.Now()
			h.Bearer = new(Bearer) // there is no provider that answers
			if st.token = c.token; c.known != nil {
				c.known.Expiry = began.Add(3 * time.Hour)
				h.Bearer.keep(sha256.Sum256([]byte(c.token)), &knownToken{token: c.known, verified: began.Add(-c.before)})
			}
			st.markLasting()
			<-ctx.Done()
			if d := time.Since(began); d < c.want || d > c.want+time.Second || !errors.Is(context.Cause(ctx), ErrEnded) {
				t.Errorf("%s: ended after %v: %v; want %v", name, d, context.Cause(ctx), c.want)
			}
		})
	}
}

func TestAStreamOutlivesOneLookThatFailedAndNotTwo(t *testing.T) {
	t.Parallel()
	for failures, want := range map[int64]time.Duration{1: 2 * time.Hour, 2: recheckRetry} {
		lasting(t, func(t *testing.T, h *Handler, backend *hiccups, st *stream, ctx context.Context) {
			began := time.Now()
			backend.fail.Store(failures)
			st.markLasting()
			<-ctx.Done()
			if d := time.Since(began); d < want || d > want+time.Second {
				t.Errorf("after %d failed looks it ended in %v, want %v", failures, d, want)
			}
		})
	}
}

func TestAStreamEndsWhenTheProviderSaysSoOnceItIsAsked(t *testing.T) {
	t.Parallel()
	const every, ended = 20 * time.Second, 5*time.Minute + time.Second
	var began time.Time
	asked := 0
	lastingWith(t, session.Config{
		Revalidation: func(string, string) session.Revalidation { return session.Revalidation{Every: every} },
		Revalidate: func(context.Context, *session.Session) (session.Renewal, error) {
			asked++
			if time.Since(began) >= ended {
				return session.Renewal{}, session.ErrProviderEnded
			}
			return session.Renewal{Confirmed: true}, nil
		},
	}, func(t *testing.T, h *Handler, _ *hiccups, st *stream, ctx context.Context) {
		began = time.Now()
		st.markLasting()
		<-ctx.Done()
		if d := time.Since(began); d < ended || d > ended+every || asked != 16 ||
			!errors.Is(context.Cause(ctx), ErrEnded) {
			t.Errorf("ended after %v and %d questions: %v", d, asked, context.Cause(ctx))
		}
	})
}

func TestAnEndingThatTheFeedMissedIsFoundWithinAMinute(t *testing.T) {
	t.Parallel()
	lasting(t, func(t *testing.T, h *Handler, backend *hiccups, st *stream, ctx context.Context) {
		st.markLasting()
		synctest.Wait()
		began := time.Now()
		who := store.Selector{Issuer: "i", ClientID: "c", Subject: "alice"}
		if _, err := backend.End(ctx, store.Ending{Selector: who, Cause: store.CauseAdmin},
			store.Time(time.Now())); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		if d := time.Since(began); d > recheckInterval {
			t.Errorf("found after %v", d)
		}
	})
}

func TestAShortRequestIsTiedToNothing(t *testing.T) {
	t.Parallel()
	lasting(t, func(t *testing.T, h *Handler, _ *hiccups, st *stream, _ context.Context) {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		short := h.newStream(&session.Session{Key: st.key}, r, st.cancel)
		time.Sleep(streamDelay - time.Millisecond)
		short.release()
		time.Sleep(time.Hour)
		if len(h.streams.groups) != 0 {
			t.Error("it is watched")
		}
		long := h.newStream(&session.Session{Key: st.key}, r, st.cancel)
		time.Sleep(streamDelay)
		synctest.Wait()
		if len(h.streams.groups) != 1 {
			t.Error("a long one is not")
		}
		long.release()
		if len(h.streams.groups) != 0 {
			t.Error("it is watched when it is over")
		}
	})
}

func TestWhatAClientSaysAfterTheEndIsThrownAway(t *testing.T) {
	t.Parallel()
	client, ours := net.Pipe()
	c := &upgradedConn{Conn: ours, buffered: bufio.NewReader(ours), ended: make(chan struct{}),
		drained: make(chan struct{})}
	c.cut()
	var app bytes.Buffer
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.WriteTo(&app)
	}()
	io.WriteString(client, "too late")
	client.Close()
	<-done
	if app.Len() > 0 {
		t.Errorf("the app received %q", &app)
	}
	if n, err := c.Write([]byte("x")); n != 0 || err == nil {
		t.Error("the client is still written to")
	}
}

// FuzzFrames feeds the same bytes in one piece and in many: where a frame ends does not depend on how it was cut.
func FuzzFrames(f *testing.F) {
	head := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
	f.Add([]byte("\x81\x05hello\x82\x7e\x01\x00"), uint8(1))
	f.Add([]byte("\x82\x7f\x00\x00\x00\x00\x00\x00\x00\x02xy\x88\x00"), uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		var whole, pieces frameTracker
		whole.track(append([]byte(head), data...))
		for rest := append([]byte(head), data...); len(rest) > 0; {
			n := min(int(step)+1, len(rest))
			pieces.track(rest[:n])
			rest = rest[n:]
		}
		if whole.atBoundary() != pieces.atBoundary() || whole.payloadLeft != pieces.payloadLeft ||
			whole.headLen != pieces.headLen {
			t.Errorf("whole %+v, in pieces %+v", whole, pieces)
		}
	})
}
