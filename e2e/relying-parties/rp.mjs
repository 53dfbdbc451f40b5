// Relying parties for the end-to-end tests, as they come from npm, that take the logout tokens of Curfew.
//
//   RP_PORT    where it listens, on 127.0.0.1
//   RP_ISSUER  whose logout tokens it takes
//   RP_KIND    express: express-openid-connect, as its documentation shows it
//              strict:  openid-client for the metadata, jose for the token, with every check that it knows turned on
//
// It tells what happens as one JSON object a line on standard output: listening; told (with what it keeps of the logout); refused.
import express from 'express';
import { auth } from 'express-openid-connect';
import * as jose from 'jose';
import * as client from 'openid-client';

const port = Number(process.env.RP_PORT);
const issuer = process.env.RP_ISSUER;
const tell = (ev, more = {}) => process.stdout.write(`${JSON.stringify({ ev, ...more })}\n`);
const id = process.env.RP_KIND;
const app = express();

if (id === 'express') {
  const store = {
    get: (key, done) => done(null, undefined),
    set: (key, value, done) => { tell('told', { id: key }); done(null); },
    destroy: (key, done) => done(null),
  };
  app.use(auth({
    issuerBaseURL: issuer, baseURL: `http://127.0.0.1:${port}`, clientID: id, secret: 'a long enough secret for its cookies',
    idTokenSigningAlg: 'ES256', authRequired: false, backchannelLogout: { store },
  }));
} else {
  // Not before it is asked: Curfew may not run yet.
  let config;
  const discover = async () => (config ??= await client.discovery(new URL(issuer), id, undefined, client.None(), { execute: [client.allowInsecureRequests] })).serverMetadata();
  const event = 'http://schemas.openid.net/event/backchannel-logout';
  const seen = new Set();
  app.post('/backchannel-logout', express.urlencoded({ extended: false }), async (req, res) => {
    try {
      const { jwks_uri: jwks, issuer: named } = await discover();
      const { payload } = await jose.jwtVerify(req.body.logout_token, jose.createRemoteJWKSet(new URL(jwks)), {
        issuer: named, audience: id, typ: 'logout+jwt', algorithms: ['ES256'], maxTokenAge: '2 min', clockTolerance: 5,
        requiredClaims: ['iss', 'aud', 'iat', 'exp', 'jti', 'events'],
      });
      const wrong = [
        payload.aud !== id && 'aud', 'nonce' in payload && 'nonce', seen.has(payload.jti) && 'jti', payload.exp - payload.iat > 120 && 'exp',
        JSON.stringify(payload.events) !== JSON.stringify({ [event]: {} }) && 'events', !(typeof payload.sid === 'string' && payload.sid) && 'sid',
      ].filter(Boolean);
      if (wrong.length) throw new Error(wrong.join(' '));
      seen.add(payload.jti);
      tell('told', { id: payload.sid });
      res.status(200).end();
    } catch (err) {
      tell('refused', { error: String(err) });
      res.status(400).json({ error: 'invalid_request' });
    }
  });
}
app.use((err, req, res, next) => {
  tell('refused', { error: String(err) });
  res.status(err.status ?? 500).end();
});
app.listen(port, '127.0.0.1', () => tell('listening'));
