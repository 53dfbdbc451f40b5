package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/audit"
	"example.com/curfew/keyring"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
)

// bench is a log at work, in fake time.
type bench struct {
	t       *testing.T
	journal *faulty
	ring    *keyring.Keyring
	file    bytes.Buffer
	disk    chan struct{} // if it is set, a write to the file waits until it is closed
	log     *audit.Log
	stop    func()
}

// faulty is a journal that fails, or hangs, when told to.
type faulty struct {
	*memory.Store
	fail error
	hang bool
}

func (f *faulty) Append(ctx context.Context, entries [][]byte, now time.Time) error {
	if f.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.fail != nil {
		return f.fail
	}
	return f.Store.Append(ctx, entries, now)
}

func bubble(t *testing.T, keep time.Duration, test func(b *bench)) {
	synctest.Test(t, func(t *testing.T) {
		ring, err := keyring.Parse(keyring.NewFile())
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{t: t, journal: &faulty{Store: memory.New()}, ring: ring}
		b.log = audit.New(audit.Config{Journal: b.journal, Keyring: ring, Writer: b, Keep: keep, Replica: "one",
			Now: time.Now, Log: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() { b.log.Run(ctx) })
		b.stop = func() { cancel(); all.Wait() }
		defer b.stop()
		test(b)
	})
}

func (b *bench) Write(p []byte) (int, error) {
	if b.disk != nil {
		<-b.disk
	}
	return b.file.Write(p)
}

func (b *bench) events(q audit.Query) []audit.Event {
	b.t.Helper()
	if err := b.log.Flush(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	page, err := b.log.Events(b.t.Context(), q)
	if err != nil {
		b.t.Fatal(err)
	}
	return page.Events
}

// What a refused token said is shown to the digit.
func TestTheClaimsOfAnEventKeepTheirDigits(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(b *bench) {
		const want = `{"exp":1e3,"list":[1.0],"tenant":12345678901234567890}`
		var claims map[string]any
		d := json.NewDecoder(strings.NewReader(want))
		d.UseNumber()
		if err := d.Decode(&claims); err != nil {
			b.t.Fatal(err)
		}
		b.log.Record(audit.Event{Type: audit.BackchannelLogout, Result: audit.Refused, Claimed: true, Claims: claims})
		e := b.events(audit.Query{})[0]
		var again struct{ Events []audit.Event } // as the answer of the console is read
		text, err := json.Marshal(map[string]any{"events": []audit.Event{e}})
		if err := errors.Join(err, json.Unmarshal(text, &again)); err != nil {
			b.t.Fatal(err)
		}
		for where, claims := range map[string]any{"the journal": e.Claims, "the console": again.Events[0].Claims} {
			if got, err := json.Marshal(claims); err != nil || string(got) != want {
				b.t.Errorf("%s has %s, want %s (error %v)", where, got, want, err)
			}
		}
		if !strings.Contains(b.file.String(), want) {
			b.t.Errorf("the file has %s", &b.file)
		}
	})
}

func TestEventsAreKeptSealedAndWrittenAsOCSF(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(b *bench) {
		b.log.Record(audit.Event{Type: audit.SignIn, Result: audit.OK, Provider: "main", Issuer: "https://id.example",
			Subject: "alice", SID: "s1", Session: "x", Address: "203.0.113.7", UserAgent: "Phone/1"})
		b.log.Record(audit.Event{Type: audit.BackchannelLogout, Result: "refused", Check: "aud", Reason: "it is for another",
			Subject: "mallory\u202e\x00\U000e0001", Claimed: true, Claims: map[string]any{"aud": "another"}})
		b.log.Record(audit.Event{Type: audit.Operator, Result: audit.OK, Action: "end_session", Actor: "olga"})
		all := b.events(audit.Query{})
		if len(all) != 3 || all[0].Actor != "olga" || all[1].Check != "aud" || all[2].Subject != "alice" ||
			all[2].Replica != "one" || all[2].Position != 1 || all[1].Claims["aud"] != "another" {
			b.t.Fatalf("%+v", all)
		}
		raw, err := b.journal.Entries(b.t.Context(), store.JournalQuery{})
		if err != nil || len(raw) != 3 || bytes.Contains(raw[2].Entry, []byte("alice")) {
			b.t.Errorf("the journal holds %+v, %v", raw, err)
		}
		if strings.ContainsAny(b.file.String(), "\u202e\x00\U000e0001") {
			b.t.Errorf("invisible characters are in the file: %q", &b.file)
		}
		var lines []map[string]any
		for d := json.NewDecoder(&b.file); d.More(); {
			var l map[string]any
			if err := d.Decode(&l); err != nil {
				b.t.Fatal(err)
			}
			lines = append(lines, l)
		}
		for i, want := range []string{
			`3002 1 300201 Logon 1 alice`, `3002 2 300202 Logoff 2 mallory` + "\u202e\x00\U000e0001", `6003 4 600304 Delete 1 `,
		} {
			l, user := lines[i], ""
			if u, ok := l["user"].(map[string]any); ok {
				user = u["uid"].(string)
			}
			got := fmt.Sprintf("%v %v %v %v %v %s", l["class_uid"], l["activity_id"], l["type_uid"], l["activity_name"],
				l["status_id"], user)
			if got != want {
				b.t.Errorf("line %d: %s, want %s", i, got, want)
			}
		}
	})
}

