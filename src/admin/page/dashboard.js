// The dashboard: what the server tells of itself, as a page.
//
// Texts of peers (ids, users, reasons, payloads) reach the document as text alone: nothing
// here parses markup. The page sends requests to its own server and nowhere else.

'use strict';

const LIVE_TIMEOUT_MS = 10_000; // The server sends every second.
const REQUEST_TIMEOUT_MS = 15_000;
const FIRST_BACKOFF_MS = 500;
const MAX_BACKOFF_MS = 15_000;
const TABLE_INTERVAL_MS = 2_000;
const HISTORY_SECONDS = 600;
const KEPT_ENDS = 1000;
const KEPT_INVALIDATIONS = 1000;
const KEPT_FOLLOWED = 200;
const ROWS_AT_ONCE = 50;
const MAX_EVENT_CHARACTERS = 8 << 20;

// ---------------------------------------------------------------------------------------
// Texts

/** Characters that are not seen, or that move others: shown by their numbers. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;

/** A text as it can be seen: nothing in it is hidden, nothing turns it round. */
export function visible(text) {
  return String(text).replace(UNSEEN, (character) => {
    const number = character.codePointAt(0).toString(16).toUpperCase().padStart(4, '0');
    return `⟨U+${number}⟩`;
  });
}

/** The same, of texts that may be very long. */
function clipped(text, limit = 300) {
  const all = String(text);
  if (all.length <= limit) return visible(all);
  // Not in the middle of a character.
  const end = all.codePointAt(limit - 1) > 0xffff ? limit - 1 : limit;
  return `${visible(all.slice(0, end))}… (${count(all.length)} characters)`;
}

const WHOLE = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 });

export function count(value) {
  return Number.isFinite(value) ? WHOLE.format(value) : '–';
}

/** A number of at most five characters and a unit of thousands. */
export function short(value) {
  if (!Number.isFinite(value)) return '–';
  const size = Math.abs(value);
  if (size >= 999.5e9) return value.toExponential(2);
  for (const [unit, from, of] of [['G', 999.5e6, 1e9], ['M', 999.5e3, 1e6], ['k', 9999.5, 1e3]]) {
    if (size >= from) return `${SHORT.format(value / of)} ${unit}`;
  }
  return size >= 100 ? WHOLE.format(value) : SHORT.format(value);
}

export function bytes(value) {
  if (!Number.isFinite(value)) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let at = 0;
  let scaled = value;
  while (Math.abs(scaled) >= 999.5 && at < units.length - 1) {
    scaled /= 1024;
    at += 1;
  }
  return `${SHORT.format(scaled)} ${units[at]}`;
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return '–';
  if (seconds <= 0) return '0 s';
  if (seconds < 999.5e-6) return `${SHORT.format(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${SHORT.format(seconds * 1e3)} ms`;
  if (seconds < 59.95) return `${SHORT.format(seconds)} s`;
  const whole = Math.round(seconds);
  const parts = [[86_400, 'd'], [3_600, 'h'], [60, 'min'], [1, 's']];
  const first = parts.findIndex(([length]) => whole >= length);
  const [length, unit] = parts[first];
  const [nextLength, nextUnit] = parts[first + 1];
  const rest = Math.floor((whole % length) / nextLength);
  const text = `${Math.floor(whole / length)} ${unit}`;
  return rest > 0 ? `${text} ${rest} ${nextUnit}` : text;
}

const TIME = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23',
});
const MINUTE = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
const DAY = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short' });
const DATE = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'short', year: 'numeric' });

/** A time of this browser's zone; with the day, unless that is today. */
function localTime(date) {
  const isToday = date.toDateString() === new Date().toDateString();
  return isToday ? TIME.format(date) : `${DAY.format(date)}, ${TIME.format(date)}`;
}

/** When something was, as the API says it; null where that is not a time. */
function parsedTime(text) {
  const date = new Date(text ?? '');
  return Number.isNaN(date.getTime()) ? null : date;
}

function percent(part, whole) {
  return whole > 0 ? part / whole : 0;
}

function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

// ---------------------------------------------------------------------------------------
// The document

const $ = (id) => document.getElementById(id);

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function svg(tag, attributes = {}) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** A text of a peer: kept apart from what stands beside it, also where it is written from right to left. */
function peerText(text, attributes = {}) {
  const element = h('bdi', attributes);
  setPeerText(element, text);
  return element;
}

function setPeerText(element, text) {
  setText(element, text === '' || text === undefined || text === null ? '–' : clipped(text));
}

function setTime(element, text) {
  const date = parsedTime(text);
  if (date === null) {
    setText(element, '–');
    return;
  }
  setText(element, localTime(date));
  setAttribute(element, 'datetime', date.toISOString());
  setAttribute(element, 'title', `${date.toISOString().replace('T', ' ').replace('Z', '')} UTC`);
}

/**
 * Makes the children of `parent` those of `items`, in their order. A child stays the child of its item for as
 * long as the item's key is there, and what has the focus keeps it.
 */
function sync(parent, items, keyOf, create, update) {
  const before = parent.byKey ?? new Map();
  const after = new Map();
  for (const item of items) {
    const key = keyOf(item);
    if (!after.has(key)) after.set(key, item);
  }
  const focused = parent.contains(document.activeElement) ? document.activeElement : null;
  for (const [key, child] of before) {
    if (!after.has(key)) {
      child.remove();
      before.delete(key);
    }
  }
  let place = parent.firstChild;
  for (const [key, item] of after) {
    let child = before.get(key);
    if (child === undefined) {
      child = create(item);
      before.set(key, child);
    }
    update(child, item);
    if (child === place) place = place.nextSibling;
    else parent.insertBefore(child, place);
  }
  parent.byKey = before;
  if (focused !== null && focused.isConnected && document.activeElement !== focused) {
    focused.focus({ preventScroll: true });
  }
}

/** Facts as a list of names and values. */
function showFacts(list, facts) {
  sync(
    list,
    facts,
    ([name]) => name,
    ([name]) => {
      const value = h('dd');
      const row = h('div', {}, h('dt', {}, name), value);
      row.value = value;
      return row;
    },
    (row, [, value, title]) => {
      setText(row.value, value);
      setAttribute(row.value, 'title', title ?? null);
    },
  );
}

function announce(text) {
  setText($('announcer'), text);
}

let toastTimer = 0;
function toast(text) {
  $('toast').textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { $('toast').textContent = ''; }, 8_000);
}

/** Does it soon, and once, however often it was asked for. */
function soon(what, wait = 0) {
  let timer = 0;
  return () => {
    if (timer !== 0) return;
    timer = setTimeout(() => {
      timer = 0;
      what();
    }, wait);
  };
}

// ---------------------------------------------------------------------------------------
// Requests

class RequestError extends Error {
  constructor(status, error, message) {
    super(message);
    this.status = status;
    this.error = error;
  }

  /** Whether another token may help. */
  get isAboutAccess() {
    return this.status === 401 || this.status === 403;
  }
}

const TOKEN_KEY = 'galaxy-push token';
let token = storage('session', (store) => store.getItem(TOKEN_KEY)) ?? '';

/** A browser may refuse to store anything: the page works without. */
function storage(kind, use) {
  try {
    return use(kind === 'session' ? sessionStorage : localStorage);
  } catch {
    return null;
  }
}

async function request(path, { method = 'GET', signal = null, accept = 'application/json' } = {}) {
  const headers = new Headers({ accept });
  if (token !== '') headers.set('authorization', `Bearer ${token}`);
  const response = await fetch(path, {
    method,
    headers,
    signal,
    cache: 'no-store',
    // Not `omit`: that would leave out a client certificate as well.
    credentials: 'same-origin',
    mode: 'same-origin',
    redirect: 'error',
    referrerPolicy: 'no-referrer',
  });
  if (response.ok) return response;
  let error = '';
  let message = '';
  try {
    ({ error, message } = await response.json());
  } catch {
    // Not of the API: of a proxy, say.
  }
  throw new RequestError(
    response.status,
    String(error ?? ''),
    message ? clipped(message) : `the server answered ${response.status}`,
  );
}

async function json(path, options = {}) {
  const limit = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
  const signal = options.signal ? AbortSignal.any([options.signal, limit]) : limit;
  return (await request(path, { ...options, signal })).json();
}

/** What went wrong, for people. */
function reasonOf(error) {
  if (error instanceof RequestError) return error.message;
  if (error?.name === 'TimeoutError') return 'no answer in time';
  if (error instanceof TypeError) return 'no connection';
  return clipped(error?.message ?? error);
}

/** Server-sent events, out of pieces of text as they come. */
export class EventParser {
  constructor(take) {
    this.take = take;
    this.rest = '';
    this.isFirst = true;
    this.skipsLineFeed = false;
    this.event = '';
    this.data = [];
    this.length = 0;
  }

  push(text) {
    if (text === '') return;
    if (this.isFirst) {
      this.isFirst = false;
      if (text.startsWith('\ufeff')) text = text.slice(1);
    }
    // A line ends with CR, LF, or both, and the two may come apart.
    if (this.skipsLineFeed && text !== '') {
      this.skipsLineFeed = false;
      if (text.startsWith('\n')) text = text.slice(1);
    }
    // What was there already has no end of a line.
    const lines = text.split(/\r\n|\n|\r/);
    this.skipsLineFeed = text.endsWith('\r');
    lines[0] = this.rest + lines[0];
    this.rest = lines.pop();
    if (this.rest.length > MAX_EVENT_CHARACTERS) throw new Error('an event is too long');
    for (const line of lines) this.line(line);
  }

  line(line) {
    if (line === '') {
      const { event, data } = this;
      this.event = '';
      this.data = [];
      this.length = 0;
      if (data.length > 0) this.take(event === '' ? 'message' : event, data.join('\n'));
      return;
    }
    const colon = line.indexOf(':');
    if (colon === 0) return; // A comment.
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? '' : line.slice(colon + 1);
    if (value.startsWith(' ')) value = value.slice(1);
    if (field === 'event') {
      this.event = value;
    } else if (field === 'data') {
      this.length += value.length;
      if (this.length > MAX_EVENT_CHARACTERS) throw new Error('an event is too long');
      this.data.push(value);
    }
  }
}

// ---------------------------------------------------------------------------------------
// What is known

const known = {
  /** What whoever uses the page may do. */
  access: { principal: '', role: 'read', payloads: false },
  status: null,
  previousStatus: null,
  cpuPerSecond: null,
  points: [],
  ends: [],
  invalidations: [],
  /** Gateways that are furthest behind. */
  furthest: [],
  /** What their lag was a moment ago, by stream: [{ at, seconds }]. */
  lags: new Map(),
  /** Streams that began after events that their gateway had not seen, by stream. */
  losses: new Map(),
  /** How many events were missed by the last look for such streams. */
  missedBefore: 0,
};

function forget() {
  Object.assign(known, {
    access: { principal: '', role: 'read', payloads: false },
    status: null, previousStatus: null, cpuPerSecond: null, points: [], ends: [], invalidations: [], furthest: [],
    lags: new Map(), losses: new Map(), missedBefore: 0,
  });
  table.page = null;
  showAccess();
  showAll();
}

