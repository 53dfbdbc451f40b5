package web_test

import (
	"net/url"
	"strings"
	"testing"

	whatwg "github.com/nlnwa/whatwg-url/url"

	"example.com/curfew/web"
)

const base = "https://app.example.com/auth/callback"

// leaves says where a browser that is at base goes to, if that is not the site.
func leaves(t testing.TB, to string) string {
	t.Helper()
	u, err := whatwg.ParseRef(base, to)
	if err != nil {
		return "an error of the browser's: " + err.Error()
	}
	if origin := u.Protocol() + "//" + u.Host(); origin != "https://app.example.com" {
		return origin
	}
	// A script may take the path apart and put it together again.
	if again, err := whatwg.ParseRef(base, u.Pathname()); err != nil || again.Host() != "app.example.com" {
		return "another host, when its path is used alone"
	}
	return ""
}

func TestReturnToStaysOnThisSite(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ why, raw string }{
		{"empty", ""},
		{"another site", "https://evil.example/"},
		{"without a scheme", "//evil.example/"},
		{"more slashes", "///evil.example/"},
		{"a backslash is a slash to browsers", `/\evil.example/`},
		{"two backslashes", `\\evil.example/`},
		{"a backslash later", `/a\..\..\evil`},
		{"a tab is stripped by browsers", "/\t/evil.example/"},
		{"a line end is stripped by browsers", "/\n/evil.example/"},
		{"a line end would split the header", "/ok\r\nSet-Cookie: a=b"},
		{"NUL", "/\x00/evil.example"},
		{"a C1 control character", "/\u0085/evil.example"},
		{"a space in front is stripped by browsers", " //evil.example/"},
		{"a relative path", "evil"},
		{"user and host", "@evil.example/"},
		{"javascript", "javascript:alert(1)"},
		{"data", "data:text/html,x"},
		{"scheme without slashes", "https:evil.example"},
		{"an encoded slash becomes one", "/%2fevil.example"},
		{"an encoded backslash", "/%5cevil.example"},
		{"encoded twice", "/%252fevil.example"},
		{"encoded three times", "/%25252fevil.example"},
		{"an encoded tab between slashes", "/%09/evil.example"},
		{"an encoded line end", "/a%0d%0ab"},
		{"a dot segment in front of an empty one", "/.//evil.example"},
		{"two dots in front of an empty one", "/..//evil.example"},
		{"further in", "/a/..//evil.example"},
		{"encoded dots", "/%2e//evil.example"},
		{"encoded dots, twice", "/%252e%252e//evil.example"},
		{"half encoded dots", "/.%2E//evil.example"},
		{"a query in front", "?a=/b"},
		{"a backslash when decoded", "/%255cevil.example"},
		{"dot segments between backslashes", "/a%5c..%5c..%5c%5cevil.example"},
		{"an overlong slash", "/%c0%afevil.example"},
		{"an overlong slash, three bytes", "/%e0%80%afevil.example"},
		{"an encoded NUL", "/a%00"},
		{"encoded over and over", "/" + strings.Repeat("%25", 9) + "252525252525252525"},
		{"too long", "/" + strings.Repeat("a", 8192)},
		{"too long when escaped", "/" + strings.Repeat("ä", 2000)},
	} {
		t.Run(c.why, func(t *testing.T) {
			t.Parallel()
			if got := returnTo(c.raw); got != "/" {
				t.Errorf("ReturnTo(%q) = %q, want /", c.raw, got)
			}
		})
	}
}

// returnTo is / for a path that is refused.
func returnTo(raw string) string {
	to, err := web.ParseReturnTo(raw)
	if err != nil {
		return "/"
	}
	return to
}

func returnURL(s *web.Site, raw string) string {
	_, to, err := s.ParseReturnURL(raw, s.Main())
	if err != nil {
		return "/"
	}
	return to
}

