// Package terminal prints for people: words in colour, tables, plural forms, and how far a long command has come.
//
// It does not know what is printed. What strangers wrote goes through [Printable] first.
package terminal
