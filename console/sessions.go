package console

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"example.com/curfew/audit"
	"example.com/curfew/oidc"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

// Session describes a session, without its key and its tokens.
type Session struct {
	ID          string    `json:"id"`
	Handle      string    `json:"session"` // as log lines name it
	Provider    string    `json:"provider"`
	Issuer      string    `json:"issuer"`
	ClientID    string    `json:"client_id"`
	Subject     string    `json:"sub"`
	SID         string    `json:"sid,omitempty"`
	Former      []string  `json:"former_sids,omitempty"`
	Name        string    `json:"name,omitempty"`
	Email       string    `json:"email,omitempty"`
	Address     string    `json:"address,omitempty"` // of the browser, at the sign-in
	UserAgent   string    `json:"user_agent,omitempty"`
	Created     time.Time `json:"created"`
	LastSeen    time.Time `json:"last_seen"`
	IdleExpires time.Time `json:"idle_expires"`
	Expires     time.Time `json:"expires"`
	Refreshes   time.Time `json:"refreshes,omitzero"` // when its access token is to be refreshed; zero: never
	Unreadable  bool      `json:"unreadable,omitempty"`
}

// SessionPage is the response with one page of sessions.
type SessionPage struct {
	Sessions []Session `json:"sessions"`
	Looked   int       `json:"looked"`         // how many sessions were compared
	Next     string    `json:"next,omitempty"` // the `after` of the next page; empty: this is the last
}

// Ending is the response to a request that ends sessions.
type Ending struct {
	Ended int    `json:"ended"`
	Next  string `json:"next,omitempty"` // the `after` to go on with; empty: all have ended
}

func (c *Console) session(s session.Listed) Session {
	v := Session{
		ID: s.ID(), Handle: s.Key.Handle(), Provider: s.Provider, Issuer: s.Issuer, ClientID: s.ClientID,
		Subject: s.Subject, SID: s.SID, Former: s.Former, Name: claim(s, "name"), Email: claim(s, "email"),
		Address: s.Address, UserAgent: s.UserAgent, Created: s.Created, LastSeen: s.LastSeen,
		IdleExpires: s.IdleExpires, Expires: s.Expires, Unreadable: s.Unreadable,
	}
	if p := oidc.Find(c.Providers, s.Issuer, s.ClientID); p != nil {
		v.Provider = p.Name()
	}
	if s.Tokens.RefreshToken != "" {
		v.Refreshes = s.Tokens.Expires
	}
	return v
}

// claim returns a claim that is a string, cut: it may be of any length.
func claim(s session.Listed, name string) string {
	text, _ := s.Claims[name].(string)
	return web.Clip(text)
}

// filter is what a search asks for.
type filter struct {
	providers      []*oidc.Provider // all, or the one that was named
	named          bool
	subject, sid   string
	email, address string
	since, before  time.Time // when the session was created
	after          string
	limit          int
	indexed        bool // by subject or sid
	query          url.Values
}

func (c *Console) filter(q url.Values) (f filter, err error) {
	f = filter{subject: q.Get("sub"), sid: q.Get("sid"), email: q.Get("email"), address: q.Get("address"),
		after: q.Get("after"), query: q}
	if f.providers, err = c.named(q.Get("provider")); err != nil {
		return f, err
	}
	f.named = q.Get("provider") != ""
	if f.limit, err = limitOf(q); err != nil {
		return f, err
	}
	now := time.Now()
	for name, to := range map[string]*time.Time{"since": &f.since, "before": &f.before} {
		if *to, err = moment(name, q.Get(name), now); err != nil {
			return f, err
		}
	}
	f.indexed = f.subject != "" || f.sid != ""
	return f, nil
}

// named returns the provider with this name, or all if the name is empty.
func (c *Console) named(name string) ([]*oidc.Provider, error) {
	if name == "" {
		return c.Providers, nil
	}
	for _, p := range c.Providers {
		if p.Name() == name {
			return []*oidc.Provider{p}, nil
		}
	}
	var names []string
	for _, p := range c.Providers {
		names = append(names, p.Name())
	}
	return nil, web.Fail(http.StatusBadRequest, fmt.Sprintf("provider: there is no provider %q; there is %s",
		web.Clip(name), strings.Join(names, ", ")), nil)
}

func limitOf(q url.Values) (int, error) {
	text := q.Get("limit")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 1000 {
		return 0, web.Fail(http.StatusBadRequest, "limit: want 1 to 1000", err)
	}
	return n, nil
}

// moment reads a time, or how long ago it was.
func moment(name, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	for _, form := range []string{time.RFC3339, "2006-01-02T15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(form, text, time.UTC); err == nil {
			return at, nil
		}
	}
	return time.Time{}, web.Fail(http.StatusBadRequest, name+": want how long ago, like 90m or 36h, or a time like "+
		"2006-01-02T15:04:05Z", nil)
}

