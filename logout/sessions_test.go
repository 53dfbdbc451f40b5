package logout_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

const (
	firefox = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0"
	iphone  = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) " +
		"Version/17.5 Mobile/15E148 Safari/604.1"
)

// with is a further session of a person.
func (s *stage) with(subject, sid, agent, address string) *session.Session {
	s.T.Helper()
	_, got, err := s.Manager.Create(s.T.Context(), session.SignIn{Provider: "main", Issuer: s.op.Issuer(),
		ClientID: "app", Subject: subject, SID: sid, UserAgent: agent, Address: address, Began: s.Manager.Now()})
	rig.Must(s.T, err)
	return got
}

// lives reports whether a session lives.
func (s *stage) lives(v *session.Session) bool {
	s.T.Helper()
	_, err := s.Manager.Peek(s.T.Context(), v.Key)
	return err == nil
}

func (s *stage) post(b *rig.Browser, form string, headers ...string) rig.Page {
	s.T.Helper()
	return b.Do("POST", "/auth/sessions", form, append([]string{"Content-Type", "application/x-www-form-urlencoded",
		"Sec-Fetch-Site", "same-origin"}, headers...)...)
}

var asJSON = []string{"Accept", "application/json"}

type listed struct {
	Sessions []struct {
		ID, Browser, System, Address string
		UserAgent                    string    `json:"user_agent"`
		Current                      bool      `json:"current"`
		Created                      time.Time `json:"created"`
		LastSeen                     time.Time `json:"last_seen"`
	}
	More bool
}

func TestAPersonSeesTheOwnSessionsAndNobodyElses(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	s.with("alice", "s-phone", iphone, "2001:db8::7")
	s.with("alice", "", "curl/8.0 \u202e<script>", "192.0.2.1")
	s.with("bob", "s-bob", firefox, "192.0.2.99")
	p := b.Do("GET", "/auth/sessions", "", asJSON...)
	var got listed
	rig.Must(t, json.Unmarshal([]byte(p.Body), &got))
	if len(got.Sessions) != 3 || got.More || !got.Sessions[0].Current || got.Sessions[1].Current ||
		got.Sessions[0].ID != b.Session().ID() || p.Header.Get("Vary") != "Accept" {
		t.Fatalf("%v %s", p.Header, p.Body)
	}
	for _, l := range got.Sessions {
		if l.UserAgent == iphone && (l.Browser != "Safari" || l.System != "iOS" || l.Address != "2001:db8::7" ||
			l.Created.IsZero() || l.LastSeen.IsZero()) {
			t.Errorf("%+v", l)
		}
	}
	if strings.Contains(p.Body, "192.0.2.99") || strings.Contains(p.Body, "bob") {
		t.Error("a session of somebody else is in the list")
	}
	page := b.Get("/auth/sessions")
	for _, want := range []string{"Safari on iOS", "This browser", "An unknown browser", "curl/8.0 \\u202e&lt;script&gt;",
		"192.0.2.1", `<time datetime="`, `value="others"`, `value="all"`, `action="/auth/logout"`} {
		if !strings.Contains(page.Body, want) {
			t.Errorf("the page lacks %q:\n%s", want, page.Body)
		}
	}
	if n := strings.Count(page.Body, "<li "); n != 3 || strings.Count(page.Body, "This browser") != 1 {
		t.Errorf("%d sessions on the page", n)
	}
}

// Looking is no use of a session: a list that is left open keeps nobody signed in.
func TestNobodySeesSessionsWithoutOne(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.Browser()
	if p := b.Get("/auth/sessions"); p.Status != http.StatusSeeOther ||
		p.To != s.URL+"/auth/login?return_to=%2Fauth%2Fsessions" {
		t.Errorf("%d to %s", p.Status, p.To)
	}
	if p := b.Do("GET", "/auth/sessions", "", asJSON...); p.Status != http.StatusUnauthorized ||
		!strings.Contains(p.Body, `"error":"unauthorized"`) {
		t.Errorf("%d %s", p.Status, p.Body)
	}
	if p := s.post(b, "end=all", asJSON...); p.Status != http.StatusUnauthorized {
		t.Errorf("%d %s", p.Status, p.Body)
	}
	if p := b.Follow("/auth/sessions"); p.Status != 200 || !strings.Contains(p.Body, "This browser") {
		t.Errorf("a sign-in does not lead back to the list: %d %s", p.Status, p.Body)
	}
}

