package bench

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"
	_ "modernc.org/sqlite"
)

// The floor and the app behind the proxies are other processes of this program, chosen by this variable.
const childVar = "CURFEW_BENCH_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childVar) {
	case "floor":
		panic(serveFloor())
	case "app":
		panic(http.ListenAndServe(os.Getenv("ADDR"), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.Write([]byte("the app\n"))
		})))
	default:
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
		go func() {
			<-stop
			started.kill()
			os.Exit(1)
		}()
		os.Exit(m.Run())
	}
}

// serveFloor serves what the lower bounds are measured with. Each answer has the headers that Curfew's has.
func serveFloor() error {
	ctx := context.Background()
	n, err := base64.RawURLEncoding.DecodeString(os.Getenv("MODULUS"))
	if err != nil {
		return err
	}
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}
	mux := http.NewServeMux()
	logout := func(path string, store func(jti string) error) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			answerHeaders(w)
			claims, ok := verified(key, r.PostFormValue("logout_token"))
			if !ok {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			if err := store(claims.JTI); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
	}
	logout("/logout", func(string) error { return nil })

	redis, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{os.Getenv("REDIS")}, DisableCache: true})
	if err != nil {
		return err
	}
	logout("/logout-Redis", func(jti string) error {
		return redis.Do(ctx, redis.B().Set().Key("floor:"+jti).Value("1").ExSeconds(600).Build()).Error()
	})

	postgres, err := pgxpool.New(ctx, os.Getenv("POSTGRES"))
	if err != nil {
		return err
	}
	if _, err := postgres.Exec(ctx, `CREATE TABLE IF NOT EXISTS floor (jti text PRIMARY KEY)`); err != nil {
		return err
	}
	logout("/logout-PostgreSQL", func(jti string) error {
		_, err := postgres.Exec(ctx, `INSERT INTO floor VALUES ($1)`, jti)
		return err
	})

	lite, err := sql.Open("sqlite", "file:"+os.Getenv("SQLITE")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		return err
	}
	lite.SetMaxOpenConns(1)
	if _, err := lite.Exec(`CREATE TABLE floor (jti TEXT PRIMARY KEY) WITHOUT ROWID`); err != nil {
		return err
	}
	insert, err := lite.Prepare(`INSERT INTO floor VALUES (?)`)
	if err != nil {
		return err
	}
	var one sync.Mutex
	logout("/logout-SQLite", func(jti string) error {
		one.Lock()
		defer one.Unlock()
		_, err := insert.Exec(jti)
		return err
	})

	known := make(map[string]string)
	for i := range 10_000 {
		known[fmt.Sprint("bearer-", i)] = fmt.Sprint("person-", i)
	}
	mux.HandleFunc("GET /verify", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		c, err := r.Cookie("floor")
		if err != nil || known[c.Value] == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		h := w.Header()
		h.Set("X-Auth-Subject", known[c.Value])
		h.Set("X-Auth-Name", "Somebody")
		h.Set("X-Auth-Email", known[c.Value]+"@example.com")
		h.Set("X-Auth-Provider", "main")
	})
	app, err := url.Parse(os.Getenv("APP"))
	if err != nil {
		return err
	}
	mux.Handle("/", &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(app) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 256}})
	return http.ListenAndServe(os.Getenv("ADDR"), mux)
}

func answerHeaders(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Connection", "close") // see logout.Handler.Backchannel
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy",
		"default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Request-Id", rand.Text())
}

type logoutClaims struct {
	Iss, Aud, Sub, SID, JTI string
	Iat, Exp                int64
	Events                  map[string]any
}

// verified does what no relying party could leave out: it verifies the signature with the standard library, and
// decodes the claims.
func verified(key *rsa.PublicKey, token string) (claims logoutClaims, ok bool) {
	signed, last, _ := cutLast(token)
	_, middle, dotted := strings.Cut(signed, ".")
	signature, err := base64.RawURLEncoding.DecodeString(last)
	payload, err2 := base64.RawURLEncoding.DecodeString(middle)
	if !dotted || err != nil || err2 != nil {
		return claims, false
	}
	digest := sha256.Sum256([]byte(signed))
	if rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], signature) != nil {
		return claims, false
	}
	return claims, json.Unmarshal(payload, &claims) == nil
}

func cutLast(s string) (before, after string, ok bool) {
	at := strings.LastIndexByte(s, '.')
	if at < 0 {
		return s, "", false
	}
	return s[:at], s[at+1:], true
}

// startFloor starts the floor on the server's core.
func (r *run) startFloor() *target {
	addr := freeAddr(r.b)
	pid, log := spawn(r.b, serverCore, addr, r.dir, []string{childVar + "=floor", "ADDR=" + addr, "APP=http://" + r.app,
		"MODULUS=" + base64.RawURLEncoding.EncodeToString(r.op.keys.n.Bytes()), "REDIS=" + r.floorRedis.addr,
		"POSTGRES=" + r.postgres.URL, "SQLITE=" + r.dir + "/floor.db"}, r.self)
	return &target{name: "floor", addr: addr, log: log, pid: []int{pid},
		engine: []int{r.floorRedis.pid, r.postgres.PID}}
}
