// The browsers' half of the gateway: sessions, and server-sent events to them.
import { isUtf8 } from "node:buffer";
import { once } from "node:events";
import http from "node:http";

const QUEUE_EVENTS = 64;

// Ask your backend here whether the session is valid: this accepts everybody.
async function authenticate(user, session) {
  return true;
}

// A browser's stream of events, from before its authentication until it has `ended`.
class Session {
  ended = false;
  #queue = [];
  #response;

  constructor(name, response) {
    this.name = name;
    this.#response = response;
  }

  open() {
    const headers = { "content-type": "text/event-stream", "cache-control": "no-store" };
    this.#response.writeHead(200, headers).write(": open\n\n");
    this.#response.on("drain", () => this.#flush());
    this.#flush();
  }

  send(text) {
    if (this.ended) return;
    if (this.#queue.length === QUEUE_EVENTS) return this.end(); // the browser is too slow
    this.#queue.push(text);
    this.#flush();
  }

  // Nothing is delivered any more.
  end() {
    this.ended = true;
    this.#queue = [];
    if (!this.#response.headersSent) return; // it is refused when its authentication ends
    // A graceful end would first deliver what the response has not sent yet.
    if (this.#response.writableLength) this.#response.destroy();
    else this.#response.end();
  }

  #flush() {
    const response = this.#response;
    while (this.#queue.length && response.headersSent && !response.writableNeedDrain)
      response.write(this.#queue.shift());
  }
}

export class Browsers {
  serving = false;
  #sessions = new Map(); // a set for each user
  #server = http.createServer((request, response) =>
    this.#respond(request, response).catch((error) => {
      console.error(error);
      response.destroy();
    }),
  );

  get isEmpty() {
    return !this.#sessions.size;
  }

  // Returns the address, with its port where that was 0.
  async listen(address) {
    const [, host, port] = address.match(/(.*):(\d+)$/);
    await once(this.#server.listen(port, host), "listening");
    return `${host}:${this.#server.address().port}`;
  }

  // The session that a message names, or all of the user.
  #named({ userId, deviceSessionId: name }) {
    const sessions = [...(this.#sessions.get(userId) ?? [])];
    return sessions.filter((session) => !name || session.name === name);
  }

  forward(event) {
    const { kind, eventId: event_id, payload } = event;
    const content = isUtf8(payload)
      ? { kind, event_id, payload: payload.toString() }
      : { kind, event_id, payload_base64: payload.toString("base64") };
    const text = `data: ${JSON.stringify(content)}\n\n`;
    for (const session of this.#named(event)) session.send(text);
  }

  revoke(invalidation) {
    for (const session of this.#named(invalidation)) session.end();
  }

  // Ends every session, and opens none until `serving` is set again.
  refuse() {
    this.serving = false;
    for (const sessions of this.#sessions.values())
      for (const session of sessions) session.end();
  }

  close() {
    this.refuse();
    this.#server.close();
  }

  async #respond(request, response) {
    const { pathname, searchParams } = new URL(request.url, "http://gateway");
    const status = (code) => response.writeHead(code).end();
    if (pathname === "/healthz") return status(this.serving ? 200 : 503);
    if (pathname !== "/events") return status(404);
    const [user, name] = [searchParams.get("user"), searchParams.get("session")];
    if (!user || !name) return status(400);
    if (!this.serving) return status(503);
    // The session can be revoked from here on. An invalidation that the backend's response does
    // not know of may come before that response.
    const session = new Session(name, response);
    const sessions = this.#sessions.get(user) ?? new Set();
    this.#sessions.set(user, sessions.add(session));
    response.on("close", () => {
      sessions.delete(session);
      if (!sessions.size) this.#sessions.delete(user);
    });
    const valid = await authenticate(user, name);
    if (valid && !session.ended) session.open();
    else status(this.serving ? 403 : 503);
  }
}
