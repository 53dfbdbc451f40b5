// Package check examines a configuration without running it: what each provider publishes and answers, and what is on
// this machine. Each finding says what to do. `curfew check` prints them.
package check
