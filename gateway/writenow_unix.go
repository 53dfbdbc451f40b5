//go:build unix

package gateway

import (
	"net"
	"syscall"
)

// writeNow writes what the connection takes without waiting, and returns how much that is. It is 0 for a connection
// that is not a plain socket, such as one with TLS.
func writeNow(conn net.Conn, p []byte) (n int) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return 0
	}
	// Not raw.Write: the deadline of the last write may be over. The socket does not block, so EAGAIN comes at once.
	failed := raw.Control(func(fd uintptr) { n, err = syscall.Write(int(fd), p) })
	if failed != nil || err != nil {
		return 0
	}
	return n
}
