// Package config reads the configuration of the command: a YAML file, CURFEW_* variables and flags.
//
// It holds the settings (settings.go, gateway.go, providers.go, apps.go), the order in which one source overrides
// another, and the list of faults, each with its line. [Load] returns a [Config]; its methods RelyingParty, Router and
// NewProviders return what other packages need. It opens no store, no listener and no connection.
package config
