package console

import (
	"bytes"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"example.com/curfew/audit"
	"example.com/curfew/store"
	"example.com/curfew/web"
)

//go:embed pages
var pageFiles embed.FS

// The pages show text from strangers: each value goes through show, which cuts it and escapes what is invisible or
// changes the direction of text, before html/template escapes it for its place.
var pages = template.Must(template.New("").Funcs(template.FuncMap{
	"show": web.Printable, "text": textOf, "count": count,
	"rfc":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"clock": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
	"ago":   func(t time.Time) string { return ago(time.Now(), t) },
	"until": func(s Session) string {
		ends := s.Expires
		if s.IdleExpires.Before(ends) {
			ends = s.IdleExpires
		}
		return "in " + ago(ends, time.Now())
	},
}).ParseFS(pageFiles, "pages/page.html"))

// textOf shows a claim of a refused token.
func textOf(v any) string {
	if s, ok := v.(string); ok {
		return web.Printable(s)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "(not shown)"
	}
	return web.Printable(string(text))
}

// pagePolicy allows only our own style sheet and script, no frame, and forms to this listener.
const pagePolicy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

func pageHeaders(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Security-Policy", pagePolicy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	// With no-referrer browsers would send `Origin: null` with the forms.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// mountPages adds the pages for people.
func (c *Console) mountPages(mux *http.ServeMux) {
	get := func(path string, h http.Handler) { mux.Handle("GET "+c.path(path), h) }
	post := func(path string, do func(context.Context, *http.Request) (string, error)) {
		mux.Handle("POST "+c.path(path), c.act(do))
	}
	for name, kind := range map[string]string{"console.css": "text/css", "console.js": "text/javascript"} {
		body, err := pageFiles.ReadFile("pages/" + name)
		if err != nil {
			panic(err) // it is embedded
		}
		if name == "console.css" {
			body = append([]byte(c.Pages.Style(":root")), body...)
		}
		get("/"+name, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			pageHeaders(w)
			w.Header().Set("Content-Type", kind+"; charset=utf-8")
			w.Write(body)
		}))
	}
	get("/{$}", c.page("Overview", "overview", c.overviewPage))
	get("/sessions", c.searchPage())
	get("/person", c.page("Person", "person", c.personPage))
	get("/events", c.page("Events", "live", c.eventsPage))
	get("/events/rows", c.eventRows())
	get("/notices", c.page("Notices", "notices", c.noticesPage))
	get("/providers", c.page("Providers", "providers", c.providersPage))
	post("/sessions/{id}/end", func(ctx context.Context, r *http.Request) (string, error) {
		v, err := c.endSession(ctx, r)
		return endedAt(c.path("/sessions"), v), err
	})
	post("/person/end", func(ctx context.Context, r *http.Request) (string, error) {
		q := url.Values{"sub": {r.PostForm.Get("sub")}, "provider": {r.PostForm.Get("provider")}}
		r.URL.RawQuery = q.Encode()
		v, err := c.endSessions(ctx, r)
		return endedAt(c.path("/person?")+q.Encode(), v), err
	})
	post("/notices/{id}/retry", func(ctx context.Context, r *http.Request) (string, error) {
		_, err := c.retryNotice(ctx, r)
		return c.path("/notices"), err
	})
	post("/notices/{id}/drop", func(ctx context.Context, r *http.Request) (string, error) {
		_, err := c.dropNotice(ctx, r)
		return c.path("/notices?state=dead"), err
	})
	mux.Handle("POST "+c.path("/providers/{name}/end"), c.endProviderPage())
}

// endedAt returns a page of ours that says how many sessions ended.
func endedAt(page string, v any) string {
	done, _ := v.(Ending)
	sep := "?"
	if strings.Contains(page, "?") {
		sep = "&"
	}
	return page + sep + "ended=" + strconv.Itoa(done.Ended)
}

type navigation struct {
	Href, Label string
	Here        bool
}

