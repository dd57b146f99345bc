// Google's workload identity federation on loopback: tokens of one issuer are exchanged at sts.googleapis.com, and those for
// tokens of a service account at iamcredentials.googleapis.com. jose verifies the issuer's tokens.
//
// usage: google_federation.js DIRECTORY   the directory with the issuer's documents
//
// Prints one line of JSON when it serves: its port, and the provider. It ends when its stdin ends.
'use strict';

const { readFileSync } = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const PROVIDER = 'projects/123456789012/locations/global/workloadIdentityPools/kh/providers/kh';
const AUDIENCE = `//iam.googleapis.com/${PROVIDER}`;
const CLOUD_PLATFORM = 'https://www.googleapis.com/auth/cloud-platform';
const TYPE = 'urn:ietf:params:oauth:token-type:';
const ACCOUNT = /^\/v1\/projects\/-\/serviceAccounts\/([^/]+):generateAccessToken$/;
const FEDERATED = 'ya29.d.federated-token-of-a-test';

const directory = process.argv[2];
const document = (name) => JSON.parse(readFileSync(path.join(directory, name), 'utf8'));

async function exchange(jose, form) {
  const expected = {
    audience: AUDIENCE,
    grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
    requested_token_type: `${TYPE}access_token`,
    scope: CLOUD_PLATFORM,
    subject_token_type: `${TYPE}jwt`,
  };
  for (const [name, value] of Object.entries(expected)) {
    if (form.get(name) !== value) return [400, { error: 'invalid_request' }];
  }
  try {
    await jose.jwtVerify(form.get('subject_token'), jose.createLocalJWKSet(document('jwks.json')), {
      algorithms: ['ES256'],
      audience: AUDIENCE,
      issuer: document('.well-known/openid-configuration').issuer,
      requiredClaims: ['sub', 'iat', 'exp', 'workflow', 'run', 'step'],
    });
  } catch (error) {
    return [400, { error: 'invalid_grant', error_description: error.message }];
  }
  const token = { access_token: FEDERATED, token_type: 'Bearer', expires_in: 3599 };
  return [200, { ...token, issued_token_type: `${TYPE}access_token` }];
}

function impersonate(account, request, text) {
  const { scope, lifetime, delegates = [] } = JSON.parse(text);
  if (request.headers.authorization !== `Bearer ${FEDERATED}`) {
    return [401, { error: { status: 'UNAUTHENTICATED' } }];
  }
  if (!account.endsWith('.iam.gserviceaccount.com') || !scope.length) {
    return [403, { error: { status: 'PERMISSION_DENIED' } }];
  }
  const end = new Date(Date.now() + parseInt(lifetime, 10) * 1000);
  const by = delegates.map((delegate) => delegate.replace('projects/-/serviceAccounts/', ''));
  return [200, { accessToken: `ya29.${[...by, account].join('.')}`, expireTime: end.toISOString() }];
}

async function main() {
  const jose = await import(pathToFileURL(require.resolve('jose')));
  const answer = async (request, text) => {
    const [, account] = ACCOUNT.exec(request.url) ?? [];
    switch (request.headers.host) {
      case 'sts.googleapis.com':
        return request.url === '/v1/token' ? exchange(jose, new URLSearchParams(text)) : [404, {}];
      case 'iamcredentials.googleapis.com':
        return account ? impersonate(account, request, text) : [404, {}];
      default:
        return [404, {}];
    }
  };
  const server = http.createServer((request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', async () => {
      const [status, body] = await answer(request, Buffer.concat(parts).toString());
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(body));
    });
  });
  server.listen(0, '127.0.0.1', () => {
    console.log(JSON.stringify({ port: server.address().port, provider: PROVIDER }));
  });
  process.stdin.on('end', () => process.exit(0)).resume();
}

main();
