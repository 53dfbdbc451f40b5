package session_test

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/store/sqlite"
)

// written is a store that somebody else can write to, without the keys.
type written struct {
	*memory.Store
	alter func(*store.Record) // what Find returns
}

func (w *written) Find(ctx context.Context, k store.Key, now time.Time) (store.Record, error) {
	r, err := w.Store.Find(ctx, k, now)
	if err == nil && w.alter != nil {
		w.alter(&r)
	}
	return r, err
}

func TestAColumnThatWasChangedInTheStoreIsNotServed(t *testing.T) {
	t.Parallel()
	day := 24 * time.Hour
	for column, alter := range map[string]func(r *store.Record){
		"issuer":       func(r *store.Record) { r.Issuer = "https://other.example" },
		"client":       func(r *store.Record) { r.ClientID = "app2" },
		"subject":      func(r *store.Record) { r.Subject = "bob" },
		"sid":          func(r *store.Record) { r.SID = "s2" },
		"former":       func(r *store.Record) { r.Former = []string{"s0"} },
		"created":      func(r *store.Record) { r.Created = r.Created.Add(time.Microsecond) },
		"last_seen":    func(r *store.Record) { r.LastSeen = r.LastSeen.Add(day) },
		"idle_expires": func(r *store.Record) { r.IdleExpires = r.IdleExpires.Add(day) },
		"expires":      func(r *store.Record) { r.Expires = r.Expires.Add(day) },
		"refresh":      func(r *store.Record) { r.Refresh = store.RefreshOffline },
	} {
		t.Run(column, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				backend := &written{Store: memory.New()}
				var log bytes.Buffer
				m, err := session.NewManager(session.Config{Store: backend, Keyring: ring(t, 1),
					Log: slog.New(slog.NewTextHandler(&log, nil))})
				if err != nil {
					t.Fatal(err)
				}
				bearer, _, err := m.Create(t.Context(),
					session.SignIn{Issuer: issuer, ClientID: client, Subject: "alice", SID: "s1",
						Tokens: session.Tokens{RefreshToken: "r"}, Began: m.Now()})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Minute) // so that the check writes: what it writes is sealed anew
				for range 2 {
					if _, err := m.Get(t.Context(), bearer); err != nil {
						t.Fatalf("as it was: %v", err)
					}
				}
				backend.alter = alter
				if s, err := m.Get(t.Context(), bearer); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("Get: %+v, %v", s, err)
				}
				if s, err := m.Peek(t.Context(), bearer.Key()); !errors.Is(err, store.ErrNotFound) {
					t.Errorf("Peek: %+v, %v", s, err)
				}
				if !strings.Contains(log.String(), "session_altered") ||
					!strings.Contains(log.String(), "sealed: "+column+"\"") {
					t.Errorf("the log does not name the column %s: %s", column, &log)
				}
			})
		})
	}
}

