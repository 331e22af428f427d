"""grpcio: gRPC's C core from Python."""

import queue

import grpc
from grpc_status import rpc_status

from galaxy.backend.push.v1 import push_pb2
from galaxy.push.publisher.v1 import publisher_pb2

from . import (
    PATIENCE_SECONDS,
    PUBLISH,
    PUBLISH_STREAM,
    SUBSCRIBE,
    Responses,
    End,
    Events,
    Failed,
    ours,
)


class Grpcio:
    hears_goodbyes = True

    def connect(self, target, tls=None):
        return Connection(target, tls)

    def close(self):
        pass


class Connection:
    def __init__(self, target, tls):
        # Else channels with the same target would share a connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        if tls:
            credentials = grpc.ssl_channel_credentials(
                tls.read("ca"), tls.read("key"), tls.read("certificate")
            )
            self._channel = grpc.secure_channel(target, credentials, options=options)
        else:
            self._channel = grpc.insecure_channel(target, options=options)
        self._subscribe = self._channel.unary_stream(
            SUBSCRIBE,
            push_pb2.GatewaySubscribeRequest.SerializeToString,
            push_pb2.PushEvent.FromString,
        )
        codecs = (
            publisher_pb2.PublishRequest.SerializeToString,
            publisher_pb2.PublishResponse.FromString,
        )
        self._publish = self._channel.unary_unary(PUBLISH, *codecs)
        self._publish_stream = self._channel.stream_stream(PUBLISH_STREAM, *codecs)

    def subscribe(self, gateway_id, cursor="", timeout=None):
        request = push_pb2.GatewaySubscribeRequest(
            gateway_client_id=gateway_id, cursor=cursor
        )
        return Stream(self._subscribe(request, timeout=timeout or PATIENCE_SECONDS))

    def publish(self, *events):
        request = publisher_pb2.PublishRequest(events=events)
        try:
            return self._publish(request, timeout=PATIENCE_SECONDS)
        except grpc.RpcError as error:
            raise Failed(end(error)) from None

    def feed(self):
        return Feed(self._publish_stream)

    def close(self):
        self._channel.close()


def end(call):
    end = End(call.code().name, call.details(), ours(call.trailing_metadata() or ()))
    try:
        # It raises ValueError where the details have another code or message than the call.
        status = rpc_status.from_call(call)
    except ValueError:
        # HAProxy may put RST_STREAM CANCEL behind trailers, and grpcio its code before theirs.
        if call.code() is not grpc.StatusCode.CANCELLED:
            raise
        status = None
    return end.says(status and status.SerializeToString())


class Call:
    def _next(self):
        try:
            return next(self._call)
        except grpc.RpcError:
            raise Failed(self.status) from None

    @property
    def status(self):
        # The code is waited for; the rest is there with it.
        self._call.code()
        return end(self._call)

    def cancel(self):
        self._call.cancel()


class Stream(Call, Events):
    def __init__(self, call):
        self._call = call

    @property
    def metadata(self):
        return ours(self._call.initial_metadata())

    def next(self):
        return self._next()


class Feed(Call, Responses):
    def __init__(self, method):
        self._requests = queue.SimpleQueue()
        self._call = method(
            iter(self._requests.get, None), timeout=PATIENCE_SECONDS
        )

    def send(self, *events):
        self._requests.put(publisher_pb2.PublishRequest(events=events))

    def finish(self):
        self._requests.put(None)

    def response(self):
        return self._next()