function takeStatus(status) {
  const before = known.status;
  const passed = before === null ? 0 : status.uptime_seconds - before.uptime_seconds;
  if (passed > 0 && before.started_at === status.started_at) {
    known.cpuPerSecond = Math.max(0, (status.process.cpu_seconds - before.process.cpu_seconds) / passed);
  } else if (before !== null && before.started_at !== status.started_at) {
    known.cpuPerSecond = null;
    toast('The server was started anew. Its figures begin again.');
  }
  known.status = status;
  showStatus();
}

function takePoint(point) {
  const last = known.points.at(-1);
  if (last !== undefined && point.at <= last.at) return;
  known.points.push(point);
  keepTenMinutes();
  showHistory();
}

function keepTenMinutes() {
  const last = known.points.at(-1);
  if (last === undefined) return;
  const first = known.points.findIndex((point) => point.at > last.at - HISTORY_SECONDS - 0.5);
  known.points.splice(0, first);
}

const keyOfEnd = (end) => [end.at, end.id, end.peer, end.cause, end.cursor].join('\n');
const keyOfStream = (gateway) => [gateway.id, gateway.since, gateway.peer].join('\n');
const keyOfInvalidation = (invalidation) => [invalidation.cursor, invalidation.at].join('\n');

/** The newest first, each once. */
function merged(newer, older, keyOf, kept) {
  const keys = new Set();
  const all = [];
  for (const one of [...newer, ...older]) {
    const key = keyOf(one);
    if (keys.has(key)) continue;
    keys.add(key);
    all.push(one);
  }
  const time = (one) => parsedTime(one.at)?.getTime() ?? 0;
  // Stable: what came at the same time stays as it came.
  return all.sort((a, b) => time(b) - time(a)).slice(0, kept);
}

let newEnds = [];
const takeNewEnds = soon(() => {
  known.ends = merged(newEnds.reverse(), known.ends, keyOfEnd, KEPT_ENDS);
  newEnds = [];
  showEnds();
  showAttention();
}, 250);

let newInvalidations = [];
const takeNewInvalidations = soon(() => {
  known.invalidations = merged(newInvalidations.reverse(), known.invalidations, keyOfInvalidation, KEPT_INVALIDATIONS);
  newInvalidations = [];
  showInvalidations();
}, 250);

function takeEvent(event, data) {
  switch (event) {
    case 'status':
      takeStatus(JSON.parse(data));
      compareCounts();
      break;
    case 'point':
      takePoint(JSON.parse(data));
      break;
    case 'end':
      newEnds.push(JSON.parse(data));
      arrived.number += 1;
      if (newEnds.length > 2 * KEPT_ENDS) newEnds = newEnds.slice(-KEPT_ENDS);
      takeNewEnds();
      break;
    case 'invalidation':
      newInvalidations.push(JSON.parse(data));
      arrived.number += 1;
      if (newInvalidations.length > 2 * KEPT_INVALIDATIONS) {
        newInvalidations = newInvalidations.slice(-KEPT_INVALIDATIONS);
      }
      takeNewInvalidations();
      break;
    case 'user':
      follow.take(parsedExactly(data));
      break;
    case 'missed':
      follow.missed(JSON.parse(data));
      break;
    default: // Of a later version.
  }
}

/** JSON whose numbers stay as they were written, where the browser can do that. */
function parsedExactly(text) {
  return JSON.parse(text, (key, value, context) => {
    const isInexact = typeof value === 'number' && context?.source && String(value) !== context.source;
    return isInexact && JSON.rawJSON ? JSON.rawJSON(context.source) : value;
  });
}

// A reader that falls behind is sent the newest alone. What the server counted tells whether
// ends or invalidations were left out: then they are asked for.
const arrived = {
  /** What the server had counted when this began; null: it begins with the next status. */
  from: null,
  /** So many have come since. */
  number: 0,
  /** So many were missing at the last status. */
  missing: 0,
};

function compareCounts() {
  const { totals } = known.status;
  const counted = Object.values(totals.ends).reduce((sum, number) => sum + number, 0)
    + totals.session_invalidations_published;
  const missing = arrived.from === null ? -1 : counted - arrived.from - arrived.number;
  if (missing < 0) {
    Object.assign(arrived, { from: counted, number: 0, missing: 0 });
  } else if (missing > 0 && missing === arrived.missing) {
    // They were missing a second ago: they are not on their way.
    arrived.from = null;
    loadLists().catch(() => {});
  } else {
    arrived.missing = missing;
  }
}

async function loadLists(signal = null) {
  const endsBefore = new Set(known.ends);
  const invalidationsBefore = new Set(known.invalidations);
  const [ends, invalidations] = await Promise.all([
    json(`/api/v1/ends?limit=${KEPT_ENDS}`, { signal }),
    json(`/api/v1/invalidations?limit=${KEPT_INVALIDATIONS}`, { signal }),
  ]);
  // The answer may be older than what the stream has brought while it was under way.
  const cameMeanwhile = (known, before) => known.filter((one) => !before.has(one));
  known.ends = merged(ends.ends, cameMeanwhile(known.ends, endsBefore), keyOfEnd, KEPT_ENDS);
  known.invalidations = merged(
    invalidations.invalidations, cameMeanwhile(known.invalidations, invalidationsBefore), keyOfInvalidation, KEPT_INVALIDATIONS,
  );
  showEnds();
  showInvalidations();
  showAttention();
}

async function loadHistory(signal = null) {
  const history = await json('/api/v1/history', { signal });
  const last = history.points.at(-1)?.at ?? 0;
  known.points = [...history.points, ...known.points.filter((point) => point.at > last)];
  keepTenMinutes();
  showHistory();
}

async function loadAccess(signal) {
  try {
    known.access = { ...known.access, ...(await json('/api/v1/access', { signal })) };
  } catch (error) {
    if (error.status !== 404) throw error;
    // A server that does not tell: what is not let will be refused.
    known.access = { principal: '', role: 'write', payloads: true };
  }
  showAccess();
}

// ---------------------------------------------------------------------------------------
// The connection

const connection = {
  /** `connecting`, `live`, `polling`, `unreachable` or `locked`. */
  state: 'connecting',
  why: '',
  /** When the server was last heard. */
  heardAt: null,
  /** Since when it has not been. */
  lostAt: null,
  nextTryAt: null,
  abort: null,
  /** Ends the wait for the next try; null: nothing waits. */
  wake: null,
  isReopening: false,
  failures: 0,
};

function setConnection(state, why = '') {
  const was = connection.state;
  connection.state = state;
  connection.why = why;
  if (state === 'live') connection.lostAt = null;
  else if (state !== 'connecting') connection.lostAt ??= connection.heardAt ?? new Date();
  if (was !== state) {
    if (state === 'unreachable') announce(`The server is unreachable. The page tries again by itself.`);
    if (state === 'live' && was !== 'connecting') announce('Connected again.');
    if (state === 'locked') announce('A token is needed.');
  }
  showConnection();
}

/** Holds the stream open for as long as the page is. */
async function stayConnected() {
  for (;;) {
    connection.abort = new AbortController();
    try {
      await readLive(connection.abort);
    } catch (error) {
      if (connection.isReopening) {
        connection.isReopening = false;
        continue;
      }
      if (error instanceof RequestError && error.isAboutAccess) {
        setConnection('locked', reasonOf(error));
        forget();
        askForToken(error);
        await woken();
        continue;
      }
      if (error instanceof RequestError && error.status === 503 && await loadOnce()) {
        setConnection('polling', reasonOf(error));
      } else {
        setConnection('unreachable', reasonOf(error));
      }
    } finally {
      connection.abort.abort();
    }
    const most = Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** connection.failures);
    connection.failures += 1;
    // Spread, so that pages that lost the server together come back one by one.
    const wait = most * (0.5 + Math.random() / 2);
    connection.nextTryAt = Date.now() + wait;
    showConnection();
    await woken(wait);
    connection.nextTryAt = null;
  }
}

/** Waits so long, or until something makes another try worth it. */
function woken(wait = null) {
  return new Promise((resolve) => {
    connection.wake = () => {
      clearTimeout(timer);
      connection.wake = null;
      resolve();
    };
    const timer = wait === null ? 0 : setTimeout(connection.wake, wait);
  });
}

function tryNow() {
  connection.failures = 0;
  connection.wake?.();
}

/** Opens the stream anew, for what is asked of it has changed. */
function reopen() {
  if (connection.wake !== null) {
    tryNow();
    return;
  }
  connection.isReopening = true;
  connection.abort?.abort();
}

async function readLive(abort) {
  const { signal } = abort;
  let watchdog = 0;
  const heard = (limit) => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => abort.abort(new Error(`nothing for ${limit / 1000} s`)), limit);
  };
  try {
    heard(REQUEST_TIMEOUT_MS);
    await loadAccess(signal);
    const response = await openLive(signal);
    let isFirst = true;
    const parser = new EventParser((event, data) => {
      takeEvent(event, data);
      if (isFirst && event === 'status') {
        isFirst = false;
        connection.failures = 0;
        arrived.from = null;
        setConnection('live');
        // The stream is open: nothing is lost between what is loaded now and what comes.
        Promise.all([loadHistory(signal), loadLists(signal)]).catch((error) => {
          if (!signal.aborted) abort.abort(error);
        });
        table.refresh();
      }
    });
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new Error('the server has ended the stream');
      heard(LIVE_TIMEOUT_MS);
      connection.heardAt = new Date();
      parser.push(decoder.decode(value, { stream: true }));
    }
  } catch (error) {
    throw signal.aborted && signal.reason instanceof Error && signal.reason.name !== 'AbortError' ? signal.reason : error;
  } finally {
    clearTimeout(watchdog);
  }
}

async function openLive(signal) {
  const open = (query) => request(`/api/v1/live${query}`, { signal, accept: 'text/event-stream' });
  if (follow.user === '') return open('');
  const query = new URLSearchParams({ user: follow.user });
  if (follow.wantsPayloads) query.set('payload', '1');
  try {
    const response = await open(`?${query}`);
    follow.begun();
    return response;
  } catch (error) {
    // What is wrong with following must not take the rest of the page away.
    if (!(error instanceof RequestError) || ![400, 403].includes(error.status)) throw error;
    follow.failed(reasonOf(error));
    return open('');
  }
}

/** What can be had without a stream. */
async function loadOnce() {
  try {
    takeStatus(await json('/api/v1/status'));
    connection.heardAt = new Date();
    await Promise.all([loadHistory(), loadLists()]);
    table.refresh();
    return true;
  } catch {
    return false;
  }
}

