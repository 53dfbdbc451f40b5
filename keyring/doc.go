// Package keyring seals and opens what must not be read or changed: cookies, the payloads of sessions, and the keys
// that sign logout tokens.
//
// It owns the keys and their rotation. It does not know what it seals.
package keyring
