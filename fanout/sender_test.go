package fanout_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/fanout"
	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"

	"github.com/go-jose/go-jose/v4"
)

// What an app gets, to the letter (Back-Channel Logout §2.4, §2.5).
func TestAnAppIsToldByATokenOfItsOwn(t *testing.T) {
	t.Parallel()
	key := session.NewBearer("https://id.example", "curfew", "alice")
	about := store.Notice{Kind: store.NoticeLogout, Issuer: "https://id.example", ClientID: "curfew", Subject: "alice",
		SID: "the provider's", Key: key.Key()}
	whole := about
	whole.Key, whole.SID = store.Key{}, ""
	for _, c := range []struct {
		name     string
		app      fanout.App
		notice   store.Notice
		alg      string
		sub, sid any
	}{
		{"one session", app("wiki"), about, "ES256", nil, key.Key().SIDFor("wiki")},
		{"one session, to an app that requires it", app("wiki", func(a *fanout.App) { a.SessionRequired = true }),
			about, "ES256", nil, key.Key().SIDFor("wiki")},
		{"one session, to an app that knows subjects alone", app("wiki", func(a *fanout.App) { a.Scope = "subject" }),
			about, "ES256", "alice", nil},
		{"a whole subject", app("wiki"), whole, "ES256", "alice", nil},
		{"RS256 on request", app("wiki", func(a *fanout.App) { a.Alg = "RS256" }), whole, "RS256", "alice", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newStage(t, nil, c.app)
				m := &mailbox{status: func(nth int) int { return []int{500, 200}[min(nth, 2)-1] }}
				s.net.machine("wiki", m.serve)
				c.notice.Target, c.notice.Due, c.notice.Deadline = "wiki", time.Now(), time.Now().Add(time.Hour)
				rig.Must(t, s.store.Enqueue(t.Context(), []store.Notice{c.notice}))
				s.run()
				s.pass(10 * time.Second)
				tokens := m.got()
				if len(tokens) != 2 {
					t.Fatalf("%d tokens came, want one that failed and one more", len(tokens))
				}
				if m.urls[0] != "POST wiki.example/logout?tenant=7" ||
					m.forms[0] != "application/x-www-form-urlencoded" {
					t.Errorf("%s as %s", m.urls[0], m.forms[0])
				}
				header, claims := s.verify(tokens[1])
				if header.Algorithm != c.alg || header.ExtraHeaders["typ"] != "logout+jwt" || header.KeyID == "" {
					t.Errorf("header %+v", header)
				}
				_, before := s.verify(tokens[0])
				if claims["jti"] == before["jti"] || claims["jti"] == "" {
					t.Errorf("the second attempt has the jti of the first, %v", claims["jti"])
				}
				iat, exp := claims["iat"].(float64), claims["exp"].(float64)
				if now := float64(time.Now().Unix()); exp-iat != 120 || iat > now || iat < now-10 {
					t.Errorf("iat %v, exp %v at %v", iat, exp, now)
				}
				delete(claims, "jti")
				delete(claims, "iat")
				delete(claims, "exp")
				want := map[string]any{"iss": issuer, "aud": "wiki",
					"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}}}
				if c.sub != nil {
					want["sub"] = c.sub
				}
				if c.sid != nil {
					want["sid"] = c.sid
				}
				if fmt.Sprint(claims) != fmt.Sprint(want) {
					t.Errorf("claims %v, want %v", claims, want)
				}
			})
		})
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil, app("wiki"))
		s.net.machine("wiki", answers("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 600\r\nContent-Length: "+
			"0\r\n\r\n"))
		s.enqueue("wiki", "alice", "bob")
		s.run()
		s.pass(9 * time.Minute)
		s.enqueue("wiki", "carol") // nor is it asked for anything else
		s.pass(30 * time.Second)
		if n := len(s.attempts()); n != 2 {
			t.Errorf("%d attempts before the app's time, want one for each notice", n)
		}
		s.pass(3 * time.Minute)
		if n := len(s.attempts()); n < 3 || n > 5 {
			t.Errorf("%d attempts after it", n)
		}
	})
}

func TestTriesGrowSeldomAndEndWithTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil, app("wiki", func(a *fanout.App) { a.Deadline = 6 * time.Hour }))
		s.enqueue("wiki", "alice") // there is no such machine
		s.run()
		s.pass(time.Hour)
		hour := len(s.attempts())
		if hour < 8 || hour > 20 {
			t.Errorf("%d attempts in the first hour", hour)
		}
		s.pass(5*time.Hour + 15*time.Minute) // the last try waits for the longest pause of the breaker
		all := len(s.attempts())
		if more := all - hour; more < 20 || more > 45 {
			t.Errorf("%d attempts in the next five", more)
		}
		if dead := s.letters(store.NoticeDead); len(dead) != 1 {
			t.Errorf("%d dead letters after the deadline", len(dead))
		}
		// Somebody on duty has it tried again, when the app is back.
		m := new(mailbox)
		s.net.machine("wiki", m.serve)
		rig.Must(t, s.store.Retry(t.Context(), s.letters("")[0].ID, time.Now(), time.Now().Add(time.Hour)))
		s.pass(3 * time.Second)
		if len(m.got()) != 1 || len(s.letters("")) != 0 {
			t.Errorf("%d tokens, %d notices", len(m.got()), len(s.letters("")))
		}
	})
}

func TestADeadAppIsAskedSeldomAndDelaysNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil, app("dead"), app("slow"), app("well"))
		slow, well := &mailbox{takes: 4 * time.Second}, new(mailbox)
		s.net.machine("slow", slow.serve)
		s.net.machine("well", well.serve)
		for _, name := range []string{"dead", "slow", "well"} {
			s.enqueue(name, names("user", 300)...)
		}
		s.run()
		s.pass(time.Second)
		if n := len(well.got()); n != 300 {
			t.Errorf("after a second the healthy app has heard of %d logouts, want all 300", n)
		}
		s.pass(10 * time.Minute)
		if n := len(slow.got()); n != 300 {
			t.Errorf("the slow app has heard of %d, want all 300", n)
		}
		asked := 0
		for _, a := range s.attempts() {
			if strings.HasPrefix(a, "dead ") {
				asked++
			}
		}
		if asked < 5 || asked > 40 {
			t.Errorf("the dead app was asked %d times in ten minutes for 300 notices", asked)
		}
		s.wantCounted(asked)
		if slow.most != 4 {
			t.Errorf("the slow app got %d requests at a time, want the 4 that are usual", slow.most)
		}
		back := &mailbox{takes: 100 * time.Millisecond}
		s.net.machine("dead", back.serve)
		s.pass(6 * time.Minute) // the longest pause, and then all of it
		if n := len(back.got()); n != 300 {
			t.Errorf("the app that is back has heard of %d, want all 300", n)
		}
		if back.most != 4 {
			t.Errorf("the app that is back got %d requests at a time, want 4 again", back.most)
		}
		if n := len(s.letters("")); n != 0 {
			t.Errorf("%d notices are left", n)
		}
	})
}

func TestADeadAppsNoticesBecomeDeadLettersWithoutBeingTriedEach(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil, app("dead", func(a *fanout.App) { a.Deadline = time.Hour }))
		s.enqueue("dead", names("user", 200)...)
		s.run()
		s.pass(70 * time.Minute)
		dead := s.letters(store.NoticeDead)
		if len(dead) != 200 {
			t.Errorf("%d of 200 are dead letters after the deadline", len(dead))
		}
		for _, n := range dead {
			if n.Reason == "" {
				t.Error("a dead letter says nothing of why")
			}
		}
		asked := 0
		for _, a := range s.attempts() {
			if a == "dead unreachable" {
				asked++
			}
		}
		if asked > 60 {
			t.Errorf("asked %d times for 200 notices in an hour", asked)
		}
		s.wantCounted(asked)
	})
}

