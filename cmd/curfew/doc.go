// Curfew is the gateway and its tools in one command.
//
// It owns the command line: what each command does and prints, the key file, the listeners of `serve`, and what `check`
// and `token explain` find. Only its main reads arguments and the environment, and exits. What it needs beside cobra is
// below internal: config reads the configuration, stores opens a store, terminal prints.
//
// It decides nothing about sign-in, sessions or logout: it hands a finished configuration to package curfew and serves
// what comes back. What operators ask on the private listener is package console, the copy of a store is store/copy.
package main
