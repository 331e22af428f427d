// A gateway for browsers: server-sent events from a galaxy-push server. See ../README.md.
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import os from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import grpc from "@grpc/grpc-js";
import loader from "@grpc/proto-loader";
import { Browsers } from "./browsers.mjs";
import { delayMs } from "./retry.mjs";

const FIRST_BACKOFF_MS = 200;
const HEADERS_MS = 20_000;
const STORE_MS = 100;
// A new connection, and not that of the stream before, which may be dead.
const CHANNEL_OPTIONS = { "grpc.use_local_subchannel_pool": 1 };

const { values: options } = parseArgs({
  options: {
    connect: { type: "string" },
    id: { type: "string" },
    listen: { type: "string" },
    state: { type: "string" },
    "token-file": { type: "string" },
    heartbeat: { type: "string", default: "15" },
    stale: { type: "string", default: "45" },
    "max-backoff": { type: "string", default: "30" },
  },
});
for (const name of ["connect", "id", "listen", "state"]) {
  if (options[name]) continue;
  console.error(`--${name} is needed`);
  process.exit(2);
}

const proto = loader.loadSync("galaxy/backend/push/v1/push.proto", {
  includeDirs: [fileURLToPath(new URL("../../../proto", import.meta.url))],
  defaults: true,
  oneofs: true,
});
const { Push } = grpc.loadPackageDefinition(proto).galaxy.backend.push.v1;

const browsers = new Browsers();
let position = existsSync(options.state) ? readFileSync(options.state, "utf8").trim() : "";
let replay; // how many messages are to come before its end mark; below 0: it is over
let backoff = FIRST_BACKOFF_MS;
let stopping = false;
let call, staleTimer;

function log(text, ...values) {
  console.error(`${new Date().toISOString()} ${text}`, ...values);
}

// One stream after another, until the server calls the request invalid.
async function subscribe() {
  while (!stopping) {
    let delay = 0;
    try {
      await stream();
    } catch (error) {
      delay = delayMs(error);
      log(`the stream ended: ${error.message}`);
      if (error.code === grpc.status.INVALID_ARGUMENT) return stop(1);
      if (error.code === grpc.status.ABORTED) {
        refuse("another process has the id");
        backoff = options["max-backoff"] * 1000;
      }
    }
    await sleep(Math.max(delay, (backoff * (1 + Math.random())) / 2));
    backoff = Math.min(2 * backoff, options["max-backoff"] * 1000);
  }
}

async function stream() {
  const metadata = new grpc.Metadata();
  metadata.set("push-heartbeat", `${options.heartbeat}s`);
  metadata.set("push-revocations", "replay");
  metadata.set("push-instance", `${os.hostname()}/${process.pid}`);
  if (options["token-file"]) {
    const token = readFileSync(options["token-file"], "utf8").trim();
    metadata.set("authorization", `Bearer ${token}`);
  }
  const client = new Push(options.connect, grpc.credentials.createInsecure(), CHANNEL_OPTIONS);
  call = client.SubscribePush({ gatewayClientId: options.id, cursor: position }, metadata);
  call.on("error", () => {}); // it is thrown below; that of `cancel` says nothing
  const drop = () => call.destroy(new Error("nothing came in time"));
  let watchdog = setTimeout(drop, HEADERS_MS);
  try {
    const [headers] = await once(call, "metadata");
    const start = headers.getMap();
    begin(start);
    clearTimeout(watchdog);
    if (start["push-heartbeat"]) watchdog = setTimeout(drop, 2000 * options.heartbeat);
    for await (const event of call) {
      if (start["push-heartbeat"]) watchdog.refresh();
      handle(event);
    }
  } finally {
    clearTimeout(watchdog);
    call.cancel();
    client.close();
  }
}

function begin(start) {
  const fresh = start["push-resume"] !== "resumed";
  replay = Number(start["push-revocations-count"] ?? -1);
  if (fresh && !browsers.isEmpty) gap(start);
  if (replay >= 0) return;
  if (fresh) processed(start["push-start-cursor"]);
  alive();
}

function gap(start) {
  log("a gap: %j", start);
  if (start["push-revocations"] !== "complete") refuse("revocations may be missing");
}

function handle({ kind, cursor, clientEvent, sessionInvalidation }) {
  // Within the replay it is a heartbeat: its cursor may be that of the end mark.
  if (!kind && replay > 0) return;
  const repeated = replay < 0 && isRepeated(cursor);
  replay -= 1;
  if (sessionInvalidation) revoke(sessionInvalidation, cursor);
  if (kind && repeated) throw new Error(`${cursor} came after ${position}`);
  if (clientEvent) browsers.forward(clientEvent);
  if (!repeated) processed(cursor);
  backoff = FIRST_BACKOFF_MS;
  if (replay < 0) alive();
}

function isRepeated(cursor) {
  const sameEpoch = cursor.slice(0, 12) === position.slice(0, 12);
  return sameEpoch && cursor <= position;
}

function revoke(invalidation, cursor) {
  browsers.revoke(invalidation);
  const { userId: user, deviceSessionId: session, reason } = invalidation;
  log("revoked: user %j, session %j, reason %j, cursor %s", user, session, reason, cursor);
}

// Every revocation up to now is known, which is good for a limited time.
function alive() {
  browsers.serving = true;
  clearTimeout(staleTimer);
  staleTimer = setTimeout(refuse, options.stale * 1000, "no stream has been alive");
}

function refuse(reason) {
  log(`no session is served: ${reason}`);
  browsers.refuse();
}

function processed(cursor) {
  position = cursor || position;
}

async function store() {
  let stored = position;
  while (stored !== position || !stopping) {
    await sleep(STORE_MS);
    if (stored === position) continue;
    stored = position;
    try {
      await writeFile(`${options.state}.new`, stored, { flush: true }); // with fsync
      await rename(`${options.state}.new`, options.state);
    } catch (error) {
      log(`the cursor is not stored: ${error.message}`); // the older one stays: events repeat
    }
  }
}

async function stop(code) {
  stopping = true;
  call?.cancel();
  browsers.close();
  await storing;
  process.exit(code);
}

log(`listening on ${await browsers.listen(options.listen)}`);
const storing = store();
subscribe();
for (const signal of ["SIGTERM", "SIGINT"]) process.once(signal, () => stop(0));
