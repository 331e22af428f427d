"""The backend: publishes every event to each of several servers, in one order.

A batch whose answer is lost is published again. So each server has each event, some of them twice,
and an event's number says what was published before it.
"""

import asyncio
import itertools
import json
import time

import grpc

from galaxy.backend.push.v1 import push_pb2
from galaxy.push.publisher.v1 import publisher_pb2, publisher_pb2_grpc

# Large ones stay below what a server takes as one message.
BATCH_EVENTS = 100
# A server that stands still does not answer; another call may find it going.
ANSWER_SECONDS = 5
PAUSE_SECONDS = 0.1


class Publisher:
    def __init__(self, addresses):
        self._numbers = itertools.count()
        self._queues = [asyncio.Queue() for _ in addresses]
        # Events that a server has not answered for.
        self._unanswered = 0
        # When each event was published, by its number: handed over to be sent.
        self.published_at = []
        self._tasks = [
            asyncio.create_task(self._feed(address, queue))
            for address, queue in zip(addresses, self._queues)
        ]

    def _publish(self, **kind):
        self.published_at.append(time.monotonic())
        event = push_pb2.PushEvent(**kind)
        for queue in self._queues:
            queue.put_nowait(event)
            self._unanswered += 1

    def send(self, user, session="", more=""):
        """An event, whose payload is its number, and more."""
        number = next(self._numbers)
        self._publish(
            client_event=push_pb2.ClientEvent(
                user_id=user,
                device_session_id=session,
                kind="number",
                payload=json.dumps({"number": number, "more": more}).encode(),
                event_id=str(number),
            )
        )
        return number

    def revoke(self, user, session=""):
        """An invalidation, whose reason is its number."""
        number = next(self._numbers)
        self._publish(
            session_invalidation=push_pb2.SessionInvalidation(
                user_id=user, device_session_id=session, reason=f"number-{number}"
            )
        )
        return number

    async def _feed(self, address, queue):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 200)]
        async with grpc.aio.insecure_channel(address, options) as channel:
            publish = publisher_pb2_grpc.PublisherStub(channel).Publish
            while True:
                events = [await queue.get()]
                while len(events) < BATCH_EVENTS and not queue.empty():
                    events.append(queue.get_nowait())
                request = publisher_pb2.PublishRequest(events=events)
                while True:
                    try:
                        await publish(request, timeout=ANSWER_SECONDS)
                        self._unanswered -= len(events)
                        break
                    except grpc.aio.AioRpcError:
                        await asyncio.sleep(PAUSE_SECONDS)

    def is_behind(self):
        return self._unanswered > 0

    def stop(self):
        for task in self._tasks:
            task.cancel()
