// Package terminal prints for people: colored words, tables, plural forms, and the progress of a long command.
//
// Text from others goes through [Printable] first.
package terminal
