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

	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
)

// patient is the time that a provider waits for an answer.
const patient = 5 * time.Second

// sends has a logout token verified, as a provider would send it, and returns where the outcome will be.
func (h *fixture) sends(t *testing.T, lies ...func(*oidctest.JWT)) <-chan outcome {
	t.Helper()
	raw := h.op.SignLogoutToken("app", "alice", "s", lies...)
	done, began := make(chan outcome, 1), h.Now()
	go func() {
		_, err := h.verify(t, raw)
		done <- outcome{err, h.Now().Sub(began)}
	}()
	return done
}

type outcome struct {
	err  error
	took time.Duration
}

func (o outcome) accepted(t *testing.T) {
	t.Helper()
	if o.err != nil || o.took >= patient {
		t.Errorf("after %v: %v; want it taken within %v", o.took, o.err, patient)
	}
}

// putOff: not final, and answered while the provider is there to hear it.
func (o outcome) putOff(t *testing.T) {
	t.Helper()
	var final *oidc.Error
	if !errors.Is(o.err, oidc.ErrUnavailable) || errors.As(o.err, &final) || o.took >= patient {
		t.Errorf("after %v: %v; want ErrUnavailable within %v", o.took, o.err, patient)
	}
}

// hidden lies about the keys: those are served that there were when it was called.
func (h *fixture) hidden(t *testing.T) (show func()) {
	t.Helper()
	var stale any
	h.op.Mangle(func(m *oidctest.Mangle) {
		m.JWKS = func(doc map[string]any) { stale = doc["keys"] }
	})
	if _, err := within(h.op.Handler())(mustRequest(t, h.op.URL(oidctest.JWKS))); err != nil {
		t.Fatal(err)
	}
	h.op.Mangle(func(m *oidctest.Mangle) { m.JWKS = func(doc map[string]any) { doc["keys"] = stale } })
	return func() { h.op.Mangle(func(m *oidctest.Mangle) { m.JWKS = nil }) }
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// replace starts the provider anew: with another key, under another name or the same.
func (h *fixture) replace(sameName bool) *oidctest.Key {
	old, k := h.op.Key("ES256"), oidctest.NewKey("ES256")
	h.op.Withdraw(old.KID)
	if sameName {
		k.KID = old.KID
	}
	h.op.AddKey(k)
	return k
}

func TestALogoutUnderAKeyThatIsPublishedAMomentLaterIsHeldUntilItIs(t *testing.T) {
	t.Parallel()
	for _, later := range []time.Duration{time.Millisecond, time.Second, 1900 * time.Millisecond, 3 * time.Second} {
		inBubble(t, func(t *testing.T, h *fixture) {
			h.must(t)
			h.Add(10 * time.Second)
			show := h.hidden(t)
			h.op.Rotate("ES256")
			logout := h.sends(t)
			h.Add(later)
			show()
			(<-logout).accepted(t)
		})
	}
}

func TestAKeyThatIsMissingForLongIsRefusedAndOneThatIsNewIsNot(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, h *fixture) {
		h.must(t)
		absent := h.op.SignLogoutToken("app", "alice", "s", head("kid", "absent"),
			claim("exp", h.Now().Add(time.Hour).Unix()))
		for range 10 {
			_, err := h.verify(t, absent)
			outcome{err, 0}.putOff(t)
			h.Add(time.Second)
		}
		h.Add(2 * time.Minute)
		fetches := h.op.Count(oidctest.JWKS)
		_, err := h.verify(t, absent)
		wantCheck(t, err, "kid", `no key "absent"`)
		h.wantFetches(t, fetches+1)
		for range 100 { // and from now on that costs nothing
			_, err = h.verify(t, absent)
			wantCheck(t, err, "kid", `no key "absent"`)
		}
		h.wantFetches(t, fetches+1)
		// The provider begins to use a key of that name. That a stranger has named it for long is nothing against it.
		k := oidctest.NewKey("ES256")
		k.KID = "absent"
		show := h.hidden(t)
		h.op.AddKey(k)
		logout := h.sends(t)
		h.Add(time.Second)
		show()
		(<-logout).accepted(t)
	})
}

