"""Servers with one deliberate fault each, to show that the conformance kit finds it.

A class is named as its fault is on the command line: `mock_server.py --fault NAME`. Its
decorator names the promises that it breaks. Others may break with them: a server that
loses events keeps few promises.
"""

import asyncio
import contextlib
import itertools
import json
import unicodedata
from typing import NamedTuple

import grpc

from messages import push_pb2
from mock_server import MAX_ID_BYTES, Ended, Server, Start, invalid

Code = grpc.StatusCode


class Mutant(NamedTuple):
    server: type[Server]
    # Each of these has to find the fault.
    promises: tuple[str, ...]


MUTANTS = {}


def breaks(*promises):
    def add(server):
        MUTANTS[server.__name__] = Mutant(server, promises)
        return server

    return add


# Where a stream starts


@breaks("headers-at-once")
class headers_late(Server):
    """The headers come with the first event."""

    async def send_headers(self, context, subscription, metadata):
        subscription.unsent = metadata

    async def send_frame(self, context, subscription, frame):
        if subscription.unsent:
            await super().send_headers(context, subscription, subscription.unsent)
            subscription.unsent = None
        await super().send_frame(context, subscription, frame)


@breaks("start-announced")
class no_start_metadata(Server):
    def metadata(self, start):
        return {}


@breaks("start-announced")
class no_start_cursor(Server):
    def metadata(self, start):
        metadata = super().metadata(start)
        del metadata["push-start-cursor"]
        return metadata


@breaks("start-announced")
class reason_is_not_of_the_contract(Server):
    def metadata(self, start):
        return super().metadata(start) | {"push-resume-reason": "because"}


@breaks("fresh-after-head", "resume-from-start-cursor")
class start_cursor_is_one_behind(Server):
    """The stream starts where it should, and `push-start-cursor` says otherwise."""

    def metadata(self, start):
        return super().metadata(start._replace(position=max(0, start.position - 1)))


@breaks("fresh-after-head")
class fresh_replays_the_ring(Server):
    def fresh(self, reason):
        return Start("fresh", reason, self.head - len(self.ring))


@breaks("fresh-after-head")
class subscribes_late(Server):
    """What is published right after the headers is lost."""

    async def send_headers(self, context, subscription, metadata):
        await super().send_headers(context, subscription, metadata)
        if metadata["push-resume"] == "fresh":
            await asyncio.sleep(0.2)
            subscription.position = self.head


@breaks("resume-next-event")
class resume_repeats_one(Server):
    def subscription(self, gateway_id, start):
        subscription = super().subscription(gateway_id, start)
        if start.resume == "resumed" and start.position in self.ring:
            subscription.position -= 1
        return subscription


@breaks("resume-next-event")
class resume_skips_one(Server):
    def subscription(self, gateway_id, start):
        subscription = super().subscription(gateway_id, start)
        if start.resume == "resumed":
            subscription.position += 1
        return subscription


@breaks("resume-next-event")
class resume_is_always_fresh(Server):
    def start(self, text):
        return super().start("")


@breaks("resume-while-away")
class delivered_is_taken_for_processed(Server):
    """An id goes on after the last event that it was sent, whatever its cursor is."""

    def __init__(self, ring_events):
        super().__init__(ring_events)
        self.sent = {}

    def subscription(self, gateway_id, start):
        subscription = super().subscription(gateway_id, start)
        subscription.position = self.sent.get(gateway_id, start.position)
        return subscription

    def take(self, subscription):
        frame = super().take(subscription)
        self.sent[subscription.gateway_id] = subscription.position
        return frame


@breaks("resume-at-head")
class head_is_not_resumed(Server):
    """The cursor of the newest event starts fresh."""

    def start(self, text):
        start = super().start(text)
        is_head = start.resume == "resumed" and start.position == self.head
        return self.fresh("ahead") if is_head else start


@breaks("resume-from-start-cursor")
class start_cursor_is_not_resumed(Server):
    """A `push-start-cursor` is forgotten as soon as it is sent."""

    def __init__(self, ring_events):
        super().__init__(ring_events)
        self.start_cursors = set()

    def metadata(self, start):
        metadata = super().metadata(start)
        self.start_cursors.add(metadata["push-start-cursor"])
        return metadata

    def start(self, text):
        return super().start("" if text in self.start_cursors else text)


@breaks("expired-announced")
class expired_resumes_silently(Server):
    """A cursor that has left the ring resumes at the oldest event that is kept."""

    def expired(self, position):
        return Start("resumed", "requested", self.head - len(self.ring))