func TestEachOperationHasItsActivity(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(b *bench) {
		rows := []struct{ action, want string }{
			{"open_console", "2 600302 Read"}, {"export_person", "2 600302 Read"},
			{"log_level", "3 600303 Update"}, {"retry_notice", "3 600303 Update"}, {"rotate_keys", "3 600303 Update"},
			{"drop_notice", "4 600304 Delete"}, {"end_session", "4 600304 Delete"}, {"end_sessions", "4 600304 Delete"},
			{"end_provider", "4 600304 Delete"}, {"forget_person", "4 600304 Delete"},
			{"something_new", "99 600399 Other"},
		}
		for _, row := range rows {
			b.log.Record(audit.Event{Type: audit.Operator, Result: audit.OK, Action: row.action, Actor: "olga"})
		}
		b.events(audit.Query{})
		d := json.NewDecoder(&b.file)
		for _, row := range rows {
			var l struct {
				ID   int    `json:"activity_id"`
				Type int    `json:"type_uid"`
				Name string `json:"activity_name"`
			}
			if err := d.Decode(&l); err != nil {
				b.t.Fatal(err)
			}
			if got := fmt.Sprint(l.ID, l.Type, " ", l.Name); got != row.want {
				b.t.Errorf("%s: %s, want %s", row.action, got, row.want)
			}
		}
	})
}

// Who acted by a session is told from who said a name, and neither can pass for the other.
func TestOperatorsAreNamedByTheirSignInOrByWhatTheySaid(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(b *bench) {
		b.log.Record(audit.Event{Type: audit.Operator, Result: audit.OK, Action: "end_session", Actor: "olga"})
		b.log.Record(audit.Event{Type: audit.Operator, Result: audit.OK, Action: "end_session", Actor: "olga",
			ActorProvider: "main", ActorSession: "id.handle"})
		b.events(audit.Query{})
		for i, want := range []string{`"actor":{"user":{"name":"olga"}}`,
			`"actor":{"user":{"uid":"olga","domain":"main"},"session":{"uid":"id.handle"}}`} {
			if line := strings.Split(b.file.String(), "\n")[i]; !strings.Contains(line, want) {
				b.t.Errorf("%s\nlacks %s", line, want)
			}
		}
	})
}