func TestAPersonEndsOneSession(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b, bob := s.signedIn("alice"), s.signedIn("bob")
	phone, desk := s.with("alice", "s-phone", iphone, ""), s.with("alice", "s-desk", firefox, "")
	tab := s.with("alice", b.Session().SID, firefox, "") // of the same sign-in as the own one

	// By the form that the page has for it.
	page := b.Get("/auth/sessions").Body
	form := regexp.MustCompile(`name="session" value="` + regexp.QuoteMeta(phone.ID()) + `"`)
	if !form.MatchString(page) {
		t.Fatalf("no form for %s:\n%s", phone.ID(), page)
	}
	p := s.post(b, url.Values{"session": {phone.ID()}}.Encode())
	if p.To != s.URL+"/auth/sessions?ended=1" || s.lives(phone) || !s.lives(desk) || !s.lives(tab) || b.Session() == nil {
		t.Fatalf("%d to %s %s", p.Status, p.To, p.Body)
	}
	if !strings.Contains(b.Get("/auth/sessions?ended=1").Body, "Sessions that have ended: 1.") {
		t.Error("the page does not say what was done")
	}
	if strings.Contains(b.Get("/auth/sessions?ended=%3Cb%3Eyou+won").Body, "you won") {
		t.Error("a link can put words on the page")
	}
	if e := s.Log.Last("user_logout"); e["result"] != "ok" || e["which"] != "one" || e["sub"] != "alice" {
		t.Errorf("the log has %v", e)
	}
	if got := s.heard(); got != "user main ok" {
		t.Errorf("heard %q", got)
	}
	// One of the same sign-in ends alone: the own session has the same sid, and stays.
	if p := s.post(b, url.Values{"session": {tab.ID()}}.Encode(), asJSON...); s.lives(tab) || b.Session() == nil ||
		p.Body != `{"ended":["`+tab.ID()+`"]}`+"\n" {
		t.Errorf("%d %s", p.Status, p.Body)
	}
	// That of somebody else does not, and the answer does not tell it from one that has ended.
	before := s.post(b, url.Values{"session": {phone.ID()}}.Encode(), asJSON...)
	for _, id := range []string{bob.Session().ID(), "AAAAAA.aaaaaaaaaaaa", "", strings.Repeat("x", 9000)} {
		p := s.post(b, url.Values{"session": {id}}.Encode(), asJSON...)
		if p.Status != before.Status || p.Body != before.Body || bob.Session() == nil {
			t.Errorf("%.20q: %d %s", id, p.Status, p.Body)
		}
	}
	// The own one, by a program: the cookie goes too.
	own := b.Session()
	if p := s.post(b, url.Values{"session": {own.ID()}}.Encode(), asJSON...); s.lives(own) || b.Cookie("curfew") != "" ||
		!strings.Contains(p.Body, own.ID()) || !s.lives(desk) {
		t.Errorf("%d %s", p.Status, p.Body)
	}
}

func TestAPersonEndsAllOthers(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b, bob := s.signedIn("alice"), s.signedIn("bob")
	others := []*session.Session{s.with("alice", "s-phone", iphone, ""), s.with("alice", "s-phone", iphone, ""),
		s.with("alice", "", firefox, ""), s.with("alice", b.Session().SID, firefox, "")}
	// More than a page of the search has.
	for range 120 {
		others = append(others, s.with("alice", "", "", ""))
	}
	if p := b.Get("/auth/sessions"); strings.Count(p.Body, "<li ") != 50 ||
		!strings.Contains(p.Body, "Sessions that are not shown here: 75.") {
		t.Error("a long list is not cut")
	}
	p := s.post(b, "end=others")
	if p.To != s.URL+"/auth/sessions?ended=124" || b.Session() == nil || bob.Session() == nil {
		t.Fatalf("%d to %s %s", p.Status, p.To, p.Body)
	}
	for _, o := range others {
		if s.lives(o) {
			t.Errorf("%s lives", o.ID())
		}
	}
	if strings.Contains(b.Get("/auth/sessions").Body, `value="others"`) {
		t.Error("there are no others, and the page offers to end them")
	}
}

func TestAPersonEndsAllHereAndAtTheProvider(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b, bob, again := s.signedIn("alice"), s.signedIn("bob"), s.signedIn("alice")
	phone := s.with("alice", "s-phone", iphone, "")
	began := s.Manager.Now()
	hint := b.Session().Tokens.IDToken
	p := s.post(b, "end=all")
	to, err := url.Parse(p.To)
	rig.Must(t, err)
	if p.Status != http.StatusSeeOther || !strings.HasPrefix(p.To, s.op.Issuer()) ||
		to.Query().Get("id_token_hint") != hint || b.Cookie("curfew") != "" {
		t.Errorf("%d to %s", p.Status, p.To)
	}
	if s.lives(phone) || again.Session() != nil || bob.Session() == nil {
		t.Error("not exactly the sessions of alice have ended")
	}
	// A sign-in that was under way, on any browser, does not bring one back.
	if _, _, err := s.Manager.Create(t.Context(), session.SignIn{Provider: "main", Issuer: s.op.Issuer(), ClientID: "app",
		Subject: "alice", Began: began}); err == nil {
		t.Error("a sign-in from before was let in")
	}
	if last := b.Follow(p.To); !strings.Contains(last.Body, "You are signed out") {
		t.Errorf("the provider leads to %d %s", last.Status, last.Body)
	}
	// A program gets the address to go to.
	c := s.signedIn("carol")
	if p := s.post(c, "end=all", asJSON...); p.Status != 200 || !strings.Contains(p.Body, `"sign_out_at_provider":"`+
		s.op.Issuer()) || c.Session() != nil {
		t.Errorf("%d %s", p.Status, p.Body)
	}
}

