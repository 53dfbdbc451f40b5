package web

import (
	"errors"
	"path"
	"strings"
)

// CheckPrefix returns an error unless prefix can be a [Site.Prefix]: a clean absolute path without a slash at its end,
// of characters that browsers, proxies and net/http leave as they are.
func CheckPrefix(prefix string) error {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-_."
	other := func(c rune) bool { return !strings.ContainsRune(plain, c) }
	if prefix == "/" || !strings.HasPrefix(prefix, "/") || path.Clean(prefix) != prefix ||
		strings.ContainsFunc(prefix, other) {
		return errors.New(`must be a path like "/auth": a slash, then letters, digits, "-", "_" or ".", ` +
			`and no slash at the end`)
	}
	return nil
}

// CheckPath returns an error unless path is a path of this site that [ParseReturnTo] keeps as it is.
func CheckPath(path string) error {
	if to, err := ParseReturnTo(path); err != nil || to != path {
		return errors.New(`must be a path of this site, like "/"`)
	}
	return nil
}
