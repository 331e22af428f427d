"""Gateways with one deliberate fault each, to show that the conformance kit finds it.

They are the example gateway in Python with a method replaced: `gateway_mutants.py NAME`
and its flags. A decorator names the promises that a fault breaks.
"""

import asyncio
import itertools
import pathlib
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "examples/gateways/python"))

import browsers
import gateway
import grpc
from gateway import Gateway


class Mutant(NamedTuple):
    gateway: type[Gateway]
    # Each of these has to find the fault.
    promises: tuple[str, ...]


MUTANTS = {}


class Browsers(browsers.Browsers):
    def everybody(self):
        return [session for of in self._sessions.values() for session in of]


class Serving(Gateway):
    """A gateway whose half for browsers is replaced."""

    browsers = Browsers

    def __init__(self, options):
        super().__init__(options)
        self.browsers = type(self).browsers()


def breaks(*promises):
    def add(kind):
        MUTANTS[kind.__name__] = Mutant(kind, promises)
        return kind

    return add


# The id and the cursor


@breaks("subscribes")
class id_has_a_line_break(Gateway):
    def __init__(self, options):
        super().__init__(options)
        options.id += "\n"


@breaks("subscribes")
class heartbeat_is_none(Gateway):
    """Servers refuse so short an interval."""

    def __init__(self, options):
        super().__init__(options)
        options.heartbeat = 0


@breaks("same-id")
class id_is_new_each_time(Gateway):
    numbers = itertools.count()

    async def _stream(self):
        self.options.id = f"gateway-{next(self.numbers)}"
        await super()._stream()


@breaks("resumes")
class cursor_is_not_sent(Gateway):
    async def _stream(self):
        self.position = ""
        await super()._stream()


@breaks("resumes")
class cursor_stays_at_the_first(Gateway):
    def _processed(self, cursor):
        self.position = self.position or cursor


@breaks("resumes")
class cursor_is_made_up(Gateway):
    """It counts by itself, beyond what has come."""

    def _processed(self, cursor):
        if cursor:
            cursor = cursor[:-1] + "Z"
        super()._processed(cursor)


@breaks("resumes-after-each-end")
class a_good_end_is_the_last(Gateway):
    async def _stream(self):
        await super()._stream()
        await asyncio.Event().wait()


@breaks("durable-cursor")
class cursor_is_not_stored(Gateway):
    def _write(self, cursor):
        pass


@breaks("durable-cursor")
class cursor_is_stored_at_the_end(Gateway):
    """A kill is no end."""

    async def _store(self):
        await asyncio.wait([self.subscription])
        self._write(self.position)


@breaks("follows-epoch")
class cursor_only_grows(Gateway):
    """A server whose clock has gone back has smaller cursors."""

    def _processed(self, cursor):
        super()._processed(max(cursor or "", self.position))


@breaks("never-back", "repeated-event")
class repeats_are_events(Gateway):
    def _is_repeated(self, cursor):
        return False


@breaks("repeated-event")
class repeats_are_forwarded_first(Gateway):
    def _handle(self, event):
        if self._is_repeated(event.cursor) and event.WhichOneof("kind") == "client_event":
            self._forward(event.client_event)
        super()._handle(event)


@breaks("start-cursor-kept")
class start_cursor_is_ignored(Gateway):
    def _begin(self, start):
        super()._begin(start | {"push-start-cursor": ""})

    def _handle(self, event):
        # The end mark of a replay is where the stream starts.
        if not event.WhichOneof("kind"):
            event.cursor = ""
        super()._handle(event)


@breaks("replay-interrupted")
class start_cursor_is_taken_too_soon(Gateway):
    def _begin(self, start):
        super()._begin(start)
        self.position = start.get("push-start-cursor")

    def _processed(self, cursor):
        if self.replay < 0:
            super()._processed(cursor)


# Streams


