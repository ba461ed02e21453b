// The sidecar's client in another language's gRPC (grpc-js, which shares no code with
// grpcio's C core): messages declared by field number only.
const grpc = require('@grpc/grpc-js')
const protobuf = require('protobufjs')

const root = protobuf.parse(`
  syntax = "proto3"; package v1alpha;
  message CPURequest { string pid = 1; }
  message CPUResponse { string cpuset = 1; }
  message EnvRequest { string pid = 1; string key = 2; }
  message EnvResponse { map<string, string> envs = 1; }
  message NetworkStatusRequest { string pid = 1; string int = 2; }
  message NetworkStatus { string name = 1; string interface = 2; string mac = 3; repeated string ips = 4; }
  message NetworkStatusResponse { repeated NetworkStatus status = 1; }
`, { keepCase: true }).root

const client = new grpc.Client(`unix://${process.argv[2]}`, grpc.credentials.createInsecure())

function call (method, request, response, fields) {
  const ask = root.lookupType(`v1alpha.${request}`)
  const answer = root.lookupType(`v1alpha.${response}`)
  return new Promise((resolve, reject) => client.makeUnaryRequest(
    `/v1alpha.NetUtil/${method}`,
    message => Buffer.from(ask.encode(ask.create(message)).finish()),
    bytes => answer.toObject(answer.decode(bytes), { defaults: true }),
    fields, { deadline: Date.now() + 10000 },
    (error, found) => error ? reject(error) : resolve(found)))
}

async function main () {
  const pid = String(process.pid)
  const cpu = await call('GetCPUInfo', 'CPURequest', 'CPUResponse', { pid })
  const env = await call('GetEnv', 'EnvRequest', 'EnvResponse', { pid })
  const net = await call('GetNetworkStatus', 'NetworkStatusRequest', 'NetworkStatusResponse', { pid })
  let refused = ''
  try {
    await call('GetEnv', 'EnvRequest', 'EnvResponse', { pid, key: 'NOT_SET' })
  } catch (error) {
    refused = grpc.status[error.code]
  }
  console.log(JSON.stringify({
    cpuset: cpu.cpuset, who: env.envs.WHO, refused, interfaces: net.status.map(s => s.interface)
  }))
  client.close()
}

main().catch(error => { console.error(error); process.exit(1) })