func TestAnotherKeyUnderTheSameNameIsFound(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"key", ""} {
		inBubble(t, func(t *testing.T, h *fixture) {
			old := h.op.Key("ES256")
			old.KID = name
			h.must(t)
			h.Add(time.Minute)
			h.replace(true)
			(<-h.sends(t)).accepted(t)
			h.wantFetches(t, 2)
			// The token of the key that is gone is refused.
			wantCheck(t, h.try(t, func(j *oidctest.JWT) { j.Key = old }), "signature", "sign")
			// And for a moment the keys cannot be had.
			for _, trouble := range []http.HandlerFunc{oidctest.Status(404), oidctest.Status(500),
				oidctest.Huge(1 << 20), oidctest.Hang()} {
				h.Add(10 * time.Second)
				h.replace(true)
				h.op.Override(oidctest.JWKS, trouble)
				logout := h.sends(t)
				h.Add(time.Second)
				h.op.Override(oidctest.JWKS, nil)
				if got := <-logout; got.err != nil { // one that hangs takes all the time there is
					got.putOff(t)
				}
				(<-h.sends(t)).accepted(t)
			}
		})
	}
}

func TestSignInsFindAnotherKeyUnderTheSameName(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, h *fixture) {
		h.must(t)
		h.replace(true)
		id := func() error {
			raw := h.op.SignIDToken("app", "alice", "s", "n", "access")
			_, err := h.rp.VerifyIDToken(t.Context(), raw, oidc.Expect{Nonce: "n", AccessToken: "access"}, h.Now())
			return err
		}
		if err := id(); err != nil {
			t.Fatal(err)
		}
		h.op.Rotate("ES256")
		if err := id(); err != nil {
			t.Fatal(err)
		}
		raw := h.op.SignIDToken("app", "alice", "s", "n", "access",
			func(j *oidctest.JWT) { j.Key = oidctest.NewKey("ES256") })
		_, err := h.rp.VerifyIDToken(t.Context(), raw, oidc.Expect{Nonce: "n", AccessToken: "access"}, h.Now())
		wantCheck(t, err, "signature", "not the signature")
	})
}

func TestUserinfoAndRefreshFindANewKeyToo(t *testing.T) {
	t.Parallel()
	for _, sameName := range []bool{true, false} {
		inBubble(t, func(t *testing.T, h *fixture) {
			tokens, id := h.tokens(t)
			h.Add(time.Minute)
			h.replace(sameName)
			if _, err := h.rp.Userinfo(t.Context(), tokens.AccessToken, nil, "alice", h.Now()); err != nil {
				t.Error(err)
			}
			h.Add(time.Minute)
			show := h.hidden(t)
			h.replace(sameName)
			if sameName {
				show() // where the name is the same, it cannot be known that another key is to come
			}
			time.AfterFunc(time.Second, show)
			if _, _, err := h.rp.Refresh(t.Context(), tokens.RefreshToken, nil, *id, h.Now()); err != nil {
				t.Error(err)
			}
		}, func(c *oidctest.Client, _ *oidc.Config) { c.SignedUserinfo = true })
	}
}

func TestAKeyThatWasWithdrawnAndCameBackIsTakenAgain(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, h *fixture) {
		h.must(t)
		k := h.op.Key("ES256")
		byIt := func(j *oidctest.JWT) { j.Key, j.Header["kid"] = k, k.KID }
		h.op.Rotate("ES256")
		h.op.Withdraw(k.KID)
		h.must(t)
		(<-h.sends(t, byIt)).putOff(t)
		h.op.AddKey(&oidctest.Key{KID: k.KID, Alg: k.Alg, Private: k.Private})
		(<-h.sends(t, byIt)).accepted(t)
	})
}

func TestSeveralKeysOfOneName(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, h *fixture) {
		h.must(t)
		for range 2 {
			k := oidctest.NewKey("ES256")
			k.KID = "same"
			h.op.AddKey(k)
			(<-h.sends(t)).accepted(t)
		}
		k := oidctest.NewKey("EdDSA") // of another kind beside them
		k.KID = "same"
		h.op.AddKey(k)
		(<-h.sends(t)).accepted(t)
	})
}

// junk is what anybody can make who knows the client and the issuer.
func junk(i int) []func(*oidctest.JWT) {
	stranger := oidctest.NewKey("ES256")
	if i%2 == 0 { // under a name that is known
		return []func(*oidctest.JWT){func(j *oidctest.JWT) { j.Key = stranger }}
	}
	return []func(*oidctest.JWT){head("kid", fmt.Sprint("made up ", i))}
}