@breaks("one-stream")
class a_stream_is_forgotten(Gateway):
    """Another one is opened beside it."""

    async def _subscribe(self):
        await asyncio.gather(super()._subscribe(), super()._subscribe())


@breaks("quiet-stream")
class quiet_is_dead(Gateway):
    def _begin(self, start):
        super()._begin(start)
        self.options.heartbeat = 0.4

    async def _pause(self, least):
        self.options.heartbeat = 1
        await super()._pause(least)


@breaks("heartbeat-silence")
class dead_is_quiet(Gateway):
    def _begin(self, start):
        super()._begin(start)
        start.pop("push-heartbeat", None)


@breaks("slow-headers")
class headers_are_not_waited_for(Gateway):
    def __init__(self, options):
        super().__init__(options)
        gateway.HEADERS_SECONDS = 0.5


@breaks("unknown-messages")
class large_messages_are_refused(Gateway):
    def __init__(self, options):
        super().__init__(options)
        limit = ("grpc.max_receive_message_length", 64 << 10)
        insecure = grpc.aio.insecure_channel
        grpc.aio.insecure_channel = lambda at, options: insecure(at, [*options, limit])


@breaks("unknown-messages")
class unknown_messages_end_it(Gateway):
    async def _stream(self):
        try:
            await super()._stream()
        except LookupError:
            await asyncio.Event().wait()

    def _handle(self, event):
        if not event.WhichOneof("kind") and event.cursor > self.position:
            raise LookupError("what is this?")
        super()._handle(event)


# Attempts


@breaks("backs-off", "backs-off-from-crowd")
class pauses_do_not_grow(Gateway):
    async def _pause(self, least):
        await asyncio.sleep(0.1)


@breaks("retry-info")
class retry_info_is_ignored(Gateway):
    async def _pause(self, least):
        await super()._pause(0)


@breaks("backs-off-without-progress")
class a_stream_is_progress(Gateway):
    def _begin(self, start):
        super()._begin(start)
        self.backoff = gateway.FIRST_BACKOFF_SECONDS


@breaks("backs-off-from-takeover")
class fights_for_its_id(Gateway):
    def _refuse(self, reason):
        super()._refuse(reason)
        # Whatever is set next is the same.
        self.options.max_backoff = gateway.FIRST_BACKOFF_SECONDS


@breaks("backs-off-when-invalid")
class insists_on_an_invalid_request(Gateway):
    async def _subscribe(self):
        while True:
            await super()._subscribe()


@breaks("credential-renewed")
class token_is_read_once(Gateway):
    def __init__(self, options):
        super().__init__(options)
        copy = pathlib.Path(f"{options.state}.token")
        copy.write_text(options.token_file.read_text())
        options.token_file = copy


# Events


@breaks("forwards-to-user")
class events_are_for_everybody(Serving):
    class browsers(Browsers):
        def _named(self, message):
            return self.everybody()


@breaks("forwards-to-user")
class one_session_is_enough(Serving):
    """Only one session receives a user's events."""

    class browsers(Browsers):
        def _named(self, message):
            return super()._named(message)[:1]


@breaks("forwards-to-session")
class session_ids_are_ignored(Serving):
    class browsers(Browsers):
        def _named(self, message):
            return list(self._sessions.get(message.user_id, ()))


@breaks("forwards-in-order")
class some_are_faster(Gateway):
    turns = itertools.cycle([0.05, 0])

    def _forward(self, event):
        later = asyncio.get_running_loop().call_later
        later(next(self.turns), super()._forward, event)


@breaks("no-kind-no-event")
class heartbeats_are_forwarded(Serving):
    def _handle(self, event):
        if not event.WhichOneof("kind"):
            for session in self.browsers.everybody():
                session.send(f"data: {event.cursor}\n\n")
        super()._handle(event)


# Revocations


