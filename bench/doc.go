// Package bench measures Curfew as it is shipped, beside lower bounds and beside other relying parties:
//
//	make bench              # at most 20 minutes on two idle cores
//	BENCH=quick make bench  # at most 3 minutes
//
// The server under test has one core, and what asks it has the other. Each round measures every server once, so that
// a machine that has something else to do has it for all of them. A lower bound, the floor, is a bare net/http handler
// that does only what no implementation can leave out. The results are written to bench/results, and from there into
// the tables and charts of docs/performance.md, which describes the method.
package bench
