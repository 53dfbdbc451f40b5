// Package oidc speaks OpenID Connect as a relying party does.
//
// It owns what is said to one OpenID Provider ([Provider]): discovery, the guarded cache of its keys, the code flow
// with PKCE, ID Tokens, logout tokens, userinfo, refresh, revocation and RP-initiated logout. Tokens are decoded by
// claim names that are case-sensitive and unique, and only the one registered algorithm is taken.
//
// It keeps no session and writes no HTTP response; it answers with a value, or with an [Error] that names the check
// that failed. It has no clock where a token is checked: the time is an argument.
package oidc
