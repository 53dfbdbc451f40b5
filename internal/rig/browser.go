package rig

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"slices"
	"strings"
	"time"

	"example.com/curfew/session"
	"example.com/curfew/store"
)

// Browser keeps cookies, and follows redirects only when told to.
type Browser struct {
	Site   *Site
	Client *http.Client
}

// Browser returns a new one.
func (s *Site) Browser() *Browser {
	jar, _ := cookiejar.New(nil)
	transport := &http.Transport{}
	s.T.Cleanup(transport.CloseIdleConnections)
	return &Browser{s, &http.Client{Jar: jar, Transport: transport, Timeout: time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// Page is one answer.
type Page struct {
	Status int
	To     string // absolute; where it redirects
	Body   string
	Header http.Header
}

// Do asks once. A path is one of the site's; headers are given as name, value, name, value.
func (b *Browser) Do(method, to, body string, headers ...string) Page {
	b.Site.T.Helper()
	if strings.HasPrefix(to, "/") {
		to = b.Site.URL + to
	}
	r, err := http.NewRequest(method, to, strings.NewReader(body))
	Must(b.Site.T, err)
	for pair := range slices.Chunk(headers, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	resp, err := b.Client.Do(r)
	Must(b.Site.T, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	Must(b.Site.T, err)
	p := Page{Status: resp.StatusCode, Body: string(text), Header: resp.Header}
	if u, err := resp.Location(); err == nil {
		p.To = u.String()
	}
	return p
}

// Get asks for a page once.
func (b *Browser) Get(to string) Page { b.Site.T.Helper(); return b.Do(http.MethodGet, to, "") }

// Follow asks for a page, and goes where it is sent.
func (b *Browser) Follow(to string) Page {
	b.Site.T.Helper()
	for range 10 {
		p := b.Get(to)
		if p.To == "" {
			return p
		}
		to = p.To
	}
	b.Site.T.Fatal("redirected in circles")
	return Page{}
}

// Cookies returns the cookies that the browser sends to the site.
func (b *Browser) Cookies() []*http.Cookie { return b.Client.Jar.Cookies(b.Site.Web.URL) }

// SetCookie gives the browser a cookie of the site.
func (b *Browser) SetCookie(c *http.Cookie) {
	b.Client.Jar.SetCookies(b.Site.Web.URL, []*http.Cookie{c})
}

// Cookie returns the value of a cookie of the site, "" when it is not there.
func (b *Browser) Cookie(name string) string { return value(b.Cookies(), name) }

// Cookie returns the value of a cookie that the answer sets, "" when it sets none.
func (p Page) Cookie(name string) string {
	return value((&http.Response{Header: p.Header}).Cookies(), name)
}

func value(cookies []*http.Cookie, name string) string {
	for _, c := range cookies {
		if c.Name == name {
			return c.Value
		}
	}
	return ""
}

// Session returns the browser's session, or nil.
func (b *Browser) Session() *session.Session {
	b.Site.T.Helper()
	bearer, err := session.ParseBearer(b.Cookie("curfew"))
	if err != nil {
		return nil
	}
	s, err := b.Site.Manager.Peek(context.Background(), bearer.Key())
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	Must(b.Site.T, err)
	return s
}
