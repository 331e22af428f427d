"""The admin listener of a server that does not exist: for states that a real one is
hard to bring into, such as 10,000 gateways or a certificate near its end.

It answers as `docs/admin.md` says, and is as strict. Its figures are made up, but
hold together.
"""

import datetime
import http.server
import json
import math
import pathlib
import queue
import random
import socket
import socketserver
import threading
import time
import urllib.parse

PAGE = pathlib.Path(__file__).resolve().parents[3] / "src/admin/page"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/assets/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "/assets/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
    "/assets/icon.svg": ("icon.svg", "image/svg+xml"),
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
CAUSES = (
    "takeover",
    "lapped",
    "stalled",
    "stopping",
    "expired",
    "denied",
    "disconnected",
    "cancelled",
    "refused",
)
DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
MIB = 1 << 20
DAY = 86_400


def cursor(sequence, epoch=0x1A2B3C4D5E6F7):
    def digits(number, width):
        text = ""
        for _ in range(width):
            text = DIGITS[number % 32] + text
            number //= 32
        return text

    return f"{digits(epoch, 12)}-{digits(sequence, 11)}"


def rfc3339(seconds):
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Mock:
    """What the server knows. Tests change it, holding `lock` where several things
    must change together."""

    def __init__(self, gateways=8, history=600, seed=1, tick_seconds=1.0, write=True):
        self.lock = threading.RLock()
        self.random = random.Random(seed)
        self.tick_seconds = tick_seconds
        # Tokens and their roles; none: everybody may do everything.
        self.tokens = {}
        self.role = "write" if write else "read"
        self.payloads = True
        self.max_live = 16
        # Bytes of one write of the live stream; None: each event in one piece.
        self.piece_bytes = None
        self.is_silent = False
        # Until it is set, answers with ends are ready and not sent.
        self.sends_ends = threading.Event()
        self.sends_ends.set()
        self.ends_are_held = threading.Event()
        self.requests = []
        self.disconnected = []
        self.readers = []
        self.now = time.time()
        self.sequence = 4_211_873
        self.base = self.now - history
        self.started = self.now - 3 * DAY - 4000
        self.state = "serving"
        self.base_rate = 1_240.0
        self.behind_share = 0.0
        self.gateways = [self.make_gateway(at) for at in range(gateways)]
        self.ends = []
        self.invalidations = []
        self.ends_total = dict.fromkeys(CAUSES, 0)
        self.invalidations_total = 0
        # Those of subscriptions that began after what their gateway had seen.
        self.missed_events = 0
        self.checks = [
            {"name": "ring", "ok": True, "detail": "published and read again in 41 µs"},
            {"name": "listeners", "ok": True, "detail": "all accept"},
            {"name": "delivery", "ok": True, "detail": "threads take turns"},
            {"name": "stopping", "ok": True, "detail": "not asked to stop"},
        ]
        self.listeners = [
            {
                "name": name,
                "address": address,
                "tls": tls,
                "connections": connections,
                "max_connections": most,
                "certificate_not_after": rfc3339(self.now + 61 * DAY) if tls else None,
            }
            for name, address, tls, connections, most in (
                ("gateways", "10.20.0.4:50051", True, gateways, 10_000),
                ("publishers", "10.20.0.4:50052", True, 6, 512),
                ("admin", "127.0.0.1:50053", False, 2, 64),
            )
        ]
        self.ring = {
            "events": 371_402,
            "max_events": 1_048_576,
            "bytes": 148 * MIB,
            "max_bytes": 256 * MIB,
            "pinned_bytes": 2 * MIB,
            "oldest_age_seconds": 300.0,
            "window_seconds": 300.0,
        }
        self.revocations = {
            "kept": 48_211,
            "max": 1_000_000,
            "bytes": 6 * MIB,
            "evicted": 0,
            "expired": 1_204,
            "complete_replays": 17,
            "partial_replays": 3,
        }
        self.receipts = {
            "reporting": 41,
            "without_reports": 2,
            "reports": 81_004,
            "waits_proven": 1_377,
            "waits_unproven": 4,
        }
        self.max_gateways = 10_000
        self.process = {
            "resident_bytes": 214 * MIB,
            "memory_limit_bytes": 1024 * MIB,
            "cpu_seconds": 48_211.4,
            "open_fds": gateways + 61,
            "max_fds": 65_536,
        }
        self.config = {
            "digest": "9f2c41d07ab3",
            "last_reload_success": True,
            "last_reload_at": rfc3339(self.now - 7_200),
        }
        self.points = []
        for back in range(history, 0, -1):
            self.points.append(self.make_point(self.now - back))
        self.server = None
        self.port = None
        self.ticker = None
        self.is_ticking = False

    # Figures.

    def make_gateway(self, at, **changes):
        gateway = {
            "id": f"gw-{at:05}",
            "peer": f"10.20.{1 + at // 200}.{1 + at % 200}:{41_000 + at % 20_000}",
            "principal": f"gateways/gw-{at:05}",
            "since": rfc3339(self.now - 60 - (at * 7919) % 200_000),
            "resume": "resumed" if at % 3 else "fresh",
            "reason": "requested" if at % 3 else "no-cursor",
            "missed": 0,
            "cursor": cursor(self.sequence),
            "enforced": cursor(self.sequence) if at % 3 else "",
            "lag_events": 0,
            "lag_seconds": 0.0,
            "delivered_events": 500_000 + (at * 104_729) % 3_000_000,
            "delivered_bytes": (500_000 + (at * 104_729) % 3_000_000) * 402,
            "bytes_per_second": 498_000.0 + (at * 613) % 900,
            "state": "live",
        }
        gateway.update(changes)
        return gateway

    def make_point(self, at):
        wave = 1 + 0.12 * math.sin(at / 50) + self.random.gauss(0, 0.025)
        published = max(0.0, self.base_rate * wave)
        count = len(self.gateways)
        behind = sum(1 for gateway in self.gateways if gateway["state"] == "behind")
        p50 = 0.00021 * (1 + 0.3 * self.random.random())
        p99 = 0.0019 * (1 + self.random.random())
        if behind and at > self.now - 140:
            p99 *= 40 + 60 * self.random.random()
        return {
            "at": at,
            "published_per_second": published,
            "deliveries_per_second": published * count,
            "delivered_bytes_per_second": published * count * 402,
            "delivery_delay_p50_seconds": p50,
            "delivery_delay_p99_seconds": p99,
            "gateways": count,
            "gateways_behind": behind if at > self.now - 140 else 0,
            "ring_events": self.ring["events"],
            "ring_bytes": int(self.ring["bytes"] * (0.97 + 0.03 * wave)),
            "pinned_bytes": self.ring["pinned_bytes"],
            "ring_oldest_age_seconds": self.ring["oldest_age_seconds"],
        }

    def status(self):
        with self.lock:
            recent = self.points[-10:]

            def mean(field):
                values = [p[field] for p in recent if p[field] is not None]
                return sum(values) / len(values) if values else 0.0

            return {
                "version": "0.9.0",
                "revision": "3915231c0ffee",
                "started_at": rfc3339(self.started),
                "uptime_seconds": self.now - self.started,
                "state": self.state,
                "head": cursor(self.sequence),
                "listeners": [dict(one) for one in self.listeners],
                "ring": {**self.ring, "newest_sequence": self.sequence},
                "revocations": dict(self.revocations),
                "receipts": dict(self.receipts),
                "gateways": {
                    "subscribed": len(self.gateways),
                    "max": self.max_gateways,
                    "behind": sum(g["state"] == "behind" for g in self.gateways),
                },
                "totals": {
                    "client_events_published": self.sequence - self.invalidations_total,
                    "session_invalidations_published": self.invalidations_total,
                    "event_bytes_published": self.sequence * 371,
                    "deliveries": self.sequence * max(1, len(self.gateways)),
                    "delivered_bytes": self.sequence * max(1, len(self.gateways)) * 402,
                    "missed_events": self.missed_events + sum(end["missed"] for end in self.ends),
                    "subscriptions": 2 * len(self.gateways),
                    "ends": dict(self.ends_total),
                },
                "rates": {
                    "published_per_second": mean("published_per_second"),
                    "deliveries_per_second": mean("deliveries_per_second"),
                    "delivered_bytes_per_second": mean("delivered_bytes_per_second"),
                    "delivery_delay_p50_seconds": mean("delivery_delay_p50_seconds"),
                    "delivery_delay_p99_seconds": mean("delivery_delay_p99_seconds"),
                    "delivery_delay_samples": 1_210,
                },
                "process": dict(self.process),
                "config": dict(self.config),
                "checks": [dict(check) for check in self.checks],
            }

    # What happens.

    def end(self, id="gw-00001", cause="lapped", detail="", ago=0.0, **changes):
        with self.lock:
            end = {
                "at": rfc3339(self.now - ago),
                "id": id,
                "peer": "10.20.1.2:41001",
                "principal": f"gateways/{id}",
                "cause": cause,
                "detail": detail,
                "lasted_seconds": 3_601.5,
                "cursor": cursor(self.sequence - 1000),
                "delivered_events": 120_411,
                "delivered_bytes": 120_411 * 402,
                "missed": 0,
            }
            end.update(changes)
            self.ends.insert(0, end)
            self.ends.sort(key=lambda one: one["at"], reverse=True)
            self.ends_total[cause] = self.ends_total.get(cause, 0) + 1
        self.send("end", end)

    def invalidate(self, user, session="", reason="signed_out", ago=0.0):
        with self.lock:
            self.sequence += 1
            self.invalidations_total += 1
            one = {
                "at": rfc3339(self.now - ago),
                "cursor": cursor(self.sequence),
                "user_id": user,
                "device_session_id": session,
                "reason": reason,
            }
            self.invalidations.insert(0, one)
            self.invalidations.sort(key=lambda one: one["at"], reverse=True)
        self.send("invalidation", one)

    def user_event(self, user, payload=None, payload_base64=None, **changes):
        with self.lock:
            self.sequence += 1
            event = {
                "at": rfc3339(self.now),
                "cursor": cursor(self.sequence),
                "class": "client_event",
                "user_id": user,
                "device_session_id": "",
                "kind": "turn.ready",
                "event_id": "evt-1",
                "request_id": "",
                "trace_id": "",
                "reason": "",
                "payload_bytes": 12,
                "payload": payload,
                "payload_base64": payload_base64,
            }
            event.update(changes)
        self.send("user", event, user)

    def missed(self, number):
        for reader in list(self.readers):
            if reader.user is not None:
                reader.put("missed", {"missed": number})

    def send(self, name, data, user=None):
        for reader in list(self.readers):
            if user is None:
                reader.put(name, data)
            elif reader.user == user:
                if not reader.payload:
                    data = {**data, "payload": None, "payload_base64": None}
                reader.put(name, data)

    def tick(self):
        with self.lock:
            self.now += 1
            point = self.make_point(self.now)
            self.sequence += int(point["published_per_second"])
            self.process["cpu_seconds"] += 0.41
            for gateway in self.gateways:
                if gateway["state"] == "behind":
                    gateway["lag_seconds"] += 1
                    gateway["lag_events"] += int(point["published_per_second"])
                else:
                    gateway["delivered_events"] += int(point["published_per_second"])
            self.points = [*self.points[-599:], point]
        if not self.is_silent:
            self.send("status", self.status())
            self.send("point", point)

    def restart(self):
        """As a process that was started anew knows it."""
        with self.lock:
            self.started = self.now
            self.points = []
            self.ends = []
            self.invalidations = []
            self.ends_total = dict.fromkeys(CAUSES, 0)
            self.invalidations_total = 0

    # The listener.

    def start(self):
        self.server = Listener(("127.0.0.1", self.port or 0), Handler, self)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        if self.ticker is None:
            self.is_ticking = True
            self.ticker = threading.Thread(target=self.run_ticks, daemon=True)
            self.ticker.start()
        return self

    def run_ticks(self):
        while self.is_ticking:
            time.sleep(self.tick_seconds)
            self.tick()

    def stop(self):
        """Goes away, with all connections."""
        server, self.server = self.server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.cut_connections()

    def close(self):
        self.is_ticking = False
        self.sends_ends.set()
        self.stop()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    # Routes.

    def list_gateways(self, query):
        with self.lock:
            wanted = query["filter"].lower()
            found = [
                gateway
                for gateway in self.gateways
                if not wanted
                or any(
                    wanted in gateway[field].lower()
                    for field in ("id", "peer", "principal", "state")
                )
            ]
            found.sort(key=lambda gateway: gateway["id"])
            found.sort(key=lambda gateway: gateway[query["sort"]], reverse=query["order"] == "desc")
            page = found[query["offset"] : query["offset"] + query["limit"]]
            return {
                "total": len(self.gateways),
                "matched": len(found),
                "gateways": [dict(gateway) for gateway in page],
            }


