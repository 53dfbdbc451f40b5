package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"example.com/curfew/cmd/curfew/internal/config"
)

// socketMode lets the user and the group of the process connect: add the user of the proxy to the group.
const socketMode = 0o660

// listenPublic opens the public listener: at an address, at the path of a Unix socket, or the one that systemd opened.
func listenPublic(ctx context.Context, where string, environ []string) (net.Listener, error) {
	if where == config.Systemd {
		return inherited(environ)
	}
	path, ok := strings.CutPrefix(where, "unix:")
	if !ok {
		return listen(ctx, "listen", where)
	}
	l, err := listenUnix(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("--listen %s: %w", where, err)
	}
	return l, nil
}

// listenUnix opens a Unix socket. A socket that nobody listens at is what a crash left, and is replaced.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, errors.New("there is a file of that name, which is no socket")
	default:
		if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
			c.Close()
			return nil, errors.New("another program listens there; stop it or choose another path")
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// firstFD is the first file descriptor that systemd passes on (sd_listen_fds(3)).
const firstFD = 3

// inherited returns the socket that systemd has opened for this process.
func inherited(environ []string) (net.Listener, error) {
	get := func(name string) string {
		i := slices.IndexFunc(environ, func(v string) bool { return strings.HasPrefix(v, name+"=") })
		if i < 0 {
			return ""
		}
		return environ[i][len(name)+1:]
	}
	switch {
	case get("LISTEN_PID") != strconv.Itoa(os.Getpid()):
		return nil, errors.New("--listen systemd: systemd has passed no socket to this process: start it by its " +
			"socket unit, or give an address")
	case get("LISTEN_FDS") != "1":
		return nil, errors.New("--listen systemd: want one socket of systemd, for the public listener: leave one " +
			"ListenStream in the socket unit")
	}
	f := os.NewFile(firstFD, "systemd")
	l, err := net.FileListener(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("--listen systemd: %w", err)
	}
	return l, nil
}
