"""A back end in Python that tells imks what to do, made from proto/imks/v1 and nothing else; see tests/contract/control.rs.

Reads TARGET (host:port), KEY and CHANNEL. Prints a JSON line when everything was as it should be.
"""

import json
import os
import sys
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parents[2] / "proto"))
_, control_grpc = grpc.protos_and_services("imks/v1/control.proto")
message_pb = grpc.protos("imks/v1/message.proto")
event_pb = grpc.protos("imks/v1/event.proto")

CHANNEL = os.environ["CHANNEL"]
METADATA = [("authorization", f"Bearer {os.environ['KEY']}")]
PATIENCE = 10


def refused(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    raise AssertionError("not refused")


with grpc.insecure_channel(os.environ["TARGET"]) as channel:
    imks = control_grpc.ControlServiceStub(channel)

    def send(body, metadata=METADATA, **fields):
        identity = message_pb.Identity(kind="KIND_BOT", name="Build")
        content = message_pb.Content(body=body)
        request = message_pb.SendMessageAsRequest(channel_id=CHANNEL, identity=identity, content=content, **fields)
        return imks.SendMessageAs(request, metadata=metadata, timeout=PATIENCE).stored

    first = send("build 7 is done", request_id="build-7")
    again = send("build 7 is done", request_id="build-7")
    assert (again.message_id, first.duplicate, again.duplicate) == (first.message_id, False, True)
    assert refused(lambda: send("x", metadata=[])) == grpc.StatusCode.UNAUTHENTICATED
    stale = message_pb.Expect(last_seq=first.seq - 1)
    assert refused(lambda: send("stale", expect=stale)) == grpc.StatusCode.ABORTED

    target = event_pb.Target(channel_id=CHANNEL)
    release = event_pb.BroadcastRequest(target=target, event="app:release", payload_json=json.dumps({"version": 7}))
    imks.Broadcast(release, metadata=METADATA, timeout=PATIENCE)

    request = message_pb.GetMessagesRequest(channel_id=CHANNEL, limit=1)
    [newest] = imks.GetMessages(request, metadata=METADATA, timeout=PATIENCE).messages_json
    assert json.loads(newest)["id"] == first.message_id

print(json.dumps({"done": True}), flush=True)
