package bench

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"example.com/curfew"
	"example.com/curfew/keyring"
	"example.com/curfew/oidc"
	"example.com/curfew/oidc/oidctest"
	"example.com/curfew/session"
	"example.com/curfew/store"
	"example.com/curfew/store/memory"
	"example.com/curfew/store/sqlite"
)

const callers = 16 // connections at once

// BenchmarkLogout posts logout tokens over HTTP, each for a session that is there, out of so many.
func BenchmarkLogout(b *testing.B) {
	op := oidctest.Start(b, oidctest.Config{Clients: []oidctest.Client{{ID: "app", Secret: "secret"}}})
	b.Run("floor", func(b *testing.B) { post(b, op, floor(b, op), nil) })
	for _, sessions := range []int{1_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprintf("memory/%d", sessions), func(b *testing.B) {
			backend := memory.New()
			defer backend.Close()
			post(b, op, relyingParty(b, op, backend).Handler(), fill(b, op, backend, sessions))
		})
	}
	for _, sessions := range []int{1_000, 100_000} {
		b.Run(fmt.Sprintf("sqlite/%d", sessions), func(b *testing.B) {
			backend := openSQLite(b)
			post(b, op, relyingParty(b, op, backend).Handler(), fill(b, op, backend, sessions))
		})
	}
}

// BenchmarkCheck asks /auth/verify about sessions that are in the cache, beside a bare handler with a map.
func BenchmarkCheck(b *testing.B) {
	op := oidctest.Start(b, oidctest.Config{Clients: []oidctest.Client{{ID: "app", Secret: "secret"}}})
	const sessions = 10_000
	cookies := make([]string, sessions)

	known := make(map[string]bool)
	for i := range cookies {
		cookies[i] = fmt.Sprint("curfew=", i)
		known[fmt.Sprint(i)] = true
	}
	b.Run("floor", func(b *testing.B) {
		get(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if c, err := r.Cookie("curfew"); err != nil || !known[c.Value] {
				w.WriteHeader(http.StatusUnauthorized)
			}
		}), cookies)
	})
	backend := memory.New()
	defer backend.Close()
	rp := relyingParty(b, op, backend)
	for i := range cookies {
		bearer, _, err := rp.Sessions().Create(b.Context(),
			session.SignIn{Provider: "main", Issuer: op.Issuer(), ClientID: "app", Subject: fmt.Sprint(i),
				Began: time.Now()})
		if err != nil {
			b.Fatal(err)
		}
		cookies[i] = "curfew=" + bearer.Reveal()
	}
	b.Run("verify", func(b *testing.B) { get(b, rp.Handler(), cookies) })
}

// floor does what no relying party could leave out: it parses the form, verifies the signature with the standard
// library, and decodes the claims.
func floor(b *testing.B, op *oidctest.Provider) http.Handler {
	key := publicKey(b, op)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := strings.Split(r.PostFormValue("logout_token"), ".")
		if len(parts) != 3 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		signature, err := base64.RawURLEncoding.DecodeString(parts[2])
		payload, err2 := base64.RawURLEncoding.DecodeString(parts[1])
		digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
		var claims map[string]any
		if err != nil || err2 != nil || rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) != nil ||
			json.Unmarshal(payload, &claims) != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
}

func publicKey(b *testing.B, op *oidctest.Provider) *rsa.PublicKey {
	resp, err := (&http.Client{Timeout: time.Minute}).Get(op.URL("jwks"))
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var set struct{ Keys []struct{ N string } }
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil || len(set.Keys) != 1 {
		b.Fatal(err, set)
	}
	n, err := base64.RawURLEncoding.DecodeString(set.Keys[0].N)
	if err != nil {
		b.Fatal(err)
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}
}

