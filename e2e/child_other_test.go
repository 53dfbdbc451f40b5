//go:build !linux

package e2e_test

import (
	"net"
	"syscall"
	"testing"
)

// reserve returns an address on loopback that was free just now.
func reserve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func orphan() *syscall.SysProcAttr { return nil }
