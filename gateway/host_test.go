package gateway_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
)

// A session is one of the host of url. Whoever asks about another is told so, by page and log, and sent nowhere.
func TestAQuestionAboutAnotherHostIsRefusedAndNotSentToTheWrongSignIn(t *testing.T) {
	t.Parallel()
	const asked = "/auth/verify?redirect=true"
	for name, row := range map[string]struct {
		url, path string
		headers   []string
		ok        bool
	}{
		"the site":                {"", asked, []string{"X-Forwarded-Host", "app.example.com"}, true},
		"in other letters":        {"", asked, []string{"X-Forwarded-Host", "App.EXAMPLE.com"}, true},
		"with the port that goes": {"", asked, []string{"X-Forwarded-Host", "app.example.com:443"}, true},
		"a port": {"http://127.0.0.1:8080", asked, []string{"X-Forwarded-Host", "127.0.0.1:8080"},
			true},
		"without its port": {"http://127.0.0.1:8080", asked, []string{"X-Forwarded-Host", "127.0.0.1"},
			true},
		"an address of six":           {"http://[::1]:8080", asked, []string{"X-Forwarded-Host", "[::1]:8080"}, true},
		"a whole URL":                 {"", asked, []string{"X-Original-Url", "https://APP.example.com/x"}, true},
		"a whole URL, in large":       {"", asked, []string{"X-Original-Url", "HTTPS://app.example.com/x"}, true},
		"a route's host":              {"", asked, []string{"X-Forwarded-Host", "Wiki.example.com"}, true},
		"nobody says":                 {"", asked, nil, true},
		"below our path":              {"", "/auth/verify/x", []string{"Host", "app.example.com"}, true},
		"another":                     {"", asked, []string{"X-Forwarded-Host", "other.example.com"}, false},
		"another, without a redirect": {"", "/auth/verify", []string{"X-Forwarded-Host", "other.example.com"}, false},
		"another beside ours": {"", asked, []string{"X-Forwarded-Host", "app.example.com", "X-Forwarded-Host",
			"other.example.com"}, false},
		"another in a list": {"", asked, []string{"X-Forwarded-Host", "app.example.com, other.example.com"},
			false},
		"one below ours": {"", asked, []string{"X-Forwarded-Host", "x.app.example.com"}, false},
		"one that begins as ours": {"", asked, []string{"X-Forwarded-Host", "app.example.com.evil.example"},
			false},
		"with a dot, which is another": {"", asked, []string{"X-Forwarded-Host", "app.example.com."}, false},
		"another port":                 {"", asked, []string{"X-Forwarded-Host", "app.example.com:8443"}, false},
		"another port on loopback": {"http://127.0.0.1:8080", asked, []string{"X-Forwarded-Host", "127.0.0.1:9090"},
			false},
		"another in a URL":           {"", asked, []string{"X-Original-Url", "https://other.example.com/x"}, false},
		"another in a URL, in large": {"", asked, []string{"X-Original-Url", "HTTPS://other.example.com/x"}, false},
		"another in a URL with a user": {"", asked, []string{"X-Original-Url",
			"https://app.example.com@other.example.com/x"}, false},
		"another, below our path": {"", "/auth/verify/x", []string{"Host", "other.example.com"}, false},
	} {
		st := newStage(t)
		if row.url == "" {
			row.url = "https://app.example.com"
		}
		st.gateway.Site.URL, _ = url.Parse(row.url)
		app, _ := url.Parse(st.app.URL)
		_, err := st.gateway.Route(gateway.Route{Host: "wiki.example.com",
			Upstream: gateway.Upstream{URL: app}})
		rig.Must(t, err)
		b, _ := st.signIn(nil)
		want := http.StatusForbidden
		if row.ok {
			want = http.StatusOK
		}
		in := st.askAt(row.path, append([]string{"X-Forwarded-Uri", "/x", "Accept", "text/html", "Cookie", cookie(b)},
			row.headers...)...)
		if strings.Contains(fmt.Sprint(row.headers), "X-Original-Url") {
			in = st.askAt(row.path, append([]string{"Accept", "text/html", "Cookie", cookie(b)}, row.headers...)...)
		}
		if in.Code != want || in.Header().Get("Location") != "" {
			t.Errorf("%s, signed in: %d %s, want %d", name, in.Code, in.Body, want)
		}
		out := st.askAt(row.path, append([]string{"Accept", "text/html"}, row.headers...)...)
		if (out.Code == http.StatusForbidden) != !row.ok || !row.ok &&
			(out.Header().Get("Location") != "" || !strings.Contains(out.Body.String(), "another host")) {
			t.Errorf("%s: %d %q %s", name, out.Code, out.Header().Get("Location"), out.Body)
		}
		log := st.Log.String()
		if warned := strings.Count(log, `"level":"WARN"`); !row.ok &&
			(warned != 1 || !strings.Contains(log, "host_refused")) || row.ok && warned != 0 {
			t.Errorf("%s: %d warnings in %s", name, warned, log)
		}
	}
}

// What a stranger says is not looked at, and what strangers may choose does not fill the log with warnings.
func TestTheLogIsWarnedOfAHostOnceAndOfNotTooMany(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	if resp, _ := st.send("GET", "/auth/verify", "X-Forwarded-Host", "other.example.com"); resp.StatusCode != 401 {
		t.Errorf("a stranger names a host: %d, want 401", resp.StatusCode)
	}
	for i := range 300 {
		for range 2 {
			r := httptest.NewRequest("GET", "/", nil)
			r.Host = fmt.Sprintf("%d.example.com", i)
			if a := st.gateway.Decide(r); a.Allowed || a.Status != 403 {
				t.Fatalf("%s: %v %d", r.Host, a.Allowed, a.Status)
			}
		}
	}
	if got := strings.Count(st.Log.String(), `"level":"WARN"`); got != 100 {
		t.Errorf("%d warnings, want one each of the first 100 hosts", got)
	}
}
