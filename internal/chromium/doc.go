// Package chromium starts a real browser for the tests of several rooms.
//
// It knows none of the rooms. What a test does in the browser is its own.
package chromium
