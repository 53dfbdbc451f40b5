package session_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"example.com/curfew/keyring"
	"example.com/curfew/session"
	"example.com/curfew/store"
)

func TestTheCookieHasTheAttributesThatProtectIt(t *testing.T) {
	t.Parallel()
	b := session.NewBearer(issuer, client, "alice")
	for _, c := range []struct {
		cookie session.Cookie
		want   string
	}{
		{session.Cookie{}, "__Host-curfew=" + b.Reveal() + "; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{session.Cookie{Base: "wiki"}, "__Host-wiki=" + b.Reveal() + "; Path=/; HttpOnly; Secure; SameSite=Lax"},
		{session.Cookie{Insecure: true, Base: "curfew-4180"},
			"curfew-4180=" + b.Reveal() + "; Path=/; HttpOnly; SameSite=Lax"},
		{session.Cookie{Insecure: true}, "curfew=" + b.Reveal() + "; Path=/; HttpOnly; SameSite=Lax"},
	} {
		w := httptest.NewRecorder()
		c.cookie.Write(w, b)
		if got := w.Header().Get("Set-Cookie"); got != c.want {
			t.Errorf("got %s\nwant %s", got, c.want)
		}
		w = httptest.NewRecorder()
		c.cookie.Clear(w)
		if got := w.Result().Cookies()[0]; got.MaxAge >= 0 || got.Value != "" || got.Secure == c.cookie.Insecure {
			t.Errorf("cleared by %v", got)
		}
	}
}

// FuzzCookie: whatever a Cookie header holds, a bearer comes out only if exactly one cookie has our name, and its value
// is the one spelling of that bearer.
func FuzzCookie(f *testing.F) {
	b := session.NewBearer(issuer, client, "alice")
	good := b.Reveal()
	for _, seed := range []string{
		"curfew=" + good, `curfew="` + good + `"`, "curfew=" + good + "; curfew=" + good, "a=b; curfew=" + good,
		"Curfew=" + good, "curfew=" + good[:47] + "\n", "curfew=" + good + "=", "curfew=" + strings.Repeat("_", 48),
		"curfew", "",
		"curfew=" + good + "; curfew=", "curfew =" + good, "curfew=" + good[:46] + "%0",
		"curfew=" + strings.Repeat("-", 47) + "+",
	} {
		f.Add(seed)
	}
	cookie := session.Cookie{Insecure: true}
	f.Fuzz(func(t *testing.T, header string) {
		r := &http.Request{Header: http.Header{"Cookie": {header}}}
		b, ok := cookie.Read(r)
		named := r.CookiesNamed("curfew")
		if !ok {
			if len(named) == 1 && named[0].Value == good {
				t.Fatalf("%q was refused", header)
			}
			return
		}
		if len(named) != 1 || named[0].Value != b.Reveal() {
			t.Fatalf("%q was taken as %s", header, b.Reveal())
		}
	})
}

func TestABearerPrintsAsNothing(t *testing.T) {
	t.Parallel()
	b := session.NewBearer(issuer, client, "alice")
	s := &session.Session{Tokens: session.Tokens{AccessToken: "secret-at", RefreshToken: "secret-rt",
		IDToken: "secret-id"}}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "bearer", b, "tokens", s.Tokens)
	out := log.String() + fmt.Sprintf("%v %+v %#v %s %v %+v %#v", b, b, b, b, s.Tokens, s, s.Tokens)
	if strings.Contains(out, b.Reveal()) || strings.Contains(out, "secret") {
		t.Errorf("%s", out)
	}
}

func TestAKeyTellsNothingOfItsBearerButItsTag(t *testing.T) {
	t.Parallel()
	b := session.NewBearer(issuer, client, "alice")
	again, err := session.ParseBearer(b.Reveal())
	if err != nil || again.Key() != b.Key() {
		t.Fatalf("the key of a bearer changes: %v", err)
	}
	if b.Key().Tag() != store.Tag(issuer, client, "alice") {
		t.Error("the tag is not that of the person")
	}
	if _, err := session.ParseBearer(b.Key().String()); err == nil {
		asBearer, _ := session.ParseBearer(b.Key().String())
		if asBearer.Key() == b.Key() {
			t.Error("a key can be used as a bearer")
		}
	}
	k, err := store.ParseKey(b.Key().String())
	if err != nil || k != b.Key() {
		t.Errorf("ParseKey: %v", err)
	}
	if store.Tag("a", "bc", "d") == store.Tag("ab", "c", "d") {
		t.Error("the parts of a tag run into one another")
	}
}

