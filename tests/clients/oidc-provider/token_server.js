// OAuth 2.0 token servers on loopback, by oidc-provider: client credentials and refresh tokens at /token, Microsoft's at
// /TENANT/oauth2/v2.0/token, and Google's JWT bearer at oauth2.googleapis.com, where jose checks the assertion.
//
// Each refresh token is used once: the server gives another with each access token, and ends all of them if it sees one again.
//
// Prints one line of JSON when it serves: its port, and the service account with its private key. It ends when its stdin
// ends. GET
//   /issued        how many tokens there are
//   /seed/CLIENT   a new refresh token, as a sign-in would give it
//   /asked         how many requests /token has had
//   /gate/PLACE    holds them before they are processed (before), or their answers (after), until it is open
//   /held          how many it holds
'use strict';

const { generateKeyPairSync } = require('node:crypto');
const http = require('node:http');
const { pathToFileURL } = require('node:url');

const TENANT = '11111111-2222-3333-4444-555555555555';
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const GOOGLE = 'oauth2.googleapis.com';
const MAX_LIFE_SECONDS = 3600;
const EMAIL = 'deployer@project.iam.gserviceaccount.com';

/** Both packages are ES modules, whose imports do not heed NODE_PATH. */
const load = (name) => import(pathToFileURL(require.resolve(name)));

const client = (id, secret, method, grants = ['client_credentials']) => ({
  client_id: id,
  client_secret: secret,
  grant_types: grants,
  redirect_uris: [],
  response_types: [],
  token_endpoint_auth_method: method,
});

/** A new refresh token of a client. */
async function seed(provider, clientId) {
  const client = await provider.Client.find(clientId);
  const grant = new provider.Grant({ accountId: 'somebody', clientId });
  grant.addOIDCScope('offline_access read');
  const grantId = await grant.save();
  return new provider.RefreshToken({
    accountId: 'somebody',
    client,
    grantId,
    gty: 'authorization_code',
    scope: 'offline_access read',
  }).save();
}

/** Holds requests to /token before they are processed, or their answers. */
class Gate {
  place = 'open';

  asked = 0;

  held = [];

  async pass(place) {
    if (this.place === place) await new Promise((resolve) => { this.held.push(resolve); });
  }

  set(place) {
    this.place = place;
    if (place === 'open') this.held.splice(0).forEach((resolve) => resolve());
  }

  async token(request, response, answer) {
    this.asked += 1;
    const end = response.end.bind(response);
    response.end = (...rest) => {
      this.pass('after').then(() => end(...rest));
      return response;
    };
    await this.pass('before');
    // A client that has gone has sent nothing, as if its request had been lost on the way.
    if (!request.socket.destroyed) answer(request, response);
  }
}

async function main() {
  const [{ Provider, errors }, jose] = await Promise.all([load('oidc-provider'), load('jose')]);
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const provider = new Provider('http://127.0.0.1', {
    clients: [
      client('kh-basic', 's3cret +/=&%', 'client_secret_basic'),
      client('kh-post', 'p0st-secret', 'client_secret_post'),
      client('kh-entra', 'entra~secret', 'client_secret_post'),
      client('kh-google', undefined, 'none', [JWT_BEARER]),
      client('kh-refresh', 'r3fresh-secret', 'client_secret_basic', ['refresh_token']),
      client('kh-public', undefined, 'none', ['refresh_token']),
    ],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
    },
    findAccount: (ctx, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
    rotateRefreshToken: true,
    scopes: ['offline_access', 'read', 'write', 'https://graph.microsoft.com/.default'],
    ttl: { AccessToken: 600, ClientCredentials: 600, Grant: 86400, RefreshToken: 86400 },
  });
  let issued = 0;
  provider.on('grant.success', () => { issued += 1; });

  provider.registerGrantType(JWT_BEARER, async (ctx) => {
    const options = {
      algorithms: ['RS256'],
      audience: `https://${GOOGLE}/token`,
      clockTolerance: 5,
      issuer: EMAIL,
      requiredClaims: ['iat', 'exp', 'scope'],
    };
    let claims;
    try {
      ({ payload: claims } = await jose.jwtVerify(ctx.oidc.params.assertion, publicKey, options));
    } catch (error) {
      throw new errors.InvalidGrant(error.message);
    }
    if (claims.exp - claims.iat > MAX_LIFE_SECONDS) {
      throw new errors.InvalidGrant('the assertion is for more than an hour');
    }
    const token = new provider.ClientCredentials({ client: ctx.oidc.client, scope: 'read' });
    ctx.body = {
      access_token: await token.save(),
      expires_in: MAX_LIFE_SECONDS - 1,
      token_type: 'Bearer',
    };
  }, ['assertion', 'scope'], []);

  const answer = provider.callback();
  const gate = new Gate();
  const told = {
    asked: () => gate.asked,
    gate: (place) => gate.set(place),
    held: () => gate.held.length,
    issued: () => issued,
    seed: (id) => seed(provider, id),
  };
  const server = http.createServer(async (request, response) => {
    const [, what, argument] = request.url.split('/');
    if (Object.hasOwn(told, what)) {
      response.end(String(await told[what](argument)));
      return;
    }
    if (request.url === `/${TENANT}/oauth2/v2.0/token`) request.url = '/token';
    if (request.headers.host === GOOGLE) {
      // Google knows the client by the assertion.
      withClient(request, 'kh-google', () => answer(request, response));
      return;
    }
    if (request.url === '/token') {
      gate.token(request, response, answer);
      return;
    }
    answer(request, response);
  });
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    const google = {
      client_email: EMAIL,
      private_key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
    };
    console.log(JSON.stringify({ port, tenant: TENANT, google }));
  });
  process.stdin.on('end', () => process.exit(0)).resume();
}

/** Reads the form, and adds the client's id. */
function withClient(request, id, then) {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', () => {
    const form = new URLSearchParams(Buffer.concat(parts).toString());
    form.set('client_id', id);
    // oidc-provider takes a form that another layer has read.
    request.body = Object.fromEntries(form);
    then();
  });
}

main();
