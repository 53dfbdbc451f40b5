package redis_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func sorted(lines string) string {
	all := splitLines(lines)
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// slot is where a Cluster keeps a hash tag: CRC16 (XMODEM), of 16,384.
func slot(tag string) int {
	var crc uint16
	for _, c := range []byte(tag) {
		crc ^= uint16(c) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc % 16384)
}

func TestTheBucketsLieEvenlyOverTheSlots(t *testing.T) {
	t.Parallel()
	if slot("123456789") != 12739 { // the Cluster specification's own example, 0x31c3
		t.Fatal("this test counts slots wrongly")
	}
	for b := range 256 {
		tag := strings.Trim(redis.HashTagOf(byte(b)), "{}")
		if at := slot(tag); at/64 != b {
			t.Errorf("bucket %d, %q, is in slot %d, want %d to %d", b, tag, at, 64*b, 64*b+63)
		}
	}
}

func TestNoKeyHoldsWhatOthersWroteAndAllRunOut(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	backend := open(t, s.URL, redis.Options{Prefix: "p:"})
	c := adminOf(t, s)
	now := store.Time(time.Now())
	marked := func(subject, sid string) store.Record {
		r := recordOf(subject, sid, now)
		r.ClientID = "MARK-client" // beside random bytes, where "app" may be by chance
		bearer := session.NewBearer(r.Issuer, r.ClientID, subject)
		r.Key = bearer.Key()
		return r
	}
	for _, sid := range []string{"", "MARK-sid"} {
		r := marked("MARK-subject", sid)
		mustCreate(t, backend, r, now)
		r.IdleExpires = r.IdleExpires.Add(3 * time.Hour)
		if err := backend.Update(t.Context(), r, now); err != nil {
			t.Fatal(err)
		}
		if r.Revision++; sid != "" {
			r.SID, r.Former = "MARK-sid5", []string{sid}
			if err := backend.Rename(t.Context(), r, now, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, who := range []store.Selector{{Subject: "MARK-subject"}, {SID: "MARK-sid2"},
		{Subject: "MARK-subject", SID: "MARK-sid3"}} {
		e := tokenOf(who, "MARK-jti"+who.SID, now)
		e.Selector.ClientID = "MARK-client"
		e.Notices = []store.NoticeRequest{{Kind: store.NoticeLogout, Target: "MARK-target", Deadline: now.Add(time.Hour)}}
		if _, err := backend.End(t.Context(), e, now); err != nil {
			t.Fatal(err)
		}
	}
	kept := marked("MARK-subject2", "MARK-sid4")
	kept.Former = []string{"MARK-sid6"}
	mustCreate(t, backend, kept, now)
	notices, err := backend.Claim(t.Context(), store.NoticeLogout, "MARK-target", now, time.Minute, 2)
	if err != nil || len(notices) != 1 {
		t.Fatalf("%d notices, %v", len(notices), err)
	}
	if err := backend.Save(t.Context(), "MARK-name", []byte("MARK-value"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := backend.ClaimAttempt(t.Context(), store.AttemptID{1}, []byte("MARK-value"), now.Add(time.Hour),
		now); err != nil {
		t.Fatal(err)
	}
	var cursor uint64
	seen := make(map[byte]bool)
	for first := true; first || cursor != 0; first = false {
		page, err := c.Do(t.Context(), c.B().Scan().Cursor(cursor).Build()).AsScanEntry()
		if err != nil {
			t.Fatal(err)
		}
		cursor = page.Cursor
		for _, key := range page.Elements {
			tag, rest, ok := strings.Cut(strings.TrimPrefix(key, "p:{"), "}")
			if !strings.HasPrefix(key, "p:{") || !ok || len(tag) != 4 || rest == "" {
				t.Errorf("the key %q does not begin with the prefix and a hash tag", key)
				continue
			}
			if strings.Contains(key, "MARK-") || strings.Contains(key, rig.Issuer) {
				t.Errorf("the key %q holds what somebody else wrote", key)
			}
			seen[rest[0]] = true
			ttl := do(t, c, "PTTL", key)
			ms, err := ttl.AsInt64()
			if err != nil {
				t.Fatal(err)
			}
			// Queues and lists are emptied by Prune, notices by Complete; the ends of the chains are one to a bucket,
			// wakeups one to a queue.
			if fixed := strings.Contains("qtldeognybv", rest[:1]); (ms < 0) != fixed {
				t.Errorf("the key %q runs out in %d ms", key, ms)
			}
		}
	}
	for _, letter := range "suktqlmjineoybva" {
		if !seen[byte(letter)] {
			t.Errorf("no key of the kind %q was looked at", letter)
		}
	}
}

func TestPruneLeavesNothingOfWhatIsOver(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	backend := open(t, s.URL, redis.Options{})
	c := adminOf(t, s)
	now := store.Time(time.Now())
	for _, subject := range []string{"alice", "bob", "carol"} {
		mustCreate(t, backend, recordOf(subject, "s1", now), now)
		mustCreate(t, backend, recordOf(subject, "", now), now)
	}
	had := recordOf("erin", "s3", now)
	had.Former = []string{"s4"}
	mustCreate(t, backend, had, now)
	lost := recordOf("dave", "s2", now)
	lost.Former = []string{"s4", "s3"}
	mustCreate(t, backend, lost, now)
	e := tokenOf(store.Selector{SID: "s1"}, "j1", now)
	if _, err := backend.End(t.Context(), e, now); err != nil {
		t.Fatal(err)
	}
	// One that Redis cleaned up before Prune came.
	do(t, c, "DEL", backend.Start(lost.Key)+"s"+string(lost.Key[:]))
	for {
		n, err := backend.Prune(t.Context(), now.Add(1000*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			break
		}
	}
	m := do(t, c, "KEYS", "*")
	keys, err := m.AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		_, rest, _ := strings.Cut(key, "}")
		if !strings.Contains("li", rest[:1]) { // ends of chains; pointers run out by themselves
			t.Errorf("%q is left", key)
		}
	}
}

func TestASessionComesBackFromItsEncoding(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		at := func(name string) time.Time {
			return store.Time(time.UnixMicro(rapid.Int64Range(-1<<50, 1<<50).Draw(t, name)))
		}
		text := rapid.String()
		r := store.Record{Issuer: text.Draw(t, "issuer"), ClientID: text.Draw(t, "client"),
			Subject: text.Draw(t, "subject"),
			SID:     text.Draw(t, "sid"), Created: at("created"), LastSeen: at("seen"), IdleExpires: at("idle"),
			Expires:  at("expires"),
			Revision: rapid.Int64().Draw(t, "revision"), Refresh: store.Refresh(rapid.Byte().Draw(t, "refresh")),
			Payload: rapid.SliceOf(rapid.Byte()).Draw(t, "payload")}
		if r.Former = rapid.SliceOf(text).Draw(t, "former"); len(r.Former) == 0 {
			r.Former = nil
		}
		r.Key[1] = 7
		got, err := redis.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(r, got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add("")
	f.Add("\x01")
	f.Add("\x01" + strings.Repeat("\x00", 49) + strings.Repeat("\xff", 64))
	f.Fuzz(func(t *testing.T, raw string) {
		r, err := redis.Decode(raw)
		if err != nil {
			return
		}
		if again, err := redis.RoundTrip(r); err != nil || !gocmp.Equal(r, again) {
			t.Errorf("what was decoded does not come back: %v", err)
		}
	})
}
