// Package e2e tests the command curfew, as it is shipped, against an OpenID Provider that none of us wrote: the npm package
// oidc-provider, which really signs people in, and really POSTs its logout tokens.
//
// It owns no code but tests. The provider is oidc-provider/op.mjs, a child process as the gateways are; browsers are HTTP
// clients with a cookie jar. It does not test what one room does by itself, nor what a provider gets wrong: that is for the
// tests of the rooms, with oidc/oidctest.
//
// Apps that take the logout tokens of Curfew are in relying-parties, and Apache with mod_auth_openidc.
//
// Without node, or without `npm ci` in e2e/oidc-provider, the tests are skipped and say so; with CI=true they fail.
package e2e
