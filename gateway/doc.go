// Package gateway checks a session on the way to an app.
//
// It owns the question "who is this?" in all its forms: the middleware around a Go app ([Handler.Require],
// [Handler.Optional]), the reverse proxy in front of any app ([Handler.Proxy]), forward-auth for other proxies
// (GET /auth/verify), what a page may know of its own session (GET /auth/session), and the word to an open tab that the
// session has ended (GET /auth/events).
//
// It opens no session (login does) and ends none (logout does). What an app is told about a person is told in headers
// that nobody else can set: every header that could be taken for one of them is removed first.
package gateway
