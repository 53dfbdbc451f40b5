package oidc_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

func (h *house) try(t testing.TB, lies ...func(*oidctest.JWT)) error {
	t.Helper()
	_, err := h.verify(t, h.op.SignLogoutToken("app", "alice", "s", lies...))
	return err
}

func (h *house) wantFetches(t testing.TB, want int) {
	t.Helper()
	if got := h.op.Count(oidctest.JWKS); got != want {
		t.Fatalf("%d fetches of the keys; want %d", got, want)
	}
}

func (h *house) must(t testing.TB, lies ...func(*oidctest.JWT)) {
	t.Helper()
	if err := h.try(t, lies...); err != nil {
		t.Fatal(err)
	}
}

// drain forgets what was fetched until now.
func (h *house) drain() {
	for len(h.fetched) > 0 {
		<-h.fetched
	}
}

func TestKeysAreFetchedOnceForAllWhoWait(t *testing.T) {
	t.Parallel()
	h := build(t)
	asked, answer := make(chan struct{}, 100), make(chan struct{})
	jwks := h.op.Key("ES256").JWK()
	h.op.Override(oidctest.JWKS, func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answer
		fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}]}`, jwks["kid"], jwks["x"], jwks["y"])
	})
	var wg sync.WaitGroup
	errs := make(chan error, 50)
	for range cap(errs) {
		raw := h.op.SignLogoutToken("app", "alice", "s")
		wg.Go(func() { _, err := h.verify(t, raw); errs <- err })
	}
	<-asked
	// Somebody who does not want to wait leaves, and the fetch goes on for the others.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := oidc.VerifyLogoutToken(ctx, []*oidc.Provider{h.rp}, h.op.SignLogoutToken("app", "alice", "s"), h.Now())
	wantUnavailable(t, err, "gave up waiting")
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v; want it to wrap context.Canceled", err)
	}
	close(answer)
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	h.wantFetches(t, 1)
	if n := h.op.Count(oidctest.Discovery); n != 1 {
		t.Fatalf("%d fetches of the metadata; want 1", n)
	}
}

func TestARotationIsFollowedAtOnceAlsoRightAfterTheFirstFetch(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.must(t)
	for i := range 3 {
		h.op.Rotate("ES256")
		h.must(t)
		h.wantFetches(t, 2+i)
	}
	// The burst is used up. A fourth rotation is not known to be wrong, so it is not refused but put off.
	h.op.Rotate("ES256")
	h.drain()
	wantUnavailable(t, h.try(t), "fetched again within 10s")
	if got := <-h.fetched; got != "refused" {
		t.Fatalf("OnKeyFetch heard %q; want refused", got)
	}
	h.wantFetches(t, 4)
	h.Add(10 * time.Second)
	h.must(t)
	h.wantFetches(t, 5)
}

func TestHoweverManyUnknownKeysAreNamedOneFetchInTenSecondsIsMade(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.must(t)
	for i := range 100 {
		err := h.try(t, head("kid", fmt.Sprint("made up ", i)))
		if i < 3 {
			wantCheck(t, err, "kid", "no key")
		} else {
			wantUnavailable(t, err, "made up")
		}
	}
	h.wantFetches(t, 4)
	for i := range 5 {
		h.Add(10 * time.Second)
		for j := range 20 {
			_ = h.try(t, head("kid", fmt.Sprint("made up again ", i, j)))
		}
		h.wantFetches(t, 5+i)
	}
	h.must(t) // the known key was never in danger
}

func TestAKeyThatTheProviderDoesNotHaveIsRefusedWithoutAnotherFetchForAMinute(t *testing.T) {
	t.Parallel()
	h := build(t)
	for range 50 {
		wantCheck(t, h.try(t, head("kid", "absent")), "kid", `no key "absent"`)
	}
	h.wantFetches(t, 2) // one for the keys, one more for this
	h.op.Rotate("ES256")
	h.must(t) // and it used nothing up
	h.Add(time.Minute)
	wantCheck(t, h.try(t, head("kid", "absent")), "kid", "no key")
	h.wantFetches(t, 4)
	// One that turns up later is taken as soon as any fetch brings it.
	k := oidctest.NewKey("ES256")
	k.KID = "absent"
	h.op.AddKey(k)
	h.Add(10 * time.Second)
	h.op.Rotate("ES256")
	h.must(t)
	h.must(t, func(j *oidctest.JWT) { j.Key, j.Header["kid"] = k, "absent" })
}

func TestABadSignatureUnderAKnownKeyFetchesNothing(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.must(t)
	stranger := oidctest.NewKey("ES256")
	for range 50 {
		wantCheck(t, h.try(t, func(j *oidctest.JWT) { j.Key = stranger }), "signature", "not the signature")
	}
	h.wantFetches(t, 1)
}

func TestAFetchUnderWayProvesNothingAboutAKeyPublishedSince(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.must(t)
	before := h.op.Key("ES256").JWK()
	asked, answer := make(chan struct{}), make(chan struct{})
	h.op.Override(oidctest.JWKS, func(w http.ResponseWriter, _ *http.Request) {
		close(asked)
		<-answer
		fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}]}`, before["kid"], before["x"], before["y"])
	})
	first := make(chan error, 1)
	raw := h.op.SignLogoutToken("app", "alice", "s", head("kid", "made up"))
	go func() { _, err := h.verify(t, raw); first <- err }()
	<-asked // the provider has made up its mind about that answer, and now rotates
	h.op.Override(oidctest.JWKS, nil)
	h.op.Rotate("ES256")
	second := make(chan error, 1)
	raw = h.op.SignLogoutToken("app", "alice", "s")
	go func() { _, err := h.verify(t, raw); second <- err }()
	close(answer)
	wantCheck(t, <-first, "kid", "made up")
	if err := <-second; err != nil {
		t.Fatalf("a genuine logout was refused: %v", err)
	}
}

