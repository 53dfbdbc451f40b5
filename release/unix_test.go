//go:build unix

package main

import (
	"io/fs"
	"os"
	"syscall"
)

// ownGroup has a command start in a process group of its own.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// endGroup ends a command, and what it has started.
func endGroup(p *os.Process) error { return syscall.Kill(-p.Pid, syscall.SIGKILL) }

// owner returns the number of the user that owns a file.
func owner(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// setUmask sets which permissions new files do not get.
func setUmask(mask int) { syscall.Umask(mask) }
