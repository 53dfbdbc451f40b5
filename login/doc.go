// Package login signs people in: it starts the code flow, checks what the provider answers, creates the session and
// sets the cookie.
//
// A login under way is an attempt. It is sealed into the state parameter, with a secret in a small cookie of its own,
// so several tabs can sign in at once, and the start of a login usually writes nothing to the store. The package has
// the order of the checks in the callback, the claims that a site requires, and the hook of the app
// ([Handler.OnLogin]).
//
// It does not check sessions: package gateway does. It ends no session, except the one of the same browser that a new
// session replaces. Whether a logout came while a login was under way is decided by the store, from the time at which
// the attempt began.
package login