// pageView is what the templates get. A template of a part of a page gets it with the data of the part: see With.
type pageView struct {
	Title   string
	Base    string // the path of the console
	Token   string // for forms: see [Console.token]
	Who     string // who is signed in; empty: nobody knows
	SignOut string
	Nav     []navigation
	Done    string
	Data    any
}

// With returns v for another part of the page.
func (v pageView) With(data any) pageView {
	v.Data = data
	return v
}

func (c *Console) viewOf(title string, r *http.Request, data any) pageView {
	v := pageView{Title: title, Base: c.path(""), Token: c.token(r), Who: c.who(r), Data: data}
	if c.access != nil {
		v.SignOut = c.access.SignOut
	}
	for _, n := range []navigation{{"/", "Overview", false}, {"/sessions", "Sessions", false},
		{"/events", "Events", false}, {"/notices", "Notices", false}, {"/providers", "Providers", false}} {
		n.Href = c.path(n.Href)
		n.Here = r.URL.Path == n.Href
		v.Nav = append(v.Nav, n)
	}
	// Only a number comes from the address: a link from elsewhere cannot put words here.
	if n, err := strconv.ParseUint(r.URL.Query().Get("ended"), 10, 32); err == nil {
		v.Done = count(int(n), "session") + " ended."
	}
	return v
}

func (c *Console) render(w http.ResponseWriter, status int, name string, v any) {
	var body bytes.Buffer
	if err := pages.ExecuteTemplate(&body, name, v); err != nil {
		c.Log.Error("a page of the console cannot be made", "event", "console_failed", "page", name, "error", err)
		http.Error(w, "It did not work; the log of the gateway says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(body.Bytes())
}

// page returns a handler that shows what get returns, or its error.
func (c *Console) page(title, name string, get func(context.Context, *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pageHeaders(w)
		ctx, cancel := context.WithTimeout(r.Context(), Timeout)
		defer cancel()
		v, err := get(ctx, r)
		if err != nil {
			c.fault(w, r, err)
			return
		}
		c.render(w, http.StatusOK, name, c.viewOf(title, r, v))
	})
}

func (c *Console) fault(w http.ResponseWriter, r *http.Request, err error) {
	status, say := c.explain(r, err)
	c.render(w, status, "fault", c.viewOf("That did not work", r, say))
}

// rowsOfPage is how many sessions a page shows.
const rowsOfPage = 25

// maxForm is how many bytes a form of the console may have.
const maxForm = 64 << 10

// act returns a handler for a form. It does what do does and redirects to the page that do returns. A form of a page of
// another site is refused.
func (c *Console) act(do func(context.Context, *http.Request) (string, error)) http.Handler {
	return c.form(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), Timeout)
		defer cancel()
		to, err := do(ctx, r)
		if err != nil {
			c.fault(w, r, err)
			return
		}
		http.Redirect(w, r, to, http.StatusSeeOther)
	})
}

func (c *Console) form(next http.HandlerFunc) http.Handler {
	return http.NewCrossOriginProtection().Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pageHeaders(w)
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			c.fault(w, r, web.Fail(http.StatusBadRequest, "the form cannot be read", err))
			return
		}
		if err := c.checkToken(r, r.PostForm.Get("token")); err != nil {
			c.fault(w, r, err)
			return
		}
		next(w, r)
	}))
}

func (c *Console) overviewPage(ctx context.Context, r *http.Request) (any, error) {
	var v struct {
		Providers []Provider
		Replicas  []Replica
		Events    []audit.Event
	}
	providers, err := c.listProviders(ctx, r)
	if err != nil {
		return nil, err
	}
	replicas, err := c.listReplicas(ctx, r)
	if err != nil {
		return nil, err
	}
	events, err := c.events(ctx, url.Values{"limit": {"20"}})
	v.Providers, v.Replicas, v.Events = providers.(ProviderList).Providers, replicas.(ReplicaList).Replicas, events.Events
	return v, err
}

