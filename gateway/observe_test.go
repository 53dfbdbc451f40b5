package gateway_test

import (
	"context"
	"net/http/httptest"
	"net/url"
	"slices"
	"sync"
	"testing"

	"example.com/curfew/gateway"
	"example.com/curfew/internal/rig"
)

// Each decision is told once, with the reason that the log and the answer have too.
func TestEveryDecisionIsTold(t *testing.T) {
	t.Parallel()
	st := newStage(t)
	policy, err := gateway.NewPolicy(gateway.Rule{Path: "/public/*", Public: true},
		gateway.Rule{Path: "/admin/*", Groups: []string{"admins"}}, gateway.Rule{Path: "/strong/*", ACR: []string{"mfa"}})
	rig.Must(t, err)
	st.gateway.Policy = policy
	var mu sync.Mutex
	var told []gateway.Check
	st.gateway.OnCheck = func(c gateway.Check) {
		mu.Lock()
		defer mu.Unlock()
		if c.Took <= 0 {
			t.Errorf("%+v took no time", c)
		}
		c.Took = 0
		told = append(told, c)
	}
	to, _ := url.Parse(st.app.URL)
	st.front = st.gateway.Proxy(to)
	b, _ := st.signIn(nil)
	signedIn := cookie(b)
	forwarded := func(path string, more ...string) []string {
		return append([]string{"X-Forwarded-Uri", path, "X-Forwarded-Method", "GET"}, more...)
	}
	for _, row := range []struct {
		path    string
		headers []string
		want    gateway.Check
	}{
		{"/x", []string{"Cookie", signedIn}, gateway.Check{Surface: "proxy", Result: "allowed", Reason: "session"}},
		{"/public/x", nil, gateway.Check{Surface: "proxy", Result: "allowed", Reason: "public"}},
		{"/x", nil, gateway.Check{Surface: "proxy", Result: "signed_out", Reason: "session"}},
		{"/strong/x", []string{"Cookie", signedIn}, gateway.Check{Surface: "proxy", Result: "signed_out", Reason: "step_up"}},
		{"/admin/x", []string{"Cookie", signedIn}, gateway.Check{Surface: "proxy", Result: "refused", Reason: "policy"}},
		{"/admin/..%2fx", []string{"Cookie", signedIn},
			gateway.Check{Surface: "proxy", Result: "refused", Reason: "request"}},
		{"/x", []string{"Cookie", signedIn, "Upgrade", "websocket", "Connection", "Upgrade", "Origin", "https://evil.example",
			"Sec-Websocket-Version", "13", "Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
			gateway.Check{Surface: "proxy", Result: "refused", Reason: "origin"}},
		{"/auth/verify", nil, gateway.Check{Surface: "verify", Result: "refused", Reason: "request"}},
		{"/auth/verify/x", []string{"Cookie", signedIn},
			gateway.Check{Surface: "verify", Result: "allowed", Reason: "session"}},
		{"/auth/verify/x", nil, gateway.Check{Surface: "verify", Result: "signed_out", Reason: "session"}},
		{"/auth/verify", forwarded("/x"), gateway.Check{Surface: "verify", Result: "refused", Reason: "request"}},
		{"", nil, gateway.Check{}}, // the store goes away
		{"/x", []string{"Cookie", signedIn}, gateway.Check{Surface: "proxy", Result: "unavailable", Reason: "store"}},
	} {
		if row.path == "" {
			st.store.Away.Store(true)
			continue
		}
		st.send("GET", row.path, row.headers...)
		mu.Lock()
		if !slices.Equal(told, []gateway.Check{row.want}) {
			t.Errorf("%s: told %+v, want %+v", row.path, told, row.want)
		}
		told = nil
		mu.Unlock()
	}
}

// A browser that leaves while the store is read is no trouble of the store.
func TestAClientThatLeftIsNotToldAsAStoreThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		gone bool
		want gateway.Check
	}{
		{"it left", true, gateway.Check{Surface: "verify", Result: "refused", Reason: "gone"}},
		{"it waits", false, gateway.Check{Surface: "verify", Result: "unavailable", Reason: "store"}},
	} {
		st := newStage(t)
		b, _ := st.signIn(nil)
		err := context.Canceled
		st.store.Fails.Store(&err)
		var told []gateway.Check
		st.gateway.OnCheck = func(c gateway.Check) {
			c.Took = 0
			told = append(told, c)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if row.gone {
			cancel()
		}
		r := httptest.NewRequestWithContext(ctx, "GET", st.Server.URL+"/auth/verify/x", nil)
		r.Header.Set("Cookie", cookie(b))
		st.Server.Config.Handler.ServeHTTP(httptest.NewRecorder(), r)
		if !slices.Equal(told, []gateway.Check{row.want}) {
			t.Errorf("%s: told %+v, want %+v", row.name, told, row.want)
		}
	}
}
