package session_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store"
)

func (b *bench) create(subject, sid string, began session.SignIn) (session.Bearer, error) {
	b.t.Helper()
	began.Provider, began.Issuer, began.ClientID, began.Subject, began.SID = "main", issuer, client, subject, sid
	bearer, _, err := b.m.Create(b.t.Context(), began)
	return bearer, err
}

func (b *bench) begin() session.SignIn {
	b.t.Helper()
	began, era, err := b.m.Begin(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return session.SignIn{Began: began, Era: era}
}

func TestAllSessionsOfAProviderEndOnEveryReplica(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		other := b.replica(session.Config{})
		var all []session.Bearer
		for i := range 30 {
			bearer, err := b.create(fmt.Sprint("user", i/2), fmt.Sprint("s", i), b.begin())
			if err != nil {
				b.t.Fatal(err)
			}
			b.want(other, bearer, nil)
			all = append(all, bearer)
		}
		stranger, _, err := b.m.Create(b.t.Context(), session.SignIn{Issuer: "https://other.example", ClientID: client,
			Subject: "user1", Began: b.m.Now()})
		if err != nil {
			b.t.Fatal(err)
		}
		underWay := b.begin()
		ended, next, err := b.m.EndClient(b.t.Context(), issuer, client, store.CauseAdmin, store.Key{})
		if err != nil || ended != 30 || !next.IsZero() {
			b.t.Fatalf("EndClient: %d, next %v, error %v", ended, next, err)
		}
		for _, bearer := range all {
			b.want(b.m, bearer, store.ErrNotFound)
			b.want(other, bearer, store.ErrNotFound)
		}
		b.want(b.m, stranger, nil)
		// Nobody of this subject was here, so no end mark names it.
		if _, err := b.create("latecomer", "s99", underWay); !errors.Is(err, store.ErrEnded) {
			b.t.Errorf("a login that was under way: %v, want ErrEnded", err)
		}
		if page, err := b.m.Search(b.t.Context(), session.Search{}); err != nil || len(page.Sessions) != 1 {
			b.t.Errorf("%d sessions are left: %v", len(page.Sessions), err)
		}
		if _, err := b.create("latecomer", "s99", b.begin()); !errors.Is(err, store.ErrEnded) {
			b.t.Errorf("a login in the same instant: %v, want ErrEnded", err)
		}
		time.Sleep(time.Second)
		again, err := b.create("latecomer", "s99", b.begin())
		if err != nil {
			b.t.Errorf("a login that began afterwards: %v", err)
		}
		b.want(other, again, nil)
	})
}

func TestAnUnnamedProviderIsNotEnded(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		for _, who := range [][2]string{{"", client}, {issuer, ""}, {"", ""}} {
			if _, _, err := b.m.EndClient(b.t.Context(), who[0], who[1], store.CauseAdmin, store.Key{}); !errors.Is(err,
				store.ErrNobody) {
				b.t.Errorf("%q: %v, want ErrNobody", who, err)
			}
		}
	})
}

func TestSessionsAreFoundByTheirID(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		seen := map[string]bool{}
		for i := range 200 {
			bearer, err := b.create(fmt.Sprint("user", i%3), fmt.Sprint("s", i), b.begin())
			if err != nil {
				b.t.Fatal(err)
			}
			id := session.IDOf(bearer.Key())
			if seen[id] || len(id) != 19 {
				b.t.Fatalf("ID %q", id)
			}
			seen[id] = true
			found, err := b.m.ByID(b.t.Context(), id)
			if err != nil || found.Key != bearer.Key() || found.ID() != id || found.Unreadable {
				b.t.Fatalf("%q: %+v, %v", id, found, err)
			}
		}
		for _, id := range []string{"", ".", "AAAAAA.AAAAAAAAAAAA", "x", "AAAAAAAAAAAAA.A", "////.x"} {
			if _, err := b.m.ByID(b.t.Context(), id); !errors.Is(err, store.ErrNotFound) {
				b.t.Errorf("%q: %v, want ErrNotFound", id, err)
			}
		}
	})
}

func TestASearchLooksAtABoundedNumberAndGoesOn(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{MaxPerSubject: -1}, func(b *bench) {
		const all = 650
		for i := range all {
			n := b.begin()
			n.Address = fmt.Sprint("10.0.0.", i%25)
			if _, err := b.create(fmt.Sprint("user", i), "", n); err != nil {
				b.t.Fatal(err)
			}
		}
		q := session.Search{Address: "10.0.0.7"}
		found, looked, pages := 0, 0, 0
		for {
			page, err := b.m.Search(b.t.Context(), q)
			if err != nil {
				b.t.Fatal(err)
			}
			found, looked, pages = found+len(page.Sessions), looked+page.Looked, pages+1
			if page.Looked > 100 {
				b.t.Errorf("a page looked at %d sessions", page.Looked)
			}
			if q.After = page.Next; q.After.IsZero() {
				break
			}
		}
		if found != all/25 || looked != all || pages != 7 {
			b.t.Errorf("%d found, %d looked at, in %d pages", found, looked, pages)
		}
		page, err := b.m.Search(b.t.Context(), session.Search{Issuer: issuer, ClientID: client, Subject: "user7"})
		if err != nil || len(page.Sessions) != 1 || page.Looked != 1 {
			b.t.Errorf("of a subject: %+v, %v", page, err)
		}
	})
}

