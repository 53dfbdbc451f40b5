//go:build unix

package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// hostSettings are those of a gateway with apps at three hosts: at that of url, at wiki.localhost and at
// mail.localhost. To browsers these are three sites: localhost is like a top-level domain.
func hostSettings(wiki, mail string) string {
	return fmt.Sprintf(`
hosts: [wiki.localhost, mail.localhost]
routes:
  - {host: wiki.localhost, upstream: %q}
  - {host: mail.localhost, upstream: %q}
`, wiki, mail)
}

// namedApp is a liveApp that says its name in a header.
func namedApp(t *testing.T, name string) string {
	t.Helper()
	live := liveHandler(t)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-App", name)
		live.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// hostFronts are fronts with apps at three hosts.
func hostFronts(t *testing.T) []*front {
	t.Helper()
	p, all := world(t, clients(proxies)...)
	wiki, mail := namedApp(t, "wiki"), namedApp(t, "mail")
	var fs []*front
	for i, x := range proxies {
		f := beside(t, x, p, all[i], namedApp(t, "main"), wiki, mail)
		f.write(t, "curfew.yaml", settings+hostSettings(wiki, mail))
		fs = append(fs, f)
	}
	p.start(t)
	return fs
}

// at returns the address of a host of a site.
func (g *gateway) at(host string) string {
	if host == "main" {
		return g.url
	}
	return "http://" + host + ".localhost" + g.url[strings.LastIndex(g.url, ":"):]
}

// local has a browser find all names on this machine, as Chromium finds those below localhost (RFC 6761 §6.3). addr
// replaces the address of a site, if it is not empty.
func (b *browser) local(addr string) *browser {
	b.client.Transport = &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			host, port, _ := net.SplitHostPort(to)
			if strings.HasSuffix(host, ".localhost") {
				to = "127.0.0.1:" + port
			}
			if _, p, _ := net.SplitHostPort(addr); addr != "" && p == port {
				to = addr
			}
			return new(net.Dialer).DialContext(ctx, network, to)
		}}
	return b
}

// handedOver opens a page, and submits the form of a hand-over as a person without scripts does.
func (b *browser) handedOver(t *testing.T, address, login string) *page {
	t.Helper()
	p, _ := again(func() (*page, error) {
		p, _ := b.open(t, address, login)
		return p, nil
	})
	if strings.Contains(p.body, "/auth/handover") {
		to, form := p.form(t, url.Values{})
		p = b.follow(t, b.request(t, http.MethodPost, to, form, "Origin", "http://"+p.url.Host, "Sec-Fetch-Site",
			"cross-site"))
	}
	return p
}

