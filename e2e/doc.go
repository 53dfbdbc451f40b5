// Package e2e tests the command curfew, as it is shipped, against an OpenID Provider that none of us wrote: the npm
// package oidc-provider, which really signs people in, and really POSTs its logout tokens.
//
// It owns no code but tests. The provider is oidc-provider/op.mjs, a child process as the gateways are; browsers are
// HTTP clients with a cookie jar. It does not test what one room does by itself, nor what a provider gets wrong: that
// is for the tests of the rooms, with oidc/oidctest.
//
//   - One gateway: logout, initiated, refresh, outage, crash, flood, cli.
//   - Replicas on PostgreSQL, Redis and a Redis Cluster: replicas (ended at one, refused at all), crowd (5,000
//     sessions, 1,000 logouts; its provider is oidc/oidctest, since node would take minutes), faults (the engine is
//     killed or frozen, a replica is suspended), order (a login begins at one and is logged out at another, 0.1 ms to 2
//     s later; its provider is oidc/oidctest too).
//   - Histories: soak (people who sign in and out on every store while everything breaks; porcupine checks what was
//     answered against the model in history; SOAK=30m makes it long), streams (one logout closes many).
//   - Proxies: nginx, Caddy, Traefik, Envoy, HAProxy and others in front of the gateway, with the configurations of
//     docs/proxies.
//   - Apps on the servers of Node.js, Python, the JVM and Go, behind the gateway and behind each proxy: apps, with the
//     sources in apps/.
//   - Relying parties that take the logout tokens of Curfew: fanout, with relying-parties and Apache with
//     mod_auth_openidc.
//
// Without node, or without `npm ci` in e2e/oidc-provider, the tests are skipped and say so; with CI=true they fail. The
// same goes for engines, see internal/servers.
package e2e