@breaks("expired-announced")
class edge_of_the_ring_is_silent(Server):
    """A cursor whose next event has just left the ring resumes with the one after it."""

    def expired(self, position):
        oldest = self.head - len(self.ring)
        if position + 1 == oldest:
            return Start("resumed", "requested", oldest)
        return super().expired(position)


@breaks("expired-announced")
class expired_without_count(Server):
    def expired(self, position):
        return super().expired(position)._replace(missed=None)


@breaks("expired-announced")
class expired_count_wrong(Server):
    def expired(self, position):
        return super().expired(position - 1)


@breaks("other-epoch-fresh")
class other_epoch_resumes(Server):
    """The sequence counts, whatever the epoch is."""

    def parse_cursor(self, text):
        cursor = super().parse_cursor(text)
        return cursor and cursor._replace(epoch=self.epoch)


@breaks("ahead-fresh")
class ahead_resumes(Server):
    """The stream waits in silence until the head has come to the cursor."""

    def start(self, text):
        start = super().start(text)
        if start.reason == "ahead":
            return Start("resumed", "requested", self.parse_cursor(text).sequence)
        return start


@breaks("malformed-fresh")
class malformed_is_refused(Server):
    def fresh(self, reason):
        if reason == "malformed":
            raise invalid("cursor is malformed")
        return super().fresh(reason)


@breaks("ahead-fresh", "other-epoch-fresh", "malformed-fresh")
class reasons_are_all_alike(Server):
    def fresh(self, reason):
        return super().fresh("no-cursor")


@breaks("malformed-fresh")
class lower_case_is_read(Server):
    def parse_cursor(self, text):
        return super().parse_cursor(text.upper())


@breaks("malformed-fresh")
class look_alikes_are_read(Server):
    def parse_cursor(self, text):
        return super().parse_cursor(text.translate(str.maketrans("OIL", "011")))


@breaks("malformed-fresh")
class spaces_are_trimmed(Server):
    def parse_cursor(self, text):
        return super().parse_cursor(text.strip())


# Cursors


@breaks("cursor-form")
class cursors_are_unpadded(Server):
    def cursor_at(self, position):
        epoch, sequence = super().cursor_at(position).split("-")
        return f"{epoch}-{sequence.lstrip('0') or '0'}"

    def parse_cursor(self, text):
        epoch, _, sequence = text.partition("-")
        return super().parse_cursor(f"{epoch}-{sequence:0>11}")


@breaks("cursor-form")
class cursors_are_lower_case(Server):
    def cursor_at(self, position):
        return super().cursor_at(position).lower()

    def parse_cursor(self, text):
        return super().parse_cursor(text.upper())


