// Package extauthz answers Envoy, which asks over gRPC whether to let a request through (envoy.service.auth.v3).
//
// It only translates: package gateway makes the decision and sets the identity headers. It is a package of its own so
// that an app that embeds Curfew does not link gRPC.
package extauthz