func (c *Console) providersPage(ctx context.Context, r *http.Request) (any, error) {
	v, err := c.listProviders(ctx, r)
	if err != nil {
		return nil, err
	}
	return v.(ProviderList).Providers, nil
}

// searchTime is how long a page searches before it asks whether to go on.
const searchTime = 8 * time.Second

// searchPage shows sessions as they are found. An answer of [Console.search] is quick, since it compares few. After
// each the page is sent as far as it is. It ends when it is full, when all have been compared, or after [searchTime].
func (c *Console) searchPage() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pageHeaders(w)
		began := time.Now()
		ctx, cancel := context.WithTimeout(r.Context(), Timeout)
		defer cancel()
		v := struct {
			Query  url.Values
			Names  []string
			Fault  string
			Found  int
			Looked int
			More   bool // the first answer was not all
			Next   string
		}{Query: url.Values{}}
		for _, name := range []string{"sub", "sid", "email", "address", "since", "before", "provider", "after"} {
			if value := strings.TrimSpace(r.URL.Query().Get(name)); value != "" {
				v.Query.Set(name, value)
			}
		}
		for _, p := range c.Providers {
			v.Names = append(v.Names, p.Name())
		}
		f, err := c.filter(v.Query)
		f.limit = rowsOfPage
		var page SessionPage
		if err == nil {
			page, err = c.search(ctx, f)
		}
		if failed, ok := errors.AsType[*web.Failure](err); ok {
			v.Fault, err = failed.Message.Text, nil
		}
		if err != nil {
			c.fault(w, r, err)
			return
		}
		full := func() bool { return page.Next == "" || v.Found >= rowsOfPage || time.Since(began) > searchTime }
		v.Found, v.Looked = len(page.Sessions), page.Looked
		v.More = !full()
		view := c.viewOf("Sessions", r, nil)
		parts := parts{c: c, w: w}
		parts.add("search", view.With(v))
		shown := 0
		for {
			if shown == 0 && v.Found > 0 {
				parts.add("sessionsHead", nil)
			}
			parts.add("sessionRows", view.With(page.Sessions))
			shown = v.Found
			if full() || v.Fault != "" {
				break
			}
			parts.flush()
			f.after, f.limit = page.Next, rowsOfPage-v.Found
			next, err := c.search(ctx, f)
			if err != nil {
				_, v.Fault = c.explain(r, err)
				page.Sessions = nil
				continue // and it goes on from the page before
			}
			page = next
			v.Found, v.Looked = v.Found+len(page.Sessions), v.Looked+page.Looked
		}
		if v.Found > 0 {
			parts.add("sessionsFoot", nil)
		}
		if page.Next != "" {
			q := maps.Clone(v.Query)
			q.Set("after", page.Next)
			v.Next = c.path("/sessions?") + q.Encode()
		}
		parts.add("searchEnd", view.With(v))
		parts.flush()
	})
}

// parts sends a page part by part.
type parts struct {
	c    *Console
	w    http.ResponseWriter
	body bytes.Buffer
}

func (p *parts) add(name string, v any) {
	if err := pages.ExecuteTemplate(&p.body, name, v); err != nil {
		p.c.Log.Error("a page of the console cannot be made", "event", "console_failed", "page", name, "error", err)
	}
}

// flush sends what was added.
func (p *parts) flush() {
	p.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	p.body.WriteTo(p.w)
	_ = http.NewResponseController(p.w).Flush() // without it the page comes as a whole
}

func (c *Console) personPage(ctx context.Context, r *http.Request) (any, error) {
	q := r.URL.Query()
	p, err := c.person(ctx, url.Values{"sub": {q.Get("sub")}, "provider": {q.Get("provider")}})
	return struct {
		Person
		At []string
	}{p, providersOf(p.Sessions)}, err
}

func eventsQuery(r *http.Request) url.Values {
	q := url.Values{}
	for _, name := range []string{"type", "sub", "result", "provider", "before", "after"} {
		if v := r.URL.Query().Get(name); v != "" {
			q.Set(name, v)
		}
	}
	return q
}