func TestANoticeThatIsPastItsTimeIsTriedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil, app("wiki"))
		s.net.machine("wiki", answers("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"))
		s.enqueue("wiki", "alice")
		time.Sleep(48 * time.Hour) // nobody was there to carry it out
		s.run()
		s.pass(time.Minute)
		if dead := s.letters(store.NoticeDead); len(dead) != 1 || len(s.attempts()) != 1 {
			t.Errorf("%d attempts, %d dead letters, want one each", len(s.attempts()), len(dead))
		}
	})
}

func TestShutdownFinishesWhatItHasBegunAndGivesBackTheRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil, app("slow"))
		m := &mailbox{takes: 2 * time.Second}
		s.net.machine("slow", m.serve)
		s.enqueue("slow", names("user", 20)...)
		s.run()
		s.pass(time.Second)
		began := time.Now()
		s.stop()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("it took %v to stop", took)
		}
		s.wantCounted(0) // what was begun is done
		if n := len(m.got()); n != 4 {
			t.Errorf("%d requests were begun, want 4", n)
		}
		left, err := s.store.Claim(t.Context(), store.NoticeLogout, "slow", time.Now(), time.Minute, 100)
		rig.Must(t, err)
		if len(left) != 16 {
			t.Errorf("%d notices can be claimed at once, want the 16 that were not begun", len(left))
		}
		if all := s.letters(""); len(all) != 16 {
			t.Errorf("%d notices are left, want 16: what was begun is done", len(all))
		}
	})
}

func TestReplicasShareTheWorkAndOneTakesOverFromTheDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil, app("wiki"))
		m := &mailbox{takes: 100 * time.Millisecond}
		s.net.machine("wiki", m.serve)
		s.enqueue("wiki", names("user", 100)...)
		// A replica that has claimed ten, and is never heard of again.
		_, err := s.store.Claim(t.Context(), store.NoticeLogout, "wiki", time.Now(), 30*time.Second, 10)
		rig.Must(t, err)
		other, err := fanout.New(fanout.Config{Outbox: s.store, Issuer: issuer, Signer: s.keys,
			Apps: []fanout.App{app("wiki")}, Log: discard()})
		rig.Must(t, err)
		other.Dial(s.net.dial)
		ctx, cancel := context.WithCancel(t.Context())
		var both sync.WaitGroup
		both.Go(func() { other.Run(ctx) })
		s.run()
		s.pass(20 * time.Second)
		if n := len(m.got()); n != 90 {
			t.Errorf("two replicas sent %d, want the 90 that nobody else held, once each", n)
		}
		s.pass(20 * time.Second)
		if n := len(m.got()); n != 100 || len(s.letters("")) != 0 {
			t.Errorf("%d sent, %d left, want all 100 once the lease of the dead has run out", n, len(s.letters("")))
		}
		if ours := len(s.attempts()); ours < 20 || ours > 80 {
			t.Errorf("one of two replicas did %d of 100", ours)
		}
		cancel()
		both.Wait()
	})
}