// search returns a page of sessions. Those of a subject or sid are looked up at each provider in turn: the cursor is
// the number of the provider, a dot and the last key. Otherwise it is the key alone.
func (c *Console) search(ctx context.Context, f filter) (SessionPage, error) {
	page := SessionPage{Sessions: []Session{}}
	at, key := 0, f.after
	if f.indexed && f.after != "" {
		number, rest, _ := strings.Cut(f.after, ".")
		n, err := strconv.Atoi(number)
		if err != nil || n < 0 || n >= len(f.providers) {
			return page, errAfter()
		}
		at, key = n, rest
	}
	q := session.Search{Email: f.email, Address: f.address, Since: f.since, Before: f.before, Limit: f.limit}
	if key != "" {
		k, err := store.ParseKey(key)
		if err != nil {
			return page, errAfter()
		}
		q.After = k
	}
	for providers := f.providers; ; at++ {
		if f.indexed || f.named {
			p := providers[at].Config()
			q.Issuer, q.ClientID, q.Subject, q.SID = p.Issuer, p.ClientID, f.subject, f.sid
		}
		found, err := c.Sessions.Search(ctx, q)
		if err != nil {
			return page, err
		}
		page.Looked += found.Looked
		for _, s := range found.Sessions {
			page.Sessions = append(page.Sessions, c.session(s))
		}
		switch more := !found.Next.IsZero(); {
		case more && f.indexed:
			page.Next = strconv.Itoa(at) + "." + found.Next.String()
			return page, nil
		case more:
			page.Next = found.Next.String()
			return page, nil
		case !f.indexed || at == len(providers)-1:
			return page, nil
		}
		if q.Limit = cmp.Or(f.limit, 100) - len(page.Sessions); q.Limit <= 0 {
			page.Next = strconv.Itoa(at+1) + "."
			return page, nil
		}
		q.After = store.Key{}
	}
}

func errAfter() error {
	return web.Fail(http.StatusBadRequest, "after: want the next of a page of the same search", nil)
}

func (c *Console) listSessions(ctx context.Context, r *http.Request) (any, error) {
	f, err := c.filter(r.URL.Query())
	if err != nil {
		return nil, err
	}
	return c.search(ctx, f)
}

