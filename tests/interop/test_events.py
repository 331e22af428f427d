"""What a publisher puts into an event is what every gateway gets out of it."""

import base64
import json
import pathlib

import pytest

from galaxy.backend.push.v1 import push_pb2

from peers import client_event, session_invalidation
from wire import field, request

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples/events.jsonl"


@pytest.fixture
def deliver(server):
    """Publishes one event and returns what a gateway gets, without its cursor."""
    stream = server.gateway().subscribe()
    assert stream.start_cursor

    def through(event):
        server.publisher().publish(event)
        got = stream.next()
        got.ClearField("cursor")
        return got

    return through


@pytest.fixture
def deliver_raw(server):
    """The same for bytes: the cursor is checked to be last and cut off."""
    stream = server.gateway().subscribe()
    assert stream.start_cursor

    def through(event):
        response = server.publisher().publish_raw(request(event))
        got = stream.next_raw()
        cursor = field(3, response.first_cursor.encode())
        assert got.endswith(cursor)
        return got[: -len(cursor)]

    return through


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b'{"turn": 42,\n "a" : 1.50}', id="JSON with its own spacing"),
        pytest.param(bytes(range(256)), id="every byte"),
        pytest.param(b"\xff" * 60_000, id="60,000 bytes"),
        pytest.param(b"\0" * 127, id="127 zero bytes"),
        pytest.param(b"\0" * 128, id="128 zero bytes"),
    ],
)
def test_payloads_are_carried_unchanged(deliver, payload):
    assert deliver(client_event(payload=payload)).client_event.payload == payload


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "  not trimmed\t",
        "not hex, ünïcode 🚀\0",
        "x" * 5000,
    ],
    ids=["empty", "trace id", "traceparent", "spaces", "any text", "long"],
)
@pytest.mark.parametrize("name", ["event_id", "request_id", "trace_id"])
def test_ids_are_carried_verbatim(deliver, name, text):
    assert getattr(deliver(client_event(**{name: text})).client_event, name) == text


def test_every_field_of_a_client_event_arrives(deliver):
    event = client_event(
        user_id="user",
        device_session_id="session",
        kind="kind",
        payload=b"payload",
        event_id="event",
        request_id="request",
        trace_id="trace",
    )
    assert deliver(event) == event


@pytest.mark.parametrize("session", ["", "session-7"], ids=["all sessions", "one"])
def test_session_invalidations_arrive(deliver, session):
    event = session_invalidation(
        user_id="user", device_session_id=session, reason="account_banned"
    )
    assert deliver(event) == event


BODY = client_event(event_id="7").client_event.SerializeToString()


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(field(1, BODY), id="as the library writes it"),
        pytest.param(field(1, BODY) + field(90, b"later"), id="unknown at the end"),
        pytest.param(field(90, b"later") + field(1, BODY), id="unknown at the start"),
        pytest.param(field(1, BODY + field(90, b"later")), id="unknown inside"),
        pytest.param(field(1, BODY) + b"\xd8\x05\x96\x01", id="an unknown number"),
        pytest.param(field(1, BODY) + b"\xdd\x05abcd", id="unknown fixed 32 bits"),
        pytest.param(field(1, BODY) + b"\xd9\x05abcdefgh", id="unknown fixed 64 bits"),
        pytest.param(field(1, field(4, b"x") + BODY), id="fields in another order"),
        pytest.param(field(1, BODY + field(7, b"")), id="an empty field, written out"),
        pytest.param(field(1, field(3, b"old") + BODY), id="a field twice"),
        pytest.param(b"\x0a" + bytes([len(BODY) | 0x80, 0]) + BODY, id="a long length"),
    ],
)
def test_the_bytes_of_an_event_are_carried_unchanged(deliver_raw, event):
    assert deliver_raw(event) == event


def test_unknown_fields_reach_a_gateway_that_knows_them(server):
    stream = server.gateway().subscribe()
    assert stream.start_cursor
    server.publisher().publish_raw(request(field(1, BODY + field(90, b"later"))))
    event = push_pb2.PushEvent.FromString(stream.next_raw())
    assert field(90, b"later") in event.client_event.SerializeToString()


def test_every_gateway_gets_every_event_in_one_order(server):
    streams = [server.gateway(f"gateway-{n}").subscribe() for n in range(4)]
    for stream in streams:
        assert stream.start_cursor
    feeds = [server.publisher().stream() for _ in range(3)]
    for number in range(200):
        for index, feed in enumerate(feeds):
            feed.send(client_event(event_id=f"{index}-{number}"))
    runs = [[stream.next_raw() for _ in range(600)] for stream in streams]
    assert runs[0] == runs[1] == runs[2] == runs[3]


def test_the_sample_events_arrive_as_they_are_written(server):
    lines = [json.loads(line) for line in EXAMPLES.read_text().splitlines()]
    events = []
    for line in lines:
        (name, fields), = line.items()
        fields = dict(fields)
        if "payload" in fields:
            fields["payload"] = json.dumps(fields["payload"]).encode()
        if "payload_base64" in fields:
            fields["payload"] = base64.b64decode(fields.pop("payload_base64"))
        event = push_pb2.PushEvent()
        message = getattr(event, name)
        message.SetInParent()
        for key, value in fields.items():
            setattr(message, key, value)
        events.append(event)
    stream = server.gateway().subscribe()
    assert stream.start_cursor
    server.publisher().publish(*events)
    got = stream.take(len(events))
    for event in got:
        event.ClearField("cursor")
    assert got == events


def test_unix_sockets_serve_as_well(serve, tmp_path):
    server = serve(
        listen=f"unix:{tmp_path}/gateways", publish_listen=f"unix:{tmp_path}/publishers"
    )
    assert server.gateways == f"unix:{tmp_path}/gateways"
    stream = server.gateway().subscribe()
    assert stream.start_cursor
    server.publisher().publish(client_event(event_id="7"))
    assert stream.next().client_event.event_id == "7"