function showConnection() {
  const { state, why } = connection;
  const isStopping = known.status?.state === 'stopping' && (state === 'live' || state === 'polling');
  const name = state === 'live' ? (isStopping ? 'stopping' : 'serving') : state;
  const words = {
    connecting: 'Connecting', serving: 'Serving', stopping: 'Stopping', polling: 'Not live',
    unreachable: 'Unreachable', locked: 'Locked',
  };
  setAttribute($('state'), 'data-state', isStopping ? 'stopping' : name);
  setText($('state-text'), isStopping ? 'Stopping' : words[name]);
  const isLost = state === 'unreachable' || state === 'polling' || state === 'locked';
  document.body.toggleAttribute('data-stale', state === 'unreachable');
  $('connection').hidden = !isLost;
  if (isLost) {
    const lost = connection.lostAt ?? new Date();
    const lasts = duration(Math.max(0, Math.round((Date.now() - lost.getTime()) / 1000)));
    const figures = known.status === null ? '' : ` The figures below are of ${localTime(connection.heardAt ?? lost)}.`;
    const texts = {
      unreachable: `The server has been unreachable for ${lasts}: ${why}.${figures}`,
      polling: `No live figures: ${why}. The page asks for them from time to time instead.`,
      locked: `The server does not let this page read: ${why}.`,
    };
    setText($('connection-text'), texts[state]);
    const wait = connection.nextTryAt === null ? null : Math.max(0, connection.nextTryAt - Date.now());
    setText($('connection-next'), state === 'locked' ? '' : wait === null ? 'Trying now.' : `Next try in ${Math.ceil(wait / 1000)} s.`);
    setAttribute($('connection'), 'data-level', state === 'polling' ? 'warning' : 'critical');
    setText($('connection-retry'), state === 'locked' ? 'Enter a token' : 'Try now');
  }
  showTitle();
}

function showTitle() {
  const state = $('state-text').textContent;
  const number = attentionCount;
  const text = `${number > 0 ? `(${number}) ` : ''}${state} · galaxy-push`;
  if (document.title !== text) document.title = text;
}

// ---------------------------------------------------------------------------------------
// Access

function showAccess() {
  const { access } = known;
  $('token-forget').hidden = token === '';
  // Also where no token is needed yet: one may let in further.
  $('token-open').hidden = token !== '' || access.role === 'write';
  const mayWrite = access.role === 'write';
  if (document.body.dataset.role !== access.role) {
    document.body.dataset.role = access.role;
    for (const element of document.querySelectorAll('.writes')) element.hidden = !mayWrite;
  }
  $('follow-payload').disabled = !access.payloads;
  if (!access.payloads) $('follow-payload').checked = false;
  $('follow-payload-hint').hidden = access.payloads;
}

function askForToken(error = null) {
  const dialog = $('token');
  setText($('token-title'), error === null || error.status === 401 ? 'A token is needed' : 'Another token is needed');
  setText($('token-why'), error === null
    ? 'With a token of a principal that may do more, this page can do more.'
    : `The server says: ${error.message}`);
  $('token-error').hidden = true;
  if (!dialog.open) dialog.showModal();
  $('token-value').focus();
}

function useToken(event) {
  event.preventDefault();
  const value = $('token-value').value.trim().replace(/^Bearer\s+/i, '');
  if (!/^[\x21-\x7e]+$/.test(value)) {
    $('token-error').textContent = value === ''
      ? 'Enter a token.'
      : 'This is not a token: it has characters that no token has, such as spaces.';
    $('token-error').hidden = false;
    $('token-value').focus();
    return;
  }
  token = value;
  $('token-value').value = '';
  storage('session', (store) => {
    if ($('token-keep').checked) store.setItem(TOKEN_KEY, token);
    else store.removeItem(TOKEN_KEY);
  });
  $('token').close();
  showAccess();
  reopen();
}

function forgetToken() {
  token = '';
  storage('session', (store) => store.removeItem(TOKEN_KEY));
  follow.stop();
  forget();
  reopen();
  toast('The token is forgotten.');
}

// ---------------------------------------------------------------------------------------
// Needs attention

/** Why streams end: what it means, what to do. The words are those of docs/protocol.md. */
const CAUSES = {
  takeover: {
    level: 'notice',
    title: 'Takeover',
    meaning: 'A newer subscription took the same id, or an operator disconnected it: the detail says which, and who. The gateway got ABORTED.',
    action: 'Once, after a restart of the gateway, this is as it should be. Again and again: two gateways use one id. Give each its own.',
  },
  lapped: {
    level: 'critical',
    title: 'Lapped',
    meaning: 'The gateway was too slow: the ring dropped events before the gateway took them. It got OUT_OF_RANGE and the number of events that it missed.',
    action: 'Look at its processor, its network and what it does with each event. If all gateways were slow at once, raise --max-bytes, --max-events or --window, so that the ring keeps more.',
  },
  stalled: {
    level: 'critical',
    title: 'Stalled',
    meaning: 'The gateway took nothing for the stall timeout, although events waited for it. It got DEADLINE_EXCEEDED, or its connection was cut.',
    action: 'The gateway hangs, or its network does: look at its log and at its host. A proxy between may have stopped reading. --stall-timeout sets how long is waited.',
  },
  stopping: {
    level: 'notice',
    title: 'Stopping',
    meaning: 'The server was stopped. The gateway got UNAVAILABLE, after what was published was delivered or the grace period ended.',
    action: 'Nothing, if the stop was meant. If streams ended before they had everything, raise --shutdown-grace.',
  },
  expired: {
    level: 'warning',
    title: 'Expired',
    meaning: 'The credential of the gateway ended: its token or its certificate. It got UNAUTHENTICATED.',
    action: 'The gateway has to renew its credential and subscribe again. If it does not come back, its renewal is broken.',
  },
  denied: {
    level: 'warning',
    title: 'Denied',
    meaning: 'The credential of the gateway was revoked, or lost the right to subscribe. It got PERMISSION_DENIED.',
    action: 'Nothing, if that was meant. Otherwise look at the access file and when it was last read.',
  },
  disconnected: {
    level: 'notice',
    title: 'Disconnected',
    meaning: 'The connection of the gateway ended: the gateway, a proxy or the network closed it.',
    action: 'Gateways come back by themselves, and resume. Many at once: look at the network, at proxies and at their idle timeouts.',
  },
  cancelled: {
    level: 'notice',
    title: 'Cancelled',
    meaning: 'The gateway ended its stream by itself, and left the connection open.',
    action: 'Nothing. Again and again by the same gateway: it may have a deadline on a call that has no end.',
  },
  refused: {
    level: 'warning',
    title: 'Refused',
    meaning: 'The subscription never began. The detail is the status that the gateway got.',
    action: 'By the detail: a credential, a right, an id that is not valid, or too many subscribers (--max-subscribers).',
  },
};

function causeOf(name) {
  return CAUSES[name] ?? {
    level: 'notice',
    title: clipped(name, 40),
    meaning: 'This page does not know the cause.',
    action: 'The detail says what the server knows.',
  };
}

const LEVELS = { critical: 'Critical', warning: 'Warning', notice: 'Note' };
const DAY_SECONDS = 86_400;
let attentionCount = 0;

/** The time of the server's clock, in milliseconds: it may differ from the clock here. */
function serverTime() {
  const last = known.points.at(-1);
  return last === undefined ? Date.now() : last.at * 1000;
}

/** What an operator should look at, the worst first. */
function findAttention() {
  const { status, ends, furthest } = known;
  const found = [];
  const add = (level, key, title, text, more = {}) => found.push({ level, key, title, text, ...more });
  const now = serverTime();

  for (const check of status.checks) {
    if (check.ok || (check.name === 'stopping' && status.state === 'stopping')) continue;
    add('critical', `check ${check.name}`, `The check ${clipped(check.name, 80)} fails`, clipped(check.detail));
  }
  if (status.state === 'stopping') {
    add('warning', 'stopping', 'The server is stopping',
      `${plural(status.gateways.subscribed, 'gateway')} still subscribed. Each stream ends once it has everything that was published, or when the grace period ends.`);
  }

  const { ring } = status;
  if (status.gateways.behind > 0) {
    const worst = furthest[0];
    const isNearEnd = worst !== undefined && ring.window_seconds > 0 && worst.lag_seconds > ring.window_seconds / 2;
    const isNearLapped = worst !== undefined && worst.lag_events > ring.events / 2;
    const outlook = isNearEnd || isNearLapped
      ? 'The furthest has used more than half of what the ring keeps. If it goes on, it is lapped, and misses events.'
      : 'Each waits for longer than a second for an event that was published. One that takes nothing is ended as stalled. One that is too slow for the ring is ended as lapped, and misses events.';
    add(isNearEnd || isNearLapped ? 'critical' : 'warning', 'behind',
      `${plural(status.gateways.behind, 'gateway is', 'gateways are')} behind`, outlook, {
        items: furthest.map((gateway) => ({
          key: gateway.id,
          id: gateway.id,
          text: [`${plural(gateway.lag_events, 'event')} and ${duration(gateway.lag_seconds)} behind`, trendOf(gateway, ring), `takes ${bytes(gateway.bytes_per_second)}/s`, clipped(gateway.peer, 80)].filter((words) => words !== '').join(', '),
          show: () => table.find(gateway.id),
        })),
        action: { label: 'Show all that are behind', run: () => table.find('behind') },
      });
  }

  // One that was lapped misses the same events when it comes back: they are told once, below.
  const lapped = new Set(ends.filter((end) => end.cause === 'lapped').map((end) => end.id));
  const losses = [...known.losses.values()].filter(({ id }) => !lapped.has(id)).sort((a, b) => b.missed - a.missed);
  if (losses.length > 0) {
    const missed = losses.reduce((sum, { missed: events }) => sum + events, 0);
    add('critical', 'missed', `${plural(missed, 'event was', 'events were')} missed by ${plural(new Set(losses.map(({ id }) => id)).size, 'gateway')} in ten minutes`,
      'They asked for events that the ring no longer had, and began after them. A session invalidation may be among those: such a gateway has to check its sessions again. If they are away for that long as a rule, the ring has to keep more.', {
        items: losses.slice(0, 3).map((gateway) => ({
          key: keyOfStream(gateway),
          id: gateway.id,
          text: `missed ${plural(gateway.missed, 'event')} when it subscribed at ${localTime(parsedTime(gateway.since))}`,
          show: () => table.find(gateway.id),
        })),
      });
  }
  addFewer(add);

  for (const [cause, { level, title }] of Object.entries(CAUSES)) {
    const recent = ends.filter((end) => end.cause === cause && now - (parsedTime(end.at)?.getTime() ?? 0) < HISTORY_SECONDS * 1000);
    if (recent.length === 0) continue;
    if (cause === 'takeover') {
      addTakeovers(recent, add);
      continue;
    }
    if (level === 'notice') continue;
    const missed = recent.reduce((sum, end) => sum + end.missed, 0);
    const names = byGateway(recent);
    add(level, `ends ${cause}`,
      `${title}: ${plural(recent.length, cause === 'refused' ? 'subscription' : 'stream')} of ${plural(names.length, 'gateway')} in ten minutes${missed > 0 ? `, ${plural(missed, 'event')} missed` : ''}`,
      `${CAUSES[cause].meaning} ${CAUSES[cause].action}`, {
        items: names.slice(0, 3).map(([id, ends]) => ({
          key: id,
          id,
          text: `${ends.length > 1 ? `${ends.length} times, the last ` : ''}${localTime(parsedTime(ends[0].at))}: ${clipped(ends[0].detail, 200)}`,
          show: () => showEndsOf(cause, id),
        })),
        action: { label: names.length > 3 ? `Show these ends, also of ${names.length - 3} more` : 'Show these ends', run: () => showEndsOf(cause, '') },
      });
  }

  for (const listener of status.listeners) {
    const until = parsedTime(listener.certificate_not_after);
    if (until !== null) {
      const left = (until.getTime() - now) / 1000;
      if (left < 14 * DAY_SECONDS) {
        add(left < 3 * DAY_SECONDS ? 'critical' : 'warning', `certificate ${listener.name}`,
          left <= 0
            ? `The certificate of the listener for ${clipped(listener.name, 40)} has ended`
            : `The certificate of the listener for ${clipped(listener.name, 40)} ends in ${duration(left)}`,
          `It ends on ${DATE.format(until)}, ${TIME.format(until)}. Replace the files of --tls-cert and --tls-key: they are taken up by themselves.`);
      }
    }
    addLimit(add, `connections ${listener.name}`, `connections of ${clipped(listener.name, 40)}`, listener.connections, listener.max_connections, 0.9, 'Further connections are refused.');
  }

  if (ring.window_seconds > 0 && ring.oldest_age_seconds < 0.8 * ring.window_seconds && hasDropped(status)) {
    const byEvents = percent(ring.events, ring.max_events) >= 0.95;
    const byBytes = percent(ring.bytes, ring.max_bytes) >= 0.9;
    if (byEvents || byBytes) {
      const setting = byEvents ? '--max-events' : '--max-bytes';
      add('warning', 'window', `The ring keeps ${duration(ring.oldest_age_seconds)}, not the window of ${duration(ring.window_seconds)}`,
        `${setting} is reached. A gateway that is away for longer than ${duration(ring.oldest_age_seconds)} misses events. Raise ${setting}, or lower --window to what is needed.`);
    }
  }
  if (ring.pinned_bytes > 0.25 * ring.max_bytes) {
    add('warning', 'pinned', `${bytes(ring.pinned_bytes)} of memory is pinned by slow gateways`,
      `That memory has left the ring of at most ${bytes(ring.max_bytes)}, but gateways that have it in hand keep it alive. It is freed when they take it or end.`,
      { action: { label: 'Show the slowest gateways', run: () => table.find('') } });
  }

  const { process } = status;
  addLimit(add, 'gateways', 'gateways', status.gateways.subscribed, status.gateways.max, 0.9, 'Further ones are refused with RESOURCE_EXHAUSTED. --max-subscribers sets the limit.');
  addLimit(add, 'files', 'open files', process.open_fds, process.max_fds, 0.8, 'Raise the limit of the process (LimitNOFILE, ulimit -n).');
  if (process.memory_limit_bytes !== null && process.memory_limit_bytes !== undefined) {
    addLimit(add, 'memory', 'memory', process.resident_bytes, process.memory_limit_bytes, 0.85, 'At its limit, the system ends the process. Lower --max-bytes, or give it more.', bytes);
  }
  if (!status.config.last_reload_success) {
    const at = parsedTime(status.config.last_reload_at);
    add('warning', 'reload', 'The last reload failed', `${at === null ? '' : `It was tried at ${localTime(at)}. `}What was in force before is still in force. The log says which file, and why.`);
  }

  const order = Object.keys(LEVELS);
  return found.sort((a, b) => order.indexOf(a.level) - order.indexOf(b.level));
}

