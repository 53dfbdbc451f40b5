package curfew

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"example.com/curfew/gateway"
	"example.com/curfew/keyring"
	"example.com/curfew/web"
)

// KeyFile reads the key ring in a file, and makes the file, with one new key and readable by nobody else, when it is
// not there. A file that is open to others than its owner and group (as mounted secrets are) is refused. Replicas that
// share a store share the file.
func KeyFile(name string) (*keyring.Keyring, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	switch {
	case err == nil:
		_, err = f.Write(keyring.NewFile())
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			os.Remove(name)
			return nil, fmt.Errorf("key file: %w", err)
		}
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("key file: %w: make its folder, for the user that this runs as", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("key file: %w: this user may not make it there", err)
	case !errors.Is(err, fs.ErrExist):
		return nil, fmt.Errorf("key file: %w", err)
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("key file: %w", err)
	}
	if mode := info.Mode().Perm(); mode&0o037 != 0 {
		return nil, fmt.Errorf("key file %s: others can read it (mode %04o): run chmod 600 %[1]s", name, mode)
	}
	text, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("key file: %w: let the user that this runs as read it", err)
	case err != nil:
		return nil, fmt.Errorf("key file: %w", err)
	}
	ring, err := keyring.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return ring, nil
}

// checkPrefix takes a clean absolute path of plain letters, or nothing.
func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	plain := func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			strings.ContainsRune("/-_.", c))
	}
	if prefix == "/" || !strings.HasPrefix(prefix, "/") || path.Clean(prefix) != prefix ||
		strings.ContainsFunc(prefix, plain) {
		return errors.New(`must be a path like "/auth": a slash, then letters, digits, "-", "_", ".", and no slash at its end`)
	}
	return nil
}

func checkPath(path string) error {
	if path != "" && web.ReturnTo(path) != path {
		return errors.New(`must be a path of this site, like "/"`)
	}
	return nil
}

func oneOf(v int, allowed ...int) error {
	if !slices.Contains(allowed, v) {
		return fmt.Errorf("must be one of %v", allowed[1:])
	}
	return nil
}

// checkOrigins puts the origins into the form in which they are compared.
func checkOrigins(cfg *Config) error {
	var faults []error
	origins := make([]string, 0, len(cfg.WebSocketOrigins))
	for _, raw := range cfg.WebSocketOrigins {
		origin, err := gateway.ParseOrigin(raw)
		faults, origins = append(faults, err), append(origins, origin)
	}
	cfg.WebSocketOrigins = origins
	return errors.Join(faults...)
}
