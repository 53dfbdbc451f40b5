//go:build unix

package e2e_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// over is a browser that reaches every host by one socket.
func over(network, addr string) *browser {
	b := newBrowser("a browser by " + network)
	b.client.Transport = &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		}}
	return b
}

// A proxy on the same machine comes by a Unix socket. Whether its headers count is a setting of its own.
func TestAGatewayListensAtAUnixSocket(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "trusting", "app")
	p.start(t)
	for i, g := range gs {
		path := filepath.Join(g.dir, "s.sock")
		g.set("--listen", "unix:"+path)
		if i == 0 {
			g.set("--config", g.write(t, "curfew.yaml", "trusted_proxies: [unix]\n"))
		}
		g.start(t)
		for name, want := range map[string]int{"": 401, "other.example.com": 403 - 2*i} {
			got := over("unix", path).get(t, g.url+"/auth/verify", "Accept", "application/json", "X-Forwarded-Host", name)
			if got.status != want {
				t.Errorf("replica %d, asked about %q: %v, want %d", i, name, got, want)
			}
		}
		g.kill()
		g.start(t) // though the socket is still there
	}
}

// systemd opens the socket, and passes it on to the process.
func TestAGatewayTakesTheSocketOfSystemd(t *testing.T) {
	t.Parallel()
	p, gs := world(t, "app")
	p.start(t)
	g := gs[0]
	l, err := net.Listen("tcp", g.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	g.set("--listen", "systemd")
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, "/bin/sh", append([]string{"-c", `LISTEN_PID=$$ exec "$@"`, "sh", curfew(t), "serve"},
		g.flags...)...)
	cmd.Dir, cmd.Env, cmd.ExtraFiles = g.dir, append(environ(), "LISTEN_FDS=1"), []*os.File{f}
	cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = orphan(), io.Discard, io.Discard
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cancel()
	// The connection waits in the socket until the gateway takes it.
	if got := over("tcp", g.listen).get(t, g.url+"/auth/session", "Accept", "application/json"); got.status != 401 ||
		!strings.Contains(got.body, "Nobody is signed in") {
		t.Errorf("got %v", got)
	}
}
