package oidc_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

func (h *fixture) try(t testing.TB, lies ...func(*oidctest.JWT)) error {
	t.Helper()
	_, err := h.verify(t, h.op.SignLogoutToken("app", "alice", "s", lies...))
	return err
}

func (h *fixture) wantFetches(t testing.TB, want int) {
	t.Helper()
	if got := h.op.Count(oidctest.JWKS); got != want {
		t.Fatalf("%d fetches of the keys; want %d", got, want)
	}
}

func (h *fixture) must(t testing.TB, lies ...func(*oidctest.JWT)) {
	t.Helper()
	if err := h.try(t, lies...); err != nil {
		t.Fatal(err)
	}
}

// drain forgets what was fetched until now.
func (h *fixture) drain() {
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
		fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}]}`, jwks["kid"], jwks["x"],
			jwks["y"])
	})
	var wg sync.WaitGroup
	errs := make(chan error, 50)
	for range cap(errs) {
		raw := h.op.SignLogoutToken("app", "alice", "s")
		wg.Go(func() { _, err := h.verify(t, raw); errs <- err })
	}
	rig.Soon(t, "a request for the keys", asked)
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
	inBubble(t, func(t *testing.T, h *fixture) {
		h.must(t)
		began := h.Now()
		for i := range 3 {
			h.op.Rotate("ES256")
			h.must(t)
			h.wantFetches(t, 2+i)
		}
		if took := h.Now().Sub(began); took != 0 {
			t.Errorf("the first three waited %v", took)
		}
		// The burst is used up. A fourth rotation is not known to be wrong, so it is not refused: it waits.
		h.op.Rotate("ES256")
		h.drain()
		h.must(t)
		if got := rig.Soon(t, "a fetch", h.fetched); got != "refused" {
			t.Fatalf("OnKeyFetch heard %q; want refused", got)
		}
		if took := h.Now().Sub(began); took > 2*time.Second {
			t.Errorf("the fourth waited %v; want at most 2s", took)
		}
		h.wantFetches(t, 5)
	})
}

func TestAFetchUnderWayProvesNothingAboutAKeyPublishedSince(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, h *fixture) {
		for _, sameName := range []bool{false, true} {
			h.must(t)
			show := h.hidden(t)
			asked, answer := make(chan struct{}), make(chan struct{})
			h.op.Mangle(func(m *oidctest.Mangle) {
				stale := m.JWKS
				m.JWKS = func(doc map[string]any) {
					stale(doc)
					close(asked)
					<-answer
				}
			})
			first := h.sends(t, head("kid", "made up"))
			<-asked // the provider has made up its mind about that answer, and now rotates
			show()
			h.replace(sameName)
			second := h.sends(t)
			synctest.Wait()
			close(answer)
			(<-second).accepted(t)
			(<-first).putOff(t)
			h.Add(time.Minute)
		}
	})
}

func TestOldKeysAreFetchedAgainBehindTheCallersBackAndWithdrawnOnesAreDropped(t *testing.T) {
	t.Parallel()
	h := build(t)
	h.must(t)
	old := h.op.Key("ES256")
	byOld := func(j *oidctest.JWT) {
		j.Key, j.Header["kid"] = old, old.KID
		j.Claims["iat"] = h.Now().Add(-3 * time.Minute).Unix()
	}
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
	if got := rig.Soon(t, "a fetch", h.fetched); got != "ok" {
		t.Fatalf("the fetch ended with %q", got)
	}
	h.eventually(t, func() bool { return h.try(t, byOld) != nil })
	wantCheck(t, h.try(t, byOld), "kid", "no key")
}

// eventually waits for what a fetch that has been reported still has to put in place: a moment without any I/O.
func (h *fixture) eventually(t testing.TB, done func() bool) {
	t.Helper()
	for late := time.Now().Add(2 * time.Minute); !done(); {
		if time.Now().After(late) {
			t.Fatal("never")
		}
	}
}

func TestKeysOutliveTheProviderForADayAndNoLonger(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, h *fixture) {
		h.must(t)
		h.drain()
		h.op.Override(oidctest.JWKS, oidctest.Status(500))
		h.Add(time.Hour)
		h.must(t) // starts a fetch
		if got := rig.Soon(t, "a fetch", h.fetched); got != "error" {
			t.Fatalf("the fetch ended with %q", got)
		}
		for range 5 {
			h.must(t) // and does not start another for a minute
		}
		h.wantFetches(t, 2)
		wantUnavailable(t, h.try(t, head("kid", "made up")), "500") // not known to be absent, so not refused
		h.Add(23*time.Hour - time.Minute)
		h.must(t)
		h.Add(time.Minute)
		wantUnavailable(t, h.try(t), "answered 500")
		h.op.Override(oidctest.JWKS, nil)
		h.must(t)
	})
}

func TestAProviderThatIsAwayIsAskedOnceASecondAndRecovers(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, h *fixture) {
		h.op.Override(oidctest.Discovery, oidctest.Status(503))
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { wantUnavailable(t, h.rp.Ready(t.Context()), "answered 503") })
			wg.Go(func() {
				if err := h.try(t); !errors.Is(err, oidc.ErrUnavailable) ||
					!strings.Contains(err.Error(), "answered 503") {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := h.op.Count(oidctest.Discovery); n < 4 || n > 6 {
			t.Fatalf("asked %d times within 4.5 seconds; want once a second", n)
		}
		// A token that comes while the provider is away for a moment is taken when it is back.
		token := h.op.SignLogoutToken("app", "alice", "s")
		wg.Go(func() {
			if _, err := h.verify(t, token); err != nil {
				t.Errorf("it did not wait: %v", err)
			}
		})
		h.Add(2 * time.Second)
		h.op.Override(oidctest.Discovery, nil)
		wg.Wait()
		if err := h.rp.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAKeySetThatIsNoneIsNoReasonToRefuse(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		answer http.HandlerFunc
		reason string
	}{
		{"huge", oidctest.Huge(1 << 20), "more than 524288 bytes"},
		{"an error", oidctest.Status(404), "answered 404"},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere",
				http.StatusFound)
		}, "redirects are not followed"},
		{"not JSON", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "not a JSON object"},
		{"no keys", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") }, "no array `keys`"},
		{"an empty set", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[]}`) }, "no key"},
		{"keys twice", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[],"keys":[]}`) },
			"duplicate"},
		{"too many", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"keys":[{}`+strings.Repeat(",{}", 256)+`]}`)
		}, "more than 256"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T, h *fixture) {
				h.op.Override(oidctest.JWKS, row.answer)
				wantUnavailable(t, h.try(t), row.reason)
				wantUnavailable(t, h.try(t, claim("iat", h.Now().Add(-time.Hour).Unix())), row.reason)
			})
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
			h.wantFetches(t, 1) // the keys that came for it say all
		})
	}
}

func TestKeysThatMovedAreFoundAgain(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, h *fixture) {
		h.must(t)
		h.drain()
		jwk := h.op.Key("ES256").JWK()
		h.op.Override(oidctest.JWKS, oidctest.Status(404))
		h.op.Override(oidctest.Userinfo, func(w http.ResponseWriter, _ *http.Request) { // the new place
			fmt.Fprintf(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":%q,"x":%q,"y":%q}]}`, jwk["kid"], jwk["x"],
				jwk["y"])
		})
		h.op.Mangle(func(m *oidctest.Mangle) {
			m.Discovery = func(d map[string]any) { d["jwks_uri"] = h.op.URL(oidctest.Userinfo) }
		})
		// At the old place; the second has the metadata fetched again.
		for _, want := range []string{"error", "error", "ok"} {
			h.Add(time.Hour)
			h.must(t)
			synctest.Wait() // the fetch has ended, and what it leaves is there
			if got := rig.Soon(t, "a fetch", h.fetched); got != want {
				t.Fatalf("the fetch ended with %q; want %q", got, want)
			}
		}
	})
}
