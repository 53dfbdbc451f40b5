package storetest

import (
	"bytes"
	"crypto/sha256"
	"sync"
	"time"

	"example.com/curfew/store"
)

// claimAttempt claims an attempt and fails unless the result is the wanted one: nil if the claim is to succeed.
func (f *fixture) claimAttempt(name, value string, life time.Duration, want []byte) {
	f.Helper()
	held, err := f.store.ClaimAttempt(f.ctx, sha256.Sum256([]byte(name)), []byte(value), f.now.Add(life), f.now)
	if err != nil || (held == nil) != (want == nil) || !bytes.Equal(held, want) {
		f.Errorf("ClaimAttempt %s: held %q, error %v; want held %q", name, held, err, want)
	}
}

func (f *fixture) settleAttempt(name, value string) error {
	return f.store.CompleteAttempt(f.ctx, sha256.Sum256([]byte(name)), []byte(value), f.now)
}

// wantAttempt fails unless the attempt has this value; "" means none.
func (f *fixture) wantAttempt(name, value string) {
	f.Helper()
	got, err := f.store.Attempt(f.ctx, sha256.Sum256([]byte(name)), f.now)
	if value == "" {
		f.wantError("Attempt "+name, err, store.ErrNotFound)
		return
	}
	if err != nil || string(got) != value {
		f.Errorf("Attempt %s: %q, error %v; want %q", name, got, err, value)
	}
}

func attemptCases() []testCase {
	const life = store.AttemptLifetime
	odd := "1 \x00\xff\n'2 "
	return []testCase{
		{"an attempt is claimed once, and completed", func(f *fixture) {
			f.wantAttempt("a", "")
			f.wantError("CompleteAttempt before a claim", f.settleAttempt("a", "x"), store.ErrNotFound)
			f.wantAttempt("a", "")
			f.claimAttempt("a", odd, life, nil)
			f.wantAttempt("a", odd)
			f.claimAttempt("a", "second", 2*life, []byte(odd))
			f.claimAttempt("b", "other", life, nil)
			for _, outcome := range []string{odd + "settled", "7"} {
				if err := f.settleAttempt("a", outcome); err != nil {
					f.Errorf("CompleteAttempt: %v", err)
				}
				f.wantAttempt("a", outcome)
				f.claimAttempt("a", "third", life, []byte(outcome))
			}
			f.wantAttempt("b", "other")
		}},
		{"of many claims at once one succeeds", func(f *fixture) {
			var mu sync.Mutex
			won, held := 0, make(map[string]int)
			const many = 16
			f.together(many, func(i int) error {
				h, err := f.store.ClaimAttempt(f.ctx, store.AttemptID{1}, []byte{byte('a' + i)}, f.now.Add(life), f.now)
				mu.Lock()
				defer mu.Unlock()
				if h == nil && err == nil {
					won++
				} else {
					held[string(h)]++
				}
				return err
			})
			kept, err := f.store.Attempt(f.ctx, store.AttemptID{1}, f.now)
			if won != 1 || err != nil || held[string(kept)] != many-1 {
				f.Errorf("%d claims succeeded, want 1; %q is kept (error %v), and the others were told %v", won, kept,
					err, held)
			}
		}},
		{"an attempt runs out by the caller's time, and settling it does not prolong it", func(f *fixture) {
			f.claimAttempt("a", "first", life, nil)
			f.now = f.now.Add(life - time.Microsecond)
			if err := f.settleAttempt("a", "last"); err != nil {
				f.Errorf("CompleteAttempt just before: %v", err)
			}
			f.claimAttempt("a", "second", life, []byte("last"))
			f.now = f.now.Add(time.Microsecond)
			f.wantAttempt("a", "")
			f.wantError("CompleteAttempt too late", f.settleAttempt("a", "x"), store.ErrNotFound)
			f.claimAttempt("a", "anew", life, nil)
			f.now = f.now.Add(life - time.Microsecond)
			f.wantAttempt("a", "anew")
		}},
		{"an attempt that has run out is pruned, and no other", func(f *fixture) {
			f.claimAttempt("a", "a", life, nil)
			f.claimAttempt("b", "b", life+time.Microsecond, nil)
			f.claimAttempt("c", "c", time.Minute, nil)
			f.now = f.now.Add(time.Minute)
			f.claimAttempt("c", "c again", 2*life, nil)
			f.now = f.now.Add(life - time.Minute)
			if n := f.pruneAll(f.now); n != 1 {
				f.Errorf("Prune removed %d, want 1", n)
			}
			before := f.now.Add(-life)
			if _, err := f.store.Attempt(f.ctx, sha256.Sum256([]byte("a")), before); err == nil {
				f.Error("Prune left an attempt that has run out")
			}
			f.wantAttempt("b", "b")
			f.wantAttempt("c", "c again")
			f.now = f.now.Add(2 * life)
			if n := f.pruneAll(f.now); n != 2 {
				f.Errorf("Prune removed %d, want 2", n)
			}
		}},
		{"what is empty or too large is refused", func(f *fixture) {
			large := string(bytes.Repeat([]byte{0xfe}, store.MaxAttemptValue))
			f.claimAttempt("a", large, life, nil)
			f.wantAttempt("a", large)
			for what, value := range map[string][]byte{"a byte more": []byte(large + "1"), "nothing": nil} {
				_, err := f.store.ClaimAttempt(f.ctx, store.AttemptID{2}, value, f.now.Add(life), f.now)
				f.wantFault("ClaimAttempt with "+what, err)
				f.wantFault("CompleteAttempt with "+what, f.settleAttempt("a", string(value)))
			}
			f.wantAttempt("a", large)
			_, err := f.store.Attempt(f.ctx, store.AttemptID{2}, f.now)
			f.wantError("Attempt", err, store.ErrNotFound)
		}},
		{"an attempt handed in or out is the caller's own", func(f *fixture) {
			id, value := store.AttemptID{3}, []byte("kept")
			if _, err := f.store.ClaimAttempt(f.ctx, id, value, f.now.Add(life), f.now); err != nil {
				f.Fatal(err)
			}
			value[0] = 'x'
			for range 2 {
				got, err := f.store.Attempt(f.ctx, id, f.now)
				if err != nil || string(got) != "kept" {
					f.Fatalf("Attempt: %q, error %v", got, err)
				}
				got[0] = 'x'
				held, err := f.store.ClaimAttempt(f.ctx, id, value, f.now.Add(life), f.now)
				if err != nil || string(held) != "kept" {
					f.Fatalf("ClaimAttempt: %q, error %v", held, err)
				}
				held[0] = 'x'
			}
		}},
	}
}