// BenchmarkLogoutRecord is a logout on SQLite with and without the audit record: in the store, and in a file as well.
func BenchmarkLogoutRecord(b *testing.B) {
	op := oidctest.Start(b, oidctest.Config{Clients: []oidctest.Client{{ID: "app", Secret: "secret"}}})
	for _, row := range []struct {
		name   string
		change func(*curfew.Config)
	}{
		{"none", func(c *curfew.Config) { c.AuditKeep = -1 }},
		{"journal", func(*curfew.Config) {}},
		{"journal+file", func(c *curfew.Config) {
			f, err := os.Create(filepath.Join(b.TempDir(), "audit.jsonl"))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { f.Close() })
			c.AuditWriter = f
		}},
	} {
		b.Run(row.name, func(b *testing.B) {
			backend := openSQLite(b)
			post(b, op, relyingParty(b, op, backend, row.change).Handler(), fill(b, op, backend, 1_000))
		})
	}
}

func relyingParty(
	b *testing.B, op *oidctest.Provider, backend store.Store, change ...func(*curfew.Config),
) *curfew.RP {
	ring, err := keyring.Parse(keyring.NewFile())
	if err != nil {
		b.Fatal(err)
	}
	cfg := curfew.Config{
		URL: "http://127.0.0.1", Store: backend, Keyring: ring, Log: slog.New(slog.DiscardHandler),
		Providers: []oidc.Config{{Issuer: op.Issuer(), ClientID: "app", ClientSecret: "secret"}},
	}
	for _, f := range change {
		f(&cfg)
	}
	rp, err := curfew.New(context.Background(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { rp.Close() })
	if err := rp.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	return rp
}

func openSQLite(b *testing.B) *sqlite.Store {
	backend, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "bench.db"), sqlite.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { backend.Close() })
	return backend
}

// fill returns a function that makes a session with that sid, having made so many others.
func fill(b *testing.B, op *oidctest.Provider, backend store.Store, sessions int) func(sid string) {
	create := func(sid string) {
		now := store.Time(time.Now())
		bearer := session.NewBearer(op.Issuer(), "app", sid)
		err := backend.Create(context.Background(), store.Record{
			Key: bearer.Key(), Issuer: op.Issuer(), ClientID: "app", Subject: "subject of " + sid, SID: sid,
			Created: now, LastSeen: now,
			IdleExpires: now.Add(time.Hour), Expires: now.Add(time.Hour), Payload: make([]byte, 600),
		}, now, now)
		if err != nil {
			b.Error(err)
		}
	}
	work := make(chan int)
	done := make(chan struct{})
	for range 64 {
		go func() {
			for i := range work {
				create(fmt.Sprint("other ", i))
			}
			done <- struct{}{}
		}()
	}
	for i := range sessions {
		work <- i
	}
	close(work)
	for range 64 {
		<-done
	}
	return create
}

var round atomic.Int64 // so that no sid comes twice

// post sends b.N tokens, signed before the clock runs, from as many connections as there are callers.
func post(b *testing.B, op *oidctest.Provider, h http.Handler, create func(sid string)) {
	bodies := make([]string, b.N)
	n := round.Add(1)
	for i := range bodies {
		sid := fmt.Sprintf("%d-%d", n, i)
		if create != nil {
			create(sid)
		}
		bodies[i] = url.Values{"logout_token": {op.SignLogoutToken("app", "", sid)}}.Encode()
	}
	drive(b, h, func(server string, i int) *http.Request {
		r, _ := http.NewRequest("POST", server+"/auth/backchannel-logout", strings.NewReader(bodies[i]))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		return r
	})
}

func get(b *testing.B, h http.Handler, cookies []string) {
	drive(b, h, func(server string, i int) *http.Request {
		r, _ := http.NewRequest("GET", server+"/auth/verify", nil)
		r.Header.Set("Cookie", cookies[i%len(cookies)])
		return r
	})
}

// drive sends b.N requests and wants 200 for each.
func drive(b *testing.B, h http.Handler, request func(server string, i int) *http.Request) {
	server := httptest.NewServer(h)
	defer server.Close()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: callers}}
	defer client.CloseIdleConnections()
	var next atomic.Int64
	done := make(chan struct{})
	b.ResetTimer()
	for range callers {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := next.Add(1) - 1; int(i) < b.N; i = next.Add(1) - 1 {
				resp, err := client.Do(request(server.URL, int(i)))
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 {
					b.Errorf("status %d", resp.StatusCode)
					return
				}
			}
		}()
	}
	for range callers {
		<-done
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}
