// Package gateway checks a session on the way to an app.
//
// It owns the question "who is this, and may they?" in all its forms: the middleware around a Go app
// ([Handler.Require], [Handler.Optional]), the reverse proxy in front of any app ([Handler.Proxy], [Handler.Route]),
// forward-auth for other proxies (GET /auth/verify, [Handler.Decide]), what a page may know of its own session (GET
// /auth/session), and the word to an open tab that the session has ended (GET /auth/events). What it lets through it
// also ends: a WebSocket, an event stream or a long poll that the proxy passes on is closed when its session ends.
//
// It opens no session (login does) and ends none (logout does). What an app is told about a person is told in headers
// that nobody else can set: every header that could be taken for one of them is removed first.
//
//	gateway.go   the one decision, and the middleware
//	verify.go    forward-auth
//	policy.go    who may use which path; path.go: what a path means
//	identity.go  what the app is told; assertion.go: and that signed
//	proxy.go     the reverse proxy; route.go: to which app
//	stream.go    what is open ends with its session; upgrade.go: WebSockets; websocket.go: who may open one
//	session.go   a page and its own session
package gateway