// counted counts the records that a store was asked for.
type counted struct {
	store.Store
	records int
}

func (c *counted) List(ctx context.Context, q store.Query, now time.Time) (store.Page, error) {
	page, err := c.Store.List(ctx, q, now)
	c.records += len(page.Records)
	return page, err
}

// A page of a list costs as much as the sessions on it, not as many as are compared for a search.
func TestAPageReadsNoMoreThanItShows(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{MaxPerSubject: -1}, func(b *bench) {
		const all = 130
		for i := range all {
			if _, err := b.create(fmt.Sprint("user", i), "", b.begin()); err != nil {
				b.t.Fatal(err)
			}
		}
		c := &counted{Store: b.store}
		m, err := session.NewManager(session.Config{Store: c, Keyring: b.ring, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.t.Fatal(err)
		}
		seen := map[store.Key]bool{}
		for q := (session.Search{Limit: 25}); ; {
			c.records = 0
			page, err := m.Search(b.t.Context(), q)
			if err != nil {
				b.t.Fatal(err)
			}
			if c.records > 25 {
				b.t.Errorf("%d sessions were read for a page of %d", c.records, len(page.Sessions))
			}
			for _, s := range page.Sessions {
				seen[s.Key] = true
			}
			if q.After = page.Next; q.After.IsZero() {
				break
			}
		}
		if len(seen) != all {
			b.t.Errorf("the pages have %d sessions, want %d", len(seen), all)
		}
	})
}

func TestASessionThatCannotBeOpenedIsListedAsSuch(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		_, s := b.signIn(session.Tokens{})
		b.ring = ring(b.t, 2)
		strange := b.replica(session.Config{})
		page, err := strange.Search(b.t.Context(), session.Search{})
		if err != nil || len(page.Sessions) != 1 || !page.Sessions[0].Unreadable || page.Sessions[0].Subject != "alice" ||
			page.Sessions[0].Claims != nil {
			b.t.Fatalf("%+v, %v", page, err)
		}
		// It can be ended all the same.
		if ended, err := strange.EndSignIn(b.t.Context(), page.Sessions[0].Session, store.CauseAdmin); err != nil ||
			len(ended) != 1 || ended[0].Key != s.Key {
			b.t.Errorf("%+v, %v", ended, err)
		}
	})
}

// What is compared before a payload is decoded excludes nothing that matches.
func TestASearchFindsWhateverTheLettersAre(t *testing.T) {
	t.Parallel()
	texts := []string{"alice@example.com", "ALICE@Example.com", "a\"<&>'\\@example.com", "zo\u00eb@example.com",
		"ZO\u00cb@EXAMPLE.COM", "ki\u017fs@example.com", "\u212aiss@example.com", "KISS@example.com", "lice@example.com",
		"\u2028\u200f@example.com", "\u03c3\u03a3\u03c2@example.com", "\U0001f600@example.com", "a\x00\xff@example.com"}
	bubble(t, session.Config{}, func(b *bench) {
		for i, text := range texts {
			n := b.begin()
			n.Claims, n.Address = map[string]any{"email": text, "name": "\u017f\u212a of nobody"}, text
			if i%2 == 0 {
				n.Claims["name"] = "somebody"
			}
			if _, err := b.create(fmt.Sprint("user", i), "", n); err != nil {
				b.t.Fatal(err)
			}
		}
		as := func(text string) string { return strings.ToValidUTF8(text, "\ufffd") } // as JSON has it
		for _, asked := range texts {
			for what, c := range map[string]struct {
				q     session.Search
				match func(string) bool
			}{
				"email":   {session.Search{Email: as(asked)}, func(s string) bool { return strings.EqualFold(as(s), as(asked)) }},
				"address": {session.Search{Address: as(asked)}, func(s string) bool { return as(s) == as(asked) }},
			} {
				page, err := b.m.Search(b.t.Context(), c.q)
				want := 0
				for _, text := range texts {
					if c.match(text) {
						want++
					}
				}
				if err != nil || len(page.Sessions) != want || want == 0 {
					b.t.Errorf("%s %q: %d found, want %d, %v", what, asked, len(page.Sessions), want, err)
				}
			}
		}
		for q, want := range map[session.Search]int{
			{Since: time.Now()}: len(texts), {Since: time.Now().Add(time.Second)}: 0, {Before: time.Now()}: 0,
			{Before: time.Now().Add(time.Second)}: len(texts), {Email: "example.com"}: 0, {Email: texts[0], Address: "x"}: 0,
			{Issuer: "other"}: 0, {ClientID: "other"}: 0, {Issuer: issuer, ClientID: client}: len(texts),
		} {
			if page, err := b.m.Search(b.t.Context(), q); err != nil || len(page.Sessions) != want {
				b.t.Errorf("%+v: %d found, want %d, %v", q, len(page.Sessions), want, err)
			}
		}
	})
}

