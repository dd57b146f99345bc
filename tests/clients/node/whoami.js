// Asks a broker elsewhere, as an operator, who that is to it. Prints the answer as JSON.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const tls = require('node:tls');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const TIMEOUT_MS = 10_000;

const env = process.env;
const protos = env.KEYHATCH_PROTO ?? path.join(__dirname, '../../../proto');
const { keyhatch } = grpc.loadPackageDefinition(
  protoLoader.loadSync('keyhatch/v1/admin.proto', {
    includeDirs: [protos],
    keepCase: true,
    enums: String,
    defaults: true,
  }),
);

const [ca, key, certificate] = [
  env.KEYHATCH_CACERT,
  env.KEYHATCH_CLIENT_KEY,
  env.KEYHATCH_CLIENT_CERT,
].map((file) => fs.readFileSync(file));

/** Checks the host's name, and the broker's own identity. This function replaces the check of the name by Node. */
function checkServerIdentity(host, presented) {
  const otherHost = tls.checkServerIdentity(host, presented);
  if (otherHost) return otherHost;
  const names = presented.subjectaltname.split(', ');
  const expected = `URI:${env.KEYHATCH_BROKER}`;
  return names.includes(expected) ? undefined : new Error(`${host} is not ${expected}`);
}

const credentials = grpc.credentials.createSsl(ca, key, certificate, { checkServerIdentity });
const client = new keyhatch.v1.OperatorService(env.KEYHATCH_ADDR, credentials);
client.WhoAmI({}, { deadline: Date.now() + TIMEOUT_MS }, (error, me) => {
  client.close();
  if (error) {
    console.error(`error: ${grpc.status[error.code]}: ${error.details}`);
    process.exitCode = 1;
    return;
  }
  console.log(JSON.stringify({ operator: me.operator.name, role: me.operator.role }));
});