// By docs/fanout.md an app that answers 400 is tried three times, whatever happened before the first of them.
func TestOnlyTriesCountAsAttempts(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		before func(s *stage, signer *switchable)
	}{
		{"beside a replica of an older configuration", func(s *stage, _ *switchable) {
			older, err := fanout.New(fanout.Config{Outbox: s.store, Log: discard()})
			rig.Must(s.T, err)
			stop := s.runs(older)
			s.pass(4*time.Minute + time.Second)
			stop()
			if left := s.letters(""); len(left) != 1 || left[0].Reason != "nobody of this name is configured" {
				s.Errorf("%+v waits, want it set aside", left)
			}
			s.wantCounted(0)
			s.run()
		}},
		{"while tokens cannot be signed", func(s *stage, signer *switchable) {
			signer.set(true)
			s.run()
			s.pass(4 * time.Minute)
			if n := len(s.attempts()); n < 7 || n > 20 {
				s.Errorf("%d looks at one notice in four minutes, want ever fewer", n)
			}
			s.wantCounted(0)
			signer.set(false)
		}},
		{"after an operator had a dead letter tried again", func(s *stage, _ *switchable) {
			s.net.machine("wiki", answers("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"))
			s.run()
			s.pass(3 * time.Minute)
			dead := s.letters(store.NoticeDead)
			if len(dead) != 1 {
				s.Fatalf("%d dead letters, want one", len(dead))
			}
			s.wantCounted(3)
			rig.Must(s.T, s.store.Retry(s.Context(), dead[0].ID, time.Now().Add(time.Second), dead[0].Deadline))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var signer switchable
				s := newStage(t, func(c *fanout.Config) { signer.Signer, c.Signer = c.Signer, &signer }, app("wiki"))
				s.enqueue("wiki", "alice")
				c.before(s, &signer)
				m := &mailbox{status: func(nth int) int { return []int{400, 400, 200}[min(nth, 3)-1] }}
				s.net.machine("wiki", m.serve)
				s.pass(15 * time.Minute) // after four minutes of trying in vain the next try may be another four away
				if left := s.letters(""); len(m.got()) != 3 || len(left) != 0 {
					t.Errorf("%d tokens came, and %+v is left; want it done with the third", len(m.got()), left)
				}
			})
		})
	}
}

func TestAppsCanBeChangedWhileItRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil, app("wiki"))
		wiki, mail := new(mailbox), new(mailbox)
		s.net.machine("wiki", wiki.serve)
		s.net.machine("mail", mail.serve)
		s.run()
		s.pass(time.Second)
		rig.Must(t, s.sender.SetApps([]fanout.App{app("mail")}))
		s.enqueue("mail", "alice")
		n := store.Notice{Kind: store.NoticeLogout, Target: "wiki", Subject: "bob", Due: time.Now(),
			Deadline: time.Now().Add(time.Hour)}
		rig.Must(t, s.store.Enqueue(t.Context(), []store.Notice{n}))
		s.pass(30 * time.Minute)
		if len(mail.got()) != 1 || len(wiki.got()) != 0 {
			t.Errorf("mail has heard of %d, wiki of %d", len(mail.got()), len(wiki.got()))
		}
		if left := s.letters(store.NoticePending); len(left) != 1 ||
			left[0].Reason != "nobody of this name is configured" {
			t.Errorf("%v waits, want what is for wiki", left)
		}
		rig.Must(t, s.sender.SetApps([]fanout.App{app("mail"),
			app("wiki", func(a *fanout.App) { a.URI = "http://wiki.example/moved" })}))
		s.pass(2 * time.Minute)
		if len(wiki.got()) != 1 || wiki.urls[0] != "POST wiki.example/moved" {
			t.Errorf("wiki, which is back, got %v", wiki.urls)
		}
		rig.Must(t, s.sender.SetApps(nil))
		n.Target = "gone"
		rig.Must(t, s.store.Enqueue(t.Context(), []store.Notice{n}))
		s.pass(time.Hour)
		if dead := s.letters(store.NoticeDead); len(dead) != 1 || dead[0].Target != "gone" {
			t.Errorf("dead letters %v, want what nobody ever knew", dead)
		}
	})
}

func TestAPersonIsNotNamedAloneWhereSeveralIssuersMayMeanDifferentPeople(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(c *fanout.Config) {
			c.Providers = []*oidc.Provider{provider(t, "main", "https://id.example"),
				provider(t, "second", "https://other.example")}
		})
		err := s.sender.SetApps([]fanout.App{app("wiki", func(a *fanout.App) { a.Scope = "subject" })})
		if err == nil || !strings.Contains(err.Error(), `app "wiki": logout_scope: subject needs a single issuer`) {
			t.Errorf("SetApps: %v", err)
		}
	})
}

