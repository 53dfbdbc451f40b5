// Package bench measures what a whole request costs, beside the least that it could cost: the floor, a bare net/http
// handler that does the same cryptography and nothing else, on the same machine in the same run.
//
//	go test -run '^$' -bench . -count 6 ./bench
//
// Beside that it measures what replicas of the command have in common: how long after a logout at one another still
// serves the session, and that a check from a warm cache costs the same whatever the store.
//
// Only the ratios mean anything. docs/measured.md and docs/scale.md have those of the last release.
package bench
