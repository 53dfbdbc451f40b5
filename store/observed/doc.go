// Package observed wraps a store so that each call is seen: how long it took and whether it failed, for metrics and
// traces. It changes nothing of what the store does, and knows no store but the contract.
package observed