@breaks("cursor-dense")
class cursors_have_holes(Server):
    def cursor_at(self, position):
        return super().cursor_at(2 * position)

    def parse_cursor(self, text):
        cursor = super().parse_cursor(text)
        return cursor and cursor._replace(sequence=cursor.sequence // 2)


@breaks("cursor-dense")
class epoch_changes(Server):
    """Sequences and order are right, and each 32nd event begins another epoch."""

    def append(self, event):
        self.epoch += self.head % 32 == 0
        super().append(event)


# What a stream delivers


@breaks("burst-complete")
class drops_one_of_fifty(Server):
    def take(self, subscription):
        frame = super().take(subscription)
        if frame is not None and subscription.position % 50 == 0:
            return super().take(subscription)
        return frame


@breaks("burst-complete")
class repeats_one_of_fifty(Server):
    def take(self, subscription):
        again = vars(subscription).pop("again", None)
        if again is not None:
            return again
        frame = super().take(subscription)
        if frame is not None and subscription.position % 50 == 0:
            subscription.again = frame
        return frame


@breaks("burst-complete")
class swaps_two(Server):
    """Two of fifty, if both are in the ring."""

    def take(self, subscription):
        held = vars(subscription).pop("held", None)
        if held is not None:
            return held
        frame = super().take(subscription)
        if frame is not None and subscription.position % 50 == 0:
            next_one = super().take(subscription)
            if next_one is not None:
                subscription.held, frame = frame, next_one
        return frame


@breaks("every-gateway")
class loses_it_for_second_gateway(Server):
    """Every second gateway to subscribe gets no invalidations."""

    gateways = 0

    def subscription(self, gateway_id, start):
        subscription = super().subscription(gateway_id, start)
        self.gateways += 1
        subscription.gets_all = self.gateways % 2 == 1
        return subscription

    def take(self, subscription):
        frame = super().take(subscription)
        while frame and not subscription.gets_all and self.is_invalidation(frame):
            frame = super().take(subscription)
        return frame

    def is_invalidation(self, frame):
        return push_pb2.PushEvent.FromString(frame).HasField("session_invalidation")


@breaks("slow-gateway-alone")
class slow_one_blocks_publishers(Server):
    """A batch is answered when every gateway has taken it from the ring."""

    async def publish(self, data):
        response = await super().publish(data)
        head = self.head
        while any(subscription.position < head for subscription in self.subscriptions):
            await asyncio.sleep(0.001)
        return response


@breaks("slow-gateway-alone")
class slow_one_holds_up_the_others(Server):
    """Nobody is more than 100 events ahead of anybody."""

    def take(self, subscription):
        slowest = min(other.position for other in self.subscriptions)
        if subscription.position > slowest + 100:
            return None
        return super().take(subscription)


@breaks("lagged-told")
class lagging_skips_silently(Server):
    def take(self, subscription):
        oldest = self.head - len(self.ring)
        subscription.position = max(subscription.position, oldest)
        return super().take(subscription)


@breaks("lagged-told")
class lagging_without_count(Server):
    def lagged(self, missed):
        ended = super().lagged(missed)
        ended.trailers = ()
        return ended


@breaks("lagged-told")
class lagging_count_is_wrong(Server):
    def lagged(self, missed):
        return super().lagged(missed + 1)


@breaks("lagged-told")
class lagging_ends_ok(Server):
    async def end_call(self, context, ended):
        if ended.code is not Code.OUT_OF_RANGE:
            await super().end_call(context, ended)


@breaks("shared-connection")
class refusal_ends_its_connection(Server):
    """A gateway that is refused takes the others on its connection with it."""

    async def send_headers(self, context, subscription, metadata):
        subscription.peer = context.peer()
        await super().send_headers(context, subscription, metadata)

    async def end_call(self, context, ended):
        if ended.code is Code.INVALID_ARGUMENT:
            for subscription in self.subscriptions:
                if subscription.peer == context.peer():
                    self.end_older(subscription)
        await super().end_call(context, ended)


@breaks("quiet-unasked")
class heartbeats_are_unasked(Server):
    async def next_frame(self, subscription):
        try:
            return await asyncio.wait_for(super().next_frame(subscription), 1)
        except TimeoutError:
            return self.encode(b"", self.cursor_at(subscription.position))


# Events as they were published


class Edits(Server):
    """Decodes each event, changes it, and encodes it again."""

    def edit(self, event):
        raise NotImplementedError

    def encode(self, event, cursor):
        message = push_pb2.PushEvent.FromString(event)
        self.edit(message)
        return super().encode(message.SerializeToString(), cursor)


@breaks("payload-verbatim")
class payload_is_reformatted(Edits):
    def edit(self, event):
        if event.client_event.payload:
            with contextlib.suppress(ValueError):
                content = json.loads(event.client_event.payload)
                event.client_event.payload = json.dumps(content).encode()


@breaks("fields-verbatim")
class text_is_trimmed(Edits):
    def edit(self, event):
        if event.HasField("client_event"):
            event.client_event.request_id = event.client_event.request_id.strip()


@breaks("fields-verbatim")
class text_is_normalised(Edits):
    def edit(self, event):
        if event.HasField("client_event"):
            text = unicodedata.normalize("NFC", event.client_event.request_id)
            event.client_event.request_id = text


@breaks("invalidation-delivered")
class reason_is_lost(Edits):
    def edit(self, event):
        if event.HasField("session_invalidation"):
            event.session_invalidation.reason = ""


@breaks("invalidation-delivered")
class session_is_lost(Edits):
    """What revokes one session comes as what revokes all."""

    def edit(self, event):
        if event.HasField("session_invalidation"):
            event.session_invalidation.device_session_id = ""


@breaks("publish-bytes-verbatim")
class unknown_fields_are_dropped(Edits):
    def edit(self, event):
        event.DiscardUnknownFields()


@breaks("publish-bytes-verbatim")
class bytes_are_encoded_anew(Edits):
    """Fields come in the order of their numbers."""

    def edit(self, event):
        pass


# One subscription for each id


@breaks("takeover-ends-older")
class takeover_keeps_both(Server):
    def take_over(self, gateway_id):
        pass


@breaks("takeover-ends-older")
class takeover_refuses_newer(Server):
    def end_older(self, older):
        raise Ended(Code.ALREADY_EXISTS, "gateway_client_id is subscribed")


@breaks("takeover-ends-older")
class takeover_ends_ok(Server):
    async def end_call(self, context, ended):
        if ended.code is not Code.ABORTED:
            await super().end_call(context, ended)


@breaks("takeover-exact")
class takeover_overlaps(Server):
    """For one second after a takeover, the older stream goes on."""

    def end_older(self, older):
        asyncio.get_running_loop().call_later(1, super().end_older, older)


@breaks("takeover-of-stuck")
class takeover_waits_for_older(Server):
    """The newer stream begins when the older one's gateway has taken its status."""

    async def subscribe(self, data, context):
        wanted = push_pb2.GatewaySubscribeRequest.FromString(data).gateway_client_id
        self.take_over(wanted)
        while any(it.gateway_id == wanted for it in self.subscriptions):
            await asyncio.sleep(0.01)
        await super().subscribe(data, context)


@breaks("takeover-leaves-others")
class takeover_ends_others(Server):
    def take_over(self, gateway_id):
        if any(older.gateway_id == gateway_id for older in self.subscriptions):
            for older in self.subscriptions:
                self.end_older(older)


@breaks("takeover-leaves-others")
class takeover_ignores_case(Server):
    def take_over(self, gateway_id):
        for older in self.subscriptions:
            if older.gateway_id.lower() == gateway_id.lower():
                self.end_older(older)


@breaks("id-again")
class ids_are_used_once(Server):
    def __init__(self, ring_events):
        super().__init__(ring_events)
        self.used = set()

    def take_over(self, gateway_id):
        if gateway_id in self.used:
            raise Ended(Code.ALREADY_EXISTS, "gateway_client_id was subscribed before")
        self.used.add(gateway_id)


@breaks("id-rules")
class empty_id_is_taken(Server):
    def check_id(self, gateway_id):
        super().check_id(gateway_id or "gateway")


@breaks("id-rules")
class long_id_is_taken(Server):
    def check_id(self, gateway_id):
        super().check_id(gateway_id[:100])


@breaks("id-rules")
class long_id_is_counted_in_characters(Server):
    def check_id(self, gateway_id):
        super().check_id("x" * len(gateway_id))


@breaks("id-rules")
class control_characters_in_id(Server):
    def check_id(self, gateway_id):
        super().check_id("x" * len(gateway_id.encode()))


@breaks("id-rules")
class id_refusal_does_not_name_the_field(Server):
    def check_id(self, gateway_id):
        try:
            super().check_id(gateway_id)
        except Ended:
            raise invalid("the request is not valid") from None


@breaks("id-allowed")
class longest_id_is_refused(Server):
    def check_id(self, gateway_id):
        super().check_id(gateway_id)
        if len(gateway_id.encode()) == MAX_ID_BYTES:
            raise invalid("gateway_client_id is too long")


@breaks("id-allowed")
class id_has_to_be_ascii(Server):
    def check_id(self, gateway_id):
        super().check_id(gateway_id)
        if not gateway_id.isascii():
            raise invalid("gateway_client_id is not ASCII")


@breaks("unknown-method")
class unknown_methods_are_answered(Server):
    def gateways_service(self):
        known = super().gateways_service()

        async def answer(data, context):
            return b""

        class Service(grpc.GenericRpcHandler):
            def service(self, call):
                unknown = grpc.unary_unary_rpc_method_handler(answer)
                return known.service(call) or unknown

        return Service()


# Publishing


@breaks("publish-atomic")
class batch_is_not_atomic(Server):
    """The events before a bad one are kept."""

    def check(self, events):
        try:
            super().check(events)
        except Ended:
            for event in itertools.takewhile(self.is_good, events):
                self.append(event)
            raise

    def is_good(self, event):
        return not any(self.problems(event))


@breaks("publish-contiguous")
class batches_interleave(Server):
    async def publish(self, data):
        responses = []
        events = self.split(data)
        self.check(events)
        for event in events:
            self.append(event)
            responses.append(self.response(self.head, self.head))
            await asyncio.sleep(0.001)
        responses[0].last_cursor = responses[-1].last_cursor
        return responses[0]


@breaks("publish-answers")
class answers_are_off_by_one(Server):
    def response(self, first, last):
        return super().response(first - 1, last - 1)


@breaks("publish-answers")
class answers_name_the_first_twice(Server):
    def response(self, first, last):
        return super().response(first, first)


@breaks("publish-refuses-no-events")
class no_events_are_taken(Server):
    def check(self, events):
        if events:
            super().check(events)


class Takes(Server):
    """Publishes an event in spite of some problems."""

    def takes(self, problem):
        raise NotImplementedError

    def problems(self, event):
        return (found for found in super().problems(event) if not self.takes(found))


@breaks("publish-refuses-no-kind")
class no_kind_is_taken(Takes):
    def takes(self, problem):
        return problem.field == "kind"


@breaks("publish-refuses-empty-user")
class empty_user_is_taken(Takes):
    def takes(self, problem):
        return problem.text == "is empty" and problem.field.endswith(".user_id")


@breaks("publish-refuses-empty-user")
class invalidation_of_nobody_is_taken(Takes):
    def takes(self, problem):
        return problem == ("session_invalidation.user_id", "is empty")


@breaks("publish-refuses-empty-kind")
class empty_kind_is_taken(Takes):
    def takes(self, problem):
        return problem == ("client_event.kind", "is empty")


@breaks("publish-refuses-cursor")
class cursor_is_overwritten(Takes):
    def takes(self, problem):
        return problem.field == "cursor"


@breaks("publish-refuses-not-utf8")
class invalid_text_is_taken(Takes):
    def takes(self, problem):
        return problem.text == "is not UTF-8"


@breaks("publish-refuses-not-utf8")
class invalid_text_of_invalidation_is_taken(Takes):
    def takes(self, problem):
        is_text = problem.text == "is not UTF-8"
        return is_text and problem.field.startswith("session_invalidation")


@breaks("publish-refuses-malformed")
class malformed_event_is_taken(Takes):
    def takes(self, problem):
        return problem.text == "is not a PushEvent"


@breaks("publish-refuses-empty-user", "publish-refuses-cursor")
class refusal_does_not_name_the_field(Server):
    def refusal(self, index, problem):
        return invalid(f"events[{index}] is not valid")


@breaks("publish-refuses-empty-user", "publish-refuses-malformed")
class refusal_does_not_name_the_index(Server):
    def refusal(self, index, problem):
        return invalid(f"{problem.field or 'an event'} {problem.text}")


@breaks("publish-refuses-empty-user")
class refusal_is_internal(Server):
    def refusal(self, index, problem):
        return Ended(Code.INTERNAL, super().refusal(index, problem).message)


@breaks("publish-answers")
class answers_come_early(Server):
    """A request is answered before its events are in the ring."""

    async def publish(self, data):
        events = self.split(data)
        self.check(events)
        first = self.head + 1
        self.late = asyncio.ensure_future(self.append_later(events))
        return self.response(first, self.head + len(events))

    async def append_later(self, events):
        await asyncio.sleep(0.1)
        for event in events:
            self.append(event)


@breaks("publish-stream-order")
class stream_answers_at_its_end(Server):
    """Answers wait for the last request."""

    async def publish_stream(self, requests):
        answers = [answer async for answer in super().publish_stream(requests)]
        for answer in answers:
            yield answer


@breaks("publish-stream-bad-request")
class stream_publishes_event_by_event(Server):
    """The good events before a bad one of the same request are published."""

    async def publish_stream(self, requests):
        async for data in requests:
            first = self.head + 1
            for event in self.split(data):
                self.check([event])
                self.append(event)
            yield self.response(first, self.head)


@breaks("publish-stream-order")
class stream_answers_out_of_order(Server):
    """Of two answers that come in quick succession, the second is sent first."""

    async def publish_stream(self, requests):
        responses = super().publish_stream(requests)
        upcoming = asyncio.ensure_future(anext(responses, None))
        while response := await upcoming:
            upcoming = asyncio.ensure_future(anext(responses, None))
            await asyncio.wait([upcoming], timeout=0.1)
            if upcoming.done() and not upcoming.exception() and upcoming.result():
                yield upcoming.result()
                upcoming = asyncio.ensure_future(anext(responses, None))
            yield response


@breaks("publish-stream-bad-request")
class stream_skips_bad_requests(Server):
    async def publish_stream(self, requests):
        async for data in requests:
            with contextlib.suppress(Ended):
                yield await self.publish(data)


@breaks("publish-stream-bad-request")
class stream_publishes_after_a_bad_request(Server):
    """What comes after the refused request is published, and not answered."""

    async def publish_stream(self, requests):
        try:
            async for response in super().publish_stream(requests):
                yield response
        except Ended:
            async for data in requests:
                await self.publish(data)
            raise


@breaks("publish-stream-bad-request")
class stream_forgets_earlier_answers(Server):
    """Answers are sent when the last request was good too."""

    async def publish_stream(self, requests):
        responses = super().publish_stream(requests)
        for response in [response async for response in responses]:
            yield response


# A restart


@breaks("restart-ends-streams")
class stop_ends_ok(Server):
    async def end_call(self, context, ended):
        if ended.code is not Code.UNAVAILABLE:
            await super().end_call(context, ended)


@breaks("restart-announced")
class epoch_is_fixed(Server):
    """After a restart, a cursor names another event than before."""

    def birth(self):
        return 1_700_000_000_000 << 18