func TestAFloodOfJunkNeitherHidesANewKeyNorTakesMoreThanItsShare(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, h *fixture) {
		h.must(t)
		ctx, stop := context.WithCancel(t.Context())
		var flood sync.WaitGroup
		flood.Go(func() {
			for i := 0; ctx.Err() == nil; i++ { // 150 in a second
				raw := h.op.SignLogoutToken("app", "alice", "s", junk(i)...)
				flood.Go(func() {
					if _, err := h.verify(t, raw); err == nil {
						t.Error("junk was taken")
					}
				})
				time.Sleep(time.Second / 150)
			}
		})
		h.Add(7300 * time.Millisecond)
		for i := range 8 {
			h.Add(time.Second / 3)
			h.replace(i%2 == 0)
			(<-h.sends(t)).accepted(t)
		}
		began, fetches := h.Now(), h.op.Count(oidctest.JWKS)
		h.Add(10 * time.Second)
		if n := h.op.Count(oidctest.JWKS) - fetches; n > 6 {
			t.Errorf("%d fetches in %v; want one in two seconds", n, h.Now().Sub(began))
		}
		// Sign-ins have fetches of their own.
		h.op.Rotate("ES256")
		raw, began := h.op.SignIDToken("app", "alice", "s", "n", "access"), h.Now()
		if _, err := h.rp.VerifyIDToken(t.Context(), raw, oidc.Expect{Nonce: "n", AccessToken: "access"},
			h.Now()); err != nil {
			t.Error(err)
		}
		if took := h.Now().Sub(began); took > 0 {
			t.Errorf("a sign-in waited %v for the flood", took)
		}
		stop()
		flood.Wait()
	})
}

func TestNoMoreWaitThanThereAreChairs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name string
		size int // of the key id, and so of the token
		most int
	}{
		{"by number", 10, 512},
		{"by bytes", 1000, 1200}, // no more than the number allows, but see the sum below
	} {
		inBubble(t, func(t *testing.T, h *fixture) {
			h.must(t)
			h.op.Override(oidctest.JWKS, oidctest.Hang())
			const all = 2000
			outcomes := make(chan outcome, all)
			size := 0
			for i := range all {
				kid := fmt.Sprintf("%0*d", row.size, i)
				raw := h.op.SignLogoutToken("app", "alice", "s", head("kid", kid))
				size = len(raw)
				began := h.Now()
				go func() { _, err := h.verify(t, raw); outcomes <- outcome{err, h.Now().Sub(began)} }()
				synctest.Wait()
			}
			early := len(outcomes)
			if waiting := all - early; waiting > row.most || waiting > 512 || waiting*size > 2<<20 {
				t.Errorf("%s: %d of %d bytes wait", row.name, waiting, size)
			}
			for i := range all {
				o := <-outcomes
				o.putOff(t)
				if crowded := strings.Contains(o.err.Error(), "too many"); crowded != (i < early) {
					t.Fatalf("number %d of %d: %v", i, early, o.err)
				}
			}
		})
	}
}

func TestOneProvidersFloodIsNotAnothersDelay(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, h *fixture) {
		h.must(t)
		other := buildAt(t, &clock{bubble: true})
		other.must(t)
		for i := range 100 {
			h.sends(t, junk(i)...)
		}
		h.op.Override(oidctest.JWKS, oidctest.Hang())
		other.op.Rotate("ES256")
		got := <-other.sends(t)
		if got.accepted(t); got.took > 0 {
			t.Errorf("it waited %v", got.took)
		}
	})
}

func TestGarbageUnderAKnownKeyIsRefusedAndAsksForNoMoreFetches(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, h *fixture) {
		h.must(t)
		stranger := oidctest.NewKey("ES256")
		began := h.Now()
		for range 20 {
			wantCheck(t, h.try(t, func(j *oidctest.JWT) { j.Key = stranger }), "signature", "not the signature")
		}
		if n, most := h.op.Count(oidctest.JWKS), 4+int(h.Now().Sub(began)/(2*time.Second)); n > most {
			t.Errorf("%d fetches; want at most %d", n, most)
		}
		// What is older than the keys is known to be garbage.
		fetches := h.op.Count(oidctest.JWKS)
		for range 100 {
			err := h.try(t, func(j *oidctest.JWT) { j.Key = stranger },
				claim("iat", h.Now().Add(-10*time.Minute).Unix()))
			wantCheck(t, err, "signature", "not the signature")
		}
		h.wantFetches(t, fetches)
	})
}
