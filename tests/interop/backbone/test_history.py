"""Replicas at one stream, while they and NATS are killed, stopped and started again."""

import os
import random
import signal
import threading
import time

from cursors import Cursor, parse
from history import Consumer, Producer, check
from nats_server import free_port
from peers import Publisher, client_event, wait_until

SECONDS = float(os.environ.get("BACKBONE_SECONDS", "25"))
SEED = int(os.environ.get("BACKBONE_SEED", "18"))
REPLICAS = 3


def test_answers_are_kept_and_replicas_agree_whatever_ends(nats, replica):
    chance = random.Random(SEED)
    addresses = [
        {"listen": f"127.0.0.1:{free_port()}", "publish_listen": f"127.0.0.1:{free_port()}"}
        for _ in range(REPLICAS)
    ]

    def start(at):
        return replica(nats, "--window=1h", **addresses[at])

    replicas = [start(at) for at in range(REPLICAS)]
    stopping = threading.Event()
    gateways = [it["listen"] for it in addresses]
    publishers = [it["publish_listen"] for it in addresses]
    producers = [Producer(f"p{at}", publishers, stopping, SEED + at) for at in range(4)]
    finished = threading.Event()
    consumers = [Consumer(f"g{at}", gateways, finished, SEED + at) for at in range(4)]

    def kill_replica():
        at = chance.randrange(REPLICAS)
        replicas[at].kill()
        replicas[at] = start(at)

    def end_replica():
        at = chance.randrange(REPLICAS)
        assert replicas[at].stop() == 0
        replicas[at].is_killed = True
        replicas[at] = start(at)

    def stop_replica():
        victim = chance.choice(replicas)
        victim.signal(signal.SIGSTOP)
        time.sleep(chance.uniform(0.2, 1.8))
        victim.signal(signal.SIGCONT)

    def stop_nats():
        nats.child.signal(signal.SIGSTOP)
        time.sleep(chance.uniform(0.2, 3))
        nats.child.signal(signal.SIGCONT)

    faults = {kill_replica: 0, end_replica: 0, stop_replica: 0, stop_nats: 0, nats.restart: 0}
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.2, 1.5))
        fault = chance.choice(list(faults))
        fault()
        faults[fault] += 1

    stopping.set()
    for producer in producers:
        producer.thread.join()
    last = Publisher(publishers[0])
    marker = last.publish(client_event(event_id="marker"))
    last.close()
    end = parse(marker.last_cursor)
    wait_until(lambda: all(it.position() >= end.sequence for it in consumers))
    finished.set()
    for consumer in consumers:
        consumer.end()
        consumer.thread.join()
    stream = start_again(replica, nats).gateway().subscribe(str(Cursor(end.epoch, 0)))
    truth = [(event.cursor, event.client_event.event_id) for event in stream.take(end.sequence)]
    assert truth.pop() == (marker.last_cursor, "marker")
    wrong = check(truth, producers, without_marker(consumers, end.sequence))

    answered = sum(len(it.answered) for it in producers)
    starts = [start for it in consumers for start in it.starts]
    print(
        f"{len(truth)} events, {answered} batches answered,",
        f"{sum(len(it.refused) for it in producers)} events refused,",
        f"{sum(len(it.open) for it in producers)} left open;",
        {name: starts.count(name) for name in set(starts)},
        {fault.__name__: count for fault, count in faults.items()},
    )
    assert not wrong, "\n".join(wrong[:20])
    assert answered > 20 * SECONDS and starts.count("requested") > len(consumers)


def start_again(replica, nats):
    return replica(nats, "--window=1h")


def without_marker(consumers, number):
    for consumer in consumers:
        assert set(consumer.events.pop(number)) == {"marker"}
    return consumers