// Three hosts behind each proxy, as people see them: one sign-in, and a sign-out at the second host closes the
// WebSocket of the third.
func TestBehindAProxyOneSignInIsGoodForThreeHosts(t *testing.T) {
	t.Parallel()
	chrome := newTab(t)
	chrome.open("about:blank")
	for _, f := range hostFronts(t) {
		t.Run(f.kind.name, func(t *testing.T) {
			f.run(t)
			tabs := map[string]*tab{"wiki": chrome.somebody(t)}
			const deep = "/live?deep=link&x=%26"
			tabs["wiki"].open(f.at("wiki") + deep)
			tabs["wiki"].until(fmt.Sprintf(`location.origin === %q && document.querySelector("[name=login]")`,
				f.provider.issuer))
			tabs["wiki"].run(`document.querySelector("[name=login]").value = "alice"; document.forms[0].submit()`)
			for _, host := range []string{"wiki", "main", "mail"} {
				if host != "wiki" { // without a question
					tabs[host] = tabs["wiki"].another()
					tabs[host].open(f.at(host) + deep)
				}
				tabs[host].until(fmt.Sprintf(`location.href === %q`, f.at(host)+deep))
				tabs[host].until(`document.body.innerText.includes("socket: hello alice") && ` +
					`document.body.innerText.includes("listening")`)
				tabs[host].run(`socket.addEventListener("close", () => { window.closedAt = Date.now(); })`)
				f.ownAppAndCookie(t, tabs[host], host)
			}

			// She signs out at the second host.
			out := tabs["wiki"].another()
			out.open(f.at("wiki") + "/auth/logout")
			out.until(`document.querySelector("form button")`)
			began, err := chromedp.Run(out.ctx, chromedp.Evaluate[float64](
				`(() => { const now = Date.now(); document.querySelector("form button").click(); return now; })()`))
			if err != nil {
				t.Fatal(err)
			}
			for host, tab := range tabs {
				tab.until(`document.body.innerText.includes("told: ") && window.closedAt`)
				closed, err := chromedp.Run(tab.ctx, chromedp.Evaluate[float64](`window.closedAt`))
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%s: the WebSocket at %s closed after %v ms", f.kind.name, host, closed-began)
				shows, err := chromedp.Run(tab.ctx, chromedp.Evaluate[string](`document.body.innerText`))
				if err != nil {
					t.Fatal(err)
				}
				for _, want := range []string{"told: user", "socket closed: 1008"} {
					if !strings.Contains(shows, want) {
						t.Errorf("the page at %s shows %q, want %s", host, shows, want)
					}
				}
			}
			// The provider asks; then the page of the host says that she is out.
			out.until(`document.querySelector("button[name=logout]")`)
			out.run(`document.querySelector("button[name=logout]").click()`)
			out.until(fmt.Sprintf(`location.href.startsWith(%q) && document.body.innerText.includes("signed out")`,
				f.at("wiki")+"/auth/logout/callback"))
			for _, tab := range tabs {
				tab.run(`document.querySelector("a").click()`)
				tab.until(fmt.Sprintf(`location.origin === %q && document.querySelector("[name=login]")`,
					f.provider.issuer))
			}
		})
	}
}

// ownAppAndCookie checks that a page has reached the app of its host, and that no script sees our cookies.
func (f *front) ownAppAndCookie(t *testing.T, tab *tab, host string) {
	t.Helper()
	tab.run(`fetch("/private").then((r) => { window.app = r.headers.get("X-App"); window.cookies = document.cookie; })`)
	tab.until(fmt.Sprintf(`window.app === %q && window.cookies === ""`, host))
}

// The proxy and Curfew take a request for the same host, however its client names two: otherwise the cookie of one host
// would open the app of another.
func TestBehindAProxyACookieOpensTheAppOfItsHostAlone(t *testing.T) {
	t.Parallel()
	for _, f := range hostFronts(t) {
		t.Run(f.kind.name, func(t *testing.T) {
			t.Parallel()
			f.run(t)
			b := newBrowser("alice's browser").local("")
			for _, host := range []string{"wiki", "mail", "main"} {
				if p := b.handedOver(t, f.at(host)+"/private", "alice"); p.status != 200 || p.header.Get("X-App") != host {
					t.Fatalf("alice should be in the app at %s: %v", host, p)
				}
			}
			addr := strings.TrimPrefix(f.url, "http://")
			_, port, _ := net.SplitHostPort(addr)
			names := func(host string) []string {
				name := strings.TrimPrefix(f.at(host), "http://")
				if host == "main" {
					return []string{name}
				}
				return []string{name, strings.ToUpper(name), host + ".localhost", host + ".localhost.",
					host + ".localhost.:" + port, host + ".localhost:1", host + ".localhost:", host + ".localhost:0" + port,
					"[" + host + ".localhost]:" + port, "[" + host + ".localhost]", "me@" + name}
			}
			for _, of := range []string{"wiki", "mail", "main"} {
				u, _ := url.Parse(f.at(of))
				var cookie string
				for _, c := range b.client.Jar.Cookies(u) {
					cookie = c.Name + "=" + c.Value
				}
				try := func(target, header string) {
					app, status := ask(t, addr, target, header+"Cookie: "+cookie+"\r\n")
					if status == 200 && app != "" && app != of { // Caddy answers 200 for a host that it does not know
						t.Errorf("the cookie of %s opens the app of %s: GET %s, %q", of, app, target, header)
					}
				}
				for _, host := range []string{"wiki", "mail", "main"} {
					for i, name := range names(host) {
						try("/private", "Host: "+name+"\r\n")
						for _, other := range []string{"wiki", "mail", "main"} {
							if i > 0 || other == host {
								continue
							}
							second := names(other)[0]
							try("/private", "Host: "+name+"\r\nX-Forwarded-Host: "+second+"\r\n")
							try("http://"+second+"/private", "Host: "+name+"\r\n")
							try("/private", "Host: "+name+", "+second+"\r\n")
							try("/private", "Host: "+name+","+second+"\r\n")
							try("/private", "Host: "+second+","+name+"\r\n")
							try("/private", "Host: "+name+"\r\nHost: "+second+"\r\n")
							try("/private", "Host: "+name+"\r\nX-Original-Url: http://"+second+"/private\r\n")
							try("/stream", "Accept: text/event-stream\r\nHost: "+name+"\r\nX-Forwarded-Host: "+second+
								"\r\n")
							try("http://"+second+"/stream", "Accept: text/event-stream\r\nHost: "+name+"\r\n")
						}
					}
				}
			}
		})
	}
}