func (c *Console) eventsPage(ctx context.Context, r *http.Request) (any, error) {
	q := eventsQuery(r)
	q.Del("after")
	// The newest position is asked for first, so that nothing falls between the page and what follows.
	newest, err := c.events(ctx, url.Values{"limit": {"1"}})
	if err != nil {
		return nil, err
	}
	page, err := c.events(ctx, q)
	v := struct {
		Events  []audit.Event
		After   int64
		Next    string
		Query   url.Values
		Types   []audit.Type
		Results []string
	}{Events: page.Events, Query: eventsQuery(r), Types: audit.Types(),
		Results: []string{audit.OK, audit.Refused, "unavailable", "replayed"}}
	if len(newest.Events) > 0 {
		v.After = newest.Events[0].Position
	}
	if len(page.Events) > 0 && q.Get("before") == "" {
		v.After = max(v.After, page.Events[0].Position)
	}
	if page.Next > 0 {
		q.Set("before", strconv.FormatInt(page.Next, 10))
		v.Next = c.path("/events?") + q.Encode()
	}
	return v, err
}

// eventRows answers with rows for the table of events, the newest first, and where the next rows go on.
func (c *Console) eventRows() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pageHeaders(w)
		ctx, cancel := context.WithTimeout(r.Context(), Timeout)
		defer cancel()
		q := eventsQuery(r)
		q.Del("before")
		after, _ := strconv.ParseInt(q.Get("after"), 10, 64)
		page, err := c.events(ctx, q)
		if err != nil {
			status, say := c.explain(r, err)
			http.Error(w, say, status)
			return
		}
		if after > 0 {
			slices.Reverse(page.Events)
			after = page.Next
		} else if len(page.Events) > 0 { // there was none before
			after = page.Events[0].Position
		}
		w.Header().Set("Curfew-Next", strconv.FormatInt(after, 10))
		c.render(w, http.StatusOK, "rows", c.viewOf("", r, page.Events))
	})
}

func (c *Console) noticesPage(ctx context.Context, r *http.Request) (any, error) {
	state := r.URL.Query().Get("state")
	if state != string(store.NoticeDead) {
		state = string(store.NoticePending)
	}
	q := url.Values{"state": {state}, "after": {r.URL.Query().Get("after")}}
	asked := r.Clone(ctx)
	asked.URL.RawQuery = q.Encode()
	all, err := c.listNotices(ctx, asked)
	if err != nil {
		return nil, err
	}
	v := struct {
		NoticePage
		State  string
		States []string
		Next   string
	}{all.(NoticePage), state, []string{string(store.NoticePending), string(store.NoticeDead)}, ""}
	if v.NoticePage.Next != "" {
		q.Set("after", v.NoticePage.Next)
		v.Next = c.path("/notices?") + q.Encode()
	}
	return v, nil
}

// endProviderPage ends all sessions of a provider, and asks to go on when a step was not enough.
func (c *Console) endProviderPage() http.Handler {
	return c.form(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), Timeout)
		defer cancel()
		before, _ := strconv.Atoi(r.PostForm.Get("ended"))
		r.URL.RawQuery = url.Values{"confirm": {r.PostForm.Get("confirm")}, "after": {r.PostForm.Get("after")}}.Encode()
		v, err := c.endProvider(ctx, r)
		if err != nil {
			c.fault(w, r, err)
			return
		}
		done := v.(Ending)
		done.Ended += max(0, before)
		if done.Next == "" {
			http.Redirect(w, r, endedAt(c.path("/providers"), done), http.StatusSeeOther)
			return
		}
		r.URL.RawQuery = ""
		c.render(w, http.StatusOK, "goon", c.viewOf(fmt.Sprintf("Ending all sessions of %s", r.PathValue("name")), r,
			struct {
				Name, Next string
				Ended      int
			}{r.PathValue("name"), done.Next, done.Ended}))
	})
}
