package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"example.com/curfew/oidc/oidctest"
)

// writeCertificate writes a certificate for 127.0.0.1 and its key, and returns it.
func writeCertificate(t *testing.T, certFile, keyFile string, serial int64) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter:    time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der},
		keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestAChangedCertificateIsReadAnewAndABrokenOneIsNot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, certFile, keyFile, 1)
	logs := newBuffer()
	c, err := newCertificate(certFile, keyFile, slog.New(slog.NewTextHandler(logs, nil)))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.now = func() time.Time { return now }
	serial := func() int64 {
		t.Helper()
		now = now.Add(certificateCheckInterval)
		pair, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return pair.Leaf.SerialNumber.Int64()
	}
	if got := serial(); got != 1 {
		t.Errorf("serial %d", got)
	}
	writeCertificate(t, certFile, filepath.Join(dir, "other.pem"), 2) // the key has not been written yet
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(certFile, later, later); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 1 || !strings.Contains(logs.String(), "event=certificate_refused") {
		t.Errorf("with a key that does not fit: serial %d, logged %s", got, logs)
	}
	if err := os.Rename(filepath.Join(dir, "other.pem"), keyFile); err != nil {
		t.Fatal(err)
	}
	if got := serial(); got != 2 || !strings.Contains(logs.String(), "event=certificate_reloaded") {
		t.Errorf("with the key: serial %d, logged %s", got, logs)
	}
}

func TestServeSpeaksTLSAndRoutesAndAnswersEnvoy(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter,
		r *http.Request) {
		io.WriteString(w, "app "+r.URL.Path)
	}))
	t.Cleanup(app.Close)
	const dead = "http://127.0.0.1:1"
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	cert := writeCertificate(t, certFile, keyFile, 1)
	config := writeFile(t, "routes:\n  - {path: /app/*, upstream: '"+app.URL+"'}\n  - {path: /dead/*, upstream: "+
		"'"+dead+"'}\n"+
		"policy:\n  - {path: /app/public/*, public: true}\ntls_cert_file: "+certFile+"\ntls_key_file: "+keyFile+"\n")
	g := memoryGateway(t, "http://127.0.0.1:9", "--config", config, "--grpc-listen", "127.0.0.1:0")
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true, DisableKeepAlives: true}}
	for path, want := range map[string]int{"/app/public/x": 200, "/app/x": 401, "/app/public/../x": 400,
		"/dead/x": 401} {
		r, _ := http.NewRequest(http.MethodGet, "https://"+g.public, nil)
		r.URL.Path = path
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want || resp.ProtoMajor != 2 {
			t.Errorf("%s: %s by %s, want %d by HTTP/2", path, resp.Status, resp.Proto, want)
		}
	}
	if status, body := g.get(t, g.private+"/readyz?upstreams=true"); status != 503 ||
		!strings.Contains(body, "upstream "+dead) || strings.Contains(body, app.URL) {
		t.Errorf("/readyz?upstreams=true: %d %s", status, body)
	}
	if _, body := g.get(t, g.private+"/readyz"); strings.Contains(body, "upstream") {
		t.Errorf("/readyz: %s", body)
	}
	envoy := ""
	for line := range strings.Lines(g.start) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "ext_authz" {
			envoy = fields[1]
		}
	}
	conn, err := grpc.NewClient(envoy, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err := auth.NewAuthorizationClient(conn).Check(t.Context(),
		&auth.CheckRequest{Attributes: &auth.AttributeContext{
			Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{Method: "GET",
				Path: "/app/public/x"}},
		}})
	if err != nil || answer.GetOkResponse() == nil {
		t.Errorf("Envoy was answered %v %v", answer, err)
	}
	if status := g.stop(); status != 0 {
		t.Errorf("exit status %d\n%s", status, g.logs)
	}
}

func TestSignInPromptsAsConfigured(t *testing.T) {
	t.Parallel()
	op := oidctest.Start(t, oidctest.Config{Clients: []oidctest.Client{{ID: "app"}}})
	op.Mangle(func(m *oidctest.Mangle) {
		m.Discovery = func(d map[string]any) {
			d["prompt_values_supported"] = []any{"none", "login", "consent", "select_account"}
		}
	})
	config := writeFile(t, "url: http://127.0.0.1:4180\nstore: 'memory:'\nproviders: [{issuer: '"+op.Issuer()+"', "+
		"client_id: app, prompt: login consent}]\n")
	g := startGateway(t, "--config", config)
	for path, want := range map[string]string{"/auth/login": "login consent",
		"/auth/login?prompt=select_account": "select_account", "/auth/login?silent=true": "none"} {
		client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		resp, err := client.Get("http://" + g.public + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		to, err := resp.Location()
		if err != nil {
			t.Fatalf("%s: %s, %v", path, resp.Status, err)
		}
		if got := to.Query().Get("prompt"); got != want {
			t.Errorf("%s asks the provider to prompt %q, want %q", path, got, want)
		}
	}
}
