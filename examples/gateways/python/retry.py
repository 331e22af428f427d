"""What a status says about the next attempt."""

from google.rpc import error_details_pb2
from grpc_status import rpc_status

# Whatever a server says, it is tried again after this.
LONGEST_SECONDS = 60


def delay(error):
    """How long the server wants to be left alone at least, in seconds: google.rpc.RetryInfo."""
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the details are of another status
        return 0
    info = error_details_pb2.RetryInfo()
    for detail in status.details if status else ():
        if detail.Unpack(info):
            return min(info.retry_delay.ToTimedelta().total_seconds(), LONGEST_SECONDS)
    return 0