// Everybody who is signed in can try the console. That must not push everything else out of the journal; what operators
// did, and what failed of it, stays.
func TestRefusedOperatorsAreLimitedAndTheOthersAreNot(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(b *bench) {
		for range 100 {
			b.log.Record(audit.Event{Type: audit.Operator, Result: audit.Refused, Action: "open_console", Actor: "eve"})
			b.log.Record(audit.Event{Type: audit.Operator, Result: "failed", Action: "end_session", Actor: "olga"})
		}
		refused, failed := 0, 0
		for _, e := range b.events(audit.Query{Limit: 1000}) {
			if e.Result == audit.Refused {
				refused++
			} else {
				failed++
			}
		}
		if refused != 30 || failed != 100 {
			b.t.Errorf("%d refused and %d failed are in the journal, want 30 and 100", refused, failed)
		}
	})
}

// A logout is answered, and costs the same, whether its record can be written or not.
func TestRecordingNeitherBlocksNorFails(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(b *bench) {
		b.journal.hang = true
		began := time.Now()
		for range 20_000 {
			b.log.Record(audit.Event{Type: audit.SessionEnded, Result: audit.OK})
		}
		if took := time.Since(began); took != 0 {
			b.t.Errorf("recording took %v while the journal hangs", took)
		}
		if _, lost := b.log.Counts(); lost < 9_000 {
			b.t.Errorf("%d are counted as lost", lost)
		}
		b.stop()
		if took := time.Since(began); took > 20*time.Second {
			b.t.Errorf("stopping took %v", took)
		}
	})
	bubble(t, 0, func(b *bench) {
		b.journal.fail = errors.New("no")
		b.log.Record(audit.Event{Type: audit.SignIn, Result: audit.OK, Subject: "alice"})
		if all := b.events(audit.Query{}); len(all) != 0 {
			b.t.Errorf("%+v", all)
		}
		b.journal.fail = nil
		b.log.Record(audit.Event{Type: audit.SignIn, Result: audit.OK, Subject: "bob"})
		if all := b.events(audit.Query{}); len(all) != 1 || all[0].Subject != "bob" {
			b.t.Errorf("%+v", all)
		}
		if written, lost := b.log.Counts(); written != 1 || lost != 1 {
			b.t.Errorf("%d written, %d lost", written, lost)
		}
		if n := strings.Count(b.file.String(), "\n"); n != 2 {
			b.t.Errorf("the file has %d lines", n)
		}
	})
}

// A file may be on a disk that is away for long. Then the journal goes on, and so does the end of the process.
func TestAWriterThatDoesNotReturnStopsNothingElse(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(b *bench) {
		b.disk = make(chan struct{})
		for i := range 3 {
			b.log.Record(audit.Event{Type: audit.SignIn, Result: audit.OK, Subject: "alice"})
			if all := b.events(audit.Query{}); len(all) != i+1 {
				b.t.Errorf("the journal has %d events, and %d were recorded", len(all), i+1)
			}
		}
		if _, lost := b.log.Counts(); lost != 3 {
			b.t.Errorf("%d are counted as lost", lost)
		}
		began := time.Now()
		b.log.Record(audit.Event{Type: audit.SignIn, Result: audit.OK, Subject: "bob"})
		b.stop()
		if took := time.Since(began); took > 20*time.Second {
			b.t.Errorf("stopping took %v", took)
		}
		close(b.disk)
		synctest.Wait()
		if n := strings.Count(b.file.String(), "\n"); n != 1 {
			b.t.Errorf("the file has %d lines, and one write was begun", n)
		}
	})
}

