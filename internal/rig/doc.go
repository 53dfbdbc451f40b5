// Package rig holds what the tests of several rooms would each have to write: a site with a store, a clock, a log and
// providers, the browsers that visit it, and short ways to wait and to give up. What only one room asks for stands in
// the tests of that room.
package rig
