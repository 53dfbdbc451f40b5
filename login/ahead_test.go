package login_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestALookAheadNeitherBeginsALoginNorUsesOneUp(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b := s.browser()
	look := func(method, to string, header ...string) {
		t.Helper()
		if strings.HasPrefix(to, "/") {
			to = s.url + to
		}
		r, err := http.NewRequestWithContext(t.Context(), method, to, nil)
		must(t, err)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := b.c.Do(r)
		must(t, err)
		resp.Body.Close()
		if resp.Header.Get("Location") != "" || resp.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s %v: %s %v", method, header, resp.Status, resp.Header)
		}
	}
	all := func(to string) {
		t.Helper()
		look("HEAD", to)
		look("GET", to, "Sec-Purpose", "prefetch")
		look("GET", to, "Sec-Purpose", "prefetch;prerender")
		look("GET", to, "Purpose", "Prefetch")
		look("GET", to, "X-Moz", "prefetch")
	}
	all("/auth/login?return_to=/a")
	if n := len(b.attempts()); n != 0 {
		t.Errorf("%d attempts have begun", n)
	}
	callback := b.begin("/auth/login?return_to=/a")
	all(callback)
	if n := len(s.sessions()); n != 0 {
		t.Errorf("%d sessions have begun", n)
	}
	if p := b.get(callback); !strings.HasSuffix(p.to, "/a") || len(s.sessions()) != 1 {
		t.Errorf("the callback, opened: %d %q", p.status, p.to)
	}
}
