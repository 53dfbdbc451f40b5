package servers

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// KeycloakVersion is the version that .ci/deps installs.
const KeycloakVersion = "26.7.3"

const keycloakAdmin = "admin" // name and password of the administrator

// KeycloakServer is a Keycloak server. URL is its base address, and <URL>/realms/NAME the issuer of a realm.
type KeycloakServer struct {
	*Server
	// HTTPS is its base address with TLS, where it asks for a certificate, and Authority the certificates that signed
	// its own, as PEM; both are empty for a server that was started by somebody else.
	HTTPS     string
	Authority string
	signer    *authority
	client    *http.Client
	mu        sync.Mutex // guards the fields below
	token     string     // of the administrator
	until     time.Time  // when the token is to be renewed
}

// Keycloak starts a Keycloak server that keeps its data on disk, over http on loopback, with the administrator "admin".
// It takes 20 s on an idle machine, so tests should share one and use a realm each. CURFEW_TEST_KEYCLOAK names the base
// address of a server to be used instead, whose administrator is "admin" with the password "admin".
func Keycloak(t T) *KeycloakServer {
	t.Helper()
	k := &KeycloakServer{client: &http.Client{Timeout: patience,
		Transport: &http.Transport{DisableKeepAlives: true}}}
	if named := os.Getenv("CURFEW_TEST_KEYCLOAK"); named != "" {
		k.Server = &Server{URL: strings.TrimSuffix(named, "/"), t: t,
			notOwned: "the server that CURFEW_TEST_KEYCLOAK names must not be stopped"}
		return k
	}
	java, installed := findKeycloak(t)
	k.Server = newServer(t, "", "Listening on:", syscall.SIGTERM)
	home := keycloakHome(t, installed, filepath.Join(k.dir, "home"))
	k.signer = newAuthority(t)
	k.Authority = k.signer.pem
	cert, key := k.signer.issue(t, "keycloak.test")
	for name, content := range map[string]string{"ca.pem": k.Authority, "cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(k.dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secure := strconv.Itoa(Port(t))
	k.launch(func(port int) []string {
		return []string{java, "-Xms64m", "-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
			"-XX:+ExitOnOutOfMemoryError", "-Duser.language=en", "-Duser.country=US", "-Dfile.encoding=UTF-8",
			"--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
			"--add-opens=java.base/java.security=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED",
			"-Djava.util.concurrent.ForkJoinPool.common.threadFactory=" +
				"io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
			"-Dkc.home.dir=" + home, "-Djboss.server.config.dir=" + filepath.Join(home, "conf"),
			"-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
			"-Dkc.bootstrap-admin-username=" + keycloakAdmin, "-Dkc.bootstrap-admin-password=" + keycloakAdmin,
			"-cp", filepath.Join(home, "lib", "quarkus-run.jar"), "io.quarkus.bootstrap.runner.QuarkusEntryPoint",
			"start", "--optimized", "--cache=local", "--http-enabled=true", "--hostname-strict=false",
			"--http-host=127.0.0.1", "--http-port=" + strconv.Itoa(port), "--https-port=" + secure,
			"--https-certificate-file=" + filepath.Join(k.dir, "cert.pem"),
			"--https-certificate-key-file=" + filepath.Join(k.dir, "key.pem"),
			"--truststore-paths=" + filepath.Join(k.dir, "ca.pem"),
			"--db-url=jdbc:h2:file:" + filepath.Join(k.dir, "keycloak") + ";NON_KEYWORDS=VALUE"}
	})
	k.URL = "http://" + k.Addr()
	k.HTTPS = "https://127.0.0.1:" + secure
	return k
}

// keycloakHome makes a home in which all that is installed is linked, and what Keycloak writes there is its own: in
// the folder data, for one, the certificates that it trusts. Two servers of one home would write them over each other.
func keycloakHome(t T, installed, home string) string {
	t.Helper()
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"bin", "conf", "lib", "providers", "themes", "version.txt"} {
		if err := os.Symlink(filepath.Join(installed, name), filepath.Join(home, name)); err != nil {
			t.Fatal(err)
		}
	}
	return home
}

// Certificate returns a certificate that the server trusts, and its key, both as PEM.
func (k *KeycloakServer) Certificate(t T, name string) (cert, key string) {
	t.Helper()
	k.Own()
	return k.signer.issue(t, name)
}

// findKeycloak returns the program java, and the folder in which .ci/deps has unpacked and built Keycloak.
func findKeycloak(t T) (java, home string) {
	t.Helper()
	java, err := exec.LookPath("java")
	if err != nil {
		need(t, "there is no Java, on which Keycloak runs: apt-get install default-jdk-headless")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	home = filepath.Join(cache, "curfew", "keycloak-"+KeycloakVersion+"-mtls")
	if _, err := os.Stat(filepath.Join(home, "built")); err != nil {
		need(t, "there is no Keycloak "+KeycloakVersion+" in "+home+": run .ci/deps, or name a server in "+
			"CURFEW_TEST_KEYCLOAK")
	}
	return java, home
}

// Admin calls the admin API: path begins after /admin/realms, like "/main/users". Body is sent as JSON unless it is
// nil, and the answer is decoded into the value that into points to, unless that is nil. It returns the last part of
// the Location, which is the ID of what was made. Any other status than 2xx fails the test.
func (k *KeycloakServer) Admin(t T, method, path string, body, into any) (id string) {
	t.Helper()
	status, answer, header := k.Call(t, k.administrator(t), method, k.URL+"/admin/realms"+path, body)
	if status/100 != 2 {
		t.Fatal(fmt.Sprintf("Keycloak: %s %s answered %d: %.500s", method, path, status, answer))
	}
	if into != nil {
		if err := json.Unmarshal(answer, into); err != nil {
			t.Fatal(fmt.Sprintf("Keycloak: %s %s: %v: %.500s", method, path, err, answer))
		}
	}
	location := header.Get("Location")
	return location[strings.LastIndex(location, "/")+1:]
}

// Call sends a request with an access token, and body as JSON unless it is nil.
func (k *KeycloakServer) Call(t T, token, method, address string, body any) (int, []byte, http.Header) {
	t.Helper()
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequest(method, address, content)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	return k.do(t, r)
}

// Password gets an access token by the password grant, from a client that is allowed to use it.
func (k *KeycloakServer) Password(t T, realm, client, user, password string) string {
	t.Helper()
	form := url.Values{"grant_type": {"password"}, "client_id": {client}, "username": {user}, "password": {password},
		"scope": {"openid"}}
	r, err := http.NewRequest(http.MethodPost, k.URL+"/realms/"+realm+"/protocol/openid-connect/token",
		strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, answer, _ := k.do(t, r)
	var got struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(answer, &got); err != nil || status != http.StatusOK || got.Token == "" {
		t.Fatal(fmt.Sprintf("Keycloak: no access token for %s: %d %.500s", user, status, answer))
	}
	return got.Token
}

func (k *KeycloakServer) do(t T, r *http.Request) (int, []byte, http.Header) {
	t.Helper()
	resp, err := k.client.Do(r)
	if err != nil {
		t.Fatal(fmt.Sprintf("Keycloak: %v", err))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(fmt.Sprintf("Keycloak: %v", err))
	}
	return resp.StatusCode, answer, resp.Header
}

// administrator returns an access token of the administrator, which Keycloak lets live for a minute.
func (k *KeycloakServer) administrator(t T) string {
	t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	if now := time.Now(); now.After(k.until) {
		k.token = k.Password(t, "master", "admin-cli", keycloakAdmin, keycloakAdmin)
		k.until = now.Add(20 * time.Second)
	}
	return k.token
}