func TestOldKeysAreFetchedAgainBehindTheCallersBackAndWithdrawnOnesAreDropped(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.must(t)
	old := h.op.Key("ES256")
	byOld := func(j *oidctest.JWT) { j.Key, j.Header["kid"] = old, old.KID }
	h.op.Rotate("ES256")
	h.op.Withdraw(old.KID)
	h.drain()

	h.Add(time.Hour - time.Second)
	h.must(t, byOld)
	h.wantFetches(t, 1)
	h.Add(time.Second)
	release := make(chan struct{})
	h.op.Mangle(func(m *oidctest.Mangle) { m.JWKS = func(map[string]any) { <-release } })
	h.must(t, byOld) // answered while the fetch hangs: nobody waits for it
	close(release)
	if got := <-h.fetched; got != "ok" {
		t.Fatalf("the fetch ended with %q", got)
	}
	h.eventually(t, func() bool { return h.try(t, byOld) != nil })
	wantCheck(t, h.try(t, byOld), "kid", "no key")
}

// eventually waits for what a fetch that has been reported still has to put in place: a moment without any I/O.
func (h *house) eventually(t testing.TB, done func() bool) {
	t.Helper()
	for !done() {
		select {
		case <-t.Context().Done():
			t.Fatal("never")
		default:
		}
	}
}

func TestKeysOutliveTheProviderForADayAndNoLonger(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.must(t)
	h.drain()
	h.op.Override(oidctest.JWKS, oidctest.Status(500))
	h.Add(time.Hour)
	h.must(t) // starts a fetch
	if got := <-h.fetched; got != "error" {
		t.Fatalf("the fetch ended with %q", got)
	}
	for range 5 {
		h.must(t) // and does not start another for a minute
	}
	h.wantFetches(t, 2)
	wantUnavailable(t, h.try(t, head("kid", "made up")), "500") // not known to be absent, so not refused
	h.Add(23*time.Hour - time.Second)
	h.must(t)
	h.Add(time.Second)
	wantUnavailable(t, h.try(t), "answered 500")
	h.op.Override(oidctest.JWKS, nil)
	h.Add(time.Second)
	h.must(t)
}

func TestAProviderThatIsAwayIsAskedOnceASecondAndRecovers(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.op.Override(oidctest.Discovery, oidctest.Status(503))
	for range 20 {
		wantUnavailable(t, h.try(t), "answered 503")
		wantUnavailable(t, h.rp.Ready(t.Context()), "answered 503")
	}
	if n := h.op.Count(oidctest.Discovery); n != 1 {
		t.Fatalf("asked %d times within the second; want once", n)
	}
	h.op.Override(oidctest.Discovery, nil)
	h.Add(time.Second)
	h.must(t)
	if err := h.rp.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestAKeySetThatIsNoneIsNoReasonToRefuse(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		reason string
	}{
		{"huge", oidctest.Huge(64 << 20), "more than 524288 bytes"},
		{"an error", oidctest.Status(404), "answered 404"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, "redirects are not followed"},
		{"not JSON", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "not a JSON object"},
		{"no keys", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }, "no array `keys`"},
		{"keys twice", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[],"keys":[]}`) }, "duplicate"},
		{"too many", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"keys":[{}`+strings.Repeat(",{}", 256)+`]}`)
		}, "more than 256"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := build(t)
			h.op.Override(oidctest.JWKS, row.answer)
			wantUnavailable(t, h.try(t), row.reason)
		})
	}
}

