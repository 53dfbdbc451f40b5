// Package bench measures what a whole request costs, beside the least that it could cost: the floor, a bare net/http
// handler that does the same cryptography and nothing else, on the same machine in the same run.
//
//	go test -run '^$' -bench . -count 6 ./bench
//
// Only the ratios mean anything. docs/measured.md has those of the last release.
package bench
