package check

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"example.com/curfew/cmd/curfew/internal/config"
)

const (
	willBeMade = "%s is not there yet; serve makes it, if it runs as this user"
	letItWrite = "serve would not start: create the folder if it is missing, and let the user that curfew runs as write " +
		"there"
)

// checkAuditFile checks that the audit record can be written.
func checkAuditFile(r *Report, c *config.Config) {
	const check = "audit_file"
	if c.AuditFile == "" || c.AuditFile == "stdout" {
		return
	}
	if err := canWrite(c.AuditFile); err != nil {
		r.fault(check, fmt.Sprintf("%s: %v", c.AuditFile, err), letItWrite)
		return
	}
	if _, err := os.Stat(c.AuditFile); err != nil {
		r.ok(check, willBeMade, c.AuditFile)
		return
	}
	r.ok(check, "%s can be written", c.AuditFile)
}

// checkSocket checks that the public listener can be made, if it is a Unix socket.
func checkSocket(ctx context.Context, r *Report, c *config.Config) {
	const check = "listen"
	name, isUnix := strings.CutPrefix(c.Listen, "unix:")
	if !isUnix {
		return
	}
	if most := len(syscall.RawSockaddrUnix{}.Path) - 1; len(name) > most {
		r.fault(check, fmt.Sprintf("%s has %d bytes; the path of a socket has %d at most here", name, len(name), most),
			"serve would not start: choose a shorter one")
		return
	}
	if err := canWriteFolder(filepath.Dir(name)); err != nil {
		r.fault(check, fmt.Sprintf("%s: %v", name, err), letItWrite)
		return
	}
	info, err := os.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.ok(check, willBeMade, name)
		return
	case err != nil:
		r.fault(check, err.Error(), letItWrite)
		return
	case info.Mode().Type() != fs.ModeSocket:
		r.fault(check, fmt.Sprintf("%s: there is a file of that name, which is no socket", name),
			"serve would not start: remove it, or choose another path")
		return
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", name)
	switch {
	case err == nil:
		conn.Close()
		r.unchecked(check, fmt.Sprintf("a program listens at %s, which may be curfew", name),
			"serve would not start beside another program: stop that, or choose another path")
	case errors.Is(err, fs.ErrPermission):
		r.unchecked(check, err.Error(), "see that no other program listens there: serve would take its place")
	default:
		r.ok(check, "nobody listens at the socket %s; serve makes it anew", name)
	}
}

// canWrite returns why this user cannot write a file, or make it if it is missing; nil if that can be done. It changes
// nothing.
func canWrite(name string) error {
	info, err := os.Stat(name)
	switch {
	case err == nil && info.IsDir():
		return errors.New("it is a folder")
	case err == nil:
		if err := mayWrite(name, false); err != nil {
			return fmt.Errorf("this user may not write it: %w", err)
		}
		return nil
	case !errors.Is(err, fs.ErrNotExist):
		return reasonOf(err)
	}
	if to, err := os.Readlink(name); err == nil { // a link to a file that is to be made
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(name), to)
		}
		return canWrite(to)
	}
	return canWriteFolder(filepath.Dir(name))
}

// canWriteFolder returns why this user cannot make files in a folder; nil if it can.
func canWriteFolder(name string) error {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the folder %s does not exist", name)
	case err != nil:
		return reasonOf(err)
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", name)
	}
	if err := mayWrite(name, true); err != nil {
		return fmt.Errorf("this user may not make files in the folder %s: %w", name, err)
	}
	return nil
}

// reasonOf leaves out the name of the file, which the line has already.
func reasonOf(err error) error {
	if at, ok := errors.AsType[*fs.PathError](err); ok {
		return at.Err
	}
	return err
}
