package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"unicode"

	"example.com/curfew"
	"example.com/curfew/keyring"
)

// OpenKeyring reads the key file. A missing one is created for a store that only this machine has, and is an error
// otherwise. Without a key file the keys are new ones.
func (c *Config) OpenKeyring() (*keyring.Keyring, error) {
	if c.KeyFile == "" {
		return keyring.Parse(keyring.NewFile())
	}
	if _, err := os.Stat(c.KeyFile); errors.Is(err, fs.ErrNotExist) && !c.Store.Embedded() {
		return nil, fmt.Errorf("key file: %w; replicas share one, so none is created here: "+
			"create it once, with %s, and give every replica the same", err, KeyCommand(c.KeyFile))
	}
	return curfew.KeyFile(c.KeyFile)
}

// KeyFileLost reports whether the key file is missing, and the database that it belongs to is there.
func (c *Config) KeyFileLost() bool {
	if c.KeyFile == "" || c.Store.File() == "" {
		return false
	}
	_, missing := os.Stat(c.KeyFile)
	_, err := os.Stat(c.Store.File())
	return errors.Is(missing, fs.ErrNotExist) && err == nil
}

// KeyCommand returns a shell command that creates a key file.
func KeyCommand(name string) string {
	plain := func(c rune) bool {
		return unicode.IsLetter(c) || unicode.IsDigit(c) || strings.ContainsRune("/._-+@%:", c)
	}
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return !plain(c) }) {
		name = "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
	}
	return "(umask 077; head -c 32 /dev/urandom | base64 > " + name + ")"
}
