package redis_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"example.com/curfew/internal/rig"
	"example.com/curfew/internal/servers"
	"example.com/curfew/store"
	"example.com/curfew/store/redis"
	"example.com/curfew/store/storetest"
)

func TestAddressesThatAreWrongSayWhatIsWrongAndNoPassword(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"":                                      "begins with redis://",
		"http://h":                              "begins with redis://",
		"redis:h":                               "begins with redis://",
		"redis+sentry://h":                      "+cluster, +sentinel or neither",
		"redis://":                              "host:port",
		"redis://u:SECRET@":                     "host:port",
		"redis://u:SECRET@h:port":               "host:port",
		"redis://u:SEC%RET@h":                   "user and password are not encoded",
		"redis://u:SECRET@h:99999":              "host:port",
		"redis://SECRET@h,h2":                   "several hosts",
		"redis://:SECRET@h/x":                   "database's number",
		"redis://:SECRET@h/-1":                  "database's number",
		"redis+cluster://h/1":                   "a Cluster has none",
		"redis+sentinel://h":                    "name of the master",
		"redis+sentinel://h/main/x":             "database's number",
		"redis://h?cacert=x":                    "only with rediss",
		"redis://h?sentinel_password=SECRET":    "only with sentinels",
		"redis://h?password=SECRET":             "after the question mark",
		"rediss://h?cert=x":                     "go together",
		"rediss://h?cacert=a&cacert=b":          "given once",
		"rediss://h?cacert=/nowhere/at/all.pem": "no such file",
		"redis://h?wait_replicas=many":          "is a number",
		"redis://h?%zz=SECRET":                  "not encoded",
	} {
		_, err := redis.Open(t.Context(), address, redis.Options{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SEC") {
			t.Errorf("Open %s: %v, want an error with %q and no password", address, err, want)
		}
	}
	for _, address := range []string{"redis://u:SECRET@[::1]:6380/3", "rediss://h", "redis+cluster://:p@a:1,b,c:3",
		"redis+sentinel://a,b:2/main/4?prefix=x:&wait_replicas=2"} {
		if err := redis.CheckAddress(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for _, o := range []redis.Options{{Prefix: "{x}"}, {Prefix: "x}"}} {
		if _, err := redis.Open(t.Context(), "redis://127.0.0.1:1", o); err == nil ||
			strings.Contains(err.Error(), "refused") {
			t.Errorf("Open with %+v: %v", o, err)
		}
	}
}

// A machine that has too much to do is no reason to give up: who starts Curfew would only start it again.
func TestAServerThatAnswersLateAtFirstIsWaitedFor(t *testing.T) {
	t.Parallel()
	server := servers.OwnRedis(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	rig.Must(t, err)
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	silent := make(chan struct{}, 100)
	all.Go(func() {
		for n := 0; ; n++ {
			near, err := l.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { near.Close() })
			if n == 0 {
				silent <- struct{}{}
				continue
			}
			far, err := net.DialTimeout("tcp", server.Addr(), time.Minute)
			if err != nil {
				near.Close()
				continue
			}
			context.AfterFunc(ctx, func() { far.Close() })
			all.Go(func() { io.Copy(far, near); far.Close() })
			all.Go(func() { io.Copy(near, far); near.Close() })
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); all.Wait() })
	var log bytes.Buffer
	backend, err := redis.Open(t.Context(), "redis://"+l.Addr().String(),
		redis.Options{DialTimeout: 100 * time.Millisecond, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	backend.Close()
	if want := "connecting to Redis took too long, trying again"; !strings.Contains(log.String(), want) {
		t.Errorf("the log does not say %q: %s", want, &log)
	}
	rig.Soon(t, "a connection without an answer", silent)
}

func TestAServerThatIsNotThereIsAnError(t *testing.T) {
	t.Parallel()
	port := servers.Port(t)
	for _, shape := range []string{"redis://u:SECRET@127.0.0.1:%d", "redis+cluster://u:SECRET@127.0.0.1:%d",
		"redis+sentinel://u:SECRET@127.0.0.1:%d/main"} {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err := redis.Open(ctx, fmt.Sprintf(shape, port), redis.Options{})
		cancel()
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("Open: %v", err)
		}
	}
}

func TestAClusterIsAddressedAsWhatItIs(t *testing.T) {
	t.Parallel()
	one, many := single.Get(t).URL, cluster.Get(t).URL
	host := strings.Split(strings.TrimPrefix(many, "redis+cluster://"), ",")[0]
	for address, want := range map[string]string{
		"redis://" + host: "address it as redis+cluster://",
		"redis+cluster://" + strings.TrimPrefix(one, "redis://"): "",
	} {
		if _, err := redis.Open(t.Context(), address, redis.Options{}); err == nil ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("Open %s: %v, want an error with %q", address, err, want)
		}
	}
}

func TestAServerThatMayLoseThingsIsWarnedOf(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name   string
		args   []string
		events []string
		says   string
	}{
		{"a good one", []string{"--appendonly", "yes"}, nil, ""},
		{"one that evicts", []string{"--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"},
			[]string{"redis_can_evict"}, "set maxmemory-policy noeviction"},
		{"one that keeps nothing", nil, []string{"redis_not_durable"}, "keeps nothing on disk"},
		{"one that keeps snapshots", []string{"--save", "3600 1"}, []string{"redis_not_durable"}, "snapshots alone"},
		{"one that does it all", []string{"--maxmemory-policy", "volatile-ttl"},
			[]string{"redis_can_evict", "redis_not_durable"}, ""},
		{"one that forbids to ask", []string{"--rename-command", "CONFIG", ""}, []string{"redis_not_durable"},
			"keeps no log"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := startServer(t, row.args...)
			var out bytes.Buffer
			open(t, s.URL, redis.Options{Log: slog.New(slog.NewTextHandler(&out, nil))}).Close()
			log := out.String()
			for _, event := range []string{"redis_can_evict", "redis_not_durable"} {
				want := strings.Contains(strings.Join(row.events, " "), event)
				if got := strings.Contains(log, "event="+event); got != want {
					t.Errorf("warned of %s: %v, want %v:\n%s", event, got, want, log)
				}
			}
			if !strings.Contains(log, row.says) {
				t.Errorf("does not say %q:\n%s", row.says, log)
			}
		})
	}
}