func TestWhatIsSealedOpensOnlyWhereItBelongs(t *testing.T) {
	t.Parallel()
	old, other := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	first, _ := keyring.New(old)
	rotated, _ := keyring.New(other, old)
	without, _ := keyring.New(other)
	sealed := first.Seal("purpose", []byte("context"), []byte("plain"))
	for name, c := range map[string]struct {
		ring             *keyring.Keyring
		purpose, context string
		change           func([]byte) []byte
		want             error
	}{
		"as it was sealed":    {ring: first, purpose: "purpose", context: "context"},
		"after a rotation":    {ring: rotated, purpose: "purpose", context: "context"},
		"with its key gone":   {ring: without, purpose: "purpose", context: "context", want: keyring.ErrUnsealed},
		"for another purpose": {ring: first, purpose: "other", context: "context", want: keyring.ErrUnsealed},
		"in another context":  {ring: first, purpose: "purpose", context: "other", want: keyring.ErrUnsealed},
		"changed in one bit": {ring: first, purpose: "purpose", context: "context",
			change: func(b []byte) []byte { b[len(b)/2] ^= 1; return b }, want: keyring.ErrUnsealed},
		"cut short": {ring: first, purpose: "purpose", context: "context",
			change: func(b []byte) []byte { return b[:len(b)-1] }, want: keyring.ErrUnsealed},
		"cut to its key's name": {ring: first, purpose: "purpose", context: "context",
			change: func(b []byte) []byte { return b[:4] }, want: keyring.ErrUnsealed},
		"nothing": {ring: first, purpose: "purpose", context: "context",
			change: func([]byte) []byte { return nil }, want: keyring.ErrUnsealed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			in := bytes.Clone(sealed)
			if c.change != nil {
				in = c.change(in)
			}
			plain, err := c.ring.Open(c.purpose, []byte(c.context), in)
			if !errors.Is(err, c.want) || err == nil && string(plain) != "plain" {
				t.Errorf("%q, %v; want %v", plain, err, c.want)
			}
		})
	}
	if bytes.HasPrefix(rotated.Seal("purpose", nil, nil), sealed[:4]) {
		t.Error("a ring seals with a key that is not its first")
	}
}

func TestAKeyFileIsReadLineByLineAndItsFaultsNameTheLineAlone(t *testing.T) {
	t.Parallel()
	good := string(keyring.NewFile())
	for _, c := range []struct{ text, want string }{
		{good, ""},
		{"\r\n" + good + "\n# older\n" + strings.Split(good, "\n")[1] + "\r\n", ""},
		{"", "holds no key"},
		{"# only a comment\n", "holds no key"},
		{good + "secret!\n", "line 3"},
		{"c2hvcnQ=\n", "line 1"},
	} {
		_, err := keyring.Parse([]byte(c.text))
		switch {
		case c.want == "" && err != nil, c.want != "" &&
			(err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret")):
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
}

func TestACookieKnowsItsOwnAndThoseOfOtherInstances(t *testing.T) {
	t.Parallel()
	wiki := session.Cookie{Base: "wiki"}
	if got := wiki.NameFor("logout"); got != "__Host-wiki-logout" {
		t.Error(got)
	}
	for name, want := range map[string]bool{
		"__Host-wiki": true, "wiki": true, "wiki-login-ab": true, "curfew": true, "__Host-curfew": true,
		"curfew-4280":            true,
		"__Host-curfew-login-ab": true, "curfewish": false, "wikipedia": false, "theme": false, "": false, "-": false,
	} {
		if got := wiki.Ours(name); got != want {
			t.Errorf("%q: %v, want %v", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"curfew": "", "curfew-4180": "", "a": "", strings.Repeat("a", 32): "",
		"": "is no name", "__Host-x": "is no name", "a b": "is no name", "a=b": "is no name", "a;b": "is no name",
		"é":  "is no name",
		"1a": "is no name", "a\n": "is no name", strings.Repeat("a", 33): "is no name",
		"curfew-login-aa": "sign-in", "curfew-logout": "sign-in",
	} {
		if err := session.CheckCookieName(name); (err == nil) != (want == "") || err != nil &&
			!strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}