class Reader:
    """Of the live stream."""

    def __init__(self, user, payload):
        self.user = user
        self.payload = payload
        self.queue = queue.Queue(10_000)

    def put(self, name, data):
        try:
            self.queue.put_nowait((name, data))
        except queue.Full:
            pass  # It is behind: it gets the newest later.


class Listener(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address, handler, mock):
        self.mock = mock
        self.connections = set()
        super().__init__(address, handler)

    def get_request(self):
        connection, peer = super().get_request()
        self.connections.add(connection)
        return connection, peer

    def shutdown_request(self, request):
        self.connections.discard(request)
        super().shutdown_request(request)

    def cut_connections(self):
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # It has ended by itself.

    def handle_error(self, request, client_address):
        pass  # A browser that goes away.


class Refused(Exception):
    def __init__(self, status, error, message):
        self.status = status
        self.error = error
        self.message = message


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    @property
    def mock(self):
        return self.server.mock

    def do_GET(self):
        self.respond("GET")

    def do_DELETE(self):
        self.respond("DELETE")

    def respond(self, method):
        split = urllib.parse.urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.mock.requests.append((method, self.path, headers))
        try:
            self.route(method, split.path, split.query)
        except Refused as refused:
            body = {"error": refused.error, "message": refused.message}
            self.send_json(body, refused.status)

    def route(self, method, path, query):
        origin = self.headers.get("Origin")
        site = self.headers.get("Sec-Fetch-Site")
        if path not in FILES and (
            site in ("cross-site", "same-site") or origin not in (None, self.mock.url)
        ):
            raise Refused(403, "CROSS_SITE", "requests of other sites are refused")
        if path in FILES and method == "GET":
            name, kind = FILES[path]
            self.send_bytes((PAGE / name).read_bytes(), kind)
            return
        role = self.role()
        prefix = "/api/v1/gateways/"
        if path.startswith(prefix) and path != prefix:
            if method != "DELETE":
                raise Refused(405, "METHOD_NOT_ALLOWED", "only DELETE")
            if role != "write":
                raise Refused(403, "WRITE_NOT_GRANTED", "the principal may only read")
            self.delete(urllib.parse.unquote(path[len(prefix) :]))
            return
        routes = {
            "/api/v1/access": ({}, self.access),
            "/api/v1/status": ({}, lambda _: self.mock.status()),
            "/api/v1/gateways": (
                {"filter": "", "sort": "id", "order": "asc", "limit": 100, "offset": 0},
                self.gateways,
            ),
            "/api/v1/ends": ({"limit": 1000}, self.ends),
            "/api/v1/invalidations": ({"limit": 1000}, self.invalidations),
            "/api/v1/history": ({}, self.history),
            "/api/v1/live": ({"user": None, "payload": 0}, None),
        }
        if path not in routes:
            raise Refused(404, "NOT_FOUND", f"there is nothing at {path}")
        if method != "GET":
            raise Refused(405, "METHOD_NOT_ALLOWED", "only GET")
        defaults, answer = routes[path]
        values = dict(defaults)
        for key, value in urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
            if key not in defaults:
                raise Refused(400, "BAD_QUERY", f"unknown key {key!r}")
            values[key] = self.number(key, value) if isinstance(defaults[key], int) else value
        if answer is None:
            self.live(values)
        else:
            self.send_json(answer(values))

    def number(self, key, value):
        if not value.isdecimal():
            raise Refused(400, "BAD_QUERY", f"{key}: {value!r} is not a number")
        return int(value)

    def role(self):
        mock = self.mock
        if not mock.tokens:
            return mock.role
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind != "Bearer" or token not in mock.tokens:
            raise Refused(401, "UNAUTHENTICATED", "a bearer token of a principal with admin rights is needed")
        role = mock.tokens[token]
        if role == "none":
            raise Refused(403, "READ_NOT_GRANTED", "the principal may not read here")
        return role

    def access(self, _):
        return {
            "principal": "operators" if self.mock.tokens else "",
            "role": self.role(),
            "payloads": self.mock.payloads,
        }

    def gateways(self, query):
        if query["sort"] not in self.mock.make_gateway(0):
            raise Refused(400, "BAD_QUERY", f"sort: no field {query['sort']!r}")
        if query["order"] not in ("asc", "desc"):
            raise Refused(400, "BAD_QUERY", "order: asc or desc")
        if not 1 <= query["limit"] <= 1000:
            raise Refused(400, "BAD_QUERY", "limit: 1 to 1000")
        return self.mock.list_gateways(query)

    def ends(self, query):
        mock = self.mock
        with mock.lock:
            answer = {"ends": mock.ends[: query["limit"]]}
        if not mock.sends_ends.is_set():
            mock.ends_are_held.set()
            mock.sends_ends.wait()
        return answer

    def invalidations(self, query):
        with self.mock.lock:
            return {"invalidations": self.mock.invalidations[: query["limit"]]}

    def history(self, _):
        with self.mock.lock:
            return {"interval_seconds": 1.0, "points": list(self.mock.points)}

    def delete(self, id):
        mock = self.mock
        with mock.lock:
            found = [gateway for gateway in mock.gateways if gateway["id"] == id]
            if not found:
                raise Refused(404, "NOT_FOUND", "no gateway of this id is subscribed")
            mock.gateways = [gateway for gateway in mock.gateways if gateway["id"] != id]
            mock.disconnected.append(id)
        self.send_json({"id": id, "disconnected": len(found)})
        mock.end(id, "takeover", "an operator has disconnected it")

    def live(self, query):
        mock = self.mock
        if len(mock.readers) >= mock.max_live:
            raise Refused(503, "TOO_MANY_STREAMS", f"{mock.max_live} live streams are open")
        if query["user"] is not None and not 1 <= len(query["user"].encode()) <= 256:
            raise Refused(400, "BAD_QUERY", "user: 1 to 256 bytes")
        reader = Reader(query["user"], query["payload"] == 1)
        reader.put("status", mock.status())
        mock.readers.append(reader)
        try:
            self.send_response(200)
            self.send_common("text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while True:
                try:
                    name, data = reader.queue.get(timeout=0.2)
                except queue.Empty:
                    self.connection.settimeout(0)
                    try:
                        if self.connection.recv(1) == b"":
                            return
                    except BlockingIOError:
                        pass
                    finally:
                        self.connection.settimeout(None)
                    continue
                text = f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n"
                self.send_chunks(text.encode())
        except OSError:
            pass  # It has gone.
        finally:
            mock.readers.remove(reader)
            self.close_connection = True

    def send_chunks(self, body):
        size = self.mock.piece_bytes or len(body)
        for at in range(0, len(body), size):
            piece = body[at : at + size]
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()

    def send_common(self, kind):
        self.send_header("Content-Type", kind)
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")

    def send_bytes(self, body, kind, status=200):
        self.send_response(status)
        self.send_common(kind)
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_json(self, body, status=200):
        text = json.dumps(body, ensure_ascii=False)
        self.send_bytes(text.encode(), "application/json", status)


def realistic():
    """A server at an evening when something is wrong."""
    mock = Mock(gateways=48)
    slow = mock.gateways[17]
    slow.update(
        id="eu-west/gw-17", principal="gateways/eu-west/gw-17", state="behind", lag_events=52_310,
        lag_seconds=41.7, bytes_per_second=71_400.0,
    )
    mock.gateways[31].update(
        id="us-east/gw-31", principal="gateways/us-east/gw-31", state="behind", lag_events=2_950, lag_seconds=2.3,
        bytes_per_second=402_000.0,
    )
    mock.ring["pinned_bytes"] = 6 * MIB
    mock.points = [mock.make_point(mock.now - back) for back in range(600, 0, -1)]
    for ago in (95, 340):
        mock.end(
            "eu-west/gw-17", "lapped", "too slow for the ring: 18,204 events had left it before they were taken",
            ago=ago, missed=18_204, lasted_seconds=245.0,
        )
    mock.end(
        "ap-south/gw-40", "stalled", "took nothing for 30 s, while 37,412 events waited",
        ago=410, missed=37_412, lasted_seconds=86_000.0,
    )
    mock.end("us-east/gw-03", "disconnected", "the peer closed the connection", ago=1_210)
    mock.end("eu-west/gw-08", "takeover", "10.20.1.9:50112 subscribed with the same id", ago=2_000)
    for at, (user, reason) in enumerate((("usr-vex", "account_banned:automation"), ("usr-mira", "password_changed"), ("usr-orin", "signed_out"))):
        mock.invalidate(user, "" if at == 0 else f"dev-{at}", reason, ago=130 + 400 * at)
    return mock


if __name__ == "__main__":
    import sys

    served = realistic() if "--quiet" not in sys.argv else Mock()
    served.port = 50_153
    served.start()
    print(served.url)
    threading.Event().wait()