/** One takeover is a restart. Many of one id are two gateways. */
function addTakeovers(recent, add) {
  const contested = byGateway(recent).filter(([, all]) => all.length >= 3).sort((a, b) => b[1].length - a[1].length);
  if (contested.length === 0) return;
  add('warning', 'takeovers', `${plural(contested.length, 'id is', 'ids are')} taken over again and again`,
    'Two gateways may use one id: each ends the stream of the other. Give each its own.', {
      items: contested.slice(0, 3).map(([id, all]) => ({
        key: id, id, text: `${all.length} times in ten minutes, the last ${localTime(parsedTime(all[0].at))}: the stream of ${clipped(all[0].peer, 80)} was ${clipped(all[0].detail, 200)}`,
        show: () => showEndsOf('takeover', id),
      })),
      action: { label: 'Show these ends', run: () => showEndsOf('takeover', '') },
    });
}

/** Ends, the newest first, by gateway: [[id, its ends]]. */
function byGateway(ends) {
  const found = new Map();
  for (const end of ends) {
    if (found.has(end.id)) found.get(end.id).push(end);
    else found.set(end.id, [end]);
  }
  return [...found];
}

/** Gateways that have gone, and do not come back. */
function addFewer(add) {
  const { points } = known;
  const last = points.at(-1);
  if (last === undefined || known.status.state === 'stopping') return;
  const most = maximum(points.map((point) => point.gateways));
  const isFew = (point) => point.gateways < 0.8 * most;
  // A restart of gateways is over soon.
  const lately = points.filter((point) => point.at > last.at - 15);
  if (lately.length < 2 || last.at - points[0].at < 15 || !lately.every(isFew)) return;
  const before = points.findLast((point) => !isFew(point));
  add('warning', 'fewer', `${plural(last.gateways, 'gateway is', 'gateways are')} subscribed, and ${count(most)} were`,
    `Since ${TIME.format(new Date(before.at * 1000))} there are fewer. If that is not meant: the ends say which have gone, and why.`, {
      action: { label: 'Show the ends', run: () => showEndsOf('', '') },
    });
}

/** Whether events have left the ring since the start. */
function hasDropped({ ring, totals }) {
  return totals.client_events_published + totals.session_invalidations_published > ring.events;
}

function addLimit(add, key, what, used, most, from, consequence, format = count) {
  if (!(most > 0) || used / most < from) return;
  const isFull = used >= most;
  add(isFull ? 'critical' : 'warning', `limit ${key}`,
    `${what[0].toUpperCase()}${what.slice(1)}: ${format(used)} of at most ${format(most)}`,
    `${Math.round((100 * used) / most)} % of the limit is used. ${consequence}`);
}

function showAttention() {
  const list = $('attention-list');
  const found = known.status === null ? [] : findAttention();
  $('attention-unknown').hidden = known.status !== null;
  $('attention-none').hidden = known.status === null || found.length > 0;
  sync(list, found, (item) => item.key, createAttention, updateAttention);
  const serious = found.filter((item) => item.level !== 'notice').length;
  setText($('attention-count'), found.length === 0 ? '' : `(${found.length})`);
  if (serious !== attentionCount) {
    if (known.status !== null) {
      announce(serious === 0 ? 'Nothing needs attention any more.' : `${plural(serious, 'thing needs', 'things need')} attention.`);
    }
    attentionCount = serious;
    showTitle();
  }
}

function createAttention() {
  const level = h('span', { class: 'level' });
  const title = h('span');
  const text = h('p', { class: 'text' });
  const items = h('ul', { class: 'items' });
  const action = h('button', { type: 'button', class: 'action small', onclick: () => row.run?.() });
  const row = h('li', {}, h('p', { class: 'title' }, level, title), text, items, action);
  row.parts = { level, title, text, items, action };
  return row;
}

function updateAttention(row, item) {
  const { level, title, text, items, action } = row.parts;
  setAttribute(row, 'data-level', item.level);
  setAttribute(row, 'data-key', item.key);
  setText(level, `${LEVELS[item.level]}:`);
  setText(title, item.title);
  setText(text, item.text);
  row.run = item.action?.run;
  action.hidden = item.action === undefined;
  setText(action, item.action?.label ?? '');
  items.hidden = item.items === undefined;
  sync(items, item.items ?? [], (one) => one.key, () => {
    const id = h('bdi', { class: 'id' });
    const words = h('span');
    const one = h('li', {}, h('button', { type: 'button', onclick: () => one.show() }, id), words);
    one.parts = { id, words };
    return one;
  }, (one, { id, text: words, show }) => {
    one.show = show;
    setPeerText(one.parts.id, id);
    setText(one.parts.words, words);
  });
}

// ---------------------------------------------------------------------------------------
// Overview, ring, server

function showStatus() {
  const { status } = known;
  const shown = status !== null;
  setText($('identity'), shown ? identityOf(status) : '');
  showTiles();
  showServer();
  showAttention();
  showConnection();
}

function identityOf(status) {
  const revision = status.revision ? ` (${visible(status.revision.slice(0, 12))})` : '';
  const who = known.access.principal ? ` · you are ${clipped(known.access.principal, 64)}` : '';
  return `${location.host} · version ${clipped(status.version, 40)}${revision} · up ${duration(Math.floor(status.uptime_seconds))}${who}`;
}

function showTiles() {
  const { status } = known;
  const tiles = [];
  if (status !== null) {
    const { gateways, rates, ring, process } = status;
    const p50 = rates.delivery_delay_p50_seconds;
    const p99 = rates.delivery_delay_p99_seconds;
    const limit = process.memory_limit_bytes;
    tiles.push(
      ['Gateways', `${count(gateways.subscribed)}`, `${count(gateways.behind)} behind · limit ${count(gateways.max)}`],
      ['Published', `${short(rates.published_per_second)}/s`, 'events, over ten seconds'],
      ['Delivered', `${short(rates.deliveries_per_second)}/s`, `${bytes(rates.delivered_bytes_per_second)}/s, over ten seconds`],
      ['Delivery delay, p99', p99 === null || p99 === undefined ? '–' : duration(p99),
        p50 === null || p50 === undefined ? 'nothing was sampled' : `p50 ${duration(p50)} · ${plural(rates.delivery_delay_samples, 'delivery', 'deliveries')} sampled`],
      ['Ring', `${Math.round(100 * Math.max(percent(ring.events, ring.max_events), percent(ring.bytes, ring.max_bytes)))} %`,
        `keeps ${duration(ring.oldest_age_seconds)} of ${duration(ring.window_seconds)}`],
      ['Memory', bytes(process.resident_bytes), limit === null || limit === undefined ? 'no limit known' : `of ${bytes(limit)}`],
      ['Processor', known.cpuPerSecond === null ? '–' : `${known.cpuPerSecond.toFixed(2)} cores`, `${duration(process.cpu_seconds)} since the start`],
    );
  }
  sync($('tiles'), tiles, ([name]) => name, ([name]) => {
    const value = h('dd', { class: 'value' });
    const more = h('dd', { class: 'more' });
    const tile = h('div', {}, h('dt', {}, name), value, more);
    tile.parts = { value, more };
    return tile;
  }, (tile, [, value, more]) => {
    setText(tile.parts.value, value);
    setText(tile.parts.more, more);
  });
}

function showMeters(meters) {
  sync($('ring-meters'), meters, (meter) => meter.name, (meter) => {
    const words = h('span');
    const fill = h('div');
    const bar = h('div', { class: 'bar', role: 'meter', 'aria-label': meter.name, 'aria-valuemin': '0', 'aria-valuemax': '100' }, fill);
    const row = h('div', { class: 'meter' }, h('div', { class: 'words' }, h('span', {}, meter.name), words), bar);
    row.parts = { words, fill, bar };
    return row;
  }, (row, { part, text, level }) => {
    const filled = Math.min(100, Math.max(0, 100 * part));
    row.parts.fill.style.width = `${filled}%`;
    setText(row.parts.words, text);
    setAttribute(row.parts.bar, 'aria-valuenow', filled.toFixed(0));
    setAttribute(row.parts.bar, 'aria-valuetext', text);
    setAttribute(row.parts.bar, 'data-level', level ?? null);
  });
}

