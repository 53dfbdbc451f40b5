package e2e_test

import (
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// browser does what a person's browser would do of HTTP: it keeps cookies, follows redirects and fills in forms.
type browser struct {
	name   string
	client *http.Client
}

func newBrowser(name string) *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		panic(err)
	}
	return &browser{name, &http.Client{
		Jar: jar, Timeout: patience,
		Transport:     &http.Transport{DisableKeepAlives: true}, // the servers come and go
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// copy is another browser with the same cookies of a site.
func (b *browser) copy(t *testing.T, site string) *browser {
	t.Helper()
	u, err := url.Parse(site)
	if err != nil {
		t.Fatal(err)
	}
	c := newBrowser("a copy of " + b.name)
	c.client.Jar.SetCookies(u, b.client.Jar.Cookies(u))
	return c
}

// page is a response.
type page struct {
	url      *url.URL
	status   int
	header   http.Header
	location *url.URL
	body     string
}

func (p *page) String() string {
	to := ""
	if p.location != nil {
		to = " to " + p.location.String()
	}
	return fmt.Sprintf("%s answered %d%s: %.1000s", p.url, p.status, to, p.body)
}

// is says whether the page is at that address, whatever its query.
func (p *page) is(address string) bool {
	u := *p.url
	u.RawQuery = ""
	return u.String() == address
}

func (b *browser) try(method, address string, form url.Values, header ...string) (*page, error) {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequest(method, address, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "text/html,*/*;q=0.8")
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", r.URL.Scheme+"://"+r.URL.Host)
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := b.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	p := &page{url: r.URL, status: resp.StatusCode, header: resp.Header, body: string(text)}
	if resp.Header.Get("Location") != "" {
		if p.location, err = resp.Location(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (b *browser) request(t *testing.T, method, address string, form url.Values, header ...string) *page {
	t.Helper()
	p, err := b.try(method, address, form, header...)
	if err != nil {
		t.Fatalf("%s: %v", b.name, err)
	}
	return p
}

func (b *browser) get(t *testing.T, address string, header ...string) *page {
	t.Helper()
	return b.request(t, http.MethodGet, address, nil, header...)
}

func (b *browser) post(t *testing.T, address string, form url.Values) *page {
	t.Helper()
	return b.request(t, http.MethodPost, address, form)
}

// follow goes where redirects lead.
func (b *browser) follow(t *testing.T, p *page) *page {
	t.Helper()
	for range 20 {
		if p.status < 300 || p.status > 399 || p.location == nil {
			return p
		}
		p = b.get(t, p.location.String())
	}
	t.Fatalf("%s is sent round in circles: %v", b.name, p)
	return nil
}

// submit sends the only form of a page, with the values added.
func (b *browser) submit(t *testing.T, p *page, values url.Values) *page {
	t.Helper()
	to, form := p.form(t, values)
	return b.post(t, to, form)
}

// form returns where the only form of a page goes, and what it sends with the values added.
func (p *page) form(t *testing.T, values url.Values) (string, url.Values) {
	t.Helper()
	action := regexp.MustCompile(`(?i)<form[^>]* action="([^"]+)"`).FindStringSubmatch(p.body)
	if action == nil {
		t.Fatalf("there should be a form: %v", p)
	}
	to, err := p.url.Parse(html.UnescapeString(action[1]))
	if err != nil {
		t.Fatal(err)
	}
	for _, hidden := range regexp.MustCompile(`(?i)<input type="hidden" name="([^"]+)" value="([^"]*)"`).
		FindAllStringSubmatch(p.body, -1) {
		values.Set(hidden[1], html.UnescapeString(hidden[2]))
	}
	return to.String(), values
}

// link returns where a link of a page leads.
func (p *page) link(t *testing.T, label string) string {
	t.Helper()
	for _, a := range regexp.MustCompile(`(?s)<a [^>]*href="([^"]+)"[^>]*>(.*?)</a>`).FindAllStringSubmatch(p.body, -1) {
		if strings.TrimSpace(html.UnescapeString(a[2])) == label {
			to, err := p.url.Parse(html.UnescapeString(a[1]))
			if err != nil {
				t.Fatal(err)
			}
			return to.String()
		}
	}
	t.Fatalf("there should be a link %q: %v", label, p)
	return ""
}

// open goes to a page, signs in as login where the provider asks for it, and returns where that led, and what the
// provider asked for ("login", "consent") on the way.
func (b *browser) open(t *testing.T, address, login string) (*page, []string) {
	t.Helper()
	var asked []string
	p := b.follow(t, b.get(t, address))
	for range 3 {
		if !strings.HasPrefix(p.url.Path, "/interaction/") {
			break
		}
		title := regexp.MustCompile(`<title>(\w+)</title>`).FindStringSubmatch(p.body)
		if title == nil {
			t.Fatalf("%s does not know what the provider asks: %v", b.name, p)
		}
		asked = append(asked, title[1])
		p = b.follow(t, b.submit(t, p, url.Values{"login": {login}}))
	}
	return p, asked
}

// again asks until the answer is not "try again", for half a minute, on a machine that has too much to do: a store
// may not answer in time there. On any other machine the first answer is the one that counts.
func again(ask func() (*page, error)) (*page, error) {
	for end := time.Now().Add(30 * time.Second); ; pause(100 * time.Millisecond) {
		p, err := ask()
		if err != nil || p.status != http.StatusServiceUnavailable || p.header.Get("Retry-After") == "" ||
			!overloaded() || time.Now().After(end) {
			return p, err
		}
	}
}

// overloaded reports whether, in the last minute, four threads and more waited for each core.
func overloaded() bool {
	text, _ := os.ReadFile("/proc/loadavg")
	load, _, _ := strings.Cut(string(text), " ")
	waiting, err := strconv.ParseFloat(load, 64)
	return err == nil && waiting >= 4*float64(runtime.NumCPU())
}

// signIn opens a page of the app as somebody, and returns what the app was told.
func (b *browser) signIn(t *testing.T, g *gateway, login string) seen {
	t.Helper()
	p, _ := again(func() (*page, error) {
		p, _ := b.open(t, g.url+"/private?page=1", login)
		return p, nil
	})
	if p.status != http.StatusOK || p.url.String() != g.url+"/private?page=1" {
		t.Fatalf("%s signs in as %s and should be on the page that it wanted: %v", b.name, login, p)
	}
	var s seen
	if err := json.Unmarshal([]byte(p.body), &s); err != nil {
		t.Fatalf("%v: %v", err, p)
	}
	if got := s.Header.Get("X-Auth-Subject"); got != login {
		t.Fatalf("the app was told that it is %q, want %q: %v", got, login, p)
	}
	return s
}

// isIn returns what is wrong if the browser is not signed in as login, for a page and for an API request.
func (b *browser) isIn(g *gateway, login string) string {
	for _, accept := range []string{"text/html", "application/json"} {
		p, err := again(func() (*page, error) {
			return b.try(http.MethodGet, g.url+"/private", nil, "Accept", accept)
		})
		if err != nil {
			return err.Error()
		}
		var s seen
		if json.Unmarshal([]byte(p.body), &s) != nil || p.status != http.StatusOK ||
			s.Header.Get("X-Auth-Subject") != login {
			return fmt.Sprintf("%s is not signed in as %s: %v", b.name, login, p)
		}
	}
	return ""
}

// mustBeIn fails the test unless the browser is signed in as login.
func (b *browser) mustBeIn(t *testing.T, g *gateway, login string) {
	t.Helper()
	if wrong := b.isIn(g, login); wrong != "" {
		t.Fatal(wrong)
	}
}

// mustBeOut fails the test unless a page leads to the sign-in, and an API request is answered 401.
func (b *browser) mustBeOut(t *testing.T, g *gateway) {
	t.Helper()
	get := func(accept string) *page {
		t.Helper()
		p, err := again(func() (*page, error) {
			return b.try(http.MethodGet, g.url+"/private", nil, "Accept", accept)
		})
		if err != nil {
			t.Fatalf("%s: %v", b.name, err)
		}
		return p
	}
	p := get("text/html")
	if p.status != http.StatusSeeOther || p.location.Path != "/auth/login" ||
		p.location.Query().Get("return_to") != "/private" {
		t.Fatalf("%s opens a page, and should be sent to sign in: %v", b.name, p)
	}
	if p := get("application/json"); p.status != http.StatusUnauthorized {
		t.Fatalf("%s asks the API, and should be answered 401: %v", b.name, p)
	}
}

// signOutAt ends the session at the provider, there: the gateway has no part in it but the back channel.
func (b *browser) signOutAt(t *testing.T, p *provider) {
	t.Helper()
	done := b.follow(t, b.confirm(t, b.get(t, p.issuer+"/session/end")))
	if done.status != http.StatusOK || !done.is(p.issuer+"/session/end/success") {
		t.Fatalf("%s signs out at the provider: %v", b.name, done)
	}
}

// confirm says yes to the question of the provider whether to sign out.
func (b *browser) confirm(t *testing.T, p *page) *page {
	t.Helper()
	if p.status != http.StatusOK || !strings.Contains(p.body, "op.logoutForm") {
		t.Fatalf("%s should be asked by the provider whether to sign out: %v", b.name, p)
	}
	return b.submit(t, p, url.Values{"logout": {"yes"}})
}

// unless formats what is wrong, if it is.
func unless(ok bool, format string, args ...any) string {
	if ok {
		return ""
	}
	return fmt.Sprintf(format, args...)
}
