//go:build !unix

package servers

import "syscall"

const (
	unsupported = "servers are started by a shell and stopped by signals, which only Unix has; " +
		"name one to be used instead"
	freeze, thaw = syscall.Signal(-1), syscall.Signal(-2)
)

func send(int, syscall.Signal) {}

func unprivileged(string) (*syscall.SysProcAttr, error) { return nil, nil }