// failing is a store whose endings fail, the ones that are counted off in fail; unsure: all of them, after they were
// carried out; full: it keeps nothing more.
type failing struct {
	store.Store
	fail   map[int]bool
	ends   atomic.Int32
	unsure atomic.Bool
	full   bool
}

func (f *failing) End(ctx context.Context, e store.Ending, now time.Time) ([]store.Ended, error) {
	if f.fail[int(f.ends.Add(1))] {
		return nil, errors.New("away for a moment")
	}
	ended, err := f.Store.End(ctx, e, now)
	if f.unsure.Load() {
		return nil, errors.New("too few replicas have acknowledged")
	}
	return ended, err
}

func (f *failing) ClaimAttempt(ctx context.Context, id store.AttemptID, value []byte, expires, now time.Time,
) ([]byte, error) {
	if f.full {
		return nil, errors.New("there is no memory left")
	}
	return f.Store.ClaimAttempt(ctx, id, value, expires, now)
}

// A sign-out that fails half way has removed the session, and with it what it knew of its sign-in.
func TestASignOutThatFailedHalfWayCanBeRepeated(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]map[int]bool{
		"at its first ending": {1: true}, "at its second": {2: true}, "at both": {1: true, 2: true},
		"at the session itself": {1: true, 2: true, 3: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &provider{sid: "s2"}
			bubble(t, p.config(), func(b *bench) {
				mine, _ := b.signInFor(time.Minute)
				other, _ := b.signIn(session.Tokens{}) // of the same sign-in, s1, in another browser
				time.Sleep(2 * time.Minute)
				s := b.want(b.m, mine, nil) // refreshed: it has s2 now, and had s1 before
				if s.SID != "s2" || !slices.Equal(s.Former, []string{"s1"}) {
					b.t.Fatal(s.SID, s.Former)
				}
				cfg := p.config()
				cfg.Store, cfg.Keyring = &failing{Store: b.store, fail: row}, b.ring
				m, err := session.NewManager(cfg)
				if err != nil {
					b.t.Fatal(err)
				}
				gone, cancel := context.WithCancel(b.t.Context())
				cancel() // a browser that does not wait changes nothing
				if _, err := m.EndSignIn(gone, s, store.CauseUser); !errors.Is(err, session.ErrUnavailable) {
					b.t.Fatalf("an ending that failed: %v", err)
				}
				of := store.Selector{Issuer: s.Issuer, ClientID: s.ClientID}
				if _, err := m.EndAgain(b.t.Context(), s.ID(), of, store.CauseUser); err != nil {
					b.t.Fatal(err)
				}
				for _, bearer := range []session.Bearer{mine, other} {
					if _, err := m.Find(b.t.Context(), bearer); !errors.Is(err, store.ErrNotFound) {
						b.t.Errorf("after the second sign-out: %v", err)
					}
				}
			})
		})
	}
}

// What the store cannot keep, or is too large to keep, prevents no ending.
func TestASignOutNeedsNoRoomInTheStore(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		full   bool
		former []string
	}{
		"the store is full": {true, []string{"s0"}},
		"very long sids":    {false, longSIDs()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubble(t, session.Config{}, func(b *bench) {
				bearer, signedIn := b.signIn(session.Tokens{})
				m, err := session.NewManager(session.Config{Store: &failing{Store: b.store, full: row.full}, Keyring: b.ring})
				if err != nil {
					b.t.Fatal(err)
				}
				s := *signedIn
				s.Former = row.former
				for _, end := range []func(context.Context, *session.Session, store.Cause) ([]store.Ended, error){
					m.EndSignIn, m.EndSubject} {
					if _, err := end(b.t.Context(), &s, store.CauseUser); err != nil {
						b.t.Error(err)
					}
				}
				if _, err := m.Find(b.t.Context(), bearer); !errors.Is(err, store.ErrNotFound) {
					b.t.Errorf("after the sign-out: %v", err)
				}
			})
		})
	}
}

func longSIDs() []string {
	all := make([]string, 16)
	for i := range all {
		all[i] = fmt.Sprint(i) + strings.Repeat("x", 1022)
	}
	return all
}

