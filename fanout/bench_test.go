package fanout_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/fanout"
	"example.com/curfew/internal/rig"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/store/sqlite"
)

// BenchmarkDelivery tells 20 apps of 500 logouts each: 15 that are well, 3 that are dead and 2 that take a second.
// Beside it, the 15 alone. The ratio of their times is what the others cost them: one dead app delays no other.
func BenchmarkDelivery(b *testing.B) {
	const each = 500
	for _, kind := range []string{"memory", "sqlite"} {
		b.Run(kind, func(b *testing.B) {
			var alone, among time.Duration
			for b.Loop() {
				alone += deliver(b, kind, each, 0, 0)
				among += deliver(b, kind, each, 3, 2)
			}
			b.ReportMetric(float64(among)/float64(alone), "ratio")
			b.ReportMetric(float64(b.N*15*each)/among.Seconds(), "deliveries/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// deliver returns how long 15 healthy apps take to hear of everything.
func deliver(b *testing.B, kind string, each, dead, slow int) time.Duration {
	var backend store.Store = memory.New()
	if kind == "sqlite" {
		var err error
		backend, err = sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "curfew.db"), sqlite.Options{})
		rig.Must(b, err)
	}
	defer backend.Close()
	const well = 15
	var missing atomic.Int64
	missing.Store(int64(well * each))
	all := make(chan struct{})
	quit := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if r.URL.Path == "/slow" {
			select {
			case <-time.After(time.Second):
			case <-quit:
			}
			return
		}
		if missing.Add(-1) == 0 {
			close(all)
		}
	}))
	defer server.Close()
	defer close(quit)
	var apps []fanout.App
	for i := range well {
		apps = append(apps, fanout.App{ClientID: fmt.Sprint("well", i), URI: server.URL + "/well"})
	}
	for i := range dead {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		rig.Must(b, err)
		apps = append(apps, fanout.App{ClientID: fmt.Sprint("dead", i), URI: "http://" + l.Addr().String()})
		l.Close()
	}
	for i := range slow {
		apps = append(apps, fanout.App{ClientID: fmt.Sprint("slow", i), URI: server.URL + "/slow"})
	}
	ring := rig.Keyring(b)
	keys, err := fanout.NewKeys(fanout.KeysConfig{Values: backend, Keyring: ring, Log: discard()})
	rig.Must(b, err)
	_, err = keys.Public(b.Context())
	rig.Must(b, err)
	s, err := fanout.New(fanout.Config{Outbox: backend, Issuer: issuer, Signer: keys, Apps: apps, Log: discard()})
	rig.Must(b, err)
	for i := range each {
		var logouts []fanout.Logout
		for _, a := range apps {
			logouts = append(logouts, fanout.Logout{ClientID: a.ClientID, Subject: fmt.Sprint("user", i)})
		}
		rig.Must(b, s.Notify(b.Context(), logouts...))
	}
	ctx, stop := context.WithCancel(b.Context())
	var running sync.WaitGroup
	began := time.Now()
	running.Go(func() { s.Run(ctx) })
	rig.Soon(b, "all is told", all)
	took := time.Since(began)
	stop()
	running.Wait()
	return took
}
