package storetest

import (
	"bytes"
	"crypto/rand"
	"strings"
	"time"

	"example.com/curfew/store"
)

func createCases() []testCase {
	return []testCase{
		{"a session comes back as it was kept", func(f *fixture) {
			r := f.record("alice", "s1")
			r.Created, r.LastSeen = f.now.Add(-time.Minute), f.now.Add(time.Nanosecond)
			r.IdleExpires, r.Expires = f.now.Add(time.Hour+7*time.Microsecond),
				f.now.Add(2*time.Hour+999*time.Nanosecond)
			r.Refresh = store.RefreshOffline
			f.wantAlive(f.create(r))
		}},
		{"a session starts with revision 1, whatever it is given", func(f *fixture) {
			r := f.record("alice", "s1")
			r.Revision = 41
			f.create(r)
			r.Revision = 1
			f.wantAlive(r)
		}},
		{"times in another zone are the same times", func(f *fixture) {
			r := f.record("alice", "s1")
			r.Created = r.Created.In(time.FixedZone("east", 5*3600))
			f.create(r)
			got, err := f.store.Find(f.ctx, r.Key, f.now)
			if err != nil || got.Created != store.Time(r.Created) {
				f.Errorf("Created is %v (error %v), want %v", got.Created, err, store.Time(r.Created))
			}
		}},
		{"any payload comes back", func(f *fixture) {
			all := make([]byte, 256)
			for i := range all {
				all[i] = byte(i)
			}
			large := make([]byte, 64<<10)
			rand.Read(large)
			for _, payload := range [][]byte{nil, {}, {0}, all, []byte("'; DROP TABLE sessions; --"), {0xff, 0xfe},
				large} {
				r := f.record("alice", "s1")
				r.Payload = payload
				f.wantAlive(f.create(r))
			}
		}},
		{"the store's payload is its own", func(f *fixture) {
			r := f.record("alice", "s1")
			before := bytes.Clone(r.Payload)
			f.create(r)
			clear(r.Payload)
			got, err := f.store.Find(f.ctx, r.Key, f.now)
			if err != nil || !bytes.Equal(got.Payload, before) {
				f.Errorf("a change of the slice given to Create changed what is kept (error %v)", err)
			}
			clear(got.Payload)
			r.Payload = bytes.Clone(before)
			f.wantAlive(r)
			if err := f.store.Update(f.ctx, r, f.now); err != nil {
				f.Fatalf("Update: %v", err)
			}
			clear(r.Payload)
			r.Payload, r.Revision = before, 2
			f.wantAlive(r)
		}},
		{"any text comes back", func(f *fixture) {
			for _, text := range oddTexts() {
				f.wantAlive(f.signIn(text, "s1"))
				f.wantAlive(f.signIn("alice", text))
			}
		}},
		{"an unknown key is not found", func(f *fixture) {
			f.signIn("alice", "s1")
			f.wantGone(f.record("alice", "s1"))
			if _, err := f.store.Find(f.ctx, store.Key{}, f.now); err == nil {
				f.Error("Find of the zero key found something")
			}
		}},
		{"a key that exists is a fault, and the session stays as it is", func(f *fixture) {
			r := f.signIn("alice", "s1")
			other := f.record("mallory", "s2")
			other.Key = r.Key
			f.wantFault("Create with a key that exists", f.store.Create(f.ctx, other, f.now, f.now))
			f.wantAlive(r)
			f.wantEnded(f.end(store.Selector{Subject: "mallory"}))
			f.wantEnded(f.end(store.Selector{SID: "s2"}))
			f.wantAlive(r)
		}},
		{"several sessions share a subject and a sid", func(f *fixture) {
			a, b := f.signIn("alice", "s1"), f.signIn("alice", "s1")
			f.wantAlive(a)
			f.wantAlive(b)
		}},
		{"an attempt may take fifteen minutes less a moment", func(f *fixture) {
			r := f.record("alice", "s1")
			began := f.now.Add(time.Microsecond - store.AttemptLifetime)
			if err := f.store.Create(f.ctx, r, began, f.now); err != nil {
				f.Errorf("Create: %v", err)
			}
			f.wantAlive(r)
		}},
		{"an attempt of fifteen minutes is refused, mark or no mark", func(f *fixture) {
			r := f.record("alice", "s1")
			for _, took := range []time.Duration{store.AttemptLifetime, store.AttemptLifetime + time.Hour} {
				f.wantError("Create", f.store.Create(f.ctx, r, f.now.Add(-took), f.now), store.ErrEnded)
			}
			f.wantGone(r)
		}},
		{"a closed store answers nothing", func(f *fixture) {
			r := f.signIn("alice", "s1")
			if err := f.store.Close(); err != nil {
				f.Fatalf("Close: %v", err)
			}
			_, err := f.store.Find(f.ctx, r.Key, f.now)
			f.wantFault("Find", err)
			f.wantFault("Create", f.store.Create(f.ctx, f.record("alice", "s2"), f.now, f.now))
			f.wantFault("Update", f.store.Update(f.ctx, r, f.now))
			_, err = f.store.End(f.ctx, ending(store.Selector{Subject: "alice"}), f.now)
			f.wantFault("End", err)
			_, err = f.store.List(f.ctx, store.Query{}, f.now)
			f.wantFault("List", err)
			_, err = f.store.Prune(f.ctx, f.now)
			f.wantFault("Prune", err)
			_, err = f.store.Claim(f.ctx, store.NoticeLogout, target, f.now, time.Minute, 1)
			f.wantFault("Claim", err)
			_, err = f.store.Watch(f.ctx, func(store.Ended) {})
			f.wantFault("Watch", err)
		}},
	}
}

// oddTexts are subjects and sids that a store could misread, such as SQL, patterns and separators.
func oddTexts() []string {
	return []string{
		"'", `"`, "`", "''; DROP TABLE sessions; --", `\`, `\'`, "%", "_", "%%", "*", "?", "[a-z]*", "{alice}", "{",
		"}",
		":", "|", "a:b", "a|b", "/", "a b", " alice", "alice ", "+", "=", "a+b/c==", "$1", "?1", "NULL", "null", "0",
		"-1",
		"1e3", "0x10", "true", "Alice", "ALICE", "alice", "ålice", "a\u030alice", "élan", "e\u0301lan", "ß", "ss", "İ",
		"i", "ı",
		"\u200b", "\u202ealice", "\ufeffalice", "\u00ad", "\u2028", "𝒜lice", "名前", "👩\u200d💻", "\U0010ffff",
		strings.Repeat("x", 255), strings.Repeat("x", 254) + "y", strings.Repeat("é", 512), strings.Repeat("s", 1024),
		strings.Repeat("s", 1023) + "t",
	}
}
