// GitHub on loopback: the API for Apps at /api/v3, and git over HTTP at /octo/NAME.git. jose checks the tokens that Apps
// sign, and git's own http-backend serves the repositories.
//
// Prints one line of JSON when it serves: its port, the App with its key, and its installations. GET /tokens counts the
// tokens that were made and those that are live, POST /expire ends all of them. It ends when its stdin ends.
'use strict';

const { execFileSync, spawn } = require('node:child_process');
const { generateKeyPairSync, randomBytes } = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const API = '/api/v3';
const OWNER = 'octo';
const APP = { id: '123456', client: 'Iv23liEXAMPLEexample' };
const MAX_JWT_SECONDS = 600;
const LIFE_SECONDS = 3600;
const LEVELS = ['read', 'write', 'admin'];
// What the installation may do. Each token may read metadata.
const GRANTED = { contents: 'read', issues: 'write', metadata: 'read' };
const KNOWN = [...Object.keys(GRANTED), 'actions', 'administration', 'members', 'pull_requests'];
const REPOSITORIES = ['website', 'handbook', ...Array.from({ length: 20 }, (_, n) => `service-${n}`)];
const INSTALLATIONS = { 1001: { suspended: false }, 1002: { suspended: true } };
// As long as what GitHub tells about a repository.
const DESCRIPTION = 'x'.repeat(6000);

const tokens = new Map();
let made = 0;

/** An error that is answered as GitHub does. */
class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const seconds = () => Math.floor(Date.now() / 1000);

/** Checks the token that an App has signed. */
async function checkApp(jose, publicKey, signed) {
  let claims;
  try {
    const options = { algorithms: ['RS256'], requiredClaims: ['iat', 'exp', 'iss'] };
    ({ payload: claims } = await jose.jwtVerify(signed, publicKey, options));
  } catch (error) {
    if (error.claim === 'exp') {
      throw new Refused(401, "'Expiration time' claim ('exp') must be a numeric value representing the future time at "
        + 'which the assertion expires');
    }
    throw new Refused(401, 'A JSON web token could not be decoded');
  }
  if (claims.exp > seconds() + MAX_JWT_SECONDS) {
    throw new Refused(401, "'Expiration time' claim ('exp') is too far in the future");
  }
  if (claims.iat > seconds()) {
    throw new Refused(401, "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued");
  }
  if (![APP.id, APP.client].includes(String(claims.iss))) throw new Refused(404, 'Integration not found');
}

/** The part of the installation's access that is asked for. */
function narrowed({ permissions, repositories, ...others }) {
  const isList = (list) => Array.isArray(list) && list.length > 0 && list.every((name) => typeof name === 'string');
  if (Object.keys(others).length > 0 || (repositories !== undefined && !isList(repositories))) {
    throw new Refused(422, 'Invalid request.');
  }
  for (const [name, level] of Object.entries(permissions ?? {})) {
    if (!KNOWN.includes(name) || !LEVELS.includes(level)) throw new Refused(422, 'Invalid request.');
    if (LEVELS.indexOf(level) > LEVELS.indexOf(GRANTED[name])) {
      throw new Refused(422, 'The permissions requested are not granted to this installation.');
    }
  }
  if (repositories?.some((name) => !REPOSITORIES.includes(name))) {
    throw new Refused(422, 'There is at least one repository that does not exist or is not accessible to the parent '
      + 'installation.');
  }
  return {
    permissions: permissions ? { metadata: 'read', ...permissions } : GRANTED,
    repositories: repositories ?? REPOSITORIES,
    isSelected: repositories !== undefined,
  };
}

const described = (name) => ({ name, full_name: `${OWNER}/${name}`, private: true, description: DESCRIPTION });

/** Makes a token of an installation. */
function make(number, body) {
  const installation = INSTALLATIONS[number];
  if (!installation) throw new Refused(404, 'Not Found');
  if (installation.suspended) throw new Refused(403, 'This installation has been suspended');
  const access = narrowed(body);
  const token = `ghs_${randomBytes(27).toString('base64').replace(/[+/]/g, '0')}`;
  const end = seconds() + LIFE_SECONDS;
  tokens.set(token, { ...access, end });
  made += 1;
  return {
    token,
    expires_at: new Date(end * 1000).toISOString().replace('.000', ''),
    permissions: access.permissions,
    repository_selection: access.isSelected ? 'selected' : 'all',
    ...(access.isSelected && { repositories: access.repositories.map(described) }),
  };
}

/** What a live token may do. */
function accessOf(token) {
  const access = tokens.get(token);
  if (!access || access.end <= seconds()) throw new Refused(401, 'Bad credentials');
  return access;
}

function need(access, name, permission, level) {
  if (!access.repositories.includes(name)) throw new Refused(404, 'Not Found');
  if (LEVELS.indexOf(access.permissions[permission]) < LEVELS.indexOf(level)) {
    throw new Refused(403, 'Resource not accessible by integration');
  }
}

