package redis

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"

	"example.com/curfew/store"
)

// buckets is how many parts the store has. It can never change: a session's bucket follows from its key.
const buckets = 256

// spread holds two characters for each bucket that complete its hash tag, so that the buckets are spread evenly over
// the 16,384 slots of a Cluster: bucket b is in one of the slots 64b to 64b+63. Hash tags without them would be spread
// at random, which is uneven for a few hundred. TestTheBucketsLieEvenlyOverTheSlots computes them.
const spread = "zsfxaxcqoymptrhybyoqj5m1igc0gnf90vgtou8wnu6v1viucu4wshjn4286fbg5iiubrbpkd2x9gh98i2u94ufz1tvyjvmr" +
	"n66515i6cmadxfdmnmldqqyteswukz6tbrqxyyerwxkslsnzdzxqjemai7e3amxk9tawfw1uhv0u7uqtev2ts804pjblf2ge" +
	"i9k0l043dbfkak9hibkk2vox8vnxrwkqnfloumif97a4x6bn47l4fqaucpotmy0wflb6e6almdomhmtfx5bmpy3uux2uesbw" +
	"ybei8cf3t9h2q0s9y9e2owhsjvfr1t9qmxoqvsjxxrdycyapkp3s96bk36ljngwaxc81chg2miqbvbjix88jnvwpkwyq0ubz" +
	"qbmijivb81xcg2chq9m2yuqpbvnr6uuymzqqhsjzfrzy9qarkrwy94z834lhpgiauyirnrryorbzezgsmsozclzjfmr8n7w1" +
	"x3bkekgbm9o0v2j9fjb0huoqmtap9wdy"

// The keys of a bucket: the prefix, the hash tag, one of these letters, and for those marked * a name in hashed form.
const (
	keySession  = "s" // * a session: see record.go
	keyIndex    = "u" // * the sessions of one tag: hint of the sid, then the rest of the session's key, by lex
	keyFormer   = "k" // * the sessions of one tag that had other sids before: as in keyIndex, by these sids
	keyTags     = "t" // the tags that have sessions, by lex
	keyExpiry   = "q" // everything that expires, by when
	keyLast     = "l" // the token of the last message of the bucket's feed
	keyMark     = "m" // * an end mark: when the ending was
	keyJTI      = "j" // * a jti that was carried out: when it expires
	keyClaim    = "c" // * a jti that is being carried out: by which call
	keyBind     = "w" // * which ending a jti is bound to, on a Cluster
	keyPointer  = "i" // * the tags that have sessions with a sid
	keyNotice   = "n" // * a notice
	keyDue      = "d" // * notices of a queue that wait, by when they are due
	keyLeased   = "e" // * notices of a queue that are leased, by when the lease ends
	keyPending  = "o" // * all of these, by when they were created
	keyDead     = "g" // * dead letters of a queue, by when they were created
	keyQueues   = "y" // the queues that have notices
	keyWakeup   = "b" // * the buckets that have notices of a queue to be claimed, and when
	keyValue    = "v" // * a shared value
	keyAttempt  = "a" // * a value of store.Attempts, after the time when it expires
	keyTrace    = "x" // something for replicas to acknowledge (see lua/shared.lua)
	keyJournal  = "h" // the journal, in one bucket
	keyPosition = "p" // the highest position of the journal that was used
	keyFeed     = "f" // the channel of the feed, on a Cluster
)

const (
	nameSize = 16 // bytes of a SHA-256 in a key
	hintSize = 8  // bytes of one in an index, which is only for finding: what is found is compared in full
)

// name is a hash of values that others control. The hash includes a kind and the length of each value, so different
// values have different names.
type name [nameSize]byte

func hash(kind byte, texts ...string) name {
	b := []byte{kind}
	for _, t := range texts {
		b = appendText(b, t)
	}
	sum := sha256.Sum256(b)
	return name(sum[:])
}

// appendText appends a text preceded by its length.
func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// queueName names the notices of one kind for one target.
func queueName(kind store.NoticeKind, target string) name { return hash('l', string(kind), target) }

func jtiName(issuer, clientID, jti string) name { return hash('j', issuer, clientID, jti) }

// sidName names a sid: its pointer, and the mark of an ending of the sid.
func sidName(issuer, clientID, sid string) name { return hash('s', issuer, clientID, sid) }

// hint is what the sessions with a sid are found by in the index of a tag. The empty sid has one too.
func hint(issuer, clientID, sid string) []byte {
	n := sidName(issuer, clientID, sid)
	return n[:hintSize]
}

// Names of marks in the bucket of a subject, which is that of its keys too.
func subjectMark(r *store.Record) name { return hash('u', r.Issuer, r.ClientID, r.Subject) }
func bareMark(r *store.Record) name    { return hash('n', r.Issuer, r.ClientID, r.Subject) }

// keyMarkOf is a part of the hash that the key is already, so that a script can name it.
func keyMarkOf(k store.Key) name { return name(k[4 : 4+nameSize]) }

// bucket is the number of a part of the store. All that belongs to one subject is in one bucket, so in one slot of a
// Cluster.
type bucket = uint8

func (s *Store) key(b bucket, letter string) string { return s.tags[b] + letter }

func (s *Store) named(b bucket, letter string, name []byte) string {
	return s.tags[b] + letter + string(name)
}

// hashTags returns the prefix of the keys of every bucket.
func hashTags(prefix string) *[buckets]string {
	var tags [buckets]string
	for b := range tags {
		tags[b] = prefix + "{" + hex.EncodeToString([]byte{byte(b)}) + spread[2*b:2*b+2] + "}"
	}
	return &tags
}
