"""What publishers and gateways see of replicas at one stream, and what has to hold of it.

- The same cursor is the same event, at every replica and in every answer.
- What was answered is in the stream, once, where the answer says. What was refused is not.
- What nobody answered is there once, or not at all.
- A gateway gets every event after its cursor, in order; what it does not get it is told.
"""

import random
import threading
import time

import grpc

from cursors import parse
from peers import Gateway, Publisher, client_event, reason_of

# These say that nothing was published.
REFUSALS = {"BACKBONE_UNAVAILABLE", "STOPPING"}


def refused(error):
    return reason_of(error)[0] in REFUSALS


class Producer:
    """Publishes batches, one after another, at one replica until that fails."""

    def __init__(self, name, targets, stopping, seed):
        self._name, self._targets, self._stopping = name, targets, stopping
        self._random = random.Random(seed)
        self.answered = []  # (ids, first cursor, last cursor)
        self.refused = set()
        self.open = set()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        number = 0
        publisher = None
        while not self._stopping.is_set():
            if publisher is None:
                publisher = Publisher(self._random.choice(self._targets))
            count = self._random.randint(1, 4)
            ids = [f"{self._name}-{number + at}" for at in range(count)]
            number += count
            try:
                answer = publisher.publish(*[client_event(event_id=it) for it in ids])
                self.answered.append((ids, answer.first_cursor, answer.last_cursor))
            except grpc.RpcError as error:
                (self.refused if refused(error) else self.open).update(ids)
                publisher.close()
                publisher = None
                time.sleep(0.02)
        if publisher:
            publisher.close()


class Consumer:
    """Reads at one replica until that fails, and goes on at another."""

    def __init__(self, name, targets, stopping, seed):
        self._name, self._targets, self._stopping = name, targets, stopping
        self._random = random.Random(seed)
        self.events = {}  # sequence: id
        self.faults = []
        self.starts = []
        self._cursor = ""
        self._call = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def position(self):
        return parse(self._cursor).sequence if self._cursor else 0

    def end(self):
        if self._call:
            self._call.cancel()

    def _run(self):
        while not self._stopping.is_set():
            gateway = Gateway(self._random.choice(self._targets), self._name)
            try:
                self._read(gateway)
            except grpc.RpcError:
                pass  # the next one goes on after what was read
            gateway.close()
            time.sleep(0.02)

    def _read(self, gateway):
        stream = self._call = gateway.subscribe(self._cursor)
        start = stream.metadata
        if "push-resume" not in start:
            # It has ended: this says why.
            stream.next()
        before = self._cursor
        reason = start["push-resume-reason"]
        self.starts.append(reason)
        if start["push-resume"] == "resumed":
            if start["push-start-cursor"] != before:
                self.faults.append(f"resumed at {start['push-start-cursor']} after {before}")
        elif before and reason not in ("expired", "ahead"):
            self.faults.append(f"fresh after {before}: {reason}")
        self._cursor = start["push-start-cursor"]
        until = time.monotonic() + self._random.uniform(1, 6)
        while time.monotonic() < until:
            event = stream.next()
            if parse(event.cursor).sequence != self.position() + 1:
                self.faults.append(f"{event.cursor} after {self._cursor}")
            self._cursor = event.cursor
            self.events.setdefault(self.position(), []).append(event.client_event.event_id)
        stream.cancel()


def check(truth, producers, consumers):
    """What does not hold; `truth` is all that is in the stream, as (cursor, id)."""
    wrong = []
    at = {parse(cursor).sequence: name for cursor, name in truth}
    if sorted(at) != list(range(1, len(truth) + 1)):
        wrong.append("the stream's numbers are not dense")
    times = {}
    for name in at.values():
        times[name] = times.get(name, 0) + 1
    wrong += [f"{name} is there {count} times" for name, count in times.items() if count > 1]
    known = set()
    for producer in producers:
        last = 0
        for ids, first, final in producer.answered:
            numbers = range(parse(first).sequence, parse(final).sequence + 1)
            if [at.get(number) for number in numbers] != ids:
                wrong.append(f"{ids} were answered {first} to {final}")
            if numbers[0] <= last:
                wrong.append(f"{ids} came before what was answered earlier")
            last = numbers[-1]
            known.update(ids)
        wrong += [f"{name} was refused, and is there" for name in producer.refused if name in times]
        known |= producer.open
    wrong += [f"nobody has published {name}" for name in times if name not in known]
    for consumer in consumers:
        wrong += consumer.faults
        for number, names in consumer.events.items():
            if any(name != at.get(number) for name in names):
                wrong.append(f"{number} was {names}, and is {at.get(number)}")
    return wrong
