// Better Auth as an OpenID Provider, for `make interop`: the npm packages better-auth and @better-auth/oauth-provider,
// as they come, with a page to sign in on, which an app that uses them has to write itself.
//
//   OP_PORT         where it listens, on 127.0.0.1; the issuer is http://127.0.0.1:OP_PORT/api/auth
//   OP_CLIENTS      [{"id": "app", "secret": "...", "base": "http://127.0.0.1:4180"}], each a gateway
//   OP_ACCESS_TTL   seconds that an access token lives; default 3600
//
// It says "listening" when it does. POST /test/call?path=/sign-out passes the field json of a form on to a function of
// Better Auth, with the cookies of the browser, as a page of an app would. The person
// "admin" is an administrator. All have the password "password-of-the-tests".
import * as crypto from 'node:crypto';
import http from 'node:http';
import { betterAuth } from 'better-auth';
import { memoryAdapter } from 'better-auth/adapters/memory';
import { admin, jwt } from 'better-auth/plugins';
import { oauthProvider } from '@better-auth/oauth-provider';

const port = Number(process.env.OP_PORT);
const base = `http://127.0.0.1:${port}`;
const password = 'password-of-the-tests';
const hash = async (secret) => crypto.createHash('sha256').update(secret).digest('hex');

const tables = Object.fromEntries(['user', 'session', 'account', 'verification', 'jwks', 'oauthClient', 'oauthResource',
  'oauthClientResource', 'oauthRefreshToken', 'oauthAccessToken', 'oauthConsent', 'oauthClientAssertion',
  'rateLimit'].map((name) => [name, []]));

const auth = betterAuth({
  baseURL: base, basePath: '/api/auth', secret: crypto.randomBytes(32).toString('hex'),
  database: memoryAdapter(tables),
  emailAndPassword: { enabled: true },
  rateLimit: { enabled: false },
  telemetry: { enabled: false },
  plugins: [
    admin(),
    jwt({ jwt: { issuer: `${base}/api/auth` } }),
    oauthProvider({
      loginPage: '/sign-in', consentPage: '/consent', scopes: ['openid', 'profile', 'email', 'offline_access'],
      accessTokenExpiresIn: Number(process.env.OP_ACCESS_TTL ?? 3600), storeClientSecret: { hash },
      silenceWarnings: { oauthAuthServerConfig: true, openidConfig: true },
    }),
  ],
});

const context = await auth.$context;
for (const { id, secret, base: app } of JSON.parse(process.env.OP_CLIENTS)) {
  await context.adapter.create({ model: 'oauthClient', data: {
    clientId: id, clientSecret: await hash(secret), redirectUris: [`${app}/auth/callback`],
    postLogoutRedirectUris: [`${app}/auth/logout/callback`], backchannelLogoutUri: `${app}/auth/backchannel-logout`,
    backchannelLogoutSessionRequired: true, enableEndSession: true, skipConsent: true, tokenEndpointAuthMethod:
    'client_secret_basic', grantTypes: ['authorization_code', 'refresh_token'], responseTypes: ['code'],
    scopes: ['openid', 'profile', 'email', 'offline_access'], createdAt: new Date(), updatedAt: new Date(),
  } });
}
for (const name of ['alice', 'bob', 'admin']) {
  await auth.api.signUpEmail({ body: { name, email: `${name}@example.test`, password } });
}

await context.adapter.update({ model: 'user', where: [{ field: 'email', value: 'admin@example.test' }],
  update: { role: 'admin' } });

const text = async (req) => {
  let all = '';
  for await (const chunk of req) all += chunk;
  return all;
};

// call asks Better Auth, with the cookies of a browser.
const call = (req, path, body) => auth.handler(new Request(`${base}/api/auth${path}`, {
  method: 'POST', headers: { 'content-type': 'application/json', origin: base, cookie: req.headers.cookie ?? '' },
  body: JSON.stringify(body),
}));

async function answer(res, response) {
  res.statusCode = response.status;
  response.headers.forEach((value, name) => { if (name !== 'set-cookie') res.setHeader(name, value); });
  if (response.headers.getSetCookie().length) res.setHeader('set-cookie', response.headers.getSetCookie());
  res.end(Buffer.from(await response.arrayBuffer()));
}

http.createServer(async (req, res) => {
  try {
    const url = new URL(req.url, base);
    if (url.pathname === '/sign-in' && req.method === 'GET') {
      res.setHeader('content-type', 'text/html; charset=utf-8');
      const action = req.url.replaceAll('&', '&amp;');
      return res.end(`<!doctype html><title>Sign in</title><form method="post" action="${action}"><input name="username">` +
        '<input name="password" type="password"><button>Sign in</button></form>');
    }
    if (url.pathname === '/sign-in') {
      const form = new URLSearchParams(await text(req));
      const got = await call(req, '/sign-in/email', { email: `${form.get('username')}@example.test`,
        password: form.get('password'), oauth_query: url.search.slice(1) });
      const to = (await got.clone().json()).url;
      if (!got.ok || !to) return await answer(res, got);
      res.writeHead(303, { location: to, 'set-cookie': got.headers.getSetCookie() });
      return res.end();
    }
    if (url.pathname === '/test/call') {
      const form = new URLSearchParams(await text(req));
      return await answer(res, await call(req, url.searchParams.get('path'), JSON.parse(form.get('json') ?? '{}')));
    }
    const body = req.method === 'POST' ? await text(req) : undefined;
    return await answer(res, await auth.handler(new Request(url, { method: req.method, headers: req.headers, body })));
  } catch (err) {
    console.error(err);
    res.statusCode = 500;
    return res.end(String(err));
  }
}).listen(port, '127.0.0.1', () => console.log('listening'));