// ask sends a request as it is written, and returns the app that answered.
func ask(t *testing.T, addr, target, header string) (app string, status int) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\n%s\r\n", target, header)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return "", 0 // refused without an answer
	}
	return resp.Header.Get("X-App"), resp.StatusCode // its body may never end
}

// Two replicas over each store that replicas share: a sign-out at the second host, by one replica, closes the WebSocket
// of the third host, at the other.
func TestASignOutAtOneHostClosesTheStreamsOfAnotherOnEveryReplica(t *testing.T) {
	for _, k := range engines() {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			need(t)
			e := k.start(t)
			p, gs := world(t, "app")
			last := gs[0]
			last.set("--upstream", namedApp(t, "main"))
			last.set("--config", last.write(t, "curfew.yaml", hostSettings(namedApp(t, "wiki"), namedApp(t, "mail"))))
			all := replicas(t, last, e.url, 2)
			p.start(t)
			run(t, all)

			alice := newBrowser("alice's browser")
			at := func(i int) *browser { return alice.local(all[i].listen) }
			for i, host := range []string{"wiki", "mail", "main"} {
				got := at(i%2).handedOver(t, last.at(host)+"/private?x=%2F", "alice")
				if got.status != 200 || got.header.Get("X-App") != host || got.url.String() != last.at(host)+"/private?x=%2F" {
					t.Fatalf("alice should be in the app at %s: %v", host, got)
				}
			}
			hello, ended := alice.socketAt(t, all[1].listen, last.at("mail"))
			if hello != "hello alice" {
				t.Fatalf("a WebSocket at mail: %s", hello)
			}
			began := time.Now()
			if got := at(0).post(t, last.at("wiki")+"/auth/logout", url.Values{}); got.status != http.StatusSeeOther {
				t.Fatalf("alice signs out at wiki: %v", got)
			}
			if got := ended(); got != "close 1008" {
				t.Errorf("the WebSocket at mail ended with %q", got)
			}
			t.Logf("closed after %v", time.Since(began))
			for i := range all {
				for _, host := range []string{"wiki", "mail", "main"} {
					eventually(t, "refused at "+host, func() string {
						got, err := at(i).try(http.MethodGet, last.at(host)+"/private", nil, "Accept", "application/json")
						if err != nil {
							return err.Error()
						}
						return unless(got.status == http.StatusUnauthorized, "%v", got)
					})
				}
			}
		})
	}
}
