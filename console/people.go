package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"example.com/curfew/audit"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

const (
	whyEvents = 200
	// quietDays is after how many days without a logout a provider is called silent.
	quietDays = 30
)

// Person is the response about one person: whether they can still get in, and why.
type Person struct {
	Subject  string        `json:"sub"`
	In       bool          `json:"in"`      // they have a session that is served
	Verdict  string        `json:"verdict"` // in one line
	Hints    []string      `json:"hints,omitempty"`
	Sessions []Session     `json:"sessions"`
	Events   []audit.Event `json:"events"` // the newest first
}

func (c *Console) showPerson(ctx context.Context, r *http.Request) (any, error) {
	return c.person(ctx, r.URL.Query())
}

func (c *Console) person(ctx context.Context, q url.Values) (Person, error) {
	p := Person{Subject: q.Get("sub")}
	if p.Subject == "" {
		return p, web.Fail(http.StatusBadRequest, "sub: say of whom", nil)
	}
	f, err := c.filter(url.Values{"sub": {p.Subject}, "provider": {q.Get("provider")}, "limit": {"1000"}})
	if err != nil {
		return p, err
	}
	page, err := c.search(ctx, f)
	if err != nil {
		return p, err
	}
	p.Sessions = page.Sessions
	events, err := c.Audit.Events(ctx, audit.Query{Limit: whyEvents, Match: func(e *audit.Event) bool {
		return e.Subject == p.Subject && (e.Provider == "" || !f.named || e.Provider == f.providers[0].Name())
	}})
	if err != nil {
		return p, err
	}
	p.Events = events.Events
	if p.Events == nil {
		p.Events = []audit.Event{}
	}
	traffic, err := c.traffic(ctx)
	if err != nil {
		return p, err
	}
	p.judge(time.Now(), traffic)
	return p, nil
}

// judge sets the verdict and the hints.
func (p *Person) judge(now time.Time, traffic map[string]Traffic) {
	var served []Session
	var newest Session
	var used time.Time
	unreadable := 0
	for _, s := range p.Sessions {
		if s.Unreadable {
			unreadable++
			continue
		}
		served = append(served, s)
		if s.Created.After(newest.Created) {
			newest = s
		}
		if s.LastSeen.After(used) {
			used = s.LastSeen
		}
	}
	p.In = len(served) > 0
	var refused, ended, logout *audit.Event
	for i := range p.Events {
		switch e := &p.Events[i]; {
		case e.Type == audit.SessionEnded && ended == nil:
			ended = e
		case e.Type != audit.SignIn && e.Type != audit.Operator && e.Type != audit.SessionEnded:
			if e.Result == audit.OK && logout == nil {
				logout = e
			} else if e.Result != audit.OK && refused == nil {
				refused = e
			}
		}
	}
	switch {
	case p.In:
		p.Verdict = fmt.Sprintf("can get in: %s, the latest since %s ago at %s; last used %s ago",
			count(len(served), "session"), ago(now, newest.Created), newest.Provider, ago(now, used))
		if ended != nil {
			p.Verdict += fmt.Sprintf("; others ended, the last %s ago (%s)", ago(now, ended.Time), ended.Cause)
		}
	case ended != nil:
		p.Verdict = fmt.Sprintf("cannot get in: no session; the last one ended %s ago, because: %s", ago(now, ended.Time),
			causeInWords(ended.Cause))
	case len(p.Events) > 0:
		p.Verdict = "cannot get in: no session; none was ended lately, so the last one ran out, or the sign-in was refused"
	default:
		p.Verdict = "cannot get in: no session, and nothing is known of this subject among the newest events"
	}
	hint := func(format string, args ...any) { p.Hints = append(p.Hints, fmt.Sprintf(format, args...)) }
	if refused != nil && (logout == nil || refused.Time.After(logout.Time)) {
		who := "a logout that names this subject"
		if refused.Claimed {
			who = "a logout token that claims this subject"
		}
		hint("%s was not carried out, %s ago: %s, check %q: %s", who, ago(now, refused.Time), refused.Result,
			refused.Check, web.Printable(refused.Reason))
	}
	if p.In && logout != nil && newest.Created.After(logout.Time) {
		hint("the session is from after the last logout, %s ago: they signed in again", ago(now, logout.Time))
	}
	if p.In && logout != nil && !newest.Created.After(logout.Time) {
		hint("the last logout, %s ago, ended %s; this session has another sid: %s", ago(now, logout.Time),
			count(logout.Count, "session"), "the logout named another browser")
	}
	if unreadable > 0 {
		hint("%s cannot be opened, and %s not served: another key file, or a provider that is not configured any more",
			count(unreadable, "session"), isAre(unreadable))
	}
	if p.In && logout == nil && refused == nil {
		hint("no logout for this subject has arrived here lately")
	}
	for _, name := range providersOf(served) {
		if t, ok := traffic[name]; ok {
			if text := t.silence(now); text != "" {
				hint("provider %s: %s", name, text)
			}
		}
	}
}

