package postgres

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf8"
)

// digest is the same for the same texts, and for no others. It is kept in the database, so it never changes.
func digest(kind string, texts ...string) [sha256.Size]byte {
	b := append([]byte(kind), 0)
	for _, t := range texts {
		b = binary.BigEndian.AppendUint64(b, uint64(len(t)))
		b = append(b, t...)
	}
	return sha256.Sum256(b)
}

// hash names a subject or a sid, in an index and as a lock. Two that collide share both, to no harm but a wait.
func hash(kind, issuer, client, name string) int64 {
	d := digest(kind, issuer, client, name)
	return int64(binary.BigEndian.Uint64(d[:8]))
}

func subjectHash(issuer, client, subject string) int64 {
	return hash("subject", issuer, client, subject)
}

// sidHash is nil without a sid.
func sidHash(issuer, client, sid string) *int64 {
	if sid == "" {
		return nil
	}
	h := hash("sid", issuer, client, sid)
	return &h
}

// errUnwritable: no identifier that OpenID Connect allows is refused by this.
var errUnwritable = errors.New("postgres: a name holds a NUL byte, or is not UTF-8: it cannot be kept here")

// writable refuses what a column of text cannot hold.
func writable(names ...string) error {
	for _, n := range names {
		if !utf8.ValidString(n) || strings.IndexByte(n, 0) >= 0 {
			return errUnwritable
		}
	}
	return nil
}

// micros is how a time is kept.
// blob is never NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