func TestAStrangerDoesNotPushOthersOutOfTheJournal(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(b *bench) {
		b.log.Record(audit.Event{Type: audit.SignIn, Result: audit.OK, Subject: "alice"})
		for range 5000 {
			b.log.Record(audit.Event{Type: audit.BackchannelLogout, Result: "refused", Check: "signature"})
		}
		if all := b.events(audit.Query{Limit: 1000}); len(all) > 50 || all[len(all)-1].Subject != "alice" {
			b.t.Errorf("%d events, the first %+v", len(all), all[len(all)-1])
		}
		if n := strings.Count(b.file.String(), "\n"); n != 5001 {
			b.t.Errorf("the file has %d lines, want all", n)
		}
		time.Sleep(time.Minute)
		b.log.Record(audit.Event{Type: audit.BackchannelLogout, Result: "refused", Check: "iss"})
		if all := b.events(audit.Query{Limit: 1}); all[0].Check != "iss" || all[0].Suppressed < 4900 {
			b.t.Errorf("%+v, want it to say how many were left out", all[0])
		}
	})
}

func TestEventsAreForgottenByAgeAndByPerson(t *testing.T) {
	t.Parallel()
	bubble(t, 24*time.Hour, func(b *bench) {
		b.log.Record(audit.Event{Type: audit.SignIn, Result: audit.OK, Subject: "alice"})
		b.events(audit.Query{})
		time.Sleep(23 * time.Hour)
		for _, sub := range []string{"bob", "alice", "carol"} {
			b.log.Record(audit.Event{Type: audit.SignIn, Result: audit.OK, Subject: sub})
		}
		if all := b.events(audit.Query{}); len(all) != 4 {
			b.t.Errorf("%+v", all)
		}
		time.Sleep(3 * time.Hour)
		if all := b.events(audit.Query{}); len(all) != 3 {
			b.t.Errorf("after a day: %+v", all)
		}
		n, err := b.log.Forget(b.t.Context(), func(e *audit.Event) bool { return e.Subject == "alice" })
		if all := b.events(audit.Query{}); err != nil || n != 1 || len(all) != 2 || all[0].Subject != "carol" {
			b.t.Errorf("%d forgotten (%v), left: %+v", n, err, all)
		}
	})
}

func TestLargeAndBrokenTextsAreCut(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(b *bench) {
		long := strings.Repeat("\xff\u202e<b>", 10_000)
		b.log.Record(audit.Event{Type: audit.SignIn, Result: long, Check: long, Reason: long, Provider: long, Issuer: long,
			Subject: long, SID: long, JTI: long, UserAgent: long, Address: long, RequestID: long,
			Claims: map[string]any{"x": long}})
		all := b.events(audit.Query{})
		if len(all) != 1 || len(all[0].Subject) > 4096 || len(all[0].UserAgent) > 1024 || all[0].Claims != nil {
			b.t.Errorf("%.300v", all)
		}
	})
}

func TestPagesOfEvents(t *testing.T) {
	t.Parallel()
	bubble(t, 0, func(b *bench) {
		for i := range 250 {
			b.log.Record(audit.Event{Type: audit.SignIn, Result: audit.OK, Subject: fmt.Sprint(i), Provider: fmt.Sprint(i % 10)})
		}
		b.events(audit.Query{})
		var got []string
		for before := int64(0); ; {
			page, err := b.log.Events(b.t.Context(), audit.Query{Before: before, Limit: 7,
				Match: func(e *audit.Event) bool { return e.Provider == "3" }})
			if err != nil {
				b.t.Fatal(err)
			}
			for _, e := range page.Events {
				got = append(got, e.Subject)
			}
			if before = page.Next; before == 0 {
				break
			}
		}
		if len(got) != 25 || got[0] != "243" || got[24] != "3" {
			b.t.Errorf("%q", got)
		}
		got = nil
		for after := int64(1); ; {
			page, err := b.log.Events(b.t.Context(), audit.Query{After: after, Limit: 40})
			if err != nil {
				b.t.Fatal(err)
			}
			for _, e := range page.Events {
				got = append(got, e.Subject)
			}
			if len(page.Events) == 0 {
				break
			}
			after = page.Next
		}
		if len(got) != 249 || got[0] != "1" || got[248] != "249" {
			b.t.Errorf("%d: %q", len(got), got)
		}
	})
}