func TestAnEndingPlansItsNotices(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		who := store.Selector{Issuer: "https://id.example", ClientID: "curfew", Subject: "alice"}
		revokingOffline := provider(t, "main", "https://id.example", func(p *oidc.Config) { p.RevokeOffline = true })
		one, two := provider(t, "main", "https://id.example"), provider(t, "second", "https://other.example")
		second, err := oidc.New(oidc.Config{Name: "again", Issuer: "https://id.example", ClientID: "other",
			HTTPClient: &http.Client{Transport: nowhere{}}})
		rig.Must(t, err)
		apps := []fanout.App{app("wiki"), app("mail", func(a *fanout.App) {
			a.SessionRequired, a.Deadline = true,
				time.Hour
		}),
			app("chat", func(a *fanout.App) { a.Scope = "subject" })}
		for _, c := range []struct {
			name   string
			change func(*fanout.Config)
			ending store.Ending
			want   string
		}{
			{"back-channel", nil, store.Ending{Selector: who, Cause: store.CauseBackChannel},
				"wiki, mail each 1h, chat, revoke main"},
			{"the person", nil, store.Ending{Selector: who, Cause: store.CauseUser},
				"wiki, mail each 1h, chat, revoke main"},
			{"somebody on duty", nil, store.Ending{Selector: who, Cause: store.CauseAdmin},
				"wiki, mail each 1h, chat, revoke main"},
			{"a provider that is silent", nil, store.Ending{Selector: who, Cause: store.CauseProviderSilent},
				"wiki, mail each 1h, chat, revoke main"},
			{"the front channel", nil, store.Ending{Selector: who, Cause: store.CauseFrontChannel},
				"wiki, mail each 1h, chat, revoke main"},
			{"a token that is dead is not revoked", nil, store.Ending{Selector: who, Cause: store.CauseRefreshRejected},
				"wiki, mail each 1h, chat"},
			{"who signed in again is not signed out by name", nil,
				store.Ending{Selector: who, Cause: store.CauseReplaced}, "wiki, mail each 1h, revoke main"},
			{"the session that took its place answers for the token", nil,
				store.Ending{Selector: who, Cause: store.CauseReplaced, KeepTokens: true}, "wiki, mail each 1h"},
			{"Keycloak asks for offline tokens", nil, store.Ending{Selector: who, Cause: store.CauseBackChannel,
				RevokeOffline: true}, "wiki, mail each 1h, chat, revoke main offline"},
			{"offline_access: revoke", func(c *fanout.Config) { c.Providers = []*oidc.Provider{revokingOffline} },
				store.Ending{Selector: who, Cause: store.CauseUser}, "wiki, mail each 1h, chat, revoke main offline"},
			{"a provider that we do not know", nil, store.Ending{Selector: store.Selector{Issuer: "https://x.example",
				ClientID: "curfew"}, Cause: store.CauseUser}, "wiki, mail each 1h, chat"},
			{"several providers", func(c *fanout.Config) { c.Providers, c.Apps = append(c.Providers, two), c.Apps[:2] },
				store.Ending{Selector: who, Cause: store.CauseBackChannel}, "wiki each, mail each 1h, revoke main"},
			{"two clients of one issuer", func(c *fanout.Config) { c.Providers = append(c.Providers, second) },
				store.Ending{Selector: who, Cause: store.CauseBackChannel}, "wiki, mail each 1h, chat, revoke main"},
		} {
			s := newStage(t, func(cfg *fanout.Config) {
				cfg.Providers = append(cfg.Providers, one)
				if c.change != nil {
					c.change(cfg)
				}
			}, apps...)
			var got []string
			for _, p := range s.sender.Plan(c.ending) {
				text := p.Target
				if p.Kind == store.NoticeRevoke {
					text = "revoke " + text
				}
				if p.PerSession {
					text += " each"
				}
				if p.Offline {
					text += " offline"
				}
				switch time.Until(p.Deadline) {
				case 24 * time.Hour:
				case time.Hour:
					text += " 1h"
				default:
					text += fmt.Sprint(" until ", p.Deadline)
				}
				got = append(got, text)
			}
			if fmt.Sprint(strings.Join(got, ", ")) != c.want {
				t.Errorf("%s: %q, want %q", c.name, strings.Join(got, ", "), c.want)
			}
		}
	})
}

// distant is an outbox at the other end of a network: each call takes a millisecond of the bubble's time.
type distant struct{ store.Outbox }