function showServer() {
  const { status } = known;
  if (status === null) {
    showMeters([]);
    for (const id of ['ring-facts', 'process', 'totals']) showFacts($(id), []);
    for (const id of ['checks', 'listeners']) sync($(id), [], () => '', () => null, () => {});
    return;
  }
  const { ring, revocations, receipts, process, totals, config } = status;
  const pinned = percent(ring.pinned_bytes, ring.max_bytes);
  const meter = (name, used, most, format) => ({
    name, part: percent(used, most), text: `${format(used)} of ${format(most)} (${Math.round(100 * percent(used, most))} %)`,
  });
  showMeters([
    meter('Events', ring.events, ring.max_events, count),
    meter('Memory', ring.bytes, ring.max_bytes, bytes),
    meter('Oldest event, of the window', ring.oldest_age_seconds, ring.window_seconds, duration),
    { ...meter('Pinned by slow gateways', ring.pinned_bytes, ring.max_bytes, bytes), level: pinned > 0.25 ? 'warning' : null },
    meter('Revocations kept', revocations.kept, revocations.max, count),
  ]);
  showFacts($('ring-facts'), [
    ['Newest event', count(ring.newest_sequence), 'Its sequence: so many events were published.'],
    ['Its cursor', clipped(status.head, 64)],
    ['Replays of revocations', `${count(revocations.complete_replays)} complete, ${count(revocations.partial_replays)} partial`,
      'Gateways that came back too late to resume and were told whom they have to throw out. Of a partial one something may be missing: such a gateway has to validate its sessions.'],
    ['Receipts', `${plural(receipts.reporting, 'process', 'processes')}, ${count(receipts.without_reports)} without`,
      'Processes of gateways that report which invalidations they have enforced, and subscribed gateways that do not: of these nobody knows.'],
    ['Bans waited for', `${count(receipts.waits_proven)} proven, ${count(receipts.waits_unproven)} not`,
      'Publishers that waited until it was certain that no gateway serves a revoked session. Where it was not, they were told who is missing.'],
  ]);
  showFacts($('process'), [
    ['Memory', process.memory_limit_bytes === null || process.memory_limit_bytes === undefined
      ? bytes(process.resident_bytes) : `${bytes(process.resident_bytes)} of ${bytes(process.memory_limit_bytes)}`],
    ['Open files', `${count(process.open_fds)} of ${count(process.max_fds)}`],
    ['Started', localTime(parsedTime(status.started_at) ?? new Date()), status.started_at],
    ['Configuration', clipped(config.digest, 24) || '–'],
    ['Last reload', `${parsedTime(config.last_reload_at) === null ? 'none yet' : localTime(parsedTime(config.last_reload_at))}${config.last_reload_success ? '' : ', failed'}`],
  ]);
  const ends = Object.entries(totals.ends).filter(([, number]) => number > 0);
  showFacts($('totals'), [
    ['Client events', count(totals.client_events_published)],
    ['Session invalidations', count(totals.session_invalidations_published)],
    ['Bytes published', bytes(totals.event_bytes_published)],
    ['Deliveries', count(totals.deliveries)],
    ['Bytes delivered', bytes(totals.delivered_bytes)],
    ['Events missed', count(totals.missed_events), 'Gateways were told so, at the end of a stream or at its start.'],
    ['Subscriptions', count(totals.subscriptions)],
    ...ends.map(([cause, number]) => [`Ended: ${causeOf(cause).title.toLowerCase()}`, count(number)]),
  ]);
  sync($('checks'), status.checks, (check) => check.name, (check) => {
    const chip = h('span', { class: 'chip' });
    const more = h('span', { class: 'more' });
    const row = h('li', {}, chip, h('span', {}, clipped(check.name, 80)), more);
    row.parts = { chip, more };
    return row;
  }, (row, check) => {
    setText(row.parts.chip, check.ok ? 'ok' : 'failed');
    setAttribute(row.parts.chip, 'data-level', check.ok ? 'good' : 'critical');
    setText(row.parts.more, clipped(check.detail));
  });
  sync($('listeners'), status.listeners, (listener) => `${listener.name} ${listener.address}`, (listener) => {
    const more = h('div', { class: 'more' });
    const row = h('li', {}, h('div', {}, h('b', {}, clipped(listener.name, 40)), ' ', clipped(listener.address, 200)), more);
    row.parts = { more };
    return row;
  }, (row, listener) => {
    const until = parsedTime(listener.certificate_not_after);
    const tls = listener.tls ? `TLS${until === null ? '' : `, certificate until ${DATE.format(until)}`}` : 'no TLS';
    setText(row.parts.more, `${plural(listener.connections, 'connection')} of at most ${count(listener.max_connections)}, ${tls}`);
  });
}

// ---------------------------------------------------------------------------------------
// Charts

/** Round numbers from 0 to at least `most`. */
function linearTicks(most, base) {
  const unit = base === 1024 && most >= 1024 ? 1024 ** Math.min(4, Math.floor(Math.log2(most) / 10)) : 1;
  const size = Math.max(most / unit, base === 1024 || base === 'whole' ? 3 : 1);
  let step = 10 ** Math.floor(Math.log10(size / 3));
  for (const factor of [1, 2, 5, 10]) {
    if (size / (step * factor) <= 4) {
      step *= factor;
      break;
    }
  }
  if (base === 'whole') step = Math.max(1, step);
  const ticks = [0];
  while (ticks.at(-1) < size - step * 1e-6) ticks.push(ticks.length * step);
  return ticks.map((tick) => tick * unit);
}

/** Powers of ten around what is there. */
function decadeTicks(least, most) {
  const from = Math.floor(Math.log10(least) + 1e-9);
  const to = Math.max(from + 1, Math.ceil(Math.log10(most) - 1e-9));
  return Array.from({ length: to - from + 1 }, (_, at) => 10 ** (from + at));
}

/** Short enough for an axis. */
function wholeSeconds(value) {
  return value < 60 ? duration(value) : `${short(value)} s`;
}

const CHARTS = [
  {
    id: 'published', title: 'Published', unit: 'events a second', format: (value) => `${short(value)}/s`, axis: short,
    series: [{ name: 'events', field: 'published_per_second' }],
  },
  {
    id: 'deliveries', title: 'Delivered', unit: 'deliveries a second, in all', format: (value) => `${short(value)}/s`, axis: short,
    series: [{ name: 'deliveries', field: 'deliveries_per_second' }],
  },
  {
    id: 'delay', title: 'Delivery delay', unit: 'publish to socket, logarithmic', format: duration, axis: wholeSeconds, isLogarithmic: true,
    series: [{ name: 'p50', field: 'delivery_delay_p50_seconds' }, { name: 'p99', field: 'delivery_delay_p99_seconds' }],
  },
  {
    id: 'gateways', title: 'Gateways', unit: 'and how many are behind', format: count, axis: short, base: 'whole',
    series: [{ name: 'subscribed', field: 'gateways' }, { name: 'behind', field: 'gateways_behind' }],
  },
  {
    id: 'throughput', title: 'Bytes delivered', unit: 'bytes a second, in all', format: (value) => `${bytes(value)}/s`, axis: bytes, base: 1024,
    series: [{ name: 'bytes', field: 'delivered_bytes_per_second' }],
  },
  {
    id: 'memory', title: 'Memory of the ring', unit: 'and what slow gateways pin', format: bytes, axis: bytes, base: 1024,
    series: [{ name: 'ring', field: 'ring_bytes' }, { name: 'pinned', field: 'pinned_bytes' }],
  },
];

/** The time that is read off, in seconds since 1970; null: the newest. */
let readAt = null;

class Chart {
  constructor(plan) {
    this.plan = plan;
    this.width = 0;
    this.height = 0;
    this.when = h('span', { class: 'when' });
    this.legend = h('span', { class: 'legend' });
    this.values = plan.series.map((series, at) => {
      const key = svg('svg', { viewBox: '0 0 20 8', 'aria-hidden': 'true' });
      key.append(svg('path', { d: 'M0 4H20', class: at === 0 ? 'line' : 'line second' }));
      const value = h('b');
      this.legend.append(h('span', {}, key, `${series.name} `, value));
      return value;
    });
    this.summary = h('p', { class: 'summary', id: `chart-${plan.id}-summary` });
    this.svg = svg('svg', { 'aria-hidden': 'true', focusable: 'false' });
    this.plot = h('div', {
      class: 'plot', tabindex: '0', role: 'slider', 'aria-label': `${plan.title}: the second that is read`,
      'aria-describedby': this.summary.id, 'aria-orientation': 'horizontal',
      'aria-valuemin': '0', 'aria-valuemax': String(HISTORY_SECONDS), 'aria-valuenow': String(HISTORY_SECONDS),
      'aria-valuetext': 'the newest',
    });
    this.plot.append(this.svg);
    this.element = h('figure', { class: 'chart', id: `chart-${plan.id}` },
      h('figcaption', {}, h('span', { class: 'title' }, plan.title), h('span', { class: 'more' }, plan.unit), this.when, this.legend),
      this.plot, this.summary);
    this.plot.addEventListener('pointermove', (event) => this.readUnder(event));
    this.plot.addEventListener('pointerdown', (event) => this.readUnder(event));
    this.plot.addEventListener('pointerleave', (event) => {
      // A finger leaves as soon as it has pointed.
      if (event.pointerType !== 'touch') setReadAt(null);
    });
    this.plot.addEventListener('blur', () => setReadAt(null));
    this.plot.addEventListener('keydown', (event) => this.readByKey(event));
    new ResizeObserver((entries) => {
      const { width, height } = entries.at(-1).contentRect;
      if (width === this.width && height === this.height) return;
      this.width = width;
      this.height = height;
      drawSoon();
    }).observe(this.plot);
  }

  readUnder(event) {
    if (this.scale === undefined) return;
    const x = event.clientX - this.plot.getBoundingClientRect().left;
    setReadAt(this.scale.timeAt(x));
  }

