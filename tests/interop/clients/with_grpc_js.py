"""grpc-js: gRPC in JavaScript, in a Node process beside the tests (node.mjs)."""

import base64
import itertools
import json
import os
import pathlib
import queue
import subprocess
import threading

from google.protobuf import json_format

from galaxy.backend.push.v1 import push_pb2
from galaxy.push.publisher.v1 import publisher_pb2

from . import PATIENCE_SECONDS, Responses, End, Events, Failed, ours

HERE = pathlib.Path(__file__).resolve().parent
PROTO = HERE.parents[2] / "proto"


class GrpcJs:
    hears_goodbyes = True

    def __init__(self):
        # scripts/interop says where node and its packages are.
        self._process = subprocess.Popen(
            [os.environ.get("INTEROP_NODE", "node"), HERE / "node.mjs", PROTO],
            cwd=os.environ.get("INTEROP_NODE_PACKAGES", HERE),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._numbers = itertools.count(1)
        self._waiting = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            reply = json.loads(line)
            self._waiting.pop(reply["id"]).put(reply)

    def number(self):
        return next(self._numbers)

    def ask(self, op, **request):
        replies = queue.SimpleQueue()
        number = self.number()
        self._waiting[number] = replies
        with self._lock:
            self._process.stdin.write(
                json.dumps({"id": number, "op": op, **request}) + "\n"
            )
            self._process.stdin.flush()
        reply = replies.get(timeout=PATIENCE_SECONDS)
        assert "bug" not in reply, reply["bug"]
        if "end" in reply:
            raise Failed(end(reply["end"]))
        return reply["ok"]

    def connect(self, target, tls=None):
        return Connection(self, target, tls)

    def close(self):
        self._process.stdin.close()
        self._process.wait(PATIENCE_SECONDS)
        self._process.stdout.close()


def end(reply):
    end = End(reply["code"], reply["details"], ours(reply["trailers"]))
    return end.says(base64.b64decode(reply["statusDetails"]))


def as_json(events):
    return [
        json_format.MessageToDict(event, preserving_proto_field_name=True)
        for event in events
    ]


class Connection:
    def __init__(self, node, target, tls):
        self._node = node
        self._number = node.number()
        tls = tls and tls._asdict()
        node.ask("connect", connection=self._number, target=target, tls=tls)

    def subscribe(self, gateway_id, cursor="", timeout=None):
        stream = Stream(self._node)
        self._node.ask(
            "subscribe",
            connection=self._number,
            call=stream.number,
            request={"gateway_client_id": gateway_id, "cursor": cursor},
            timeout=timeout or PATIENCE_SECONDS,
        )
        return stream

    def publish(self, *events):
        response = self._node.ask(
            "publish",
            connection=self._number,
            events=as_json(events),
            timeout=PATIENCE_SECONDS,
        )
        return json_format.ParseDict(response, publisher_pb2.PublishResponse())

    def feed(self):
        feed = Feed(self._node)
        self._node.ask(
            "feed", connection=self._number, call=feed.number, timeout=PATIENCE_SECONDS
        )
        return feed

    def close(self):
        self._node.ask("close", connection=self._number)


class Call:
    def __init__(self, node):
        self._node = node
        self.number = node.number()

    def _take(self, count, message):
        reply = self._node.ask("next", call=self.number, count=count)
        taken = [json_format.ParseDict(each, message()) for each in reply["taken"]]
        return taken, reply["ended"]

    def _next(self, message):
        taken, _ = self._take(1, message)
        if not taken:
            status = self.status
            if status.code == "OK":
                raise StopIteration
            raise Failed(status)
        return taken[0]

    @property
    def status(self):
        return end(self._node.ask("status", call=self.number))

    def cancel(self):
        self._node.ask("cancel", call=self.number)


class Stream(Call, Events):
    @property
    def metadata(self):
        return ours(self._node.ask("headers", call=self.number))

    def next(self):
        return self._next(push_pb2.PushEvent)

    def take(self, count):
        # In one exchange with Node, not one for each event.
        taken, ended = self._take(count, push_pb2.PushEvent)
        if ended:
            raise Failed(self.status)
        return taken

    def rest(self):
        return self._take(1 << 30, push_pb2.PushEvent)[0]


class Feed(Call, Responses):
    def send(self, *events):
        self._node.ask("send", call=self.number, events=as_json(events))

    def finish(self):
        self._node.ask("finish", call=self.number)

    def response(self):
        return self._next(publisher_pb2.PublishResponse)