// A store may have carried out an ending, and not know whether its replicas have it. Then nothing is left to end.
func TestAnEndingThatIsNotSureIsNoSuccessTheSecondTimeEither(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		_, s := b.signIn(session.Tokens{})
		f := &failing{Store: b.store}
		f.unsure.Store(true)
		m, err := session.NewManager(session.Config{Store: f, Keyring: b.ring})
		if err != nil {
			b.t.Fatal(err)
		}
		of := store.Selector{Issuer: s.Issuer, ClientID: s.ClientID}
		ways := map[string]func() error{
			"all of a provider": func() error {
				_, _, err := m.EndClient(b.t.Context(), issuer, client, store.CauseAdmin, store.Key{})
				return err
			},
			"one that is not found any more": func() error {
				_, err := m.EndAgain(b.t.Context(), s.ID(), of, store.CauseAdmin)
				return err
			},
		}
		for range 2 {
			for name, end := range ways {
				if err := end(); !errors.Is(err, session.ErrUnavailable) {
					b.t.Errorf("%s, while the store is not sure: %v", name, err)
				}
			}
		}
		f.unsure.Store(false)
		for name, end := range ways {
			if err := end(); err != nil {
				b.t.Errorf("%s, when the store is sure: %v", name, err)
			}
		}
	})
}

// What was done is not repeated: the cookie of a session that has ended ends nothing more.
func TestASignOutThatWasDoneIsNotRepeated(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		_, s := b.signIn(session.Tokens{})
		old := *s
		old.Former = []string{"s0"}
		if _, err := b.m.EndSignIn(b.t.Context(), &old, store.CauseUser); err != nil {
			b.t.Fatal(err)
		}
		time.Sleep(time.Minute)
		again, _ := b.signIn(session.Tokens{}) // by the same session at the provider: with the same sid
		of := store.Selector{Issuer: s.Issuer, ClientID: s.ClientID, Key: s.Key}
		if ended, err := b.m.EndAgain(b.t.Context(), s.ID(), of, store.CauseUser); err != nil || len(ended) != 0 {
			b.t.Errorf("ended %d, %v", len(ended), err)
		}
		b.want(b.m, again, nil)
	})
}

// withKey is a replica that takes access tokens and has another key file for each first.
func (b *bench) withKey(first byte) *session.Manager {
	b.t.Helper()
	m, err := session.NewManager(session.Config{Store: b.store, Keyring: ring(b.t, first), TokenLifetime: time.Hour})
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

// An operator may end what no key of this process opens, and does not know then that it stands for an access token.
func TestATokenThatCannotBeOpenedIsEndedForGood(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		is, other := b.withKey(1), b.withKey(2)
		time.Sleep(2 * time.Second) // the memory store refuses tokens from before it was made
		token := session.Token{Issuer: issuer, ClientID: client, Subject: "alice", Issued: time.Now(),
			Expires: time.Now().Add(time.Hour)}
		key := session.TokenKey(issuer, client, "alice", "t")
		if _, err := is.Admit(b.t.Context(), key, token); err != nil {
			b.t.Fatal(err)
		}
		l, err := other.ByID(b.t.Context(), session.IDOf(key))
		if err != nil || !l.Unreadable {
			b.t.Fatal(l.Unreadable, err)
		}
		if ended, err := other.EndSignIn(b.t.Context(), l.Session, store.CauseAdmin); err != nil || len(ended) != 1 {
			b.t.Fatal(len(ended), err)
		}
		if _, err := is.Admit(b.t.Context(), key, token); !errors.Is(err, store.ErrEnded) {
			b.t.Errorf("the token comes again: %v", err)
		}
	})
}

// The time of an ending of all is no secret, and access tokens outlive a change of all keys.
func TestAllOfAProviderStayEndedWhenTheKeysAreReplaced(t *testing.T) {
	t.Parallel()
	bubble(t, session.Config{}, func(b *bench) {
		was, is := b.withKey(1), b.withKey(2)
		time.Sleep(2 * time.Second)
		token := session.Token{Issuer: issuer, ClientID: client, Subject: "alice", Issued: time.Now(),
			Expires: time.Now().Add(time.Hour)}
		time.Sleep(time.Minute)
		if _, _, err := was.EndClient(b.t.Context(), issuer, client, store.CauseAdmin, store.Key{}); err != nil {
			b.t.Fatal(err)
		}
		for name, m := range map[string]*session.Manager{"the old key": was, "another key": is} {
			if _, err := m.Admit(b.t.Context(), session.TokenKey(issuer, client, "alice", "t"), token); !errors.Is(err,
				store.ErrEnded) {
				b.t.Errorf("with %s a token from before is answered %v", name, err)
			}
		}
	})
}
