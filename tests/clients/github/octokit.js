// GitHub's stock client. Both commands print one line of JSON for each answer.
//
//   octokit.js app API    makes tokens of an App for each line of stdin (appId, privateKey, installationId, permissions,
//                         repositoryNames), uses and revokes each: the statuses of all three
//   octokit.js step API   for each line of stdin, uses GITHUB_TOKEN: the repositories, and the statuses of an issue in
//                         website, and of a look at handbook
'use strict';

const readline = require('node:readline');
const { pathToFileURL } = require('node:url');

/** The packages are ES modules, whose imports do not heed NODE_PATH. */
const load = (name) => import(pathToFileURL(require.resolve(name)));
const log = { debug() {}, error() {}, info() {}, warn() {} };

/** The status of an answer, refusals included. */
async function status(answer) {
  try {
    return (await answer).status;
  } catch (error) {
    if (error.status === undefined) throw error;
    return error.status;
  }
}

async function useApp({ Octokit, createAppAuth }, baseUrl, { permissions, repositoryNames, ...app }) {
  const own = new Octokit({ authStrategy: createAppAuth, auth: app, baseUrl, log });
  let made;
  try {
    made = await own.auth({ type: 'installation', permissions, repositoryNames });
  } catch (error) {
    if (error.status === undefined) throw error;
    return { made: error.status };
  }
  const octokit = new Octokit({ auth: made.token, baseUrl, log });
  const used = await status(octokit.rest.apps.listReposAccessibleToInstallation());
  const revoked = await status(octokit.rest.apps.revokeInstallationAccessToken());
  return { made: 201, used, revoked, after: await status(octokit.rest.apps.revokeInstallationAccessToken()) };
}

async function useToken({ Octokit }, baseUrl) {
  const octokit = new Octokit({ auth: process.env.GITHUB_TOKEN, baseUrl, log });
  const owner = 'octo';
  let repositories;
  try {
    const { data } = await octokit.rest.apps.listReposAccessibleToInstallation();
    repositories = data.repositories.map((repository) => repository.name);
  } catch (error) {
    repositories = error.status;
  }
  const issue = await status(octokit.rest.issues.create({ owner, repo: 'website', title: 'a step was here' }));
  const handbook = await status(octokit.rest.repos.get({ owner, repo: 'handbook' }));
  return { repositories, issue, handbook };
}

async function main() {
  const [command, api] = process.argv.slice(2);
  const [{ Octokit }, { createAppAuth }] = await Promise.all([load('@octokit/rest'), load('@octokit/auth-app')]);
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const answer = command === 'app'
      ? await useApp({ Octokit, createAppAuth }, api, JSON.parse(line))
      : await useToken({ Octokit }, api);
    console.log(JSON.stringify(answer));
  }
}

main();
