// Curfew is the gateway and its tools in one command.
//
// It owns the command line: flags, environment and configuration file (settings.go, config.go), the key file, the two
// listeners of `serve`, and what `check` and `token explain` print. It is the only place that reads any of these, and
// its main the only one that exits.
//
// It decides nothing about sign-in, sessions or logout: it hands a finished configuration to package curfew and serves
// what comes back.
package main
