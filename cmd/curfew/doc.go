// Curfew is the gateway and its tools in one command.
//
// This package holds the command line: what each command does and prints, the key file, the listeners of `serve`, and
// the checks of `check` and `token explain`. Only main reads arguments and the environment, and exits. The packages
// below internal read the configuration (config), open a store (stores) and print (terminal).
//
// It decides nothing about sign-in, sessions or logout: it passes a complete configuration to package curfew and serves
// the result. The HTTP interface for operators is package console; the copy of a store is store/copy.
package main
