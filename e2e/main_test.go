package e2e_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv(socketAppEnv) != "" {
		serveSockets()
		return
	}
	// Tests wait for each other's processes, and for time to pass, more than they compute.
	flag.Parse()
	if n := flag.Lookup("test.parallel"); n.Value.String() == n.DefValue {
		flag.Set("test.parallel", strconv.Itoa(2*runtime.GOMAXPROCS(0)))
	}
	dir, err := os.MkdirTemp("", "curfew-e2e-")
	if err != nil {
		panic(err)
	}
	build = sync.OnceValues(func() (string, error) {
		file := filepath.Join(dir, "curfew")
		cmd := exec.Command("go", "build", "-o", file, "./cmd/curfew")
		cmd.Dir, cmd.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go build ./cmd/curfew: %w\n%s", err, out)
		}
		return file, nil
	})
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// build makes the command, once, as it is shipped.
var build func() (string, error)

func curfew(t *testing.T) string {
	t.Helper()
	file, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// need skips a test when the provider cannot run here, or fails it where it must.
func need(t *testing.T) {
	t.Helper()
	missing := ""
	if _, err := exec.LookPath("node"); err != nil {
		missing = "node is missing; install Node.js 20 or later"
	} else if _, err := os.Stat("oidc-provider/node_modules/oidc-provider/package.json"); err != nil {
		missing = "the npm package oidc-provider is missing; run `npm ci` in e2e/oidc-provider, or `make test`"
	}
	switch {
	case missing == "":
	case os.Getenv("CI") == "true":
		t.Fatal(missing)
	default:
		t.Skip(missing)
	}
}
