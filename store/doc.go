// Package store is the contract between sessions and the databases that keep them: [Store], and the types that it is
// about.
//
// It holds what is the same in every store: which sessions an ending names ([Selector.Names]), which notices it leaves
// ([Ending.NoticesFor]), what input is refused. It keeps nothing itself; store/memory, store/sqlite, store/postgres and
// store/redis do, and import nothing else of this module. The suite in store/storetest is the contract made executable.
package store
