"""The contract's messages: the generated stubs, and the same messages as bytes."""

import pathlib
import sys
import tempfile

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor

PROTO = pathlib.Path(__file__).resolve().parents[3] / "proto"


def import_stubs():
    from galaxy.backend.push.v1 import push_pb2
    from galaxy.push.publisher.v1 import publisher_pb2

    return push_pb2, publisher_pb2


def generate_stubs(directory):
    from grpc_tools import protoc

    files = sorted(str(path) for path in (PROTO / "galaxy").rglob("*.proto"))
    options = [f"--proto_path={PROTO}", f"--python_out={directory}"]
    if protoc.main(["protoc", *options, *files]) != 0:
        sys.exit("the protobuf files do not compile")
    sys.path.insert(0, directory)


try:
    # Under pytest, conftest.py has put them on the path.
    push_pb2, publisher_pb2 = import_stubs()
except ModuleNotFoundError:
    with tempfile.TemporaryDirectory(prefix="galaxy-push-stubs-") as directory:
        generate_stubs(directory)
        push_pb2, publisher_pb2 = import_stubs()


def as_bytes(*messages):
    """These messages, with bytes in place of each text and of each event of a request.

    The encoding is the same. But a request keeps its events as they came, and an event
    whose text is not UTF-8 is read as well, so that a refusal can name the field.
    """
    pool = descriptor_pool.DescriptorPool()
    for module in (push_pb2, publisher_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            for field in message.field:
                is_event = field.type_name.endswith(".PushEvent")
                if is_event or field.type == FieldDescriptor.TYPE_STRING:
                    field.type = FieldDescriptor.TYPE_BYTES
                    field.ClearField("type_name")
        pool.AddSerializedFile(file.SerializeToString())
    for message in messages:
        descriptor = pool.FindMessageTypeByName(message.DESCRIPTOR.full_name)
        yield message_factory.GetMessageClass(descriptor)


RawEvent, RawRequest = as_bytes(push_pb2.PushEvent, publisher_pb2.PublishRequest)

# The names of each kind's text fields.
TEXTS = {
    kind.name: [
        field.name
        for field in kind.message_type.fields
        if field.type == FieldDescriptor.TYPE_STRING
    ]
    for kind in push_pb2.PushEvent.DESCRIPTOR.oneofs_by_name["kind"].fields
}
