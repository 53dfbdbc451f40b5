package redis

import (
	"encoding/binary"
	"errors"
	"math"
	"time"

	"example.com/curfew/store"
)

// A session is kept as one string. The scripts read it too (see lua/shared.lua). Sizes are in bytes:
//
//	head:        version 1, revision 8, last seen 8, idle expires 8, expires 8, pointed 8, refresh 1
//	created 8, hint of the sid 8
//	names:       their length 4, then issuer, client, subject, sid, each preceded by its length
//	former sids: in version 2 only; their length 4, then for each: hint 8, the sid preceded by its length
//	payload
//
// Update replaces the head. A session has version 2 if it has former sids. Times are microseconds since 1970,
// big-endian. Pointed is the time until which the pointers from its sids to the session are certain to exist; for a
// session without a sid it is the largest number.
const (
	version       = 1
	versionFormer = 2
	headSize      = 42
)

var errDamaged = errors.New("redis: what is stored is damaged, or was written by another release")

func appendMicros(b []byte, t time.Time) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(store.Micros(t)))
}

// runsOut returns when r stops living.
func runsOut(r *store.Record) time.Time {
	if r.IdleExpires.Before(r.Expires) {
		return r.IdleExpires
	}
	return r.Expires
}

// head encodes the part of r that Update replaces.
func head(r *store.Record, pointed int64) []byte {
	b := make([]byte, 0, headSize)
	if len(r.Former) > 0 {
		b = append(b, versionFormer)
	} else {
		b = append(b, version)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(r.Revision))
	b = appendMicros(b, r.LastSeen)
	b = appendMicros(b, r.IdleExpires)
	b = appendMicros(b, r.Expires)
	b = binary.BigEndian.AppendUint64(b, uint64(pointed))
	return append(b, byte(r.Refresh))
}

// names encodes the identity of a session.
func names(issuer, clientID, subject, sid string) []byte {
	var b []byte
	for _, s := range []string{issuer, clientID, subject, sid} {
		b = appendText(b, s)
	}
	return b
}

func encode(r *store.Record, pointed int64) []byte {
	b := head(r, pointed)
	b = appendMicros(b, r.Created)
	b = append(b, hint(r.Issuer, r.ClientID, r.SID)...)
	who := names(r.Issuer, r.ClientID, r.Subject, r.SID)
	b = binary.BigEndian.AppendUint32(b, uint32(len(who)))
	b = append(b, who...)
	if len(r.Former) > 0 {
		var former []byte
		for _, sid := range r.Former {
			former = appendText(append(former, hint(r.Issuer, r.ClientID, sid)...), sid)
		}
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(former))), former...)
	}
	return append(b, r.Payload...)
}

// decode returns a session, and until when its pointers are certain to exist.
func decode(key store.Key, raw string) (r store.Record, pointed int64, err error) {
	r.Key = key
	d := decoder{rest: raw}
	v := d.byte()
	if v != version && v != versionFormer {
		return r, 0, errDamaged
	}
	r.Revision = d.int64()
	r.LastSeen, r.IdleExpires, r.Expires = store.FromMicros(d.int64()), store.FromMicros(d.int64()),
		store.FromMicros(d.int64())
	pointed = d.int64()
	r.Refresh = store.Refresh(d.byte())
	r.Created = store.FromMicros(d.int64())
	d.take(hintSize)
	who := decoder{rest: d.text()}
	r.Issuer, r.ClientID, r.Subject, r.SID = who.text(), who.text(), who.text(), who.text()
	if v == versionFormer {
		r.Former = d.former()
	}
	r.Payload = []byte(d.rest)
	if d.short || who.short || who.rest != "" {
		return r, 0, errDamaged
	}
	return r, pointed, nil
}

// decoder reads encoded values.
type decoder struct {
	rest  string
	short bool // rest was too short for what was read
}

func (d *decoder) take(n int) string {
	if n > len(d.rest) {
		d.short, d.rest = true, ""
		return ""
	}
	s := d.rest[:n]
	d.rest = d.rest[n:]
	return s
}

func (d *decoder) byte() byte {
	if s := d.take(1); s != "" {
		return s[0]
	}
	return 0
}

func (d *decoder) int64() int64 {
	if s := d.take(8); s != "" {
		return int64(binary.BigEndian.Uint64([]byte(s)))
	}
	return 0
}

func (d *decoder) text() string {
	s := d.take(4)
	if s == "" {
		return ""
	}
	n := binary.BigEndian.Uint32([]byte(s))
	if n > math.MaxInt32 {
		d.short = true
		return ""
	}
	return d.take(int(n))
}

// former reads the former sids.
func (d *decoder) former() (sids []string) {
	list := decoder{rest: d.text()}
	for list.rest != "" {
		list.take(hintSize)
		sids = append(sids, list.text())
	}
	d.short = d.short || list.short
	return sids
}

// endedSession reads an ended session in an answer or a message: the key, and the names with their length.
func (d *decoder) endedSession(cause store.Cause, at time.Time) store.Ended {
	e := store.Ended{Cause: cause, At: at}
	copy(e.Key[:], d.take(len(e.Key)))
	who := decoder{rest: d.text()}
	e.Issuer, e.ClientID, e.Subject, e.SID = who.text(), who.text(), who.text(), who.text()
	d.short = d.short || who.short
	return e
}
