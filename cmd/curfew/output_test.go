package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A script that keeps what a command printed takes status 0 for all of it.
func TestACommandWhoseOutputIsLostFails(t *testing.T) {
	t.Parallel()
	private := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := `{"level":"info"}`
		if r.URL.Path == "/api/person" {
			answer = `{"in":true}`
		}
		w.Write([]byte(answer))
	}))
	defer private.Close()
	config := writeFile(t, "url: http://127.0.0.1:4180\nstore: 'memory:'\n"+
		"providers:\n  - {issuer: 'http://127.0.0.1:1', client_id: app}\n")
	const lost = "curfew: the output was lost: no space left on device\n"
	for _, row := range []struct {
		args   string
		status int
		stderr string
	}{
		{"version", 1, lost},
		{"--help", 1, lost},
		{"session", 1, lost},
		{"log-level --admin " + private.URL, 1, lost},
		{"why alice --admin " + private.URL, 1, lost}, // which is 3 otherwise
		{"check --config " + config, 1, lost},
		{"nonsense", 2, "curfew: \"nonsense\" is not a command of curfew\nSee curfew --help.\n"},
	} {
		var stderr bytes.Buffer
		status := runIn(t.Context(), process{stdin: strings.NewReader(""), stdout: new(fullDisk), stderr: &stderr},
			strings.Fields(row.args))
		if status != row.status || stderr.String() != row.stderr {
			t.Errorf("curfew %s: exit status %d, want %d: got %q, want %q", row.args, status, row.status, &stderr, row.stderr)
		}
	}
}
