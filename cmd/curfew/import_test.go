package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// imports runs the command in this process.
func imports(environ []string, args ...string) (status int, out, errs string) {
	var stdout, stderr strings.Builder
	p := process{strings.NewReader(""), &stdout, &stderr, environ}
	status = runIn(context.Background(), p, append([]string{"import", "oauth2-proxy"}, args...))
	return status, stdout.String(), stderr.String()
}

func TestImportWritesWhatCurfewLoads(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "curfew.yaml")
	args := []string{"--write", out, "--provider=oidc", "--oidc-issuer-url=https://id.example.com", "--client-id=app",
		"--email-domain=*", "--redirect-url=https://app.example.com/oauth2/callback"}
	environ := []string{"OAUTH2_PROXY_CLIENT_SECRET=geheim"}
	status, told, errs := imports(environ, args...)
	if status != 0 || !strings.Contains(told, "Written: "+out) || strings.Contains(told+errs, "geheim") {
		t.Fatalf("%d\n%s\n%s", status, told, errs)
	}
	for name, want := range map[string]string{"curfew.yaml": "client_id: app", "curfew.client-secret": "geheim"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s: %v: %s", name, err, text)
		}
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, others can read it", name, info.Mode())
		}
	}

	status, _, errs = imports(environ, args...)
	if status != 2 || !strings.Contains(errs, out+" exists; use --overwrite") {
		t.Errorf("a file that exists: %d, %s", status, errs)
	}
	if status, _, errs = imports(environ, append(args, "--overwrite", "--client-id=two")...); status != 0 {
		t.Errorf("--overwrite: %d, %s", status, errs)
	}
	status, told, errs = imports(environ, append(args, "--write=-")...)
	if status != 0 || !strings.Contains(told, "client_id: app") || strings.Contains(told+errs, "geheim") ||
		!strings.Contains(errs, "Not written: curfew.client-secret") {
		t.Errorf("to the standard output: %d\n%s\n%s", status, told, errs)
	}
	status, told, errs = imports(nil, "--cookie-expiry=1h")
	if status != 2 || told != "" || !strings.Contains(errs, "did you mean --cookie-expire?") {
		t.Errorf("an unknown option: %d\n%s\n%s", status, told, errs)
	}
	if status, told, _ = imports(nil, "--help"); status != 0 || !strings.Contains(told, "--overwrite") {
		t.Errorf("help: %d\n%s", status, told)
	}
}