func (d distant) Claim(
	ctx context.Context, kind store.NoticeKind, target string, now time.Time, lease time.Duration, n int,
) ([]store.Notice, error) {
	time.Sleep(time.Millisecond)
	return d.Outbox.Claim(ctx, kind, target, now, lease, n)
}

func (d distant) Complete(ctx context.Context, n store.Notice, o store.Outcome) error {
	time.Sleep(time.Millisecond)
	return d.Outbox.Complete(ctx, n, o)
}

func TestAReplicaThatDoesNotKnowAnAppDoesNotKeepItsNoticesFromOneThatDoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		far := func(c *fanout.Config) { c.Outbox = distant{c.Outbox} }
		s := newStage(t, far, app("wiki"))
		s.runs(s.another(far))
		s.run()
		s.enqueue("wiki", names("user", 6)...)
		s.pass(10 * time.Minute)
		m := new(mailbox)
		s.net.machine("wiki", m.serve)
		s.pass(7 * time.Minute) // the longest pause of the breaker, and some
		if n := len(m.got()); n != 6 {
			t.Errorf("%d of 6 were sent seven minutes after the app was back", n)
		}
	})
}

func TestARetryByAnOperatorDoesNotWaitForTheBreaker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil, app("wiki"))
		s.net.machine("wiki", answers("HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n"))
		s.enqueue("wiki", "alice")
		s.run()
		s.pass(time.Second)
		m := new(mailbox)
		s.net.machine("wiki", m.serve)
		rig.Must(t, s.store.Retry(t.Context(), s.letters("")[0].ID, time.Now(), time.Now().Add(24*time.Hour)))
		s.sender.Wake()
		if s.pass(time.Minute); len(m.got()) != 0 {
			t.Fatal("a new notice ended the pause that the app has asked for")
		}
		s.sender.Retry()
		if s.pass(time.Second); len(m.got()) != 1 {
			t.Error("nothing was sent a second after an operator's retry")
		}
	})
}

// An app that looks for keys at most twice a minute does not know the new ones at once.
func TestAKeyThatAnAppDoesNotKnowYetIsNoDeadLetter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil, app("wiki"))
		m := new(mailbox)
		var fetched time.Time
		var set jose.JSONWebKeySet
		m.status = func(nth int) int {
			jws, err := jose.ParseSignedCompact(m.got()[nth-1], []jose.SignatureAlgorithm{jose.ES256})
			rig.Must(t, err)
			id := jws.Signatures[0].Header.KeyID
			if len(set.Key(id)) == 0 && time.Since(fetched) > 30*time.Second {
				set, _ = s.keys.Public(t.Context())
				fetched = time.Now()
			}
			if len(set.Key(id)) == 0 {
				return http.StatusBadRequest
			}
			return http.StatusOK
		}
		s.net.machine("wiki", m.serve)
		s.run()
		s.enqueue("wiki", "alice")
		s.pass(time.Second)
		rig.Must(t, s.keys.Rotate(t.Context(), true))
		s.enqueue("wiki", "bob")
		s.pass(3 * time.Minute)
		if left := s.letters(""); len(left) != 0 {
			t.Errorf("%+v is left after %q", left, s.attempts())
		}
	})
}

// With several issuers a subject alone may be somebody else, also if there was one when the session ended.
func TestASubjectAloneIsNotNamedOnceThereAreSeveralIssuers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := provider(t, "main", "https://id.example"), provider(t, "second", "https://other.example")
		s := newStage(t, func(c *fanout.Config) { c.Providers = []*oidc.Provider{one} }, app("wiki"))
		e := store.Ending{Cause: store.CauseBackChannel,
			Selector: store.Selector{Issuer: "https://id.example", ClientID: "curfew", Subject: "alice"}}
		e.Notices = s.sender.Plan(e)
		_, err := s.store.End(t.Context(), e, time.Now())
		rig.Must(t, err)
		s.sender = s.another(func(c *fanout.Config) { c.Providers = []*oidc.Provider{one, two} }, app("wiki"))
		m := new(mailbox)
		s.net.machine("wiki", m.serve)
		s.run()
		s.pass(time.Minute)
		dead := s.letters(store.NoticeDead)
		if len(m.got()) != 0 || len(dead) != 1 || !strings.Contains(dead[0].Reason, "now that there are several issuers") {
			t.Errorf("%d tokens, and dead letters %+v", len(m.got()), dead)
		}
	})
}