  readByKey(event) {
    const { points } = known;
    if (points.length === 0) return;
    const last = points.length - 1;
    const at = readAt === null ? last : nearest(readAt);
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -30, PageUp: 30, Home: -points.length, End: points.length };
    if (event.key === 'Escape') setReadAt(null);
    else if (event.key in steps) setReadAt(points[Math.min(last, Math.max(0, at + steps[event.key]))].at);
    else return;
    event.preventDefault();
    this.tellPosition();
  }

  /** Only when it was moved by hand: it is read out. */
  tellPosition() {
    const { points } = known;
    const at = readAt === null ? points.length - 1 : nearest(readAt);
    const point = points[at];
    if (point === undefined) return;
    const values = this.plan.series.map(({ name, field }) => `${name} ${this.text(point[field])}`).join(', ');
    const age = points.at(-1).at - point.at;
    setAttribute(this.plot, 'aria-valuenow', String(Math.round(HISTORY_SECONDS - age)));
    setAttribute(this.plot, 'aria-valuetext', `${readAt === null ? 'the newest' : TIME.format(new Date(point.at * 1000))}: ${values}`);
  }

  text(value) {
    return value === null || value === undefined ? '–' : this.plan.format(value);
  }

  draw() {
    const { plan } = this;
    const { points } = known;
    const read = points[readAt === null ? points.length - 1 : nearest(readAt)];
    setText(this.when, readAt === null || read === undefined ? '' : `at ${TIME.format(new Date(read.at * 1000))}`);
    this.values.forEach((element, at) => setText(element, read === undefined ? '–' : this.text(read[plan.series[at].field])));
    this.showSummary();
    if (this.width < 80) return;

    const left = 58;
    const bottom = this.height - 16;
    const top = 8;
    const right = this.width - 6;
    const end = points.at(-1)?.at ?? Date.now() / 1000;
    const start = end - HISTORY_SECONDS;
    const x = (time) => left + ((time - start) / HISTORY_SECONDS) * (right - left);
    this.scale = { timeAt: (at) => Math.min(end, Math.max(start, start + ((at - left) / (right - left)) * HISTORY_SECONDS)) };

    const there = plan.series.flatMap(({ field }) => points.map((point) => point[field])).filter((value) => Number.isFinite(value));
    const positive = there.filter((value) => value > 0);
    const ticks = plan.isLogarithmic
      ? decadeTicks(minimum(positive, 1e-4), maximum(positive, 1e-2))
      : linearTicks(maximum(there, 0), plan.base);
    const place = plan.isLogarithmic ? (value) => Math.log10(Math.max(value, ticks[0])) : (value) => value;
    const low = place(ticks[0]);
    const high = place(ticks.at(-1));
    const y = (value) => bottom - ((place(value) - low) / (high - low)) * (bottom - top);

    const drawn = [];
    const every = Math.ceil(ticks.length / 5);
    ticks.forEach((tick, at) => {
      if ((ticks.length - 1 - at) % every !== 0) return;
      const height = y(tick).toFixed(1);
      drawn.push(svg('path', { class: 'grid', d: `M${left} ${height}H${right}` }));
      const label = svg('text', { x: left - 6, y: Number(height) + 4, 'text-anchor': 'end' });
      label.textContent = plan.axis(tick);
      drawn.push(label);
    });
    const minutes = this.width < 300 ? 4 : 2;
    for (let time = Math.ceil(start / 60) * 60; time <= end; time += 60) {
      if ((time / 60) % minutes !== 0) continue;
      const at = x(time);
      if (at < left + 12 || at > right - 14) continue;
      drawn.push(svg('path', { class: 'grid', d: `M${at.toFixed(1)} ${bottom}v3` }));
      const label = svg('text', { x: at.toFixed(1), y: this.height - 3, 'text-anchor': 'middle' });
      label.textContent = MINUTE.format(new Date(time * 1000));
      drawn.push(label);
    }
    plan.series.forEach(({ field }, at) => {
      const second = at === 0 ? '' : ' second';
      for (const run of runs(points, field)) {
        const path = run.map((point, index) => `${index === 0 ? 'M' : 'L'}${x(point.at).toFixed(1)} ${y(point[field]).toFixed(1)}`).join('');
        if (at === 0 && !plan.isLogarithmic && run.length > 1) {
          drawn.push(svg('path', { class: 'area', d: `${path}V${bottom}H${x(run[0].at).toFixed(1)}Z` }));
        }
        drawn.push(run.length > 1
          ? svg('path', { class: `line${second}`, d: path })
          : svg('circle', { class: `point${second}`, r: 1.5, cx: x(run[0].at).toFixed(1), cy: y(run[0][field]).toFixed(1) }));
      }
    });
    if (readAt !== null && read !== undefined) {
      drawn.push(svg('path', { class: 'mark', d: `M${x(read.at).toFixed(1)} ${top}V${bottom}` }));
      plan.series.forEach(({ field }, at) => {
        if (!Number.isFinite(read[field])) return;
        drawn.push(svg('circle', { class: at === 0 ? 'point' : 'point second', r: 3.5, cx: x(read.at).toFixed(1), cy: y(read[field]).toFixed(1) }));
      });
    }
    this.svg.replaceChildren(...drawn);
  }

  showSummary() {
    const { plan } = this;
    const words = plan.series.map(({ name, field }) => {
      const there = known.points.map((point) => point[field]).filter((value) => Number.isFinite(value));
      return there.length === 0 ? `${name}: nothing yet` : `${name} ${this.text(minimum(there))} to ${this.text(maximum(there))}`;
    });
    setText(this.summary, words.join(' · '));
  }
}

function minimum(values, otherwise = 0) {
  return values.length === 0 ? otherwise : values.reduce((a, b) => Math.min(a, b));
}

function maximum(values, otherwise = 0) {
  return values.length === 0 ? otherwise : values.reduce((a, b) => Math.max(a, b));
}

/** Stretches of points that have a value and follow one another. */
function runs(points, field) {
  const all = [];
  let run = [];
  let last = null;
  for (const point of points) {
    const isThere = Number.isFinite(point[field]);
    if (run.length > 0 && (!isThere || point.at - last > 3.5)) {
      all.push(run);
      run = [];
    }
    if (isThere) run.push(point);
    last = point.at;
  }
  if (run.length > 0) all.push(run);
  return all;
}

/** The place of the point that is nearest to a time. */
function nearest(time) {
  const { points } = known;
  let low = 0;
  let high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].at < time) low = middle + 1;
    else high = middle;
  }
  const before = points[low - 1];
  return before !== undefined && time - before.at < points[low].at - time ? low - 1 : low;
}

function setReadAt(time) {
  if (readAt === time) return;
  readAt = time;
  drawSoon();
}

let isDrawing = false;
function drawSoon() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    for (const chart of charts) chart.draw();
  });
}

function showHistory() {
  drawSoon();
  if ($('history-figures').open) showMinutes();
}

function showMinutes() {
  const minutes = new Map();
  for (const point of known.points) {
    const minute = Math.floor(point.at / 60) * 60;
    minutes.set(minute, [...(minutes.get(minute) ?? []), point]);
  }
  const rows = [...minutes].sort(([a], [b]) => b - a);
  sync($('history-rows'), rows, ([minute]) => minute, ([minute]) => {
    const time = h('time');
    setTime(time, new Date(minute * 1000).toISOString());
    setText(time, MINUTE.format(new Date(minute * 1000)));
    return h('tr', {}, h('td', {}, time), ...Array.from({ length: 8 }, () => h('td', { class: 'number' })));
  }, (row, [, points]) => {
    const of = (field) => points.map((point) => point[field]).filter((value) => Number.isFinite(value));
    const mean = (field) => of(field).reduce((sum, value) => sum + value, 0) / Math.max(1, of(field).length);
    const most = (field, format) => (of(field).length === 0 ? '–' : format(maximum(of(field))));
    const cells = [
      short(mean('published_per_second')),
      short(mean('deliveries_per_second')),
      bytes(mean('delivered_bytes_per_second')),
      most('delivery_delay_p50_seconds', duration),
      most('delivery_delay_p99_seconds', duration),
      most('gateways', count),
      most('gateways_behind', count),
      most('pinned_bytes', bytes),
    ];
    cells.forEach((text, at) => setText(row.children[at + 1], text));
  });
}

const charts = CHARTS.map((plan) => new Chart(plan));

// ---------------------------------------------------------------------------------------
// Gateways

const COLUMNS = [
  { field: 'id', title: 'Gateway', order: 'asc' },
  { field: 'state', title: 'State', order: 'asc' },
  { field: 'lag_events', title: 'Lag, events', order: 'desc', isNumber: true },
  { field: 'lag_seconds', title: 'Lag, time', order: 'desc', isNumber: true },
  { field: 'bytes_per_second', title: 'Bytes/s', order: 'desc', isNumber: true },
  { field: 'delivered_events', title: 'Delivered', order: 'desc', isNumber: true },
  { field: 'since', title: 'Since', order: 'desc' },
  { field: 'peer', title: 'Peer', order: 'asc' },
  { field: 'principal', title: 'Principal', order: 'asc' },
];
/** These have no column of their own. */
const MORE_FIELDS = [
  { field: 'delivered_bytes', title: 'Delivered, bytes', order: 'desc' },
  { field: 'missed', title: 'Missed at the start', order: 'desc' },
  { field: 'resume', title: 'Resumed or fresh', order: 'asc' },
  { field: 'reason', title: 'Reason of the start', order: 'asc' },
  { field: 'cursor', title: 'Cursor', order: 'asc' },
];