// Whoever writes to the database can give a session other names, another session's payload, or the place of another
// one.
func TestWhoWritesToTheDatabaseMakesNoSessionAnotherPersons(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		statement string // ?1 is the key of the attacker's own session, ?2 that of another person
		event     string
	}{
		"another subject": {`UPDATE sessions SET subject = 'bob' WHERE key = ?1 AND ?2 <> ''`, "session_altered"},
		"another lifetime": {`UPDATE sessions SET expires = expires + 86400000000 WHERE key = ?1 AND ?2 <> ''`,
			"session_altered"},
		"all of it": {`UPDATE sessions SET (issuer, client, subject, sid, created, last_seen, idle_expires, expires) =
			(SELECT issuer, client, subject, sid, created, last_seen, idle_expires, expires
			FROM sessions WHERE key = ?2) WHERE key = ?1`, "session_altered"},
		"another one's payload": {`UPDATE sessions SET payload = (SELECT payload FROM sessions WHERE key = ?2)
			WHERE key = ?1`, "session_unreadable"},
		"another one's row": {`UPDATE sessions SET
			(issuer, client, subject, sid, created, last_seen, idle_expires, expires, refresh, payload) =
			(SELECT issuer, client, subject, sid, created, last_seen, idle_expires, expires, refresh, payload
			FROM sessions WHERE key = ?2) WHERE key = ?1`, "session_unreadable"},
		"no payload": {`UPDATE sessions SET payload = x'' WHERE key = ?1 AND ?2 <> ''`,
			"session_unreadable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "curfew.db")
			var log bytes.Buffer
			open := func() (*session.Manager, *sqlite.Store) {
				backend, err := sqlite.Open(t.Context(), path, sqlite.Options{})
				if err != nil {
					t.Fatal(err)
				}
				m, err := session.NewManager(session.Config{Store: backend, Keyring: ring(t, 1),
					Log: slog.New(slog.NewTextHandler(&log, nil))})
				if err != nil {
					t.Fatal(err)
				}
				return m, backend
			}
			m, backend := open()
			var bearers []session.Bearer
			for _, subject := range []string{"alice", "bob"} {
				bearer, _, err := m.Create(t.Context(),
					session.SignIn{Issuer: issuer, ClientID: client, Subject: subject, Began: m.Now()})
				if err != nil {
					t.Fatal(err)
				}
				bearers = append(bearers, bearer)
			}
			if err := backend.Close(); err != nil {
				t.Fatal(err)
			}
			db, err := sql.Open("sqlite", path)
			if err != nil {
				t.Fatal(err)
			}
			mine, other := bearers[0].Key(), bearers[1].Key()
			done, err := db.ExecContext(t.Context(), row.statement, mine[:], other[:])
			if err != nil {
				t.Fatal(err)
			}
			if n, err := done.RowsAffected(); n != 1 || err != nil {
				t.Fatalf("%d rows are altered: %v", n, err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			m, backend = open()
			defer backend.Close()
			if s, err := m.Get(t.Context(), bearers[0]); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("served: %+v, %v", s, err)
			}
			if !strings.Contains(log.String(), row.event) {
				t.Errorf("the log says %s, want %s", &log, row.event)
			}
			if s, err := m.Get(t.Context(), bearers[1]); err != nil || s.Subject != "bob" {
				t.Errorf("the other person: %+v, %v", s, err)
			}
		})
	}
}

// payloadV1 is what an earlier release sealed.
func payloadV1(t *testing.T, r *keyring.Keyring, k store.Key, claims map[string]any) []byte {
	t.Helper()
	plain, err := json.Marshal(map[string]any{"provider": "main", "claims": claims,
		"tokens": map[string]any{"refresh": "old-refresh"}})
	if err != nil {
		t.Fatal(err)
	}
	return r.Seal("session payload v1", k[:], plain)
}

