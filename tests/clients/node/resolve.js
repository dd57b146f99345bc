// Resolves a connection as a workflow step, and prints its fields as JSON.
'use strict';

const fs = require('node:fs');
const path = require('node:path');
const { parseArgs } = require('node:util');
const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');

const TIMEOUT_MS = 10_000;

const env = process.env;
const protos = env.KEYHATCH_PROTO ?? path.join(__dirname, '../../../proto');
const { keyhatch } = grpc.loadPackageDefinition(
  protoLoader.loadSync('keyhatch/v1/step.proto', {
    includeDirs: [protos],
    keepCase: true,
    defaults: true, // Without it a credential with no fields has no `fields` at all.
  }),
);

/** Opens a client of the broker, as this step. */
function connect(setAuthority = true) {
  const [ca, key, certificate] = [
    env.KEYHATCH_CACERT,
    env.KEYHATCH_CLIENT_KEY,
    env.KEYHATCH_CLIENT_CERT,
  ].map((file) => fs.readFileSync(file));
  const credentials = grpc.credentials.createSsl(ca, key, certificate);
  // grpc-js says localhost on every Unix socket by itself; other libraries do not.
  const authority = { 'grpc.default_authority': env.KEYHATCH_AUTHORITY };
  const options = setAuthority ? authority : {};
  return new keyhatch.v1.StepService(env.KEYHATCH_ADDR, credentials, options);
}

/** Returns the connection's fields, decoded. */
function resolve(client, integration, name) {
  const request = { connection: { integration, name } };
  const deadline = Date.now() + TIMEOUT_MS;
  const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  return new Promise((succeed, fail) => {
    client.Resolve(request, { deadline }, (error, response) => {
      if (error) return fail(error);
      const fields = Object.keys(response.fields).sort();
      const decoded = fields.map((field) => [field, utf8.decode(response.fields[field])]);
      succeed(Object.fromEntries(decoded));
    });
  });
}

// google/rpc/status.proto and error_details.proto, as far as they are read here: no package of gRPC for
// Node has them.
const { 'rpc.Status': Status, 'rpc.ErrorInfo': ErrorInfo } = protoLoader.fromJSON({
  nested: {
    rpc: {
      nested: {
        Status: { fields: { details: { rule: 'repeated', type: 'Any', id: 3 } } },
        Any: { fields: { type_url: { type: 'string', id: 1 }, value: { type: 'bytes', id: 2 } } },
        ErrorInfo: { fields: { reason: { type: 'string', id: 1 } } },
      },
    },
  },
});

/** Returns what to switch on: the reason in ErrorInfo, or the status code if gRPC itself failed. */
function reason(error) {
  for (const status of error.metadata.get('grpc-status-details-bin')) {
    for (const detail of Status.deserialize(status).details ?? []) {
      if (detail.type_url === 'type.googleapis.com/google.rpc.ErrorInfo') {
        return ErrorInfo.deserialize(detail.value).reason;
      }
    }
  }
  return grpc.status[error.code];
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { 'default-authority-unset': { type: 'boolean' } },
  });
  if (positionals.length !== 1) {
    console.error('usage: resolve.js [--default-authority-unset] INTEGRATION/NAME');
    process.exitCode = 2;
    return;
  }
  const [integration, ...name] = positionals[0].split('/');
  const client = connect(!values['default-authority-unset']);
  try {
    console.log(JSON.stringify(await resolve(client, integration, name.join('/'))));
  } catch (error) {
    if (!(error.metadata instanceof grpc.Metadata)) throw error;
    console.error(`error: ${reason(error)}: ${error.details}`);
    process.exitCode = 1;
  } finally {
    client.close();
  }
}

main();
