package session_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

func TestAnAppKnowsASessionByANameOfItsOwn(t *testing.T) {
	t.Parallel()
	a, b := session.NewBearer("https://id.example", "app", "alice"),
		session.NewBearer("https://id.example", "app", "alice")
	names := make(map[string]bool)
	for _, k := range []store.Key{a.Key(), b.Key()} {
		for _, app := range []string{"wiki", "mail", ""} {
			sid := k.SIDFor(app)
			if sid != k.SIDFor(app) {
				t.Error("the name changes")
			}
			if len(sid) != 32 || strings.Contains(k.String(), sid) {
				t.Errorf("%q is not 192 bits of its own", sid)
			}
			names[sid] = true
		}
	}
	if len(names) != 6 {
		t.Errorf("there are %d names for 2 sessions at 3 apps, want 6", len(names))
	}
}

func TestAnEndingLeavesTheNoticesOfTheOnePlanWithTheTokensInside(t *testing.T) {
	t.Parallel()
	told := 0
	cfg := session.Config{Notices: &notifier{
		plan: func(e store.Ending) []store.NoticeRequest {
			return []store.NoticeRequest{{Kind: store.NoticeRevoke, Target: "main", Offline: e.RevokeOffline,
				Deadline: time.Now().Add(time.Hour)}}
		},
		woken: func() { told++ },
	}}
	bubble(t, cfg, func(b *bench) {
		claim := func() []store.Notice {
			notices, err := b.store.Claim(t.Context(), store.NoticeRevoke, "main", b.m.Now(), time.Minute, 10)
			if err != nil {
				t.Fatal(err)
			}
			return notices
		}
		b.signIn(session.Tokens{RefreshToken: "kept", Offline: true})
		b.end(b.m, store.Selector{Subject: "alice"})
		if n := claim(); len(n) != 0 || told != 0 {
			t.Errorf("%d notices for a token that is kept; told %d times, want never", len(n), told)
		}
		// One before that failed may have left some, and nothing for this one to end.
		b.end(b.m, store.Selector{Subject: "alice"})
		if told != 1 {
			t.Errorf("told %d times after an ending that found nobody, want once", told)
		}
		time.Sleep(time.Second) // past the mark
		b.signIn(session.Tokens{RefreshToken: "refresh-secret", AccessToken: "access-secret", Offline: true})
		who := store.Selector{Issuer: issuer, ClientID: client, Subject: "alice"}
		if _, err := b.m.End(t.Context(), store.Ending{Selector: who, Cause: store.CauseBackChannel,
			RevokeOffline: true}); err != nil {
			t.Fatal(err)
		}
		notices := claim()
		if len(notices) != 1 || told != 2 {
			t.Fatalf("%d notices, told %d times", len(notices), told)
		}
		if got, err := session.NoticeTokens(b.ring, notices[0]); err != nil || got.RefreshToken != "refresh-secret" ||
			got.AccessToken != "access-secret" {
			t.Errorf("the notice holds other tokens (error %v)", err)
		}
	})
}

func TestWhatSealsANoticeOpensItAndNothingElseDoes(t *testing.T) {
	t.Parallel()
	r, other := ring(t, 1), ring(t, 2)
	bearer := session.NewBearer("https://id.example", "app", "alice")
	about := session.Session{Key: bearer.Key(), Issuer: "https://id.example", ClientID: "app", Subject: "alice",
		SID: "s1"}
	n := store.Notice{Key: about.Key, Issuer: about.Issuer, ClientID: about.ClientID, Subject: about.Subject,
		SID: about.SID}
	var err error
	if n.Payload, err = session.NoticePayload(r, &about, session.Tokens{RefreshToken: "refresh-secret"}); err != nil {
		t.Fatal(err)
	}
	if got, err := session.NoticeTokens(r, n); err != nil || got.RefreshToken != "refresh-secret" {
		t.Errorf("%v, %v", got.RefreshToken, err)
	}
	if strings.Contains(string(n.Payload), "refresh") {
		t.Error("the payload is not sealed")
	}
	if _, err := session.NoticeTokens(other, n); !errors.Is(err, keyring.ErrUnsealed) {
		t.Errorf("another ring: %v", err)
	}
	for what, alter := range map[string]func(*store.Notice){
		"issuer":  func(n *store.Notice) { n.Issuer = "https://evil.example" },
		"client":  func(n *store.Notice) { n.ClientID = "app2" },
		"subject": func(n *store.Notice) { n.Subject = "bob" },
		"sid":     func(n *store.Notice) { n.SID = "s2" },
	} {
		altered := n
		alter(&altered)
		if _, err := session.NoticeTokens(r, altered); !errors.Is(err, session.ErrAltered) ||
			!strings.HasSuffix(err.Error(), ": "+what) {
			t.Errorf("another %s: %v", what, err)
		}
	}
	n.Key[0] ^= 1
	if _, err := session.NoticeTokens(r, n); !errors.Is(err, keyring.ErrUnsealed) {
		t.Errorf("another session: %v", err)
	}
}

func TestWhatRanOutIsHandedOverBeforeItIsForgotten(t *testing.T) {
	t.Parallel()
	var handed []store.Key
	var fails atomic.Bool
	fails.Store(true)
	cfg := session.Config{IdleTimeout: time.Hour, RevokeExpired: true,
		Notices: &notifier{expired: func(all []store.Record) error {
			if fails.Load() {
				return errors.New("on purpose")
			}
			for _, r := range all {
				handed = append(handed, r.Key)
			}
			return nil
		}}}
	bubble(t, cfg, func(b *bench) {
		want := make(map[store.Key]bool)
		for range 250 {
			_, s := b.signIn(session.Tokens{RefreshToken: "r"})
			want[s.Key] = true
		}
		b.signIn(session.Tokens{})
		time.Sleep(90 * time.Minute)
		synctest.Wait()
		if due, err := b.store.Overdue(b.t.Context(), store.Key{}, 1000, b.m.Now()); err != nil || len(due) != 250 {
			t.Errorf("%d are kept while they cannot be handed over (error %v)", len(due), err)
		}
		fails.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if len(handed) != 250 {
			t.Errorf("%d were handed over, want all 250 once", len(handed))
		}
		for _, k := range handed {
			delete(want, k)
		}
		if due, err := b.store.Overdue(b.t.Context(), store.Key{}, 1000, b.m.Now()); err != nil || len(due) != 0 ||
			len(want) != 0 {
			t.Errorf("%d are left, %d were not handed over (error %v)", len(due), len(want), err)
		}
	})
}

// notifier is a [session.Notifier] that calls what a test gives it.
type notifier struct {
	plan     func(store.Ending) []store.NoticeRequest
	woken    func()
	orphaned func(session.Tokens)
	expired  func([]store.Record) error
}

func (n *notifier) Plan(e store.Ending) []store.NoticeRequest {
	if n.plan == nil {
		return nil
	}
	return n.plan(e)
}

func (n *notifier) Wake() {
	if n.woken != nil {
		n.woken()
	}
}

func (n *notifier) Orphaned(_ context.Context, _ *session.Session, t session.Tokens) {
	if n.orphaned != nil {
		n.orphaned(t)
	}
}

func (n *notifier) Expired(_ context.Context, all []store.Record) error {
	if n.expired == nil {
		return nil
	}
	return n.expired(all)
}
