package gateway_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"example.com/curfew/gateway"
)

// FuzzAuthorization: without a provider whose tokens are taken, no Authorization header lets anybody in, and one that
// names a token is never answered with a redirect.
func FuzzAuthorization(f *testing.F) {
	for _, v := range []string{"Bearer a.b.c", "bearer  x", "Bearer\tx", "Bearer", "DPoP x", "Basic YTpi",
		"Bearer a, Bearer b",
		" Bearer x", "BearerX y", "Bearer =", "Bearer x=", "\x00Bearer x", "Bearer " + strings.Repeat("a", 20<<10)} {
		f.Add(v)
	}
	st := newStage(f)
	st.gateway.Bearer = new(gateway.Bearer)
	f.Fuzz(func(t *testing.T, v string) {
		r := httptest.NewRequest(http.MethodGet, st.Web.URL.String()+"/page", nil)
		r.Header["Authorization"], r.Header["Accept"] = []string{v}, []string{"text/html"}
		a := st.gateway.Decide(r)
		scheme, _, _ := strings.Cut(strings.ToLower(strings.TrimLeft(v, " \t")), " ")
		named := scheme == "bearer" || scheme == "dpop"
		switch {
		case a.Allowed:
			t.Fatalf("%q lets somebody in", v)
		case named && !slices.Contains([]int{400, 401, 431}, a.Status):
			t.Fatalf("%q is answered %d", v, a.Status)
		case named && a.Status != 431 && a.Header.Get("WWW-Authenticate") == "":
			t.Fatalf("%q is answered %d without a challenge", v, a.Status)
		case !named && a.Status != 400 && a.Status != 303:
			t.Fatalf("%q, which is none of ours, is answered %d", v, a.Status)
		}
	})
}
