// An OpenID Provider for the end-to-end tests: the npm package oidc-provider, as it comes, with what such tests need.
//
//   OP_PORT         where it listens, on 127.0.0.1; the issuer is http://127.0.0.1:OP_PORT
//   OP_CLIENTS      [{"id": "app", "secret": "...", "base": "http://127.0.0.1:4180"}], each a gateway
//   OP_KEY          its key, a private JWK whose alg signs ID Tokens and logout tokens. It is not made here: Node 20 can
//                   hang for ever when it collects garbage while it exports a key as a JWK
//   OP_ACCESS_TTL   seconds that the first access token of a session lives; default 300
//   OP_NEXT_TTL     seconds that those live which it is refreshed with; default 300
//   OP_GROUPS       that many groups are in the ID Token of everybody; default none
//   OP_POST         yes: it takes a POST at the endpoints that browsers are sent to, as it does not by default
//   OP_FEATURES     {"dPoP": {...}}: more of its features; what a client does of them is in the "more" of OP_CLIENTS
//   OP_TLS          a PEM file with its certificate and key: it is https then, asks for a certificate of who connects, and
//                   takes any from a client that is registered with one (RFC 8705)
//   OP_RESOURCE     a URL: access tokens for that resource are JWTs, and those for that URL with /opaque are not; clients may
//                   get one for themselves, and ask what one is worth. The sid of the session is in it
//   OP_REFRESH      always: there is a refresh token without offline_access too, which ends with the session
//
// It tells what happens as one JSON object a line on standard output: listening, jwks (the keys were asked for),
// backchannel.post (with the token, before it is sent), backchannel.success, backchannel.error, refresh, refresh.error,
// refresh.issued (with the refresh token), bound (an access token was issued; with the thumbprint that it is bound to),
// par (a request was pushed), par.error, authorize.error, grant.error, revocation (its endpoint was asked), revoked (with
// the status).
//
// POST /test/revoke with sub=NAME destroys the grants of that person, as an administrator would. POST /test/mark with
// id=ID makes it say mark: whatever happened before has then been told.
//
// Whoever types a name is signed in under it: this is for tests, and listens on loopback alone.
import * as crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import Provider from 'oidc-provider';

const port = Number(process.env.OP_PORT);
const pem = process.env.OP_TLS && fs.readFileSync(process.env.OP_TLS);
const issuer = `${pem ? 'https' : 'http'}://127.0.0.1:${port}`;
const key = JSON.parse(process.env.OP_KEY);
const { alg } = key;
const groups = Array.from({ length: Number(process.env.OP_GROUPS ?? 0) }, (_, i) => `/organisation/department/team-${i}`);
const post = process.env.OP_POST === 'yes';
const tell = (ev, more = {}) => process.stdout.write(`${JSON.stringify({ ev, ...more })}\n`);

const jws = ['HS256', 'HS384', 'HS512', 'RS256', 'PS256', 'ES256', 'ES384', 'ES512', 'EdDSA'];
const jwe = ['RSA-OAEP', 'RSA-OAEP-256', 'ECDH-ES', 'ECDH-ES+A128KW', 'ECDH-ES+A256KW'];
const more = JSON.parse(process.env.OP_FEATURES ?? '{}');
if (more.dPoP?.nonces) more.dPoP = { enabled: true, nonceSecret: crypto.randomBytes(32), requireNonce: () => true };
if (pem) {
  const shown = (ctx) => ctx.socket.getPeerX509Certificate();
  more.mTLS = {
    enabled: true, certificateBoundAccessTokens: true, selfSignedTlsClientAuth: true, tlsClientAuth: true,
    getCertificate: (ctx) => shown(ctx)?.toString(), certificateAuthorized: (ctx) => Boolean(shown(ctx)),
    certificateSubjectMatches: (ctx, name, value) => name === 'tls_client_auth_san_dns' && shown(ctx).checkHost(value) === value,
  };
}

