// Package keyring seals and opens what must not be read or changed: cookies, the payloads of sessions, and the keys
// that sign logout tokens.
//
// A program reads a key file with [Parse], or makes one with [NewFile], and passes the [Keyring] to everything that
// seals.
package keyring
