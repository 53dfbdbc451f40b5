// An app on express-openid-connect, with back-channel logout as its EXAMPLES.md says. MEMORY or REDIS is the store.
const express = require('express');
const { auth, requiresAuth } = require('express-openid-connect');

async function main() {
  const [host, port] = process.env.ADDR.split(':');
  let store;
  if (process.env.REDIS) {
    const { RedisStore } = require('connect-redis');
    const client = require('redis').createClient({ url: `redis://${process.env.REDIS}` });
    await client.connect();
    store = new RedisStore({ client });
  } else {
    const MemoryStore = require('memorystore')(auth);
    store = new MemoryStore({ checkPeriod: 24 * 60 * 1000 });
  }
  const app = express();
  app.use(auth({
    issuerBaseURL: process.env.ISSUER, baseURL: `http://${process.env.ADDR}`,
    clientID: process.env.CLIENT_ID, clientSecret: process.env.CLIENT_SECRET, secret: 'a secret of the bench alone, of enough bytes',
    authRequired: false, authorizationParams: { response_type: 'code', scope: 'openid' },
    idTokenSigningAlg: 'RS256', session: { store }, backchannelLogout: true,
  }));
  app.get('/check', requiresAuth(), (req, res) => res.send('ok'));
  app.listen(Number(port), host);
}
main();
