// Package bench measures the cost of a whole request against a lower bound, the floor: a bare net/http handler that
// does the same cryptography and nothing else, on the same machine in the same run.
//
//	go test -run '^$' -bench . -count 6 ./bench
//
// It also measures replicas of the command: how long after a logout at one another still serves the session, and that a
// check from a warm cache costs the same with every store.
//
// Only the ratios are meaningful. docs/measured.md and docs/scale.md have those of the last release.
package bench