/** Answers a request to the API: a status and an object. */
async function answerApi(check, method, url, token, body) {
  const [route, number] = [`${method} ${url.replace(/\d+/, ':id')}`, url.match(/\d+/)?.[0]];
  if (route === 'POST /app/installations/:id/access_tokens') {
    await check(token);
    return [201, make(number, body)];
  }
  const access = accessOf(token);
  const repository = url.match(/^\/repos\/octo\/([^/]+)(\/issues)?$/);
  if (route === 'DELETE /installation/token') {
    tokens.delete(token);
    return [204];
  }
  if (url.startsWith('/installation/repositories')) {
    const repositories = access.repositories.map(described);
    return [200, { total_count: repositories.length, repositories }];
  }
  if (repository?.[2] && method === 'POST') {
    need(access, repository[1], 'issues', 'write');
    return [201, { number: 1, title: body.title }];
  }
  if (repository && !repository[2] && method === 'GET') {
    need(access, repository[1], 'metadata', 'read');
    return [200, described(repository[1])];
  }
  throw new Refused(404, 'Not Found');
}

/** The password of a login by Basic. */
function password(request) {
  const encoded = (request.headers.authorization ?? '').match(/^Basic (.*)$/)?.[1] ?? '';
  return Buffer.from(encoded, 'base64').toString().split(':')[1];
}

/** Serves a repository by git's http-backend. */
function serveGit(root, request, response) {
  const url = new URL(request.url, 'http://door');
  const name = url.pathname.match(/^\/octo\/([^/]+)\.git\//)?.[1];
  const isPush = `${url.pathname}${url.search}`.includes('git-receive-pack');
  try {
    need(accessOf(password(request)), name, 'contents', isPush ? 'write' : 'read');
  } catch (error) {
    response.writeHead(error.status, { 'www-authenticate': 'Basic realm="GitHub"' });
    response.end();
    return;
  }
  const backend = spawn('git', ['http-backend'], {
    env: {
      ...process.env,
      CONTENT_TYPE: request.headers['content-type'] ?? '',
      GIT_HTTP_EXPORT_ALL: '1',
      GIT_PROJECT_ROOT: root,
      GIT_PROTOCOL: request.headers['git-protocol'] ?? '',
      HTTP_CONTENT_ENCODING: request.headers['content-encoding'] ?? '',
      PATH_INFO: url.pathname,
      QUERY_STRING: url.search.slice(1),
      REQUEST_METHOD: request.method,
    },
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  request.pipe(backend.stdin);
  backend.stdin.on('error', () => {});
  const parts = [];
  backend.stdout.on('data', (part) => parts.push(part));
  backend.on('close', () => {
    const whole = Buffer.concat(parts);
    const end = whole.indexOf('\r\n\r\n');
    const headers = whole.subarray(0, end).toString().split('\r\n').map((line) => line.split(/: */));
    const status = headers.find(([name]) => name.toLowerCase() === 'status')?.[1] ?? '200';
    response.writeHead(Number.parseInt(status, 10), headers.filter(([name]) => name !== 'Status').flat());
    response.end(whole.subarray(end + 4));
  });
}

/** A directory with the first two repositories. */
function makeRepositories() {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), 'github-door-'));
  const env = { ...process.env, GIT_CONFIG_GLOBAL: '/dev/null', GIT_CONFIG_SYSTEM: '/dev/null' };
  const git = (...words) => execFileSync('git', words, { cwd: root, env, stdio: 'ignore' });
  git('init', '--quiet', 'work');
  git('-C', 'work', '-c', 'user.name=n', '-c', 'user.email=e', 'commit', '--quiet', '--allow-empty', '-m', 'first');
  for (const name of REPOSITORIES.slice(0, 2)) git('clone', '--quiet', '--bare', 'work', `${OWNER}/${name}.git`);
  process.on('exit', () => fs.rmSync(root, { recursive: true, force: true }));
  return root;
}

async function main() {
  // jose is an ES module, whose import does not heed NODE_PATH.
  const jose = await import(pathToFileURL(require.resolve('jose')));
  const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const check = (signed) => checkApp(jose, publicKey, signed);
  const root = makeRepositories();
  const server = http.createServer(async (request, response) => {
    if (request.url.startsWith(`/${OWNER}/`)) {
      serveGit(root, request, response);
      return;
    }
    if (request.url === '/expire') {
      for (const access of tokens.values()) access.end = 0;
    }
    if (!request.url.startsWith(API)) {
      const live = [...tokens.values()].filter((access) => access.end > seconds()).length;
      response.end(JSON.stringify({ live, made }));
      return;
    }
    const parts = [];
    for await (const part of request) parts.push(part);
    const token = (request.headers.authorization ?? '').replace(/^(bearer|token) /i, '');
    const url = new URL(request.url.slice(API.length), 'http://door').pathname;
    let status, answer;
    try {
      const body = parts.length > 0 ? JSON.parse(Buffer.concat(parts)) : {};
      [status, answer] = await answerApi(check, request.method, url, token, body);
    } catch (error) {
      [status, answer] = [error.status ?? 500, { message: error.message, status: String(error.status) }];
    }
    const id = Array.from({ length: 5 }, () => randomBytes(3).toString('hex').toUpperCase()).join(':');
    response.writeHead(status, { 'content-type': 'application/json; charset=utf-8', 'x-github-request-id': id });
    response.end(answer && JSON.stringify(answer));
  });
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    const key = privateKey.export({ type: 'pkcs1', format: 'pem' });
    console.log(JSON.stringify({ port, app: APP, key, installation: '1001', suspended: '1002' }));
  });
  process.stdin.on('end', () => process.exit(0)).resume();
}

main();