func TestDatabasesAndPrefixesOfOneServerAreApart(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	now := store.Time(time.Now())
	var stores []*redis.Store
	var feeds []*listening
	for _, o := range []struct{ db, prefix string }{{"", ""}, {"/1", ""}, {"/1", "other:"},
		{"/1?prefix=third:", "not:"}} {
		backend := open(t, s.URL+o.db, redis.Options{Prefix: o.prefix, DialTimeout: time.Minute})
		stores, feeds = append(stores, backend), append(feeds, watch(t, backend))
	}
	r := recordOf("alice", "s1", now)
	for _, backend := range stores {
		mustCreate(t, backend, r, now)
	}
	if _, err := stores[1].End(t.Context(), endingOf(store.Selector{SID: "s1"}), now); err != nil {
		t.Fatal(err)
	}
	for i, backend := range stores {
		_, err := backend.Find(t.Context(), r.Key, now)
		if alive := err == nil; alive == (i == 1) {
			t.Errorf("store %d: Find: %v", i, err)
		}
		if err := feeds[i].Sync(t.Context()); err != nil || feeds[i].times(r.Key) == 1 != (i == 1) {
			t.Errorf("store %d: Sync: %v, heard %d times", i, err, feeds[i].times(r.Key))
		}
	}
}

func TestTLSWithCertificatesOnBothSidesAndAUserWithFewRights(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, sign := newCA(t)
	writePEM(t, filepath.Join(dir, "ca.pem"), "CERTIFICATE", ca.Raw)
	for _, name := range []string{"server", "client"} {
		cert, key := sign(name)
		writePEM(t, filepath.Join(dir, name+".pem"), "CERTIFICATE", cert)
		writePEM(t, filepath.Join(dir, name+".key"), "EC PRIVATE KEY", key)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	users := "user default off\nuser curfew on >pass/word@1 ~curfew:* &curfew:* " + rights + "\n"
	if err := os.WriteFile(in("users.acl"), []byte(users), 0o600); err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprint(servers.Port(t))
	startServer(t, "--port", "0", "--tls-port", port, "--tls-cert-file", in("server.pem"), "--tls-key-file",
		in("server.key"),
		"--tls-ca-cert-file", in("ca.pem"), "--tls-auth-clients", "yes",
		// The rights that docs/stores-redis.md says are enough.
		"--aclfile", in("users.acl"))
	host := "127.0.0.1:" + port
	trust := "?cacert=" + in("ca.pem")
	ours := trust + "&cert=" + in("client.pem") + "&key=" + in("client.key")
	for name, address := range map[string]string{
		"without TLS": "redis://curfew:pass%2fword%401@" + host,
		"a server that is not known": "rediss://curfew:pass%2fword%401@" + host + "?cert=" + in("client.pem") +
			"&key=" + in("client.key"),
		"no certificate of ours": "rediss://curfew:pass%2fword%401@" + host + trust,
		"a wrong password":       "rediss://curfew:wrong@" + host + ours,
		"nobody":                 "rediss://" + host + ours,
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		if _, err := redis.Open(ctx, address, redis.Options{}); err == nil {
			t.Errorf("%s: Open succeeded", name)
		}
		cancel()
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	pair, err := tls.LoadX509KeyPair(in("client.pem"), in("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	now := store.Time(time.Now())
	for i, o := range []redis.Options{{}, {TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}} {
		address := "rediss://curfew:pass%2fword%401@" + host
		if o.TLS == nil {
			address += ours
		}
		var out bytes.Buffer
		o.Log, o.DialTimeout = slog.New(slog.NewTextHandler(&out, nil)), time.Minute
		backend := open(t, address, o)
		l := watch(t, backend)
		l.hears(t, backend, now)
		// Every method, with no more rights than those.
		r := recordOf(fmt.Sprint("alice", i), fmt.Sprint("s", i), now)
		mustCreate(t, backend, r, now)
		r.IdleExpires = r.IdleExpires.Add(2 * time.Hour)
		if err := backend.Update(t.Context(), r, now); err != nil {
			t.Errorf("Update: %v", err)
		}
		for _, q := range []store.Query{{}, {Issuer: rig.Issuer, ClientID: rig.ClientID, SID: r.SID}} {
			if page, err := backend.List(t.Context(), q, now); err != nil || len(page.Records) != 1 {
				t.Errorf("List: %d, %v", len(page.Records), err)
			}
		}
		endAndUseOutbox(t, backend, r.SID, now)
		if n, err := backend.Prune(t.Context(), now.Add(24*time.Hour)); err != nil || n == 0 {
			t.Errorf("Prune: %d, %v", n, err)
		}
	}
}

// endAndUseOutbox ends the session with a sid, and uses every method of the outbox and of the shared values.
func endAndUseOutbox(t *testing.T, backend *redis.Store, sid string, now time.Time) {
	t.Helper()
	ok := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	e := tokenOf(store.Selector{SID: sid}, "j "+sid, now)
	e.Notices = []store.NoticeRequest{{Kind: store.NoticeLogout, Target: "app", Deadline: now.Add(time.Hour)}}
	if ended, err := backend.End(t.Context(), e, now); err != nil || len(ended) != 1 {
		t.Errorf("End: %d ended, %v", len(ended), err)
	}
	notices, err := storetest.ClaimAll(t.Context(), backend, now, time.Minute, 10)
	if err != nil || len(notices) != 1 {
		t.Fatalf("Claim: %d, %v", len(notices), err)
	}
	n := notices[0]
	ok("Complete", backend.Complete(t.Context(), n, store.Outcome{GiveUp: true}))
	ok("Retry", backend.Retry(t.Context(), n.ID, now, now.Add(time.Hour)))
	notices, err = backend.Claim(t.Context(), store.NoticeLogout, "app", now, time.Minute, 10)
	if err != nil || len(notices) != 1 {
		t.Fatalf("Claim: %d, %v", len(notices), err)
	}
	ok("Complete", backend.Complete(t.Context(), notices[0], store.Outcome{RetryAt: now}))
	ok("Enqueue", backend.Enqueue(t.Context(), notices))
	page, err := backend.Notices(t.Context(), store.NoticeQuery{})
	if err != nil || len(page.Notices) != 2 {
		t.Errorf("Notices: %d, %v", len(page.Notices), err)
	}
	_, err = backend.Notices(t.Context(), store.NoticeQuery{ID: n.ID})
	ok("Notices with an ID", err)
	for _, n := range page.Notices {
		ok("Drop", backend.Drop(t.Context(), n.ID))
	}
	_, err = backend.Stats(t.Context())
	ok("Stats", err)
	_, err = backend.Overdue(t.Context(), store.Key{}, 10, now.Add(24*time.Hour))
	ok("Overdue", err)
	name := rand.Text()
	ok("Save", backend.Save(t.Context(), name, []byte("kept"), 0))
	if value, revision, err := backend.Load(t.Context(), name); err != nil || string(value) != "kept" || revision != 1 {
		t.Errorf("Load: %q, %d, %v", value, revision, err)
	}
	_, err = backend.Clock().Now(t.Context())
	ok("Clock", err)
}

// rights are the commands that a user of the server needs.
const rights = "+@connection -select +info +get +mget +set +exists +unlink +pttl +pexpireat +sadd +smembers +hset " +
	"+hget +hmget +hdel +hgetall +hlen +hincrby " +
	"+zadd +zrem +zcard +zscore +zrange +zrangebylex +zrangebyscore +evalsha +eval +time +publish +subscribe " +
	"+unsubscribe +wait"

// newCA returns a certificate authority, and what signs with it.
func newCA(t *testing.T) (*x509.Certificate, func(name string) (cert, key []byte)) {
	t.Helper()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	make := func(template, parent *x509.Certificate, pub *ecdsa.PublicKey) []byte {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		raw, err := x509.CreateCertificate(rand.Reader, template, parent, pub, caKey)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	ca, err := x509.ParseCertificate(make(template, template, &caKey.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return ca, func(name string) (cert, key []byte) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if key, err = x509.MarshalECPrivateKey(k); err != nil {
			t.Fatal(err)
		}
		return make(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
			IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}},
			ca, &k.PublicKey), key
	}
}

func writePEM(t *testing.T, path, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAUserWithFewRightsOnACluster(t *testing.T) {
	t.Parallel()
	url := cluster.Get(t).URL
	p := prefix()
	for _, s := range cluster.Get(t).Nodes {
		c := adminOf(t, s)
		words := append([]string{"ACL", "SETUSER", "curfew", "on", ">password", "~" + p + "*", "&" + p + "*"},
			strings.Fields(rights+rightsOnACluster)...)
		do(t, c, words...)
	}
	o := patient()
	o.Prefix, o.WaitReplicas = p, 1
	backend := open(t, strings.Replace(url, "://", "://curfew:password@", 1), o)
	l := watch(t, backend)
	now := store.Time(time.Now())
	l.hears(t, backend, now)
	mustCreate(t, backend, recordOf("alice", "s1", now), now)
	endAndUseOutbox(t, backend, "s1", now)
}

const rightsOnACluster = " +spublish +ssubscribe +sunsubscribe +cluster|slots +cluster|shards +asking"
