package rig

import (
	"os"
	"runtime"
	"syscall"
	"testing"
)

// AsNobody runs f with the rights of the user nobody where the tests run as root, who may read and write every file.
// Only the thread of f gives up that right.
func AsNobody(t testing.TB, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		if os.Geteuid() == 0 {
			if err := syscall.Setfsuid(65534); err != nil {
				done <- err
				return
			}
		}
		f()
		done <- nil
	}()
	Must(t, <-done)
}
