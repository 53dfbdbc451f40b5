package fanout_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/store"
)

// The table of docs/fanout.md, row by row: what an app may answer, and what comes of it.
func TestWhateverAnAppAnswersHasItsOutcome(t *testing.T) {
	t.Parallel()
	const (
		done  = "done"
		again = "again" // at its time, until the deadline
		third = "third" // again, and given up at the third time
		never = "never" // given up at once
	)
	dribble := func(text string) func(net.Conn) {
		return says(func(w io.Writer) {
			for i := range len(text) {
				if _, err := io.WriteString(w, text[i:i+1]); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
	}
	ok := "HTTP/1.1 200 OK\r\n"
	for _, c := range []struct {
		name   string
		app    func(net.Conn)
		result string
		next   string
		reason string
		within time.Duration // the attempt takes no longer
	}{
		{"200", answers(ok + "Content-Length: 0\r\n\r\n"), "ok", done, "", 0},
		{"204", answers("HTTP/1.1 204 No Content\r\n\r\n"), "ok", done, "", 0},
		{"200 with garbage in the body", answers(ok + "Content-Length: 9\r\n\r\n\x00\xff{<!--]]>"), "ok", done, "", 0},
		{"200 with a body shorter than it says", answers(ok + "Content-Length: 90\r\n\r\nx"), "ok", done, "", 0},
		{"200 with ten megabytes", says(func(w io.Writer) {
			fmt.Fprintf(w, "%sContent-Length: %d\r\n\r\n", ok, 10<<20)
			for range 10 << 10 {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
			panic("somebody read ten megabytes")
		}), "ok", done, "", time.Second},
		{"200 and then one byte a second", says(func(w io.Writer) {
			io.WriteString(w, ok+"Content-Length: 3600\r\n\r\n")
			for range 3600 {
				time.Sleep(time.Second)
				if _, err := io.WriteString(w, "x"); err != nil {
					return
				}
			}
			panic("somebody waited for an hour")
		}), "ok", done, "", time.Second},
		{"202", answers("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"), "refused", third, "it answered 202", 0},
		{"302", answers("HTTP/1.1 302 Found\r\nLocation: http://other.example/\r\nContent-Length: 0\r\n\r\n"),
			"redirect", again, "it answered 302: redirects are not followed", 0},
		{"307", answers("HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"),
			"redirect", again, "it answered 307: redirects are not followed", 0},
		{"400", answers("HTTP/1.1 400 Bad Request\r\nContent-Length: 27\r\n\r\n{\"error\":\"invalid_request\"}"),
			"refused", third, "it answered 400", 0},
		{"401", answers("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"), "error", again, "it answered 401",
			0},
		{"404", answers("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), "error", again, "it answered 404", 0},
		{"410", answers("HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"), "error", never, "it answered 410", 0},
		{"429", answers("HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"), "error", again,
			"it answered 429", 0},
		{"500", answers("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"), "error", again,
			"it answered 500", 0},
		{"503", answers("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"), "error", again,
			"it answered 503", 0},
		{"garbage", answers("\x00\x01\x02 this is no HTTP\r\n\r\n"), "unreachable", again, "no answer: ", 0},
		{"headers without end", says(func(w io.Writer) {
			io.WriteString(w, ok)
			for {
				if _, err := io.WriteString(w, "X-Filler: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
					return
				}
			}
		}), "unreachable", again, "no answer: ", 0},
		{"one byte a second", dribble(ok + "Content-Length: 0\r\n\r\n"), "timeout", again, "no answer within 5s",
			5 * time.Second},
		{"nothing", says(func(io.Writer) { time.Sleep(time.Hour) }), "timeout", again, "no answer within 5s",
			5 * time.Second},
		{"a connection that is closed at once", func(net.Conn) {}, "unreachable", again, "no answer: ", 0},
		{"no machine at all", nil, "unreachable", again, "no answer: ", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, nil, app("wiki"))
				s.net.machine("wiki", c.app)
				s.enqueue("wiki", "alice")
				s.run()
				s.pass(c.within + 400*time.Millisecond) // less than the first retry
				if got := s.attempts(); len(got) != 1 || got[0] != "wiki "+c.result {
					t.Fatalf("after one attempt: %q, want %q", got, c.result)
				}
				pending, dead := s.letters(store.NoticePending), s.letters(store.NoticeDead)
				switch c.next {
				case done:
					if len(pending)+len(dead) != 0 {
						t.Errorf("%d pending, %d dead, want it done", len(pending), len(dead))
					}
					return
				case never:
					if len(dead) != 1 || dead[0].Reason != c.reason {
						t.Errorf("dead letters %v, want one for %q", dead, c.reason)
					}
					return
				}
				if len(pending) != 1 || !strings.HasPrefix(pending[0].Reason, c.reason) {
					t.Fatalf("pending %v, dead %v, want it tried again for %q", pending, dead, c.reason)
				}
				if s.pass(30 * time.Second); c.next == third && len(s.attempts()) != 2 {
					t.Errorf("%d attempts in half a minute, want the last one to come later", len(s.attempts()))
				}
				s.pass(100 * time.Second)
				if n := len(s.letters(store.NoticeDead)); (n == 1) != (c.next == third) {
					t.Errorf("%d dead after two minutes", n)
				}
				if n := len(s.attempts()); c.next == third && n != 3 || n < 3 {
					t.Errorf("%d attempts in two minutes", n)
				}
				s.pass(25 * time.Hour)
				if dead := s.letters(store.NoticeDead); len(dead) != 1 || !strings.HasPrefix(dead[0].Reason, c.reason) {
					t.Errorf("after the deadline the dead letters are %v", dead)
				}
				after := len(s.attempts())
				s.pass(25 * time.Hour)
				if n := len(s.attempts()); n != after {
					t.Errorf("a dead letter was tried %d times", n-after)
				}
			})
		})
	}
}
