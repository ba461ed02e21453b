// grpc-js: `node client.js TARGET CASE [AUTHORITY]`, as cases.py says. NETUTIL_PROTO_PATH names
// the directories of .proto files, with a colon between.
'use strict';

const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const MANY = 1000;
const UPLOADS = [...Array(100).fill(60000), ...Array(10).fill(100000)];
const KEEPALIVE_MILLISECONDS = 9000;
const ECHO_TEXT = 'a value';
const ECHO_BYTES = Buffer.from(Array.from({ length: 256 }, (_, number) => number));

const protos = loader.loadSync(
  ['netutil/v1alpha/netutil.proto', 'health.proto', 'google/rpc/status.proto',
    'google/rpc/error_details.proto'],
  { includeDirs: process.env.NETUTIL_PROTO_PATH.split(':'), enums: Number, keepCase: true },
);
const packages = grpc.loadPackageDefinition(protos);

class Client {
  constructor(target, options) {
    const credentials = grpc.credentials.createInsecure();
    this.agent = new packages.v1alpha.NetUtil(target, credentials, options);
    this.checks = new packages.grpc.health.v1.Health(target, credentials, options);
  }

  close() {
    this.agent.close();
    this.checks.close();
  }

  // Resolves to {error, answer, initial, trailing}.
  ask(method, request = {}, metadata = new grpc.Metadata(), options = {}) {
    return new Promise((resolve) => {
      const found = {};
      const call = this.agent[method](request, metadata, options, (error, answer) => {
        Object.assign(found, { error, answer });
      });
      call.on('metadata', (initial) => { found.initial = initial; });
      call.on('status', (status) => { resolve({ ...found, trailing: status.metadata }); });
    });
  }

  // Resolves to a call's first snapshot.
  static first(call) {
    return new Promise((resolve, reject) => {
      call.once('data', resolve);
      call.once('error', reject);
    });
  }

  // Resolves to the code that a stream ends with.
  static end(call) {
    return new Promise((resolve) => {
      call.on('data', () => {});
      call.on('error', () => {}); // the status says the same
      call.on('status', (status) => resolve(status.code));
    });
  }

  // Resolves to the code of a call.
  async pod(metadata = new grpc.Metadata()) {
    return codeOf((await this.ask('GetPod', {}, metadata)).error);
  }

  async unary() {
    const { error, answer } = await this.ask('GetPod');
    return error ? failure(error) : { code: 0, name: answer.name };
  }

  async error() {
    const { error } = await this.ask('GetEnv', { key: 'NOT_SET' });
    const details = error.metadata.get('grpc-status-details-bin')[0];
    const status = protos['google.rpc.Status'].deserialize(details);
    const info = protos['google.rpc.ErrorInfo'].deserialize(status.details[0].value);
    return { ...failure(error), reason: info.reason, domain: info.domain };
  }

  async large() {
    const { error, answer } = await this.ask('GetEnv');
    if (error) return failure(error);
    const pairs = Object.entries(answer.envs);
    return { code: 0, bytes: pairs.reduce((sum, [key, value]) => sum + key.length + value.length, 0) };
  }

  async uploads() {
    const calls = UPLOADS.map((size) => this.ask('GetEnv', { key: 'k'.repeat(size) }));
    return { codes: counted(await Promise.all(calls)), then: await this.pod() };
  }

  async watch() {
    const call = this.agent.Watch({});
    const { snapshot } = await Client.first(call);
    const ended = Client.end(call);
    call.cancel();
    const code = await ended;
    return { name: snapshot.pod.name, code, then: await this.pod() };
  }

  async keepalive() {
    const call = this.agent.Watch({});
    await Client.first(call);
    const ended = Client.end(call);
    setTimeout(() => call.cancel(), KEEPALIVE_MILLISECONDS);
    return { code: await ended, then: await this.pod() };
  }

  async ended() {
    const call = this.agent.Watch({});
    await Client.first(call);
    console.log('watching');
    return { code: await Client.end(call) };
  }

  async many() {
    const answers = await Promise.all(Array.from({ length: MANY }, () => this.ask('GetPod')));
    return { codes: counted(answers) };
  }

  async gzip() {
    const { error, trailing } = await this.ask('GetPod');
    return error ? failure(error) : { code: 0, encoding: trailing.get('request-encoding')[0] };
  }

  async deadline() {
    return { code: await Client.end(this.agent.Watch({}, { deadline: Date.now() + 200 })) };
  }

  async metadata() {
    const sent = new grpc.Metadata();
    sent.set('echo-text', ECHO_TEXT);
    sent.set('echo-bytes-bin', ECHO_BYTES);
    const { error, initial, trailing } = await this.ask('GetPod', {}, sent);
    if (error) return failure(error);
    return { code: 0, initial: echoed(initial, 'initial-'), trailing: echoed(trailing, '') };
  }

  async large_metadata() {
    const sent = new grpc.Metadata();
    sent.set('large', 'x'.repeat(9000));
    return { code: await this.pod(sent), then: await this.pod() };
  }

  async health() {
    const codes = [];
    const statuses = [];
    for (const service of ['', 'v1alpha.NetUtil', 'not.There']) {
      await new Promise((resolve) => {
        this.checks.Check({ service }, (error, answer) => {
          codes.push(codeOf(error));
          if (answer) statuses.push(answer.status);
          resolve();
        });
      });
    }
    return { codes, statuses };
  }

  async load(waitForReady = false) {
    const answers = [];
    let ended = false;
    const call = async (method) => {
      const metadata = new grpc.Metadata({ waitForReady });
      const answer = await this.ask(method, {}, metadata, { deadline: Date.now() + 30000 });
      answers.push({ error: answer.error });
    };
    const work = async (method) => {
      while (!ended) {
        await call(method);
        await new Promise((resolve) => { setTimeout(resolve, 1); });
      }
    };
    const methods = ['GetHugepages', 'GetEnv', 'GetPod', 'GetPod'];
    await Promise.all(methods.map(call));
    console.log('calling');
    process.stdin.on('end', () => { ended = true; }).resume();
    await Promise.all(methods.map(work));
    const failed = answers.filter(({ error }) => error);
    return { codes: counted(answers), errors: failed.map(({ error }) => String(error)) };
  }

  load_waiting() {
    return this.load(true);
  }
}

function codeOf(error) {
  return error ? error.code : 0;
}

// How many calls ended with each code.
function counted(answers) {
  const codes = {};
  for (const { error } of answers) codes[codeOf(error)] = (codes[codeOf(error)] || 0) + 1;
  return codes;
}

function failure(error) {
  return { code: error.code, message: error.details };
}

function echoed(metadata, prefix) {
  return {
    text: metadata.get(`${prefix}echo-text`)[0],
    bytes: metadata.get(`${prefix}echo-bytes-bin`)[0].toString('hex'),
  };
}

async function main() {
  const [target, name, authority] = process.argv.slice(2);
  const options = {};
  if (authority !== undefined) options['grpc.default_authority'] = authority;
  if (name === 'gzip') {
    options['grpc.default_compression_algorithm'] = grpc.compressionAlgorithms.gzip;
  }
  if (name === 'keepalive') options['grpc.keepalive_time_ms'] = 2000;
  const client = new Client(target, options);
  console.log(JSON.stringify(await client[name]()));
  client.close();
}

main();
