package fanout_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain runs the tests, or plays the part of a replica that is killed.
func TestMain(m *testing.M) {
	if step := os.Getenv(childStep); step != "" {
		os.Exit(childMain(step))
	}
	goleak.VerifyTestMain(m)
}