@breaks("reason-logged")
class reasons_are_not_logged(Gateway):
    def _revoke(self, invalidation, cursor):
        invalidation.reason = ""
        super()._revoke(invalidation, cursor)


@breaks("invalidation-ends-session", "invalidation-ends-user")
class revoked_sessions_drain(Gateway):
    """What is queued, and what comes within a moment, is still sent."""

    def _revoke(self, invalidation, cursor):
        later = asyncio.get_running_loop().call_later
        later(0.2, super()._revoke, invalidation, cursor)


@breaks("invalidation-ends-session")
class session_stands_for_its_user(Gateway):
    def _revoke(self, invalidation, cursor):
        invalidation.device_session_id = ""
        super()._revoke(invalidation, cursor)


@breaks("invalidation-ends-user")
class user_wide_means_nobody(Gateway):
    """An empty session id is taken for one that nobody has."""

    def _revoke(self, invalidation, cursor):
        if invalidation.device_session_id:
            super()._revoke(invalidation, cursor)


@breaks("invalidation-ends-user")
class one_of_the_users_sessions_ends(Gateway):
    def _revoke(self, invalidation, cursor):
        for session in self.browsers._named(invalidation)[:1]:
            session.end()


@breaks("invalidation-leaves-others")
class session_ids_are_unique(Serving):
    """It revokes the session of this id, whoever the user is."""

    def _revoke(self, invalidation, cursor):
        super()._revoke(invalidation, cursor)
        for session in self.browsers.everybody():
            if session.name == invalidation.device_session_id:
                session.end()


@breaks("invalidation-leaves-others")
class users_are_prefixes(Gateway):
    def _revoke(self, invalidation, cursor):
        for user in list(self.browsers._sessions):
            if invalidation.user_id.startswith(user):
                invalidation.user_id = user
                super()._revoke(invalidation, cursor)


@breaks("login-after-invalidation")
class revoked_users_are_out_for_good(Gateway):
    def __init__(self, options):
        super().__init__(options)
        self.banned = set()
        browsers.authenticate = self.authenticate

    def _revoke(self, invalidation, cursor):
        super()._revoke(invalidation, cursor)
        self.banned.add(invalidation.user_id)

    async def authenticate(self, user, session):
        return user not in self.banned


@breaks("invalidation-while-away")
class what_was_missed_is_old(Gateway):
    """Up to where the server was when the stream resumed, nothing is enforced."""

    head = ""

    def _begin(self, start):
        self.head = start.get("push-head-cursor", "")
        super()._begin(start)

    def _revoke(self, invalidation, cursor):
        if cursor > self.head:
            super()._revoke(invalidation, cursor)


@breaks("gap-suspect", "epoch-suspect")
class gaps_are_logged_only(Gateway):
    def _gap(self, start):
        super()._gap(start | {"push-revocations": "complete"})


@breaks("gap-suspect")
class only_what_expired_is_a_gap(Gateway):
    def _gap(self, start):
        if start["push-resume-reason"] in ("expired", "other-epoch"):
            super()._gap(start)


@breaks("gap-suspect")
class some_revocations_are_enough(Gateway):
    def _gap(self, start):
        if start.get("push-revocations-count", "0") == "0":
            super()._gap(start)


@breaks("epoch-suspect")
class partial_is_complete(Gateway):
    def _gap(self, start):
        if "push-revocations" in start:
            start = start | {"push-revocations": "complete"}
        super()._gap(start)


@breaks("replay-enforced")
class replays_are_not_enforced(Gateway):
    def _revoke(self, invalidation, cursor):
        if self.replay < 0:
            super()._revoke(invalidation, cursor)


@breaks("replay-enforced")
class a_gap_ends_everybody(Gateway):
    """Safe, and not what a complete replay is for."""

    def _gap(self, start):
        super()._gap(start | {"push-revocations": "partial"})


if __name__ == "__main__":
    name = sys.argv.pop(1)
    gateway.main(MUTANTS[name].gateway)
