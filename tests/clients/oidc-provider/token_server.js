// OAuth 2.0 token servers on loopback, by oidc-provider: client credentials at /token, Microsoft's at
// /TENANT/oauth2/v2.0/token, and Google's JWT bearer at oauth2.googleapis.com, where jose checks the assertion.
//
// Prints one line of JSON when it serves: its port, and the service account with its private key. GET /issued says how
// many tokens there are. It ends when its stdin ends.
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

async function main() {
  const [{ Provider, errors }, jose] = await Promise.all([load('oidc-provider'), load('jose')]);
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const provider = new Provider('http://127.0.0.1', {
    clients: [
      client('kh-basic', 's3cret +/=&%', 'client_secret_basic'),
      client('kh-post', 'p0st-secret', 'client_secret_post'),
      client('kh-entra', 'entra~secret', 'client_secret_post'),
      client('kh-google', undefined, 'none', [JWT_BEARER]),
    ],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      introspection: { enabled: true },
      revocation: { enabled: true },
    },
    scopes: ['read', 'write', 'https://graph.microsoft.com/.default'],
    ttl: { ClientCredentials: 600 },
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
  const server = http.createServer((request, response) => {
    if (request.url === '/issued') {
      response.end(String(issued));
      return;
    }
    if (request.url === `/${TENANT}/oauth2/v2.0/token`) request.url = '/token';
    if (request.headers.host === GOOGLE) {
      // Google knows the client by the assertion.
      withClient(request, 'kh-google', () => answer(request, response));
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