func (c *Console) showSession(ctx context.Context, r *http.Request) (any, error) {
	s, err := c.byID(ctx, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return c.session(s), nil
}

// fullID returns the ID of a session for its ID, or for its handle, which log lines have, if its sign-in is still in
// the journal.
func (c *Console) fullID(ctx context.Context, id string) (string, error) {
	if !strings.Contains(id, ".") && len(id) == 12 {
		page, err := c.Audit.Events(ctx, audit.Query{Limit: 1, Match: func(e *audit.Event) bool {
			return strings.HasSuffix(e.Session, "."+id)
		}})
		if err != nil {
			return "", err
		}
		if len(page.Events) == 0 {
			return "", web.Fail(http.StatusNotFound, "no session of this name is among the newest events; "+
				"list the sessions of its subject, and take the ID from there", nil)
		}
		id = page.Events[0].Session
	}
	return id, nil
}

// byID finds a session as [Console.fullID] does.
func (c *Console) byID(ctx context.Context, id string) (session.Listed, error) {
	id, err := c.fullID(ctx, id)
	if err != nil {
		return session.Listed{}, err
	}
	s, err := c.Sessions.ByID(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return s, web.Fail(http.StatusNotFound, "there is no such session: it has ended, has run out, or never was", err)
	}
	return s, err
}

func (c *Console) endSession(ctx context.Context, r *http.Request) (any, error) {
	id, err := c.fullID(ctx, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	s, err := c.byID(ctx, id)
	if errors.Is(err, store.ErrNotFound) { // an ending that failed may have left some of it, or not be certain
		for _, p := range c.Providers {
			of := store.Selector{Issuer: p.Config().Issuer, ClientID: p.Config().ClientID}
			ended, fault := c.Sessions.EndAgain(ctx, id, of, store.CauseAdmin)
			if fault != nil || len(ended) > 0 {
				c.record(r, audit.Event{Action: "end_session", Provider: p.Name(), Issuer: of.Issuer, ClientID: of.ClientID,
					Session: id, Count: len(ended)}, fault)
				if fault != nil {
					return nil, fault
				}
				return Ending{Ended: len(ended)}, nil
			}
		}
	}
	if err != nil {
		return nil, err
	}
	ended, err := c.Sessions.EndSignIn(ctx, s.Session, store.CauseAdmin)
	c.record(r, audit.Event{Action: "end_session", Issuer: s.Issuer, ClientID: s.ClientID, Subject: s.Subject,
		SID: s.SID, Session: s.ID(), Count: len(ended)}, err)
	if err != nil {
		return nil, err
	}
	return Ending{Ended: len(ended)}, nil
}

// endSessions ends all sessions of a subject, or with a sid.
func (c *Console) endSessions(ctx context.Context, r *http.Request) (any, error) {
	q := r.URL.Query()
	providers, err := c.named(q.Get("provider"))
	if err != nil {
		return nil, err
	}
	who := store.Selector{Subject: q.Get("sub"), SID: q.Get("sid")}
	switch {
	case (who.Subject == "") == (who.SID == ""):
		return nil, web.Fail(http.StatusBadRequest, "name a sub or a sid, whose sessions are to end", nil)
	case len(providers) > 1:
		return nil, web.Fail(http.StatusBadRequest, "provider: say of which one, since another provider may use the "+
			"same name for somebody else", nil)
	}
	who.Issuer, who.ClientID = providers[0].Config().Issuer, providers[0].Config().ClientID
	ended, err := c.Sessions.End(ctx, store.Ending{Selector: who, Cause: store.CauseAdmin})
	c.record(r, audit.Event{Action: "end_sessions", Provider: providers[0].Name(), Issuer: who.Issuer,
		ClientID: who.ClientID, Subject: who.Subject, SID: who.SID, Count: len(ended)}, err)
	if err != nil {
		return nil, err
	}
	return Ending{Ended: len(ended)}, nil
}

// endProvider ends all sessions of a provider, a step at a time. Each request repeats the provider's name, so that a
// slip does not sign everybody out.
func (c *Console) endProvider(ctx context.Context, r *http.Request) (any, error) {
	q := r.URL.Query()
	name := r.PathValue("name")
	providers, err := c.named(name)
	if err != nil {
		return nil, err
	}
	if name == "" || q.Get("confirm") != name {
		return nil, web.Fail(http.StatusBadRequest, "confirm: repeat the name of the provider to end all its sessions",
			nil)
	}
	var after store.Key
	if text := q.Get("after"); text != "" {
		if after, err = store.ParseKey(text); err != nil {
			return nil, errAfter()
		}
	}
	p := providers[0].Config()
	ended, next, err := c.Sessions.EndClient(ctx, p.Issuer, p.ClientID, store.CauseAdmin, after)
	c.record(r, audit.Event{Action: "end_provider", Provider: name, Issuer: p.Issuer, ClientID: p.ClientID,
		Count: ended}, err)
	if err != nil {
		return nil, err
	}
	answer := Ending{Ended: ended}
	if !next.IsZero() {
		answer.Next = next.String()
	}
	return answer, nil
}

// record adds what an operator did to the audit record.
func (c *Console) record(r *http.Request, e audit.Event, err error) {
	who := c.actor(r)
	e.Type, e.Result, e.Actor, e.ActorProvider, e.ActorSession = audit.Operator, audit.OK, who.name, who.provider,
		who.session
	if err != nil {
		e.Result, e.Reason = "failed", err.Error()
	}
	if a := c.clientAddr(r); a != "" {
		e.Address = a
	}
	e.UserAgent = r.UserAgent()
	for _, p := range c.Providers {
		if e.Provider == "" && e.Issuer != "" && p.Config().Issuer == e.Issuer && p.Config().ClientID == e.ClientID {
			e.Provider = p.Name()
		}
	}
	c.Audit.Record(e)
	c.Log.Info("an operator acted", "event", "operator", "action", e.Action, who.attr(), "result", e.Result,
		"provider", e.Provider, "sub", web.Printable(e.Subject), "sid", web.Printable(e.SID), "count", e.Count)
}

// OperatorHeader is the header with the name that an operator gives, percent-encoded. The listener asks nobody who they
// are, so the name is what they say.
const OperatorHeader = "Curfew-Operator"

func operator(r *http.Request) string {
	name := r.Header.Get(OperatorHeader)
	if plain, err := url.PathUnescape(name); err == nil { // an older command has not encoded it
		name = plain
	}
	letters := []rune(strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return -1
		}
		return c
	}, name))
	return cmp.Or(strings.TrimSpace(string(letters[:min(64, len(letters))])), "unnamed")
}

func (c *Console) clientAddr(r *http.Request) string {
	if c.access != nil {
		return c.access.Address(r)
	}
	a, _, _ := strings.Cut(r.RemoteAddr, "%")
	if host, _, ok := cutPort(a); ok {
		return host
	}
	return a
}

func cutPort(a string) (host, port string, ok bool) {
	i := strings.LastIndexByte(a, ':')
	if i < 0 {
		return a, "", false
	}
	return strings.Trim(a[:i], "[]"), a[i+1:], true
}

// providerOf returns the names of the providers at which somebody has sessions, in order.
func providersOf(sessions []Session) []string {
	var names []string
	for _, s := range sessions {
		names = append(names, s.Provider)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
