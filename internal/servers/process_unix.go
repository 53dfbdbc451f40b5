//go:build unix

package servers

import (
	"errors"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

const (
	unsupported  = "" // why servers cannot be started; empty: they can
	freeze, thaw = syscall.SIGSTOP, syscall.SIGCONT
)

func send(pid int, signal syscall.Signal) { syscall.Kill(pid, signal) }

// unprivileged returns the user as which to run a program that refuses root, and makes that user the owner of dir. Nil
// means the user of this process.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return nil, nil
	}
	var missing []error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		uid, errUID := strconv.ParseUint(u.Uid, 10, 32)
		gid, errGID := strconv.ParseUint(u.Gid, 10, 32)
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}},
			errors.Join(errUID, errGID, os.Chown(dir, int(uid), int(gid)))
	}
	return nil, errors.Join(missing...)
}