func TestEveryAttemptIsLoggedAndNoTokenIs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, nil, app("wiki"))
		m := &mailbox{status: func(nth int) int { return []int{500, 302, 200}[min(nth, 3)-1] }}
		s.net.machine("wiki", func(c netConn) { m.serve(c) })
		s.enqueue("wiki", "alice")
		s.run()
		s.pass(time.Minute)
		lines := strings.Count(s.log.String(), `"event":"notice"`)
		if lines != 3 || len(m.got()) != 3 {
			t.Errorf("%d lines for %d attempts", lines, len(m.got()))
		}
		for _, token := range m.got() {
			signature := token[strings.LastIndex(token, ".")+1:]
			if strings.Contains(s.log.String(), signature) {
				t.Error("the log holds a token")
			}
		}
		for _, n := range s.letters("") {
			t.Errorf("%v is left", n)
		}
		if strings.Contains(s.log.String(), "tenant=7") {
			t.Error("the log holds the query of an address")
		}
	})
}

func TestATokenThatCannotBeSignedIsTriedLaterAndBlamesNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var signer switchable
		s := newStage(t, func(c *fanout.Config) { signer.Signer, c.Signer = c.Signer, &signer }, app("wiki"))
		signer.set(true)
		m := new(mailbox)
		s.net.machine("wiki", m.serve)
		s.enqueue("wiki", names("user", 20)...)
		s.run()
		s.pass(10 * time.Second)
		if len(m.got()) != 0 || !slices.Contains(s.attempts(), "wiki internal") {
			t.Errorf("%d tokens, attempts %v", len(m.got()), s.attempts())
		}
		signer.set(false)
		s.pass(20 * time.Second)
		if len(m.got()) != 20 {
			t.Errorf("%d tokens when the keys are back", len(m.got()))
		}
	})
}

func TestAPrivateAddressIsRefusedWhereAppsAreStrangers(t *testing.T) {
	t.Parallel()
	server := &http.Server{}
	defer server.Close()
	backend := newStoreWithKeys(t)
	results := make(chan string, 20)
	var apps []fanout.App
	for i, host := range []string{"127.0.0.1", "10.0.0.7", "169.254.169.254", "100.64.0.1", "[::1]", "[fd00::1]",
		"[fe80::1]", "[fec0::1]", "[::ffff:10.0.0.7]", "[::10.0.0.7]", "[64:ff9b::a00:7]", "[2001::1]", "[2002:a00:7::1]"} {
		apps = append(apps, fanout.App{ClientID: fmt.Sprintf("evil-%d", i), URI: "https://" + host + ":1/metadata"})
	}
	s, err := fanout.New(fanout.Config{Outbox: backend.store, Issuer: issuer, Signer: backend.keys, PublicOnly: true,
		Log: discard(), Apps: apps,
		OnAttempt: func(_ store.NoticeKind, _, result string) { results <- result }})
	rig.Must(t, err)
	for _, app := range apps {
		rig.Must(t, s.Notify(t.Context(), fanout.Logout{ClientID: app.ClientID, Subject: "alice"}))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	for range apps {
		rig.Soon(t, "an attempt", results)
	}
	cancel()
	running.Wait()
	page, err := backend.store.Notices(t.Context(), store.NoticeQuery{})
	rig.Must(t, err)
	if len(page.Notices) != len(apps) {
		t.Errorf("%d notices, want %d", len(page.Notices), len(apps))
	}
	for _, n := range page.Notices {
		if !strings.Contains(n.Reason, "the address is not public") {
			t.Errorf("%+v", n)
		}
	}
}
