// Package extauthz answers Envoy, which asks over gRPC whether to let a request through (envoy.service.auth.v3).
//
// It owns the translation alone: the decision, and what the app is told, are those of package gateway. It stands apart
// from it so that an app which embeds Curfew does not link gRPC.
package extauthz
