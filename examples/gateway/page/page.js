// Shows what comes over the gateway, and checks that it was signed by it and meant for this session.

const $ = (id) => document.getElementById(id);
const MAX_SHOWN = 200;

let session = null;
let keys = new Map();
let connection = null;
// Events are shown in their order, though each is checked for a while.
let shown = Promise.resolve();

const fromBase64url = (text) => Uint8Array.from(
  atob(text.replaceAll('-', '+').replaceAll('_', '/')), (character) => character.charCodeAt(0),
);
const utf8 = new TextDecoder('utf-8', { fatal: true });

function say(id, text) {
  $(id).textContent = text;
}

async function ask(path, options = {}) {
  const response = await fetch(path, { credentials: 'same-origin', ...options });
  const isJson = response.headers.get('content-type')?.startsWith('application/json');
  return { status: response.status, body: isJson ? await response.json() : null };
}

async function loadKeys() {
  const { body } = await ask('.well-known/jwks.json');
  keys = new Map();
  for (const jwk of body.keys) {
    keys.set(jwk.kid, await crypto.subtle.importKey('jwk', jwk, { name: 'Ed25519' }, false, ['verify']));
  }
}

// What the envelope says, and whether it is to be believed, in this session: the reason if not.
async function open(envelope, of) {
  let header = null;
  try {
    header = JSON.parse(utf8.decode(fromBase64url(envelope.protected)));
  } catch {
    // It is none.
  }
  if (typeof header !== 'object' || header === null) return { header: {}, fault: 'its header cannot be read' };
  const key = keys.get(header.kid);
  if (header.alg !== 'EdDSA' || key === undefined) return { header, fault: 'it is signed by an unknown key' };
  if (header.typ !== 'galaxy-push-event+jws') return { header, fault: 'it is no event' };
  const signed = new TextEncoder().encode(`${envelope.protected}.${envelope.payload}`);
  let isValid = false;
  try {
    isValid = await crypto.subtle.verify({ name: 'Ed25519' }, key, fromBase64url(envelope.signature), signed);
  } catch {
    // It is no signature.
  }
  if (!isValid) return { header, fault: 'its signature is not valid' };
  if (header.user !== of.user || header.session !== of.session) {
    return { header, fault: 'it is for another session' };
  }
  return { header, fault: null };
}

function payloadOf(envelope) {
  const bytes = fromBase64url(envelope.payload);
  try {
    return utf8.decode(bytes);
  } catch {
    return `${bytes.length} bytes`;
  }
}

async function show(envelope, of) {
  const { header, fault } = await open(envelope, of);
  if (session !== of) return;
  const row = document.createElement('li');
  row.dataset.signature = fault === null ? 'valid' : 'invalid';
  const line = (name, text) => {
    const element = document.createElement('p');
    element.className = name;
    element.textContent = text;
    row.append(element);
  };
  line('payload', fault === null ? payloadOf(envelope) : 'not shown');
  line('about', fault === null ? `${header.kind} at ${header.cursor}` : '');
  line('signature', fault === null ? 'Signature valid' : `Not to be believed: ${fault}`);
  $('events').prepend(row);
  while ($('events').children.length > MAX_SHOWN) $('events').lastChild.remove();
  $('nothing').hidden = true;
}

function take(text) {
  const message = JSON.parse(text);
  if (Number.isSafeInteger(message.lagged)) {
    say('state', `Connected, too slow: ${message.lagged} events were dropped`);
    return;
  }
  // Of the session that it came in: that may be over when it is checked.
  const of = session;
  shown = shown.then(() => show(message, of)).catch((error) => console.error(error));
}

function disconnect() {
  connection?.close();
  connection = null;
}

const CLOSED = new Map([
  [4001, 'The session is revoked'],
  [4002, 'The session is not valid any more'],
  [1001, 'The gateway is stopping'],
]);

function ended(code, reason) {
  connection = null;
  const why = CLOSED.get(code);
  say('state', why === undefined ? 'Disconnected' : `${why}${reason === '' ? '' : `: ${reason}`}`);
  if (code === 4001 || code === 4002) forget();
}

function connectWs() {
  disconnect();
  const socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`);
  connection = socket;
  const isCurrent = () => connection === socket;
  socket.addEventListener('open', () => isCurrent() && say('state', 'Connected by WebSocket'));
  socket.addEventListener('message', ({ data }) => isCurrent() && take(data));
  socket.addEventListener('close', ({ code, reason }) => isCurrent() && ended(code, reason));
}

function connectSse() {
  disconnect();
  const source = new EventSource('sse');
  connection = source;
  source.addEventListener('open', () => say('state', 'Connected by server-sent events'));
  source.addEventListener('message', ({ data }) => take(data));
  source.addEventListener('lagged', ({ data }) => take(data));
  source.addEventListener('closed', ({ data }) => {
    source.close();
    const { code, reason } = JSON.parse(data);
    ended(code, reason);
  });
  // The browser comes back by itself, unless it was refused.
  source.addEventListener('error', () => {
    say('state', source.readyState === EventSource.CLOSED ? 'Disconnected' : 'Reconnecting');
  });
}

function showSession(found) {
  session = found;
  $('session').hidden = session === null;
  $('login').hidden = session !== null;
  if (session !== null) {
    say('who', session.user);
    say('session-id', session.session);
  }
}

// The cookie is of no use any more.
function forget() {
  disconnect();
  showSession(null);
}

async function logIn(event) {
  event.preventDefault();
  const { status, body } = await ask('login', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ user: $('user').value }),
  });
  if (status !== 200) {
    say('state', `Not logged in: ${body?.error ?? status}`);
    return;
  }
  say('state', 'Logged in');
  $('events').replaceChildren();
  $('nothing').hidden = false;
  showSession(body);
}

async function logOut() {
  await ask('logout', { method: 'POST' });
  forget();
  say('state', 'Logged out');
}

async function work() {
  say('work-state', 'Working');
  const { status, body } = await ask('work?steps=100', { method: 'POST' });
  say('work-state', status === 200 ? `All ${body.steps} steps are done` : `Stopped after ${body?.steps ?? 0} steps: ${body?.error ?? status}`);
}

$('login').addEventListener('submit', logIn);
$('connect-ws').addEventListener('click', connectWs);
$('connect-sse').addEventListener('click', connectSse);
$('disconnect').addEventListener('click', () => {
  disconnect();
  say('state', 'Disconnected');
});
$('work').addEventListener('click', work);
$('logout').addEventListener('click', logOut);

await loadKeys();
const { status, body } = await ask('session');
showSession(status === 200 ? body : null);
say('state', status === 200 ? 'Logged in' : 'Not logged in');
