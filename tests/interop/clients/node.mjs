// grpc-js as a gateway and a publisher uses it, driven by lines of JSON: each request has an
// `id` and an `op`, each reply has the `id` and either `ok` or `end` (how the call ended).
// usage: node node.mjs PROTO_DIRECTORY
import fs from "node:fs";
import readline from "node:readline";
import { createRequire } from "node:module";

// From where the packages are installed, which is not beside this file.
const require = createRequire(process.cwd() + "/");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const directory = process.argv[2];
const proto = grpc.loadPackageDefinition(
  loader.loadSync(
    [
      "galaxy/backend/push/v1/push.proto",
      "galaxy/push/publisher/v1/publisher.proto",
    ],
    { includeDirs: [directory], keepCase: true, bytes: String },
  ),
);
const Push = proto.galaxy.backend.push.v1.Push;
const Publisher = proto.galaxy.push.publisher.v1.Publisher;

const connections = new Map();
const calls = new Map();

function metadata(all) {
  return Object.entries(all?.getMap() ?? {}).map(([key, value]) => [key, `${value}`]);
}

function end({ code, details, metadata: trailers }) {
  const [statusDetails] = trailers?.get("grpc-status-details-bin") ?? [];
  return {
    code: grpc.status[code],
    details,
    trailers: metadata(trailers),
    statusDetails: statusDetails?.toString("base64") ?? "",
  };
}

// The parts of a call that can be waited for, each as a promise or an iterator.
function watch(call) {
  // The status says how a call ended, and an error that nobody listens to ends Node.
  call.on("error", () => {});
  return {
    call,
    headers: new Promise((resolve) => {
      call.on("metadata", (headers) => resolve({ headers: metadata(headers) }));
      call.on("status", (status) => resolve({ end: end(status) }));
    }),
    status: new Promise((resolve) => call.on("status", (status) => resolve(end(status)))),
    messages: call[Symbol.asyncIterator](),
  };
}

function keep(connection, number, call) {
  calls.set(number, watch(call));
  connections.get(connection).calls.push({ call, number });
}

const operations = {
  connect({ connection, target, tls }) {
    // One connection each, as gateways on machines of their own have.
    const options = { "grpc.use_local_subchannel_pool": 1 };
    const read = (path) => (path ? fs.readFileSync(path) : null);
    const credentials = tls
      ? grpc.credentials.createSsl(read(tls.ca), read(tls.key), read(tls.certificate))
      : grpc.credentials.createInsecure();
    connections.set(connection, {
      push: new Push(target, credentials, options),
      publisher: new Publisher(target, credentials, options),
      calls: [],
    });
  },
  close({ connection }) {
    const { push, publisher, calls: open } = connections.get(connection);
    // Closing a client leaves its calls alone.
    for (const { call, number } of open) {
      call.cancel();
      calls.delete(number);
    }
    push.close();
    publisher.close();
    connections.delete(connection);
  },
  subscribe({ connection, call, request, timeout }) {
    const options = { deadline: Date.now() + timeout * 1000 };
    keep(connection, call, connections.get(connection).push.SubscribePush(request, options));
  },
  feed({ connection, call, timeout }) {
    const options = { deadline: Date.now() + timeout * 1000 };
    keep(connection, call, connections.get(connection).publisher.PublishStream(options));
  },
  publish({ connection, events, timeout }) {
    const options = { deadline: Date.now() + timeout * 1000 };
    const { publisher } = connections.get(connection);
    return new Promise((resolve, reject) =>
      publisher.Publish({ events }, options, (error, response) =>
        error ? reject(error) : resolve(response),
      ),
    );
  },
  send({ call, events }) {
    calls.get(call).call.write({ events });
  },
  finish({ call }) {
    calls.get(call).call.end();
  },
  async headers({ call }) {
    const { headers, end: ended } = await calls.get(call).headers;
    return headers ?? ended.trailers;
  },
  async next({ call, count }) {
    const { messages } = calls.get(call);
    const taken = [];
    try {
      while (taken.length < count) {
        const { value, done } = await messages.next();
        if (done) return { taken, ended: true };
        taken.push(value);
      }
    } catch {
      return { taken, ended: true }; // the status says it
    }
    return { taken, ended: false };
  },
  async status({ call }) {
    // Reads on to the end: the status comes after the last message.
    while (!(await operations.next({ call, count: 1 })).ended);
    return calls.get(call).status;
  },
  cancel({ call }) {
    calls.get(call).call.cancel();
  },
};

function reply(message) {
  process.stdout.write(JSON.stringify(message) + "\n");
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  const { id, op, ...request } = JSON.parse(line);
  Promise.resolve()
    .then(() => operations[op](request))
    .then(
      (ok) => reply({ id, ok: ok ?? null }),
      (error) =>
        "metadata" in error
          ? reply({ id, end: end(error) })
          : reply({ id, bug: error.stack }),
    );
}
process.exit(0);
