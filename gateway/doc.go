// Package gateway checks the session of a request on its way to an app.
//
// It decides who the user is and whether they may make the request, for all entry points: the middleware around a Go
// app ([Handler.Require], [Handler.Optional]), the reverse proxy in front of any app ([Handler.Proxy],
// [Handler.Route]), forward-auth for other proxies (GET /auth/verify, [Handler.Decide]), the session as its own page
// sees it (GET /auth/session), and the event that notifies an open tab of the end of its session (GET /auth/events). It
// also ends what it let through: a WebSocket, an event stream or a long poll that passes through the proxy is closed
// when its session ends.
//
// It creates no session (package login does) and ends none (package logout does). An app is told who the user is in
// headers that clients cannot set: every header that could be taken for one of them is removed first.
//
//	gateway.go   the decision, and the middleware
//	bearer.go    access tokens of clients
//	verify.go    forward-auth
//	policy.go    who may use which path; path.go: what a path means; siblings.go: paths that a policy may have missed
//	identity.go  the identity headers; assertion.go: the signed assertion
//	proxy.go     the reverse proxy; route.go: the routes and upstreams; host.go: which hosts are known
//	stream.go    open requests end with their session; upgrade.go: WebSockets; websocket.go: who may open one
//	limits.go    slow bodies and the number of open requests
//	session.go   the session for its own page
//	tab.go       open tabs; tab.js: their script; inject.go: puts it into pages of apps
//	caching.go   what browsers and shared caches may keep
package gateway
