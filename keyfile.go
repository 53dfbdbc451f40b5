package curfew

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"example.com/curfew/keyring"
)

// KeyFile reads the keyring in a file, for [Config.Keyring]. If the file does not exist, KeyFile creates it with one
// new key and mode 0600. A file that anybody but its owner and its group can read is refused; the group may read it,
// as it may with mounted secrets. Replicas that share a store share the file.
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
		return nil, fmt.Errorf("key file: %w: create its directory, for the user that this process runs as", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("key file: %w: this user may neither read nor create it there", err)
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
		return nil, fmt.Errorf("key file: %w: let the user that this process runs as read it", err)
	case err != nil:
		return nil, fmt.Errorf("key file: %w", err)
	}
	keys, err := keyring.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return keys, nil
}
