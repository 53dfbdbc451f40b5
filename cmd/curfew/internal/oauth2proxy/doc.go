// Package oauth2proxy translates a configuration of oauth2-proxy, version 7, into one of Curfew. It reads the file,
// flags, environment and alpha configuration, and says of each setting what became of it.
//
// A translation never widens access: a restriction that Curfew cannot express becomes a
// rule that lets nobody in until it is replaced, and an exemption that it cannot express is left out.
//
// No value that may be a secret is put into the configuration or the report.
package oauth2proxy