func TestReturnToKeepsWhatIsOurs(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"/":                        "/",
		"/a/b?c=d&e=f#g":           "/a/b?c=d&e=f#g",
		"/a//b":                    "/a//b",
		"/files/...":               "/files/...",
		"/search?q=//evil.example": "/search?q=//evil.example",
		"/search?q=a%0d%0ab":       "/search?q=a%0d%0ab",
		"/search?q=100%":           "/search?q=100%",
		`/search?q=a\b "c"`:        "/search?q=a%5Cb%20%22c%22",
		"/app#/route":              "/app#/route",
		"/stra\u00dfe":             "/stra%C3%9Fe",
		"/a%20b":                   "/a%20b",
		"/wiki/100%25":             "/wiki/100%25",
		"/wiki/100%2525":           "/wiki/100%2525",
		"/100%":                    "/100%",
		"/caf%e9":                  "/caf%e9",
		"/\xff":                    "/%FF",
		"/a%2fb":                   "/a%2fb",
		"/users/CORP%5cbob":        "/users/CORP%5cbob",
		"/a;b=c?d;e=f":             "/a;b=c?d;e=f",
		"/a+b?c=d+e&f=%2B":         "/a+b?c=d+e&f=%2B",
	} {
		if got := returnTo(raw); got != want {
			t.Errorf("ReturnTo(%q) = %q, want %q", raw, got, want)
		}
	}
}

func TestReturnToTakesAbsoluteURLsOfExactlyThisSite(t *testing.T) {
	t.Parallel()
	s := site(t, "https://app.example.com")
	for raw, want := range map[string]string{
		"https://app.example.com":                    "/",
		"https://app.example.com/a?b#c":              "/a?b#c",
		"HTTPS://APP.example.com/a":                  "/a",
		"https://app.example.com?a=b":                "/?a=b",
		"https://app.example.com#a":                  "/#a",
		"/a":                                         "/a",
		"https://app.example.com//evil.example":      "/",
		"https://app.example.com.evil.example/":      "/",
		"https://app.example.com@evil.example/":      "/",
		"https://app.example.com:444/":               "/",
		`https://app.example.com\@evil.example/`:     "/",
		"http://app.example.com/a":                   "/",
		"https://app.example.com/%2f%2fevil.example": "/",
	} {
		if got := returnURL(s, raw); got != want {
			t.Errorf("ReturnTo(%q) = %q, want %q", raw, got, want)
		}
	}
}

// FuzzReturnTo: wherever it leads, a browser stays on the site; also if somebody decodes the address once more.
func FuzzReturnTo(f *testing.F) {
	for _, seed := range []string{"/", "/a?b#c", "//evil", `/\evil`, "/%2fevil", "/\t/evil", "/.//evil",
		"/%2e%2e//evil", "/a%5c%5cb",
		"https://app.example.com/a", "https://app.example.com@evil", "/ä", "/?%2f%2fevil", "/#%0a//", "/%09%2fevil",
		"/a/%2e./%2fevil"} {
		f.Add(seed)
	}
	s := site(f, "https://app.example.com")
	f.Fuzz(func(t *testing.T, raw string) {
		for _, to := range []string{returnTo(raw), returnURL(s, raw)} {
			if !strings.HasPrefix(to, "/") || len(to) > web.MaxReturnTo ||
				strings.ContainsFunc(to, func(c rune) bool { return c <= ' ' || c > '~' }) {
				t.Fatalf("%q leads to %q, which does not belong into a header", raw, to)
			}
			if where := leaves(t, to); where != "" {
				t.Fatalf("%q leads to %q, and so to %s", raw, to, where)
			}
			if decoded, err := url.PathUnescape(to); err == nil {
				if where := leaves(t, decoded); where != "" {
					t.Fatalf("%q leads to %q, and decoded once more to %s", raw, to, where)
				}
			}
			if again := returnTo(to); again != to {
				t.Fatalf("%q leads to %q, and that to %q", raw, to, again)
			}
		}
	})
}
