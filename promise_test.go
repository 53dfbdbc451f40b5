package curfew_test

import (
	"os"
	"strings"
	"testing"
)

// The promises stand in the README and in SECURITY.md in the same words.
func TestPromisesAreTheSameEverywhere(t *testing.T) {
	t.Parallel()
	promises := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		_, from, found := strings.Cut(string(text), "1. **A 2xx means dead.**")
		list, _, ended := strings.Cut(from, "\n\n")
		if !found || !ended {
			t.Fatalf("%s holds no list of promises", name)
		}
		return list
	}
	if in, again := promises("README.md"), promises("SECURITY.md"); in != again {
		t.Errorf("README.md promises:\n%s\nSECURITY.md promises:\n%s", in, again)
	}
}
