package e2e_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestBehindAProxyThePolicyHolds(t *testing.T) {
	each(t, func(t *testing.T, f *front) {
		nobody, bob := newBrowser("nobody's browser"), newBrowser("bob's browser")
		bob.signIn(t, f.gateway, "bob")

		p := nobody.get(t, f.url+"/public/a?b", "X-Auth-Subject", "mallory", "X-Forwarded-User", "mallory")
		var got seen
		if err := json.Unmarshal([]byte(p.body), &got); err != nil || p.status != http.StatusOK ||
			got.Path != "/public/a?b" || strings.Contains(p.body, "mallory") {
			t.Errorf("what is public should be open, to nobody in particular: %v", p)
		}
		if p := nobody.request(t, http.MethodPost, f.url+"/public/a", nil); p.status != http.StatusOK {
			t.Errorf("what is public should be open to a form: %v", p)
		}
		if p := bob.get(t, f.url+"/admin/a"); p.status != http.StatusForbidden || strings.Contains(p.body, "/admin/a") {
			t.Errorf("bob, who is no admin, should be told that he may not: %v", p)
		}
		if p := bob.request(t, http.MethodDelete, f.url+"/forms/a", nil); p.status != http.StatusForbidden {
			t.Errorf("bob, who is no admin, deletes a form: %v", p)
		}
		if p := bob.get(t, f.url+"/forms/a", "X-HTTP-Method-Override", "DELETE"); p.status != http.StatusBadRequest {
			t.Errorf("bob deletes a form in disguise, and should be answered 400: %v", p)
		}

		// CVE-2026-40575: what a client says of the path is not the path.
		for _, name := range []string{"X-Forwarded-Uri", "X-Original-Uri", "X-Original-Url", "X-Rewrite-Url",
			"X_Forwarded_Uri"} {
			if p := nobody.get(t, f.url+"/private", name, "/public/a"); p.status == http.StatusOK {
				t.Errorf("%s opens what is private: %v", name, p)
			}
			if p := bob.get(t, f.url+"/admin/a", name, "/public/a"); p.status == http.StatusOK {
				t.Errorf("%s opens what is for admins: %v", name, p)
			}
		}
		// CVE-2025-66490 and its kin: a path that two servers read in two ways is read in none.
		for _, path := range []string{"/public/../private", "/public/%2e%2e/private", "/public/..%2fprivate",
			"/public%2f..%2fprivate",
			"/public/..;/private", "/public/;/../private", "/public/%5c../private", "//public/../private", "/./private",
			"/public/.%2e/private", "/public/%252e%252e/private"} {
			status, told := raw(t, f.url, path)
			if told != nil && !strings.HasPrefix(told.Path, "/public/") || told != nil &&
				strings.Contains(told.Path, "..") {
				t.Errorf("%s is answered %s by the app, as %s", path, status, told.Path)
			}
		}
	})
}

// raw sends a path as it is spelled. It returns the status, and what the app was told if it answered.
func raw(t *testing.T, site, path string) (string, *seen) {
	t.Helper()
	host := strings.TrimPrefix(site, "http://")
	conn, err := net.DialTimeout("tcp", host, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/html\r\nConnection: close\r\n\r\n", path, host)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	defer resp.Body.Close()
	var told seen
	if json.NewDecoder(resp.Body).Decode(&told) != nil || told.Path == "" {
		return resp.Status, nil
	}
	return resp.Status, &told
}