func TestAPayloadOfAnEarlierReleaseOpensForWhomItWasSealedAndIsRewritten(t *testing.T) {
	t.Parallel()
	const absolute = 24 * time.Hour
	const old = time.Hour // how old the sign-in is
	claims := func(name string, value any) func(map[string]any, *store.Record) {
		return func(c map[string]any, _ *store.Record) { c[name] = value }
	}
	row := func(alter func(*store.Record)) func(map[string]any, *store.Record) {
		return func(_ map[string]any, r *store.Record) { alter(r) }
	}
	for name, c := range map[string]struct {
		alter func(map[string]any, *store.Record)
		log   string // why it is refused; empty: it is served
	}{
		"as it was":                 {row(func(*store.Record) {}), ""},
		"for several audiences":     {claims("aud", []string{"other", client}), ""},
		"without a sid":             {claims("sid", nil), ""},
		"another subject":           {row(func(r *store.Record) { r.Subject = "bob" }), "sealed: subject"},
		"another issuer":            {row(func(r *store.Record) { r.Issuer = "https://x.example" }), "sealed: issuer"},
		"another client":            {row(func(r *store.Record) { r.ClientID = "app2" }), "sealed: client"},
		"another client of several": {claims("aud", []string{"other"}), "sealed: client"},
		"no audience":               {claims("aud", nil), "sealed: client"},
		"another sid":               {row(func(r *store.Record) { r.SID = "s2" }), "sealed: sid"},
		"nobody's":                  {claims("sub", nil), "does not say whose it is"},
		"no time":                   {claims("iat", nil), "does not say whose it is"},
		"an odd time":               {claims("iat", 1e300), "does not say whose it is"},
		"from an old backup":        {claims("iat", time.Now().Add(-absolute-time.Hour).Unix()), "nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend, r := memory.New(), ring(t, 1)
			var log bytes.Buffer
			m, err := session.NewManager(session.Config{Store: backend, Keyring: r, Lifetime: absolute,
				Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			now := store.Time(m.Now())
			bearer := session.NewBearer(issuer, client, "alice")
			rec := store.Record{Key: bearer.Key(), Issuer: issuer, ClientID: client, Subject: "alice", SID: "s1",
				Created: now.Add(-old), LastSeen: now.Add(-old), IdleExpires: now.Add(time.Hour),
				Expires: now.Add(1000 * time.Hour), Refresh: store.RefreshOnline}
			of := map[string]any{"iss": issuer, "sub": "alice", "aud": client, "sid": "s1", "iat": now.Add(-old).Unix()}
			c.alter(of, &rec)
			rec.Payload = payloadV1(t, r, rec.Key, of)
			if err := backend.Create(t.Context(), rec, now, now); err != nil {
				t.Fatal(err)
			}
			s, err := m.Get(t.Context(), bearer)
			if c.log != "" {
				if !errors.Is(err, store.ErrNotFound) {
					t.Errorf("Get: %+v, %v", s, err)
				}
				if said := cmp.Or(log.String(), "nothing"); !strings.Contains(said, c.log) {
					t.Errorf("the log says %s, want %q", said, c.log)
				}
				return
			}
			if err != nil || s.Subject != "alice" || s.Tokens.RefreshToken != "old-refresh" {
				t.Fatalf("Get: %+v, %v\n%s", s, err, &log)
			}
			// However long the columns say, it lives no longer than it would have.
			if latest := now.Add(-old + absolute + store.AttemptLifetime); s.Expires.After(latest) {
				t.Errorf("it expires at %v, want %v at the latest", s.Expires, latest)
			}
			again, err := backend.Find(t.Context(), rec.Key, now)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Open("session payload v2", rec.Key[:], again.Payload); err != nil || again.Revision != 2 {
				t.Errorf("it was not rewritten: revision %d, %v", again.Revision, err)
			}
			if again, err := m.Get(t.Context(), bearer); err != nil || again.Subject != "alice" {
				t.Errorf("rewritten: %+v, %v", again, err)
			}
		})
	}
}

func TestANoticeOfAnEarlierReleaseIsForTheProviderOfItsToken(t *testing.T) {
	t.Parallel()
	r := ring(t, 1)
	bearer := session.NewBearer(issuer, client, "alice")
	k := bearer.Key()
	n := store.Notice{Key: k, Issuer: issuer, ClientID: client, Subject: "alice", SID: "s1",
		Payload: payloadV1(t, r, k, map[string]any{"iss": issuer, "sub": "alice", "aud": client, "sid": "s1",
			"iat": 1_800_000_000})}
	if got, err := session.NoticeTokens(r, n); err != nil || got.RefreshToken != "old-refresh" {
		t.Errorf("as it was: %v, %v", got.RefreshToken, err)
	}
	n.Issuer = "https://evil.example"
	if _, err := session.NoticeTokens(r, n); !errors.Is(err, session.ErrAltered) {
		t.Errorf("for another issuer: %v", err)
	}
	n.Issuer, n.Payload = issuer, payloadV1(t, r, k, nil)
	if _, err := session.NoticeTokens(r, n); !errors.Is(err, keyring.ErrUnsealed) {
		t.Errorf("without an owner: %v", err)
	}
}

// What a session held is revoked after its ending and after it ran out: both payloads say whose they are.
func TestTheNoticeOfASessionOpensWithTheNamesOfTheSession(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{Notices: &notifier{plan: func(store.Ending) []store.NoticeRequest {
		return []store.NoticeRequest{{Kind: store.NoticeRevoke, Target: "main", Deadline: time.Now().Add(time.Hour)}}
	}}}, func(b *bench) {
		bearer, _ := b.signIn(session.Tokens{RefreshToken: "held"})
		time.Sleep(2 * time.Minute)
		b.want(b.m, bearer, nil) // written anew, with other times
		b.end(b.m, store.Selector{SID: "s1"})
		got, err := b.store.Claim(t.Context(), store.NoticeRevoke, "main", b.m.Now(), time.Minute, 10)
		if err != nil || len(got) != 1 {
			t.Fatal(fmt.Sprint(got), err)
		}
		if tokens, err := session.NoticeTokens(b.ring, got[0]); err != nil || tokens.RefreshToken != "held" {
			t.Errorf("%q, %v", tokens.RefreshToken, err)
		}
	})
}