const table = {
  sort: 'lag_seconds',
  order: 'desc',
  filter: '',
  limit: 50,
  offset: 0,
  isPaused: false,
  /** The answer that is shown. */
  page: null,
  abort: null,
  isWaiting: false,

  build() {
    const head = $('gateways-head');
    for (const column of COLUMNS) {
      const arrow = h('span', { class: 'arrow', 'aria-hidden': 'true' });
      const button = h('button', { type: 'button', onclick: () => table.sortBy(column.field) }, column.title, ' ', arrow);
      column.cell = h('th', { role: 'columnheader', scope: 'col', class: column.isNumber ? 'number' : null }, button);
      column.arrow = arrow;
      head.append(column.cell);
    }
    head.append(h('th', { role: 'columnheader', scope: 'col', class: 'writes' }, h('span', { class: 'hidden' }, 'Disconnect')));
    for (const { field, title } of [...COLUMNS, ...MORE_FIELDS]) {
      $('gateways-sort').append(h('option', { value: field }, title));
    }
    $('gateways-limit').value = String(this.limit);
    let typing = 0;
    $('gateways-filter').addEventListener('input', () => {
      clearTimeout(typing);
      typing = setTimeout(() => table.ask({ filter: $('gateways-filter').value, offset: 0 }), 200);
    });
    $('gateways-sort').addEventListener('change', (event) => table.sortBy(event.target.value, true));
    $('gateways-order').addEventListener('change', (event) => table.ask({ order: event.target.value, offset: 0 }));
    $('gateways-limit').addEventListener('change', (event) => table.ask({ limit: Number(event.target.value), offset: 0 }));
    $('gateways-pause').addEventListener('click', () => {
      table.pause(!table.isPaused);
      if (!table.isPaused) table.refresh();
    });
    const turn = (to) => () => table.ask({ offset: Math.max(0, to()) });
    const last = () => Math.floor(Math.max(0, (table.page?.matched ?? 0) - 1) / table.limit) * table.limit;
    $('gateways-first').addEventListener('click', turn(() => 0));
    $('gateways-previous').addEventListener('click', turn(() => table.offset - table.limit));
    $('gateways-next').addEventListener('click', turn(() => Math.min(last(), table.offset + table.limit)));
    $('gateways-last').addEventListener('click', turn(last));
    this.showControls();
  },

  sortBy(field, isFirst = false) {
    const column = [...COLUMNS, ...MORE_FIELDS].find((one) => one.field === field);
    const order = field === this.sort && !isFirst ? (this.order === 'asc' ? 'desc' : 'asc') : column.order;
    this.ask({ sort: field, order, offset: 0 });
  },

  pause(isPaused) {
    this.isPaused = isPaused;
    setAttribute($('gateways-pause'), 'data-paused', String(isPaused));
    setText($('gateways-pause'), isPaused ? `Resume: paused at ${TIME.format(new Date())}` : 'Pause');
  },

  /** Shows the gateways that this text finds, and goes there. */
  find(text) {
    $('gateways-filter').value = text;
    this.pause(false);
    this.ask({ filter: text, sort: 'lag_seconds', order: 'desc', offset: 0 });
    goTo('gateways');
  },

  ask(changes) {
    Object.assign(this, changes);
    this.showControls();
    this.load();
  },

  query() {
    const query = new URLSearchParams({ sort: this.sort, order: this.order, limit: this.limit, offset: this.offset });
    if (this.filter !== '') query.set('filter', this.filter);
    return `/api/v1/gateways?${query}`;
  },

  /** Brings it up to date, unless that goes on already or is not wanted. */
  refresh() {
    if (document.hidden || connection.state === 'locked') return;
    // What needs attention is not paused with the table.
    lookAround.run();
    if (this.isWaiting || (this.isPaused && this.page !== null)) return;
    this.load();
  },

  async load() {
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    this.isWaiting = true;
    try {
      const page = await json(this.query(), { signal: abort.signal });
      if (abort.signal.aborted) return;
      this.page = page;
      $('gateways-error').hidden = true;
      if (this.offset > 0 && this.offset >= page.matched) {
        this.offset = Math.floor(Math.max(0, page.matched - 1) / this.limit) * this.limit;
        this.load();
        return;
      }
      this.show();
    } catch (error) {
      // A server that is away is told elsewhere.
      if (abort.signal.aborted || !(error instanceof RequestError) || error.status === 401) return;
      $('gateways-error').textContent = `The gateways cannot be shown: ${reasonOf(error)}.`;
      $('gateways-error').hidden = false;
    } finally {
      if (this.abort === abort) this.isWaiting = false;
    }
  },

  showControls() {
    for (const column of COLUMNS) {
      const isSorted = column.field === this.sort;
      setAttribute(column.cell, 'aria-sort', isSorted ? (this.order === 'asc' ? 'ascending' : 'descending') : null);
      setText(column.arrow, isSorted ? (this.order === 'asc' ? '▲' : '▼') : '');
    }
    $('gateways-sort').value = this.sort;
    $('gateways-order').value = this.order;
  },

  show() {
    const { page } = this;
    const rows = page?.gateways ?? [];
    setText($('gateways-count'), page === null ? '' : this.filter === '' ? `(${count(page.total)})` : `(${count(page.matched)} of ${count(page.total)})`);
    sync($('gateways-rows'), rows, keyOfStream, createGatewayRow, updateGatewayRow);
    $('gateways-none').hidden = page === null || rows.length > 0;
    setText($('gateways-none'), this.filter === '' ? 'No gateway is subscribed.' : 'No gateway matches the filter.');
    const first = page === null || rows.length === 0 ? 0 : this.offset + 1;
    setText($('gateways-page'), page === null ? '' : `${count(first)} to ${count(this.offset + rows.length)} of ${count(page.matched)}`);
    const isFirst = this.offset === 0;
    const isLast = page === null || this.offset + this.limit >= page.matched;
    $('gateways-first').disabled = isFirst;
    $('gateways-previous').disabled = isFirst;
    $('gateways-next').disabled = isLast;
    $('gateways-last').disabled = isLast;
  },
};

function cell(label, attributes = {}, ...children) {
  return h('td', { role: 'cell', 'data-label': label, ...attributes }, h('div', { class: 'cell' }, ...children));
}

function createGatewayRow() {
  const parts = {
    id: h('bdi', { class: 'id' }), state: h('span', { class: 'chip' }),
    lagEvents: h('span'), lagSeconds: h('span'), rate: h('span'),
    delivered: h('span'), deliveredBytes: h('span', { class: 'more' }),
    since: h('time'), start: h('span', { class: 'more' }),
    peer: h('bdi'), principal: h('bdi'),
    button: h('button', { type: 'button', class: 'small danger', onclick: () => disconnect.ask(row.gateway.id) }, 'Disconnect'),
  };
  const row = h('tr', { role: 'row' },
    cell('Gateway', { class: 'key id-cell' }, parts.id),
    cell('State', { class: 'state-cell' }, parts.state),
    cell('Lag, events', { class: 'number' }, parts.lagEvents),
    cell('Lag, time', { class: 'number' }, parts.lagSeconds),
    cell('Bytes/s', { class: 'number' }, parts.rate),
    cell('Delivered', { class: 'number' }, parts.delivered, parts.deliveredBytes),
    cell('Since', { class: 'when' }, parts.since, parts.start),
    cell('Peer', { class: 'peer' }, parts.peer),
    cell('Principal', { class: 'peer' }, parts.principal),
    cell('Disconnect', { class: 'writes' }, parts.button));
  row.lastChild.hidden = known.access.role !== 'write';
  row.parts = parts;
  return row;
}

/** What the reasons of a start mean. The words are those of docs/protocol.md. */
const STARTS = {
  requested: 'It goes on after the cursor that it asked for',
  'no-cursor': 'It asked for no cursor, and began after the newest event',
  expired: 'What comes after its cursor had left the ring: it began after the newest event',
  ahead: 'Its cursor was after the newest event: it began after that',
  'other-epoch': 'Its cursor was of another server, or of before a restart: it began after the newest event',
  malformed: 'What it sent was no cursor: it began after the newest event',
};

function updateGatewayRow(row, gateway) {
  const { parts } = row;
  row.gateway = gateway;
  setPeerText(parts.id, gateway.id);
  setAttribute(parts.id, 'title', `${visible(gateway.id)} at cursor ${visible(gateway.cursor)}${gateway.enforced === '' ? '' : `, enforced up to ${visible(gateway.enforced)}`}`);
  setText(parts.state, clipped(gateway.state, 24));
  setAttribute(parts.state, 'data-level', gateway.state === 'live' ? 'good' : 'warning');
  setText(parts.lagEvents, count(gateway.lag_events));
  setText(parts.lagSeconds, duration(gateway.lag_seconds));
  setText(parts.rate, `${bytes(gateway.bytes_per_second)}/s`);
  setText(parts.delivered, count(gateway.delivered_events));
  setText(parts.deliveredBytes, bytes(gateway.delivered_bytes));
  setTime(parts.since, gateway.since);
  setAttribute(parts.start, 'title', STARTS[gateway.reason] ?? null);
  setText(parts.start, `${clipped(gateway.resume, 16)}, ${clipped(gateway.reason, 24)}${gateway.missed > 0 ? `, missed ${count(gateway.missed)}` : ''}`);
  setPeerText(parts.peer, gateway.peer);
  setPeerText(parts.principal, gateway.principal);
  setAttribute(parts.button, 'aria-label', `Disconnect ${visible(gateway.id)}`);
}

/** The gateways that are furthest behind, where any is. */
async function loadFurthest() {
  if ((known.status?.gateways.behind ?? 0) === 0) {
    known.furthest = [];
    known.lags.clear();
    return;
  }
  const { losses } = known;
  const page = await json('/api/v1/gateways?sort=lag_seconds&order=desc&limit=5&offset=0');
  // What was known may have been forgotten, and whose answer this is.
  if (known.losses !== losses) return;
  known.furthest = page.gateways.filter((gateway) => gateway.state !== 'live');
  const at = performance.now() / 1000;
  const lags = new Map();
  for (const gateway of known.furthest) {
    const key = keyOfStream(gateway);
    const recent = (known.lags.get(key) ?? []).filter((lag) => at - lag.at < 30);
    lags.set(key, [...recent, { at, seconds: gateway.lag_seconds }]);
  }
  known.lags = lags;
}

/** How the lag of a gateway changes, in words; empty where that is not known yet. */
function trendOf(gateway, ring) {
  const lags = known.lags.get(keyOfStream(gateway)) ?? [];
  const [first, last] = [lags[0], lags.at(-1)];
  if (first === undefined || last.at - first.at < 5) return '';
  const growth = (last.seconds - first.seconds) / (last.at - first.at);
  if (growth < -0.1) return 'catching up';
  if (growth < 0.1) return 'neither growing nor catching up';
  const left = ring.oldest_age_seconds - last.seconds;
  const isFull = percent(ring.events, ring.max_events) >= 0.95 || percent(ring.bytes, ring.max_bytes) >= 0.9;
  return isFull && left > 0 ? `growing: it is lapped in ${duration(left / growth)} if that goes on` : 'growing';
}

/** The streams that began after events that are gone, while they are there: their ends do not tell it. */
async function loadLosses() {
  const { losses } = known;
  const missed = known.status?.totals.missed_events ?? 0;
  if (missed !== known.missedBefore) {
    // The newest streams: those that began since the last look are among them.
    const page = await json('/api/v1/gateways?sort=since&order=desc&limit=1000&offset=0');
    if (known.losses !== losses) return;
    known.missedBefore = missed;
    for (const gateway of page.gateways) {
      if (gateway.missed > 0) losses.set(keyOfStream(gateway), gateway);
    }
  }
  const first = serverTime() - HISTORY_SECONDS * 1000;
  for (const [key, { since }] of losses) {
    if ((parsedTime(since)?.getTime() ?? 0) < first) losses.delete(key);
  }
}

/** What the list of what needs attention needs beside the status. */
const lookAround = {
  isWaiting: false,

  async run() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    try {
      await Promise.all([loadFurthest(), loadLosses()]);
      showAttention();
    } catch {
      // Tried again with the next refresh.
    } finally {
      this.isWaiting = false;
    }
  },
};

// ---------------------------------------------------------------------------------------
// Disconnect

const disconnect = {
  id: '',
  isWaiting: false,

  ask(id) {
    this.id = id;
    $('disconnect-id').replaceChildren(peerText(id));
    $('disconnect-error').hidden = true;
    $('disconnect-confirm').disabled = false;
    // No browser sends these as a part of a path: they name the folder and the one above it.
    if (id === '.' || id === '..') {
      this.fail('A browser cannot send this id. Use `galaxy-push disconnect` instead.');
      $('disconnect-confirm').disabled = true;
    }
    $('disconnect').showModal();
    $('disconnect-cancel').focus();
  },

  async confirm() {
    if (this.isWaiting) return;
    this.isWaiting = true;
    const { id } = this;
    try {
      const answer = await json(`/api/v1/gateways/${encodeURIComponent(id)}`, { method: 'DELETE' });
      $('disconnect').close();
      toast(`${clipped(id, 80)} was disconnected${answer.disconnected > 1 ? ` (${answer.disconnected} streams)` : ''}.`);
      table.load();
    } catch (error) {
      if (error instanceof RequestError && error.status === 403) {
        this.fail(`You may not disconnect gateways: ${error.message}`);
        known.access.role = 'read';
        showAccess();
      } else if (error instanceof RequestError && error.status === 404) {
        this.fail('No gateway of this id is subscribed any more.');
        table.load();
      } else {
        this.fail(`That did not work: ${reasonOf(error)}.`);
      }
    } finally {
      this.isWaiting = false;
    }
  },

  fail(text) {
    $('disconnect-error').textContent = text;
    $('disconnect-error').hidden = false;
  },

  closed() {
    // The row may have gone with the gateway; then the focus is nowhere, or still in what is closed.
    const { activeElement } = document;
    if (activeElement === null || activeElement === document.body || $('disconnect').contains(activeElement)) {
      $('gateways').focus({ preventScroll: true });
    }
  },
};

