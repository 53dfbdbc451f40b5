package login_test

import (
	"strings"
	"testing"
)

func TestALookAheadNeitherBeginsALoginNorUsesOneUp(t *testing.T) {
	t.Parallel()
	s := newStage(t, 1, nil)
	b := s.browser()
	look := func(method, to string, header ...string) {
		t.Helper()
		if p := b.Do(method, to, "", header...); p.Header.Get("Location") != "" || p.Header.Get("Set-Cookie") != "" {
			t.Errorf("%s %v: %d %v", method, header, p.Status, p.Header)
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
	if p := b.Get(callback); !strings.HasSuffix(p.To, "/a") || len(s.sessions()) != 1 {
		t.Errorf("the callback, opened: %d %q", p.Status, p.To)
	}
}