const resource = process.env.OP_RESOURCE;
if (resource) {
  more.clientCredentials = { enabled: true };
  more.introspection = { enabled: true };
  more.resourceIndicators = {
    enabled: true, useGrantedResource: () => true,
    getResourceServerInfo: (ctx, name) => ({
      scope: 'read', audience: name, accessTokenFormat: name === resource ? 'jwt' : 'opaque', accessTokenTTL: 300, jwt: { sign: { alg } },
    }),
  };
}

const provider = new Provider(issuer, {
  clients: JSON.parse(process.env.OP_CLIENTS).map(({ id, secret, base, more }) => ({
    client_id: id,
    ...(secret && { client_secret: secret }),
    redirect_uris: [`${base}/auth/callback`],
    post_logout_redirect_uris: [`${base}/auth/logout/callback`],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    id_token_signed_response_alg: alg,
    backchannel_logout_uri: `${base}/auth/backchannel-logout`,
    backchannel_logout_session_required: true, // without it neither ID Tokens nor logout tokens have a sid
    ...more,
  })),
  jwks: { keys: [key] },
  clientDefaults: { id_token_signed_response_alg: alg },
  enabledJWA: {
    idTokenSigningAlgValues: [alg], clientAuthSigningAlgValues: jws, requestObjectSigningAlgValues: jws.filter((a) => a[0] !== 'H'),
    idTokenEncryptionAlgValues: jwe, userinfoEncryptionAlgValues: jwe, authorizationEncryptionAlgValues: jwe,
  },
  clientAuthMethods: ['client_secret_basic', 'client_secret_jwt', 'client_secret_post', 'private_key_jwt', 'none', ...(pem ? ['tls_client_auth', 'self_signed_tls_client_auth'] : [])],
  subjectTypes: ['public', 'pairwise'],
  pairwiseIdentifier: (ctx, accountId, client) => `${client.clientId}.${accountId}`,
  cookies: { keys: [crypto.randomBytes(32).toString('hex')], ...(post && { long: { httpOnly: true, sameSite: 'none' } }) },
  enableHttpPostMethods: post,
  pkce: { required: () => true },
  ...(resource && { extraTokenClaims: (ctx) => ({ sid: ctx.oidc.entities.AuthorizationCode?.sid }) }),
  conformIdTokenClaims: groups.length === 0, // otherwise the ID Token has the claims that userinfo has
  rotateRefreshToken: true, // a refresh token used twice ends the grant
  scopes: ['openid', 'offline_access'],
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'groups', 'preferred_username'] },
  // With offline_access a refresh token outlives the logout; without it, it ends with the session here.
  issueRefreshToken: (ctx, client, code) => client.grantTypeAllowed('refresh_token') && (code.scopes.has('offline_access') || process.env.OP_REFRESH === 'always'),
  features: {
    devInteractions: { enabled: false },
    backchannelLogout: { enabled: true },
    revocation: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    ...more,
  },
  findAccount: (ctx, sub) => ({
    accountId: sub,
    claims: () => ({ sub, name: `${sub} of the tests`, email: `${sub}@example.test`, email_verified: true,
      ...(groups.length > 0 && { groups }),
      // What is hard to put into a header.
      ...(sub === 'zoe' && { name: 'Zoë Ünal', preferred_username: ' root',
        groups: ['staff', ' admins', 'admins ', 'ops,admins', '\u00a0admins', 'admins\u2003', 'admins\t', '', 'Zürich', 'a b'] }) }),
  }),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  // It sends nothing to special-use addresses, and these gateways are on loopback: without its dispatcher fetch does.
  // Without its signal it waits for longer than 2.5 s: these machines may be busy.
  fetch: (url, { dispatcher, signal, ...options }) => {
    const token = options.body instanceof URLSearchParams && options.body.get('logout_token');
    if (token) tell('backchannel.post', { token });
    return fetch(url, options);
  },
  ttl: {
    AccessToken: (ctx) => Number((ctx.oidc.params.grant_type === 'refresh_token' ? process.env.OP_NEXT_TTL : process.env.OP_ACCESS_TTL) ?? 300),
    AuthorizationCode: 60, IdToken: 3600, RefreshToken: 86400, Session: 86400, Grant: 86400, Interaction: 600,
  },
});