// ---------------------------------------------------------------------------------------
// Ends and invalidations

let shownEnds = ROWS_AT_ONCE;
let shownInvalidations = ROWS_AT_ONCE;

function matches(text, values) {
  const wanted = text.toLowerCase();
  return values.some((value) => String(value).toLowerCase().includes(wanted));
}

function showEnds() {
  const numbers = new Map();
  for (const end of known.ends) numbers.set(end.cause, (numbers.get(end.cause) ?? 0) + 1);
  const select = $('ends-cause');
  const names = [...new Set([...Object.keys(CAUSES), ...numbers.keys()])];
  sync(select, ['', ...names], (name) => name, (name) => h('option', { value: name }), (option, name) => {
    setText(option, name === '' ? `All (${known.ends.length})` : `${causeOf(name).title} (${numbers.get(name) ?? 0})`);
  });
  const cause = select.value;
  $('ends-meaning').hidden = cause === '';
  if (cause !== '') {
    setText($('ends-meaning-text'), causeOf(cause).meaning);
    setText($('ends-meaning-action'), `What to do: ${causeOf(cause).action}`);
  }
  const filter = $('ends-filter').value;
  const found = known.ends.filter((end) => (cause === '' || end.cause === cause)
    && matches(filter, [end.id, end.peer, end.principal, end.detail]));
  sync($('ends-rows'), found.slice(0, shownEnds), keyOfEnd, createEndRow, () => {});
  setText($('ends-count'), found.length === known.ends.length ? `(${count(found.length)})` : `(${count(found.length)} of ${count(known.ends.length)})`);
  $('ends-none').hidden = found.length > 0;
  setText($('ends-none'), known.ends.length === 0 ? 'No stream has ended yet.' : 'No end matches the filter.');
  showMore($('ends-more'), found.length - shownEnds);
}

function showMore(button, left) {
  button.hidden = left <= 0;
  setText(button, `Show ${Math.min(left, ROWS_AT_ONCE)} more of ${count(left)}`);
}

/** An end does not change any more. */
function createEndRow(end) {
  const cause = causeOf(end.cause);
  const time = h('time');
  setTime(time, end.at);
  const meaning = h('details', {}, h('summary', {}, 'What it means'), h('p', {}, cause.meaning), h('p', {}, `What to do: ${cause.action}`));
  return h('tr', { role: 'row' },
    cell('When', { class: 'when' }, time),
    cell('Gateway', { class: 'key id-cell' }, peerText(end.id, { class: 'id', title: visible(end.id) })),
    cell('Cause', { class: 'state-cell' }, h('span', { class: 'chip', 'data-level': cause.level }, clipped(end.cause, 40))),
    cell('Why', { class: 'why' }, peerText(end.detail), meaning),
    cell('Lasted', { class: 'number' }, duration(end.lasted_seconds)),
    cell('Delivered', { class: 'number' }, count(end.delivered_events), h('span', { class: 'more' }, bytes(end.delivered_bytes))),
    cell('Missed', { class: 'number' }, count(end.missed)),
    cell('Peer', { class: 'peer' }, peerText(end.peer), h('span', { class: 'more' }, peerText(end.principal))));
}

function showEndsOf(cause, id) {
  $('ends-cause').value = cause;
  $('ends-filter').value = id;
  shownEnds = ROWS_AT_ONCE;
  showEnds();
  goTo('ends');
}

function showInvalidations() {
  const filter = $('invalidations-filter').value;
  const found = known.invalidations.filter((one) => matches(filter, [one.user_id, one.device_session_id, one.reason, one.cursor]));
  sync($('invalidations-rows'), found.slice(0, shownInvalidations), keyOfInvalidation, (one) => {
    const time = h('time');
    setTime(time, one.at);
    return h('tr', { role: 'row' },
      cell('When', { class: 'when' }, time),
      cell('User', { class: 'key' }, peerText(one.user_id, { class: 'id' })),
      cell('Session', { class: 'key' }, one.device_session_id === '' ? h('span', { class: 'more' }, 'all of the user') : peerText(one.device_session_id, { class: 'id' })),
      cell('Reason', { class: 'key' }, peerText(one.reason)),
      cell('Cursor', {}, peerText(one.cursor, { class: 'cursor' })));
  }, () => {});
  setText($('invalidations-count'), found.length === known.invalidations.length ? `(${count(found.length)})` : `(${count(found.length)} of ${count(known.invalidations.length)})`);
  $('invalidations-none').hidden = found.length > 0;
  setText($('invalidations-none'), known.invalidations.length === 0 ? 'No session invalidation was published yet.' : 'No invalidation matches the filter.');
  showMore($('invalidations-more'), found.length - shownInvalidations);
}

// ---------------------------------------------------------------------------------------
// Follow one user

const follow = {
  user: '',
  wantsPayloads: false,
  events: [],
  number: 0,

  start(event) {
    event.preventDefault();
    const user = $('follow-user').value;
    if (user === '') return;
    this.user = user;
    this.wantsPayloads = $('follow-payload').checked;
    this.events = [];
    $('follow-error').hidden = true;
    $('follow-stop').hidden = false;
    setText($('follow-state'), 'Asking the server.');
    this.show();
    reopen();
  },

  begun() {
    setText($('follow-state'), `Following ${clipped(this.user, 80)}. Its events appear here as they go by.`);
  },

  stop() {
    if (this.user === '') return;
    this.user = '';
    $('follow-stop').hidden = true;
    setText($('follow-state'), this.events.length > 0 ? 'No longer following.' : '');
  },

  failed(why) {
    this.stop();
    setText($('follow-state'), '');
    $('follow-error').textContent = `This user cannot be followed: ${why}.`;
    $('follow-error').hidden = false;
  },

  take(event) {
    // One that was followed before may still come.
    if (event.user_id !== this.user) return;
    this.add({ event });
  },

  missed(data) {
    const number = typeof data === 'number' ? data : data?.missed ?? data?.count;
    this.add({ missed: Number(number) });
  },

  add(item) {
    this.number += 1;
    this.events.unshift({ ...item, number: this.number });
    if (this.events.length > KEPT_FOLLOWED) this.events.length = KEPT_FOLLOWED;
    showFollowedSoon();
  },

  show() {
    sync($('follow-events'), this.events, ({ number }) => number, createFollowed, () => {});
  },
};

const showFollowedSoon = soon(() => follow.show(), 200);

function createFollowed({ event, missed }) {
  if (event === undefined) {
    return h('li', { class: 'missed' }, Number.isFinite(missed)
      ? `${plural(missed, 'event')} of all users went by too fast to look at. Some may have been this user's.`
      : 'Events went by too fast to look at.');
  }
  const time = h('time');
  setTime(time, event.at);
  const isInvalidation = event.class === 'session_invalidation';
  const meta = h('div', { class: 'meta' });
  const fact = (name, value) => {
    if (value !== '' && value !== undefined && value !== null) meta.append(h('span', {}, `${name} `, peerText(value)));
  };
  fact('session', event.device_session_id || 'all');
  fact('event', event.event_id);
  fact('request', event.request_id);
  fact('trace', event.trace_id);
  fact('cursor', event.cursor);
  if (!isInvalidation) fact('payload', bytes(event.payload_bytes));
  const row = h('li', {},
    h('div', { class: 'head' },
      time,
      h('span', { class: 'chip', 'data-level': isInvalidation ? 'warning' : 'good' }, isInvalidation ? 'invalidation' : 'client event'),
      h('b', {}, peerText(isInvalidation ? event.reason : event.kind))),
    meta);
  if (event.payload !== null && event.payload !== undefined) {
    row.append(h('pre', { tabindex: '0', role: 'region', 'aria-label': 'Payload' }, payloadText(JSON.stringify(event.payload, null, 2))));
  } else if (event.payload_base64 !== null && event.payload_base64 !== undefined) {
    row.append(h('pre', { tabindex: '0', role: 'region', 'aria-label': 'Payload in base64' }, payloadText(`base64 ${event.payload_base64}`)));
  }
  return row;
}

/** Line ends stay; the rest is made visible. */
function payloadText(text) {
  return text.split('\n').map((line) => visible(line)).join('\n');
}

// ---------------------------------------------------------------------------------------
// The page

function goTo(id) {
  const section = $(id);
  section.scrollIntoView();
  section.focus({ preventScroll: true });
}

function showAll() {
  showStatus();
  showHistory();
  showEnds();
  showInvalidations();
  table.show();
}

const THEME_KEY = 'galaxy-push colours';

function setTheme(theme) {
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}

function begin() {
  const theme = storage('local', (store) => store.getItem(THEME_KEY)) ?? '';
  $('theme').value = ['light', 'dark'].includes(theme) ? theme : '';
  setTheme(theme);
  $('theme').addEventListener('change', (event) => {
    setTheme(event.target.value);
    storage('local', (store) => store.setItem(THEME_KEY, event.target.value));
  });

  $('charts').append(...charts.map((chart) => chart.element));
  $('history-figures').addEventListener('toggle', () => showHistory());
  table.build();

  $('ends-cause').addEventListener('change', () => { shownEnds = ROWS_AT_ONCE; showEnds(); });
  $('ends-filter').addEventListener('input', () => { shownEnds = ROWS_AT_ONCE; showEnds(); });
  $('ends-more').addEventListener('click', () => { shownEnds += ROWS_AT_ONCE; showEnds(); });
  $('invalidations-filter').addEventListener('input', () => { shownInvalidations = ROWS_AT_ONCE; showInvalidations(); });
  $('invalidations-more').addEventListener('click', () => { shownInvalidations += ROWS_AT_ONCE; showInvalidations(); });

  $('follow-form').addEventListener('submit', (event) => follow.start(event));
  $('follow-stop').addEventListener('click', () => { follow.stop(); reopen(); });

  $('disconnect-cancel').addEventListener('click', () => $('disconnect').close());
  $('disconnect-confirm').addEventListener('click', () => disconnect.confirm());
  $('disconnect').addEventListener('close', () => disconnect.closed());

  $('token-open').addEventListener('click', () => askForToken());
  $('token-forget').addEventListener('click', forgetToken);
  $('token-form').addEventListener('submit', useToken);
  $('token-cancel').addEventListener('click', () => $('token').close());
  $('token').addEventListener('close', () => { $('token-value').value = ''; });

  $('connection-retry').addEventListener('click', () => {
    if (connection.state === 'locked') askForToken();
    else tryNow();
  });
  window.addEventListener('online', tryNow);
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) return;
    if (connection.state === 'unreachable' || connection.state === 'polling') tryNow();
    table.refresh();
  });
  setInterval(() => {
    if (connection.state !== 'live') showConnection();
  }, 1_000);
  setInterval(() => {
    if (connection.state === 'live' || connection.state === 'polling') table.refresh();
  }, TABLE_INTERVAL_MS);

  showAccess();
  showAll();
  stayConnected();
}

begin();