// Traffic is what is known of the logouts of one provider, on all replicas.
type Traffic struct {
	LastLogout   time.Time `json:"last_logout,omitzero"`
	Since        time.Time `json:"since"`
	SignIns      int       `json:"sign_ins"`
	RefreshEnded int       `json:"refresh_ended"`
}

// silence says in words that a provider has not sent a logout for long, or nothing.
func (t *Traffic) silence(now time.Time) string {
	text := ""
	switch {
	case t.SignIns == 0 && t.RefreshEnded == 0:
		return ""
	case t.LastLogout.IsZero():
		text = fmt.Sprintf("no logout has come since this is watched (%s): is the back channel registered?",
			ago(now, t.Since))
	case now.Sub(t.LastLogout) > quietDays*24*time.Hour:
		text = fmt.Sprintf("no logout in %d days: is the back channel registered?", quietDays)
	default:
		return ""
	}
	return text + fmt.Sprintf(" Since then %s, and %s ended by a refused refresh alone", count(t.SignIns, "sign-in"),
		count(t.RefreshEnded, "session"))
}

func (c *Console) traffic(ctx context.Context) (map[string]Traffic, error) {
	if c.Traffic == nil {
		return nil, nil
	}
	return c.Traffic(ctx)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

// ago returns how long ago a time was, in the largest unit that has a number: 40s, 12m, 3h, 2d.
func ago(now, then time.Time) string {
	switch d := max(0, now.Sub(then)); {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

func causeInWords(cause string) string {
	switch store.Cause(cause) {
	case store.CauseBackChannel:
		return "the provider sent a logout token"
	case store.CauseFrontChannel:
		return "the provider's page signed the browser out (front channel)"
	case store.CauseUser:
		return "the person signed out here"
	case store.CauseAdmin:
		return "an operator ended it"
	case store.CauseReplaced:
		return "the same browser signed in again"
	case store.CauseRefreshRejected:
		return "the provider refused to refresh its tokens"
	case store.CauseRequire:
		return "the claims no longer meet what is required"
	case store.CauseProviderSilent:
		return "the provider did not answer for longer than refresh_grace"
	case store.CauseCapped:
		return "the person had more sessions than are allowed"
	case store.CauseTooManySIDs:
		return "refreshes brought too many sids"
	case store.CauseExpired:
		return "it ran out"
	}
	return web.Printable(cause)
}

// Export is all that is kept about one person.
type Export struct {
	Subject  string           `json:"sub"`
	Sessions []ExportedRecord `json:"sessions"`
	Events   []audit.Event    `json:"events"`
	Notices  []Notice         `json:"notices"`
}

// ExportedRecord is a session with the claims about its person.
type ExportedRecord struct {
	Session
	Claims map[string]any `json:"claims,omitempty"`
}

// one returns the provider and the subject that a request about one person names.
func (c *Console) one(q url.Values) (p *oidc.Provider, sub string, err error) {
	providers, err := c.named(q.Get("provider"))
	switch sub = q.Get("sub"); {
	case err != nil:
		return nil, "", err
	case sub == "":
		return nil, "", web.Fail(http.StatusBadRequest, "sub: say of whom", nil)
	case len(providers) > 1:
		return nil, "", web.Fail(http.StatusBadRequest, "provider: say of which one, since another provider may use the "+
			"same name for somebody else", nil)
	}
	return providers[0], sub, nil
}

func (c *Console) exportPerson(ctx context.Context, r *http.Request) (any, error) {
	p, sub, err := c.one(r.URL.Query())
	if err != nil {
		return nil, err
	}
	all := Export{Subject: sub, Sessions: []ExportedRecord{}, Events: []audit.Event{}, Notices: []Notice{}}
	q := session.Search{Issuer: p.Config().Issuer, ClientID: p.Config().ClientID, Subject: sub, Limit: 1000}
	for {
		found, err := c.Sessions.Search(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, s := range found.Sessions {
			all.Sessions = append(all.Sessions, ExportedRecord{c.session(s), s.Claims})
		}
		if q.After = found.Next; q.After.IsZero() {
			break
		}
	}
	about := func(e *audit.Event) bool {
		return aboutPerson(p, sub)(e) || e.Actor == sub && e.ActorProvider == p.Name()
	}
	for before := int64(0); ; {
		page, err := c.Audit.Events(ctx, audit.Query{Before: before, Limit: 1000, Match: about})
		if err != nil {
			return nil, err
		}
		all.Events = append(all.Events, page.Events...)
		if before = page.Next; before == 0 {
			break
		}
	}
	all.Notices, err = c.noticesOf(ctx, p, sub)
	c.record(r, audit.Event{Action: "export_person", Provider: p.Name(), Issuer: q.Issuer, Subject: sub}, err)
	return all, err
}

// aboutPerson matches the events about a person, but not what they did as an operator, which is about others.
func aboutPerson(p *oidc.Provider, sub string) func(*audit.Event) bool {
	return func(e *audit.Event) bool {
		return e.Subject == sub && (e.Issuer == "" || e.Issuer == p.Config().Issuer)
	}
}

func (c *Console) noticesOf(ctx context.Context, p *oidc.Provider, sub string) ([]Notice, error) {
	all := []Notice{}
	for q := (store.NoticeQuery{Limit: 1000}); ; {
		page, err := c.Notices.Notices(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, n := range page.Notices {
			if n.Subject == sub && n.Issuer == p.Config().Issuer && n.ClientID == p.Config().ClientID {
				all = append(all, view(n))
			}
		}
		if q.After = page.Next; q.After == "" {
			return all, nil
		}
	}
}

// Forgotten is the response to a request to forget a person.
type Forgotten struct {
	Ended   int `json:"ended"`   // sessions
	Events  int `json:"events"`  // removed from the journal
	Notices int `json:"notices"` // dead letters that were dropped
	// Pending notices stay until they are delivered: apps are still to be told of the logout.
	Pending int `json:"pending"`
}

// forgetPerson ends the sessions of a person and removes what is kept about them. What it did is recorded without the
// person's name.
func (c *Console) forgetPerson(ctx context.Context, r *http.Request) (any, error) {
	p, sub, err := c.one(r.URL.Query())
	if err != nil {
		return nil, err
	}
	if r.URL.Query().Get("confirm") != sub {
		return nil, web.Fail(http.StatusBadRequest, "confirm: repeat the sub of the person to forget", nil)
	}
	done, err := c.forget(ctx, p, sub)
	c.record(r, audit.Event{Action: "forget_person", Provider: p.Name(), Issuer: p.Config().Issuer,
		Count: done.Ended}, err)
	return done, err
}

func (c *Console) forget(ctx context.Context, p *oidc.Provider, sub string) (done Forgotten, err error) {
	ended, err := c.Sessions.End(ctx, store.Ending{Cause: store.CauseAdmin,
		Selector: store.Selector{Issuer: p.Config().Issuer, ClientID: p.Config().ClientID, Subject: sub}})
	if err != nil {
		return done, err
	}
	done.Ended = len(ended)
	notices, err := c.noticesOf(ctx, p, sub)
	if err != nil {
		return done, err
	}
	for _, n := range notices {
		if n.State != string(store.NoticeDead) {
			done.Pending++
			continue
		}
		if err := c.Notices.Drop(ctx, n.ID); err != nil && !errors.Is(err, store.ErrNoNotice) {
			return done, err
		}
		done.Notices++
	}
	if err := c.Audit.Flush(ctx); err != nil { // the endings just now
		return done, err
	}
	done.Events, err = c.Audit.Forget(ctx, aboutPerson(p, sub))
	return done, err
}