provider.on('backchannel.success', (ctx, client, sub, sid) => tell('backchannel.success', { client: client.clientId, sub, sid }));
provider.on('backchannel.error', (ctx, err, client, sub, sid) => tell('backchannel.error', { client: client.clientId, sub, sid, error: `${err} ${err.cause ?? ''}` }));
provider.on('grant.success', (ctx) => { if (ctx.oidc.params.grant_type === 'refresh_token') tell('refresh'); });
provider.on('grant.error', (ctx, err) => { if (ctx.oidc.params?.grant_type === 'refresh_token') tell('refresh.error', { error: err.error }); else tell('grant.error', { error: `${err} ${err.error_description ?? ''} ${err.cause ?? ''}` }); });
provider.on('access_token.saved', (token) => tell('bound', { sub: token.accountId, token: token.jkt ?? token['x5t#S256'] ?? '' }));
provider.on('authorization.error', (ctx, err) => tell('authorize.error', { error: `${err} ${err.error_description ?? ''} ${err.cause ?? ''}` }));
provider.on('pushed_authorization_request.error', (ctx, err) => tell('par.error', { error: `${err} ${err.error_description ?? ''} ${err.cause ?? ''}` }));
provider.on('pushed_authorization_request.success', (ctx) => tell('par', { client: ctx.oidc.client.clientId }));
provider.on('refresh_token.saved', (token) => tell('refresh.issued', { client: token.clientId, sub: token.accountId, token: token.jti }));
provider.on('server_error', (ctx, err) => console.error(err));

const body = async (req) => {
  let text = '';
  for await (const chunk of req) text += chunk;
  return new URLSearchParams(text);
};

const grants = new Map(); // the ids of a person's grants

async function interaction(req, res) {
  const details = await provider.interactionDetails(req, res);
  if (req.method !== 'POST') {
    res.setHeader('content-type', 'text/html; charset=utf-8');
    res.end(`<!doctype html><title>${details.prompt.name}</title><form method="post" action="/interaction/${details.uid}"><input name="login"><button>Continue</button></form>`);
    return;
  }
  const accountId = details.session?.accountId ?? (await body(req)).get('login');
  const grant = details.grantId ? await provider.Grant.find(details.grantId) : new provider.Grant({ accountId, clientId: details.params.client_id });
  grant.addOIDCScope(details.params.scope);
  const grantId = await grant.save();
  grants.set(accountId, (grants.get(accountId) ?? new Set()).add(grantId));
  // Signing in and consenting are one step here.
  await provider.interactionFinished(req, res, { login: { accountId }, consent: { grantId } });
}

async function revoke(req, res) {
  for (const id of grants.get((await body(req)).get('sub')) ?? []) await (await provider.Grant.find(id))?.destroy();
  res.statusCode = 204;
  res.end();
}

async function mark(req, res) {
  tell('mark', { id: (await body(req)).get('id') });
  res.statusCode = 204;
  res.end();
}

const op = provider.callback();
const serve = async (req, res) => {
  try {
    if (req.url.startsWith('/interaction/')) return await interaction(req, res);
    if (req.url === '/test/revoke' && req.method === 'POST') return await revoke(req, res);
    if (req.url === '/test/mark' && req.method === 'POST') return await mark(req, res);
    if (req.url === '/jwks') tell('jwks');
    if (post) { // it insists on SameSite=None, which browsers take over https alone; here all is one site
      const set = res.setHeader;
      res.setHeader = (name, value) => set.call(res, name, /^set-cookie$/i.test(name) ? [value].flat().map((c) => c.replace(/; samesite=none/i, '')) : value);
    }
    if (req.url === '/token/revocation') tell('revocation');
    if (req.method === 'POST' && req.url === '/token/revocation') res.on('finish', () => tell('revoked', { error: String(res.statusCode) }));
    return await op(req, res);
  } catch (err) {
    console.error(err);
    res.statusCode = 500;
    return res.end(String(err));
  }
};
(pem ? https.createServer({ key: pem, cert: pem, requestCert: true, rejectUnauthorized: false }, serve) : http.createServer(serve)).listen(port, '127.0.0.1', () => tell('listening', { issuer, alg }));
