package postgres

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf8"
)

// digest returns a hash of texts and their lengths. Digests are stored in the database, so the function must not
// change.
func digest(kind string, texts ...string) [sha256.Size]byte {
	b := append([]byte(kind), 0)
	for _, t := range texts {
		b = binary.BigEndian.AppendUint64(b, uint64(len(t)))
		b = append(b, t...)
	}
	return sha256.Sum256(b)
}

// hash returns the number of a subject or a sid, in an index and as an advisory lock. A collision only costs a wait.
func hash(kind, issuer, client, name string) int64 {
	d := digest(kind, issuer, client, name)
	return int64(binary.BigEndian.Uint64(d[:8]))
}

func subjectHash(issuer, client, subject string) int64 {
	return hash("subject", issuer, client, subject)
}

// sidHash returns nil without a sid.
func sidHash(issuer, client, sid string) *int64 {
	if sid == "" {
		return nil
	}
	h := hash("sid", issuer, client, sid)
	return &h
}

// errUnwritable does not occur for identifiers that OpenID Connect allows.
var errUnwritable = errors.New("postgres: a name contains a NUL byte or is not UTF-8, so it cannot be stored")

// writable returns an error if a column of type text cannot hold one of names.
func writable(names ...string) error {
	for _, n := range names {
		if !utf8.ValidString(n) || strings.IndexByte(n, 0) >= 0 {
			return errUnwritable
		}
	}
	return nil
}

// blob returns b, or an empty value in place of NULL.
func blob(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
