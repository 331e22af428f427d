"""Three gRPC implementations behind one set of words, so that one test runs with each.

Every kind has `connect(target, tls=None)`, which gives a connection of its own, over TLS if
it is given a `certificates.Tls`:

    connection.subscribe(gateway_id, cursor="", timeout=None)   a Stream
    connection.publish(*events)                                 a PublishResponse
    connection.feed()                                           a Feed
    connection.close()

    stream.metadata       the initial metadata that is ours; waits for it
    stream.next(), .take(count), .rest()                        events
    stream.status         an End, with what it says to machines; waits for it
    stream.cancel()

    feed.send(*events), .finish(), .response(), .responses(), .status

A call that fails raises `Failed`, which has the End. Statuses go by their names.
"""

from typing import NamedTuple

from google.rpc import error_details_pb2, status_pb2

# No call takes long; this only ends a test that would otherwise hang.
PATIENCE_SECONDS = 30

SUBSCRIBE = "/galaxy.backend.push.v1.Push/SubscribePush"
PUBLISH = "/galaxy.push.publisher.v1.Publisher/Publish"
PUBLISH_STREAM = "/galaxy.push.publisher.v1.Publisher/PublishStream"


class End(NamedTuple):
    code: str
    details: str
    trailers: dict
    # `ErrorInfo` of `grpc-status-details-bin`, and the seconds of its `RetryInfo`.
    info: error_details_pb2.ErrorInfo | None = None
    retry_seconds: float | None = None

    def says(self, details):
        """The same with what these bytes say, which must be as googleapis has it."""
        if not details:
            return self
        status = status_pb2.Status.FromString(details)
        assert status.message == self.details, (status, self)
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        found = [any.Unpack(info) or any.Unpack(retry) for any in status.details]
        assert all(found), status
        assert info.domain == "galaxy-push", status
        delay = None
        if retry.HasField("retry_delay"):
            delay = retry.retry_delay.ToTimedelta().total_seconds()
        return self._replace(info=info, retry_seconds=delay)


class Failed(Exception):
    def __init__(self, end):
        super().__init__(f"{end.code}: {end.details}")
        self.end = end


def ours(metadata):
    """The part of some metadata that galaxy-push sends; proxies add their own."""
    return {key: value for key, value in metadata if key.startswith("push-")}


class Events:
    """What every kind of stream makes of its `next`."""

    def take(self, count):
        return [self.next() for _ in range(count)]

    def rest(self):
        """What else arrives, until the stream ends by itself."""
        events = []
        try:
            while True:
                events.append(self.next())
        except (Failed, StopIteration):
            return events


class Responses:
    def responses(self):
        """All further responses; `status` then says how the stream ended."""
        responses = []
        try:
            while True:
                responses.append(self.response())
        except (Failed, StopIteration):
            return responses