func TestAKeyServesOnlyWhatItWasPublishedFor(t *testing.T) {
	t.Parallel()
	set := func(name string, v any) func(map[string]any) {
		return func(k map[string]any) {
			if v == nil {
				delete(k, name)
			} else {
				k[name] = v
			}
		}
	}
	for _, row := range []struct {
		name   string
		change func(map[string]any)
		reason string // empty: it serves
	}{
		{"as it is", func(map[string]any) {}, ""},
		{"no alg", set("alg", nil), ""},
		{"no use", set("use", nil), ""},
		{"key_ops verify", set("key_ops", []string{"verify"}), ""},
		{"a broken certificate", set("x5c", []string{"x"}), ""},
		{"use enc", set("use", "enc"), "its `use` is \"enc\""},
		{"another alg", set("alg", "ES384"), "its `alg` is"},
		{"key_ops sign", set("key_ops", []string{"sign"}), "key_ops"},
		{"key_ops empty", set("key_ops", []string{}), "key_ops"},
		{"alg a number", set("alg", 1), "not a string"},
		{"its private part beside it", set("d", "AAAA"), "private part"},
		{"another curve by name", set("crv", "P-384"), "cannot be read"},
		{"a curve that nobody knows", set("crv", "secp256k1"), "cannot be read"},
		{"a point that is not on the curve", func(k map[string]any) { k["x"] = k["y"] }, "cannot be read"},
		{"a key of another kind that names no alg", func(k map[string]any) {
			other := oidctest.NewKey("EdDSA").JWK()
			k["kty"], k["crv"], k["x"] = other["kty"], other["crv"], other["x"]
			delete(k, "alg")
			delete(k, "y")
		}, "it is a key of kty \"OKP\""},
		{"a kty that nobody knows", set("kty", "LATTICE"), "cannot be read"},
		{"a shared secret", func(k map[string]any) { k["kty"], k["k"] = "oct", "AAAA" }, "shared secret"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			h := build(t)
			good := oidctest.NewKey("ES256") // one that is fine must stay fine beside the strange one
			h.op.AddKey(good)
			strange := oidctest.NewKey("ES256")
			strange.KID = "strange"
			h.op.AddKey(strange)
			h.op.Mangle(func(m *oidctest.Mangle) {
				m.JWKS = func(doc map[string]any) {
					for _, k := range doc["keys"].([]any) {
						if k := k.(map[string]any); k["kid"] == "strange" {
							row.change(k)
						}
					}
				}
			})
			err := h.try(t)
			if row.reason == "" {
				if err != nil {
					t.Fatal(err)
				}
			} else {
				wantCheck(t, err, "kid", row.reason)
			}
			h.must(t, func(j *oidctest.JWT) { j.Key, j.Header["kid"] = good, good.KID })
			if row.reason != "" {
				h.wantFetches(t, 1) // its id is known, so nothing is fetched for it
			}
		})
	}
}

func TestKeysThatMovedAreFoundAgain(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.must(t)
	h.drain()
	jwk := h.op.Key("ES256").JWK()
	h.op.Override(oidctest.JWKS, oidctest.Status(404))
	h.op.Override(oidctest.Userinfo, func(w http.ResponseWriter, _ *http.Request) { // the new place
		fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}]}`, jwk["kid"], jwk["x"], jwk["y"])
	})
	h.op.Mangle(func(m *oidctest.Mangle) {
		m.Discovery = func(d map[string]any) { d["jwks_uri"] = h.op.URL(oidctest.Userinfo) }
	})
	for _, want := range []string{"error", "error"} { // at the old place; the second has the metadata fetched again
		h.Add(time.Hour)
		h.must(t)
		if got := <-h.fetched; got != want {
			t.Fatalf("the fetch ended with %q; want %q", got, want)
		}
	}
	h.eventually(t, func() bool {
		m, err := h.rp.Metadata(t.Context())
		return err == nil && m.JWKSURI == h.op.URL(oidctest.Userinfo)
	})
	h.Add(time.Hour)
	h.must(t)
	if got := <-h.fetched; got != "ok" {
		t.Fatalf("the fetch ended with %q; want ok", got)
	}
}