func TestWhatEndsSessionsHasToBeClear(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	phone := s.with("alice", "s-phone", iphone, "")
	for _, form := range []string{"", "end=", "end=everything", "end=others&end=all", "end=all&session=" + phone.ID(),
		"session=a&session=b", "end=%zz", strings.Repeat("x", 70_000)} {
		if p := s.post(b, form); p.Status < 400 || p.Status > 499 {
			t.Errorf("%.30q: %d", form, p.Status)
		}
	}
	// Only what is in the form counts, and only a POST does anything.
	if p := b.Do("POST", "/auth/sessions?end=all", "", "Sec-Fetch-Site", "same-origin"); p.Status != 400 {
		t.Errorf("a POST whose address says what to do: %d", p.Status)
	}
	b.Get("/auth/sessions?end=all")
	if !s.lives(phone) || b.Session() == nil {
		t.Error("something has ended")
	}
}

// While the store is away nothing is claimed, and everybody stays signed in.
func TestSessionsWhileTheStoreIsAway(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	phone := s.with("alice", "s-phone", iphone, "")
	s.store.endless.Store(true)
	for _, form := range []string{"end=others", "end=all", "session=" + phone.ID()} {
		p := s.post(b, form)
		if p.Status != http.StatusServiceUnavailable || p.Header.Get("Retry-After") == "" || p.Cookie("curfew") != "" ||
			!strings.Contains(p.Body, "may not be done") || s.heard() != "user main unavailable store" {
			t.Errorf("%s: %d %q %s", form, p.Status, s.heard(), p.Body)
		}
	}
	s.store.endless.Store(false)
	s.store.Away.Store(true)
	for _, accept := range []string{"text/html", "application/json"} {
		if p := b.Do("GET", "/auth/sessions", "", "Accept", accept); p.Status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", accept, p.Status, p.Body)
		}
	}
	s.store.Away.Store(false)
	if !s.lives(phone) || b.Session() == nil {
		t.Error("something has ended")
	}
	if p := s.post(b, "end=others"); s.lives(phone) || p.Status != http.StatusSeeOther {
		t.Errorf("afterwards: %d %s", p.Status, p.Body)
	}
}

// A store may have ended sessions and not know whether its replicas have the ending. No way to ask again says that it
// is done, before the store is sure.
func TestWhatIsNotSureIsNotDoneHoweverOftenItIsAsked(t *testing.T) {
	t.Parallel()
	s := newStage(t, nil)
	b := s.signedIn("alice")
	own := b.Session()
	bearer := b.Cookie("curfew")
	phone := s.with("alice", "s-phone", iphone, "")
	ways := map[string]func() int{
		"one session": func() int { return s.post(b, url.Values{"session": {phone.ID()}}.Encode()).Status },
		"all others":  func() int { return s.post(b, "end=others").Status },
	}
	s.store.unsure.Store(true)
	for range 3 {
		for name, end := range ways {
			if got := end(); got != http.StatusServiceUnavailable {
				t.Errorf("%s, while the store is not sure: %d", name, got)
			}
		}
	}
	front := func() rig.Page {
		return b.Get("/auth/frontchannel-logout?" + url.Values{"iss": {s.op.Issuer()}, "sid": {own.SID}}.Encode())
	}
	for range 3 {
		if p := front(); p.Status != http.StatusServiceUnavailable || b.Cookie("curfew") != bearer {
			t.Errorf("the front channel, while the store is not sure: %d, and keeps the cookie: %v", p.Status,
				b.Cookie("curfew") == bearer)
		}
	}
	s.store.unsure.Store(false)
	if p := front(); p.Status != http.StatusOK || b.Cookie("curfew") != "" {
		t.Errorf("the front channel, when it is: %d", p.Status)
	}
	for _, v := range []*session.Session{own, phone} {
		if s.lives(v) {
			t.Error("a session lives")
		}
	}
}

// All sessions of a person may be more than one step of the store.
func TestAnEndingOfAllThatFailedHalfWayIsRepeated(t *testing.T) {
	t.Parallel()
	for name, again := range map[string]func(s *stage, b *rig.Browser) rig.Page{
		"at the same page": func(s *stage, b *rig.Browser) rig.Page { return s.post(b, "end=all") },
		"by a sign-out": func(_ *stage, b *rig.Browser) rig.Page {
			return b.Do("POST", "/auth/logout", "", "Sec-Fetch-Site", "same-origin")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, nil)
			b := s.signedIn("alice")
			own := b.Session().Key
			phone, bob := s.with("alice", "s-phone", iphone, ""), s.with("bob", "s-bob", iphone, "")
			first := func(r store.Record) bool { return r.Key == own }
			s.store.batch.Store(&first) // only this one ends, and then the store fails
			if p := s.post(b, "end=all"); p.Status != http.StatusServiceUnavailable || !s.lives(phone) {
				t.Fatalf("%d, the phone is signed in: %v", p.Status, s.lives(phone))
			}
			s.store.batch.Store(nil)
			if p := again(s, b); p.Status >= 400 || s.lives(phone) || !s.lives(bob) {
				t.Errorf("%d, the phone is signed in: %v, and bob: %v", p.Status, s.lives(phone), s.lives(bob))
			}
		})
	}
}
