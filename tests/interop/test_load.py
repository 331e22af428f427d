"""Gateways that come and go while much is published."""

import random
import threading

from cursors import sequences
from peers import DEADLINE_SECONDS, Gateway, client_event

EVENTS = 20_000
BATCH = 50


def test_gateways_that_reconnect_lose_nothing_and_repeat_nothing(server):
    """Several gateways cut their own streams off at random, now politely, now
    with their whole connection, and resume each time from their last event."""
    streams = [server.gateway(f"gateway-{n}").subscribe() for n in range(4)]
    start = streams[0].start_cursor
    assert all(stream.start_cursor == start for stream in streams)

    received = [[] for _ in streams]
    resumptions = [[] for _ in streams]

    def follow(index):
        chance = random.Random(index)
        gateway = Gateway(server.gateways, f"gateway-{index}")
        cursor = start
        while len(received[index]) < EVENTS:
            stream = gateway.subscribe(cursor)
            resumptions[index].append((cursor, stream.push_metadata))
            missing = EVENTS - len(received[index])
            for event in stream.take(min(missing, chance.randrange(1, 2000))):
                received[index].append(event)
                cursor = event.cursor
            if chance.random() < 0.5:
                stream.cancel()
            else:
                gateway.close()
                gateway = Gateway(server.gateways, f"gateway-{index}")
        gateway.close()

    def keep_publishing(index):
        feed = server.publisher().stream()
        for first in range(0, EVENTS // 2, BATCH):
            feed.send(
                *(
                    client_event(user_id=f"{index}", event_id=f"{number}")
                    for number in range(first, first + BATCH)
                )
            )
        feed.send_no_more()
        feed.responses()

    threads = [threading.Thread(target=follow, args=[n], daemon=True) for n in range(4)]
    threads += [
        threading.Thread(target=keep_publishing, args=[n], daemon=True) for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_SECONDS)
        assert not thread.is_alive()

    for index in range(4):
        assert sequences(received[index]) == list(range(1, EVENTS + 1))
        assert len(resumptions[index]) > 5
        for cursor, metadata in resumptions[index]:
            assert metadata == {
                "push-resume": "resumed",
                "push-resume-reason": "requested",
                "push-start-cursor": cursor,
            }
    for index in range(1, 4):
        assert received[index] == received[0]
    for publisher in ("0", "1"):
        own = [
            int(event.client_event.event_id)
            for event in received[0]
            if event.client_event.user_id == publisher
        ]
        assert own == list(range(EVENTS // 2))
