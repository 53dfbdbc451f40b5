package fanout_test

import (
	"context"
	"io"
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
)

// revoker is a provider, as far as revocation goes.
type revoker struct {
	mu      sync.Mutex
	none    bool // it has no revocation endpoint
	away    bool
	answer  func(kind string) (status int, body string)
	revoked []string
}

func (p *revoker) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	status, body := 200, ""
	switch {
	case p.away:
		return nil, io.ErrUnexpectedEOF
	case strings.HasSuffix(r.URL.Path, "/openid-configuration"):
		body = `{"issuer":"https://id.example","authorization_endpoint":"https://id.example/a",` +
			`"token_endpoint":"https://id.example/t","jwks_uri":"https://id.example/k"`
		if !p.none {
			body += `,"revocation_endpoint":"https://id.example/revoke"`
		}
		body += "}"
	default:
		r.ParseForm()
		kind := r.Form.Get("token_type_hint")
		p.revoked = append(p.revoked, kind+" "+r.Form.Get("token"))
		if p.answer != nil {
			status, body = p.answer(kind)
		}
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body)), Header: http.Header{},
		Request: r}, nil
}

func (p *revoker) asked() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.revoked, ", ")
}

func TestARefreshTokenIsRevokedOrTheReasonIsKept(t *testing.T) {
	t.Parallel()
	always := func(status int, body string) func(string) (int, string) {
		return func(string) (int, string) { return status, body }
	}
	unsupported := `{"error":"unsupported_token_type"}`
	const once = "refresh_token r-secret"
	for _, c := range []struct {
		name   string
		op     *revoker
		tokens session.Tokens
		asked  string // in three minutes
		result string // of the last attempt
		dead   string // the reason of the dead letter; empty: it is done
	}{
		{"200", &revoker{}, session.Tokens{}, once, "ok", ""},
		{"invalid_token", &revoker{answer: always(400, `{"error":"invalid_token"}`)}, session.Tokens{}, once, "ok", ""},
		{"no endpoint", &revoker{none: true}, session.Tokens{}, "", "dropped", ""},
		{"503, then 200", &revoker{answer: func() func(string) (int, string) {
			n := 0
			return func(string) (int, string) {
				if n++; n < 3 {
					return 503, ""
				}
				return 200, ""
			}
		}()}, session.Tokens{}, once + ", " + once + ", " + once, "ok", ""},
		{"unsupported_token_type, the access token goes", &revoker{answer: func(kind string) (int, string) {
			if kind == "refresh_token" {
				return 400, unsupported
			}
			return 200, ""
		}}, session.Tokens{AccessToken: "a-secret"}, once + ", access_token a-secret", "unsupported",
			"the provider does not revoke refresh tokens; the access token is revoked"},
		{"unsupported_token_type, also of what it inherited", &revoker{answer: func(kind string) (int, string) {
			if kind == "refresh_token" {
				return 400, unsupported
			}
			return 200, ""
		}}, session.Tokens{AccessToken: "a-secret", Inherited: []string{"i-secret"}},
			"refresh_token i-secret, " + once + ", access_token a-secret", "unsupported",
			"the provider does not revoke refresh tokens; the access token is revoked"},
		{"unsupported_token_type for both", &revoker{answer: always(400, unsupported)},
			session.Tokens{AccessToken: "a-secret"},
			once + ", access_token a-secret", "unsupported",
			"the provider does not revoke refresh tokens, nor access tokens"},
		{"invalid_client", &revoker{answer: always(401, `{"error":"invalid_client"}`)}, session.Tokens{},
			once + ", " + once + ", " + once, "refused", `revocation: it answered 401: \"invalid_client\"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s, p := revoking(t, c.op)
				c.tokens.RefreshToken = "r-secret"
				s.leaveRevocation(t, p, c.tokens)
				s.run()
				s.pass(3 * time.Minute)
				if got := c.op.asked(); got != c.asked {
					t.Errorf("the provider was asked %q, want %q", got, c.asked)
				}
				attempts := s.attempts()
				if len(attempts) == 0 || attempts[len(attempts)-1] != "main "+c.result {
					t.Errorf("attempts %q, want the last to be %q", attempts, c.result)
				}
				left := s.letters("")
				switch {
				case c.dead == "" && len(left) != 0:
					t.Errorf("%v is left, want it done", left)
				case c.dead != "" && (len(left) != 1 || !left[0].GivenUp || left[0].Reason != c.dead):
					t.Errorf("%+v is left, want it dead for %q", left, c.dead)
				}
				if strings.Contains(s.log.String(), "-secret") {
					t.Error("the log holds a token")
				}
				if said := strings.Count(s.log.String(), "revocation_unsupported"); (said == 1) != c.op.none {
					t.Errorf("it was said %d times that there is no endpoint", said)
				}
			})
		})
	}
}

func TestWhatASessionInheritedIsRevokedWithWhatItHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		away := true
		op := &revoker{}
		op.answer = func(string) (int, string) {
			mu.Lock()
			defer mu.Unlock()
			if away && len(op.revoked) == 2 {
				return 503, ""
			}
			return 400, `{"error":"invalid_token"}` // it was of the same grant
		}
		s, p := revoking(t, op)
		tokens := session.Tokens{RefreshToken: "third"}
		second := session.Tokens{RefreshToken: "second"}
		if !second.Inherit(session.Tokens{RefreshToken: "first"}) || !tokens.Inherit(second) {
			t.Fatal("nothing was inherited")
		}
		s.leaveRevocation(t, p, tokens)
		s.run()
		s.pass(500 * time.Millisecond)
		if got := op.asked(); got != "refresh_token first, refresh_token second" ||
			len(s.letters(store.NoticePending)) != 1 {
			t.Errorf("asked %q until the provider was away, %d left", got, len(s.letters("")))
		}
		mu.Lock()
		away = false
		mu.Unlock()
		s.pass(time.Minute)
		if got := op.asked(); !strings.HasSuffix(got, "refresh_token first, refresh_token second, refresh_token third") ||
			len(s.letters("")) != 0 {
			t.Errorf("asked %q, %d left", got, len(s.letters("")))
		}
	})
}

func TestAProviderThatIsAwayIsAskedAgainUntilItIsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		op := &revoker{away: true}
		s, p := revoking(t, op)
		s.leaveRevocation(t, p, session.Tokens{RefreshToken: "r-secret"})
		s.run()
		s.pass(time.Hour)
		op.mu.Lock()
		op.away = false
		op.mu.Unlock()
		s.pass(20 * time.Minute)
		if op.asked() != "refresh_token r-secret" || len(s.letters("")) != 0 {
			t.Errorf("asked %q; %d left", op.asked(), len(s.letters("")))
		}
	})
}

// A new key file comes to one replica after the other. Those that do not have it yet give nothing up.
func TestATokenSealedWithAKeyThatIsNotHereWaitsAnHour(t *testing.T) {
	t.Parallel()
	for _, comes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			op := &revoker{}
			s, p := revoking(t, op)
			s.ring = rig.Keyring(t)
			s.leaveRevocation(t, p, session.Tokens{RefreshToken: "r-secret"})
			s.run()
			s.pass(50 * time.Minute)
			if n := len(s.letters(store.NoticePending)); n != 1 || op.asked() != "" {
				t.Fatalf("%d wait, and the provider was asked %q", n, op.asked())
			}
			if comes {
				s.stop()
				s.sender = s.another(func(c *fanout.Config) { c.Providers = []*oidc.Provider{p} })
				s.run()
			}
			s.pass(30 * time.Minute)
			dead := s.letters(store.NoticeDead)
			if comes && (len(s.letters("")) != 0 || op.asked() != "refresh_token r-secret") {
				t.Errorf("when the key is here, %+v is left, and the provider was asked %q", s.letters(""), op.asked())
			}
			if !comes && (len(dead) != 1 || dead[0].Reason != "the token was sealed with a key that is gone") {
				t.Errorf("%+v", dead)
			}
		})
	}
}

// What was left for a provider under its former name is revoked under its new one.
func TestAProviderThatIsRenamedStillRevokes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		op := &revoker{}
		s, p := revoking(t, op)
		s.leaveRevocation(t, p, session.Tokens{RefreshToken: "r-secret"})
		c := p.Config()
		c.Name = "corp"
		renamed, err := oidc.New(c)
		rig.Must(t, err)
		s.sender = s.another(func(c *fanout.Config) { c.Providers = []*oidc.Provider{renamed} })
		s.run()
		s.pass(2 * time.Minute)
		if op.asked() != "refresh_token r-secret" || len(s.letters("")) != 0 {
			t.Errorf("asked %q, %+v is left", op.asked(), s.letters(""))
		}
	})
}

func revoking(t *testing.T, op *revoker, configure ...func(*oidc.Config)) (*stage, *oidc.Provider) {
	t.Helper()
	c := oidc.Config{Name: "main", Issuer: "https://id.example", ClientID: "curfew", ClientSecret: "s3cret",
		HTTPClient: &http.Client{Transport: op}}
	for _, f := range configure {
		f(&c)
	}
	p, err := oidc.New(c)
	rig.Must(t, err)
	return newStage(t, func(c *fanout.Config) { c.Providers = []*oidc.Provider{p} }), p
}

// leaveRevocation leaves what a session held when it ended.
func (s *stage) leaveRevocation(t *testing.T, p *oidc.Provider, tokens session.Tokens) {
	t.Helper()
	bearer := session.NewBearer(p.Config().Issuer, p.Config().ClientID, "alice")
	about := session.Session{Key: bearer.Key(), Issuer: p.Config().Issuer, ClientID: p.Config().ClientID,
		Subject: "alice"}
	payload, err := session.NoticePayload(s.ring, &about, tokens)
	rig.Must(t, err)
	rig.Must(t, s.store.Enqueue(context.Background(), []store.Notice{{Kind: store.NoticeRevoke, Target: p.Name(),
		Issuer: p.Config().Issuer, ClientID: p.Config().ClientID, Subject: "alice", Key: bearer.Key(), Payload: payload,
		Created: time.Now(), Due: time.Now(), Deadline: time.Now().Add(24 * time.Hour)}}))
}

func TestWhatSessionsHeldThatRanOutIsRevokedByThePolicy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, c := range []struct {
			offline bool
			want    string
		}{{false, "online"}, {true, "offline online"}} {
			s, p := revoking(t, &revoker{}, func(p *oidc.Config) { p.RevokeOffline = c.offline })
			var all []store.Record
			for subject, r := range map[string]store.Refresh{"online": store.RefreshOnline,
				"offline": store.RefreshOffline, "none": store.RefreshNone} {
				all = append(all, store.Record{Issuer: p.Config().Issuer, ClientID: "curfew", Subject: subject,
					Refresh: r, Payload: []byte(subject)})
			}
			all = append(all, store.Record{Issuer: "https://unknown.example", ClientID: "curfew", Subject: "stranger",
				Refresh: store.RefreshOnline})
			rig.Must(t, s.sender.Expired(t.Context(), all))
			got, err := s.store.Claim(t.Context(), store.NoticeRevoke, "main", time.Now(), time.Minute, 10)
			rig.Must(t, err)
			var subjects []string
			for _, n := range got {
				subjects = append(subjects, n.Subject)
				if n.Cause != store.CauseExpired || string(n.Payload) != n.Subject {
					t.Errorf("%+v", n)
				}
			}
			slices.Sort(subjects)
			if strings.Join(subjects, " ") != c.want {
				t.Errorf("%q are revoked, want %q", subjects, c.want)
			}
		}
	})
}

// explosive is an HTTP client of an app that panics when a token is to be revoked.
type explosive struct{ http.RoundTripper }

func (e explosive) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost {
		panic("the app's transport")
	}
	return e.RoundTripper.RoundTrip(r)
}

// A notice stays in the store, so a panic that ended the process would end it again at each start.
func TestAPanicOfTheAppsClientIsATryThatFailed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, p := revoking(t, nil, func(c *oidc.Config) {
			c.HTTPClient = &http.Client{Transport: explosive{&revoker{}}}
		})
		s.leaveRevocation(t, p, session.Tokens{RefreshToken: "r-secret"})
		s.run()
		s.pass(time.Second)
		left := s.letters(store.NoticePending)
		if len(left) != 1 || left[0].Attempts == 0 || left[0].Reason != "a notice panicked: the app's transport" {
			t.Errorf("%+v", left)
		}
	})
}
