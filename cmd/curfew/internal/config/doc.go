// Package config reads the configuration of the command: a YAML file, CURFEW_* variables and flags.
//
// It owns the settings (settings.go, gateway.go, providers.go, apps.go), the order in which one source overrides
// another, and the list of faults, each with its line. [Load] returns a [Config]; RelyingParty, Router and NewProviders
// make of it what other packages take. It opens no store, no listener and no connection.
package config
