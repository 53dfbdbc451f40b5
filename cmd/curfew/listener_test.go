package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"example.com/curfew/cmd/curfew/internal/config"
	"example.com/curfew/internal/rig"
)

// at is a listener that is nowhere.
type at struct {
	net.Listener
	addr string
}

func (l at) Addr() net.Addr {
	a, err := net.ResolveTCPAddr("tcp", l.addr)
	if err != nil {
		panic(err)
	}
	return a
}

func TestAPrivateListenerThatOthersReachIsWarnedOf(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]bool{"127.0.0.1:4181": false, "[::1]:4181": false, "0.0.0.0:4181": true,
		"[::]:4181": true, "10.0.0.7:4181": true} {
		logs := newBuffer()
		c := &config.Config{URL: &url.URL{Scheme: "https", Host: "app.example.com"}}
		warnAtStart(slog.New(slog.NewTextHandler(logs, nil)), c,
			[]*server{{listener: at{addr: "127.0.0.1:1"}}, {listener: at{addr: addr}}})
		if got := strings.Contains(logs.String(), "event=private_listener_open"); got != want {
			t.Errorf("%s: warned %t, want %t", addr, got, want)
		}
	}
}

func TestOurOwnRoutesAreBoundedInTimeButNotTheStream(t *testing.T) {
	t.Parallel()
	begun := make(chan context.Context)
	h := limitTime(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		begun <- r.Context()
		<-r.Context().Done()
	}), "/auth")

	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/auth/logout", nil).WithContext(ctx))
		close(left)
	}()
	if _, bounded := rig.Soon(t, "the handler is called", begun).Deadline(); !bounded {
		t.Error("a route has all the time in the world")
	}
	leave()
	rig.Soon(t, "the handler returns", left)

	ctx, leave = context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/auth/events", nil).WithContext(ctx))
		close(ended)
	}()
	if _, bounded := rig.Soon(t, "the handler is called", begun).Deadline(); bounded {
		t.Error("the stream of events has a deadline")
	}
	leave()
	rig.Soon(t, "the stream ends", ended)
}
