//go:build unix

package e2e_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"example.com/curfew/internal/servers"
)

func socketApp(t *testing.T) (address string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env, cmd.Stderr, cmd.SysProcAttr = append(os.Environ(), socketAppEnv+"=yes"), os.Stderr, orphan()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// closing is what a client saw of the end of its WebSocket.
type closing struct {
	told bool // by a close frame with the code 1008
	at   time.Time
}

// openSocket opens a WebSocket at a replica, and sends what it saw of the end to ended.
func openSocket(g *gateway, cookie string, ended chan<- closing) (net.Conn, error) {
	conn, err := net.Dial("tcp", g.listen)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	_, err = fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: %s\r\n\r\n",
		strings.TrimPrefix(g.url, "http://"), cookie)
	head := make([]byte, 1024)
	n := 0
	for err == nil && !strings.Contains(string(head[:n]), "\r\n\r\n") {
		var more int
		more, err = conn.Read(head[n:])
		n += more
	}
	if err != nil || !strings.HasPrefix(string(head[:n]), "HTTP/1.1 101") {
		conn.Close()
		return nil, fmt.Errorf("%w: %.300q", err, head[:n])
	}
	go func() {
		var frame [64]byte
		n, err := conn.Read(frame[:])
		c := closing{err == nil && n >= 4 && frame[0] == 0x88 && frame[2] == 0x03 && frame[3] == 0xf0, time.Now()}
		ended <- c
	}()
	return conn, nil
}

// One logout closes every stream of a person, on two replicas, each with a close frame. STREAMS=10000 opens that many,
// see docs/soak.md.
func TestOneLogoutClosesAllStreamsWithACloseFrame(t *testing.T) {
	t.Parallel()
	count := 400
	if text := os.Getenv("STREAMS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 2 {
			t.Fatalf("STREAMS: %q is not a number of streams", text)
		}
		count = n
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if need := uint64(count) + 500; limit.Cur < need {
		t.Skipf("NOT TESTED: %d streams need %d open files, and this process may have %d", count, need, limit.Cur)
	}
	s := newSoak(t, servers.Redis(t, "--appendfsync", "always").URL, 2, 10)
	app := socketApp(t)
	for _, g := range s.gs {
		g.flags = append(g.flags, "--upstream", "http://"+app)
	}
	s.run()
	for _, sessions := range []int{1, 100} {
		t.Run(fmt.Sprintf("of %d sessions", sessions), func(t *testing.T) { s.closeAll(t, count, sessions) })
	}
}

func (s *soak) closeAll(t *testing.T, count, sessions int) {
	p := &somebody{soak: s, history: history{subject: person(sessions % 10)}}
	var cookies []string
	for range sessions {
		p.sessions, p.history.sids = nil, nil
		in := p.begin(nil)
		p.comeBack(in)
		if in == nil || in.cookie() == "" {
			t.Fatal("nobody is signed in", s.wrong)
		}
		cookies = append(cookies, in.cookie())
	}
	ended := make(chan closing, count)
	conns := make([]net.Conn, count)
	var wrong sync.Map
	spread(count, 16, func(i int) {
		var err error
		if conns[i], err = openSocket(s.gs[i%len(s.gs)], cookies[i%sessions], ended); err != nil {
			wrong.Store(err.Error(), i)
			conns[i] = nil
		}
	})
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	wrong.Range(func(err, _ any) bool { t.Fatal(err); return false })
	pause(500 * time.Millisecond) // what was opened last is watched by then

	began := time.Now()
	resp, body, err := s.do(s.gs[0], http.MethodPost, "/auth/backchannel-logout", "",
		url.Values{"logout_token": {s.op.SignLogoutToken("app", p.history.subject, "")}})
	answered := time.Since(began)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("a logout: %v %s %v", resp, body, err)
	}
	var took []time.Duration
	told := 0
	for range count {
		c := <-ended
		took = append(took, c.at.Sub(began))
		if c.told {
			told++
		}
	}
	slices.Sort(took)
	t.Logf("%d streams of %d sessions: answered after %v, half closed after %v, 99%% after %v, the last after %v; %d "+
		"told by a close frame", count, sessions, answered.Round(time.Millisecond),
		took[count/2].Round(time.Millisecond), took[count*99/100].Round(time.Millisecond),
		took[count-1].Round(time.Millisecond), told)
	if told != count {
		t.Errorf("%d of %d streams were closed with a close frame, want all", told, count)
	}
}
