// Package login opens a session: the start, the way to the provider and back, the checks, and the new cookie.
//
// It owns the attempt, which is a login under way: sealed into a short-lived cookie of its own, one per state, so that
// several tabs can sign in at once and starting a login writes nothing to the store. It owns the order of the checks
// when the person comes back, the claims that a site requires, and the app's own say ([Handler.OnLogin]).
//
// It does not check a session (gateway does) and ends none, but for the one that a new session of the same browser
// replaces. Whether a logout overtook a login is decided by the store, from the time at which the attempt began.
package login
