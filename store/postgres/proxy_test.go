package postgres_test

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/store"
)

// wire carries bytes between a store and a server, and can be cut, or held up.
type wire struct {
	listener net.Listener
	server   string
	// cut says after how many more bytes from the server (or, if toServer, to it) the connection is cut; negative:
	// never.
	left     atomic.Int64
	toServer atomic.Bool
	held     sync.RWMutex // while it is held for writing nothing gets through, and nobody is told

	all sync.WaitGroup
}

func newWire(t *testing.T, server string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{listener: l, server: server}
	w.left.Store(-1)
	w.all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w.all.Go(func() { w.carry(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		w.all.Wait()
	})
	return w
}

// wait returns when nobody holds the wire up.
func (w *wire) wait() {
	w.held.RLock()
	defer w.held.RUnlock()
}

func (w *wire) carry(conn net.Conn) {
	defer conn.Close()
	server, err := net.DialTimeout("tcp", w.server, time.Minute)
	if err != nil {
		return
	}
	defer server.Close()
	var both sync.WaitGroup
	pipe := func(to, from net.Conn, toServer bool) {
		defer to.Close()
		defer from.Close()
		buf := make([]byte, 16<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			w.wait()
			if w.toServer.Load() == toServer {
				if left := w.left.Load(); left >= 0 {
					if int64(n) >= left {
						to.Write(buf[:left])
						w.left.Store(-1)
						return
					}
					w.left.Add(-int64(n))
				}
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	both.Go(func() { pipe(server, conn, true) })
	both.Go(func() { pipe(conn, server, false) })
	both.Wait()
}

func TestAConnectionCutInTheMiddleOfEndIsNeverSuccessAndAlive(t *testing.T) {
	t.Parallel()
	address := schema(t)
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(t, u.Host)
	u.Host = w.listener.Addr().String()
	o := patient()
	o.MaxConns = 1
	now := time.Now()
	plain := open(t, address, patient())
	success, alive, dead := 0, 0, 0
	for _, toServer := range []bool{true, false} {
		for i := range 40 {
			func() {
				// The feed's connection would have the bytes too, so it does not go through the wire.
				backend := open(t, with(t, u.String(), "feed", mustHost(t, address)), o)
				defer backend.Close()
				sid := fmt.Sprint("s", toServer, i)
				r := signIn(t, backend, "alice", sid, now)
				w.toServer.Store(toServer)
				w.left.Store(int64(i * 23))
				e := rig.Ending(store.Selector{SID: sid}, "j"+sid, now)
				_, err := backend.End(t.Context(), e, now)
				w.left.Store(-1)
				if err == nil {
					success++
					wantGone(t, plain, r, now)
					return
				}
				wantTrouble(t, "End", err)
				// What the server is at, it brings to an end; then the same token is either new or a replay.
				_, found := plain.Find(t.Context(), r.Key, now)
				ended, again := plain.End(t.Context(), e, now)
				switch {
				case again == nil && len(ended) == 1:
					alive++
					if found != nil {
						t.Errorf("Find before: %v, of one that was alive", found)
					}
				case errors.Is(again, store.ErrReplayed):
					dead++
				default:
					t.Errorf("End again: %d sessions, error %v", len(ended), again)
				}
				wantGone(t, plain, r, now)
			}()
		}
	}
	t.Logf("success %d, error and alive %d, error and dead %d", success, alive, dead)
	if alive == 0 || dead == 0 {
		t.Error("the cuts did not reach both sides of the commit")
	}
}

func mustHost(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func TestABackendThatIsTerminatedInTheMiddleOfEndIsNeverSuccessAndAlive(t *testing.T) {
	t.Parallel()
	address := schema(t)
	backend := open(t, address, patient())
	now := time.Now()
	r := signIn(t, backend, "alice", "s1", now)
	tx := beginEnd(t, address, store.Selector{Subject: "alice"}, "j1", now)
	done := make(chan error, 1)
	go func() {
		_, err := backend.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j2", now), now)
		done <- err
	}()
	waitBlocked(t, address, tx, 1)
	run(t, address, `SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE `+
		fmtInt(tx.Conn().PgConn().PID())+` = ANY (pg_blocking_pids(pid))`)
	wantTrouble(t, "End", rig.Soon(t, "the answer", done))
	tx.Rollback(t.Context())
	wantAlive(t, backend, r, now)
	if _, err := backend.End(t.Context(), rig.Ending(store.Selector{Subject: "alice"}, "j2", now), now); err != nil {
		t.Errorf("End with the same jti: %v", err)
	}
	wantGone(t, backend, r, now)
}
