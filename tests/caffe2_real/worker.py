"""Runs nets in the real Caffe2, one request after the other, in the environment that tests/environments.py makes.

A request on stdin and a reply on stdout is each eight bytes of length, big-endian, and then an .npz archive.

Request: `predict`, and if wanted `init`, the bytes of a NetDef as u8; `feed/NAME`, the inputs; `fetch`, the
    names of the blobs wanted, as JSON in u8; `repeat`, how often to run `predict`.
Reply: `blob/NAME` for each blob, `seconds` of each run, wall and CPU; or `error`, as u8 text. A request without `predict`
    is answered with `descriptor`, the FileDescriptorProto of caffe2.proto.
"""

import io
import json
import os
import sys
import time

import numpy as np

# What Caffe2 prints must not get between the replies.
replies = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)

from caffe2.proto import caffe2_pb2  # noqa: E402
from caffe2.python import workspace  # noqa: E402
from google.protobuf import descriptor_pb2  # noqa: E402


def as_bytes(data):
    return np.frombuffer(data, dtype=np.uint8)


def read_net(content):
    net = caffe2_pb2.NetDef()
    net.ParseFromString(content.tobytes())
    return net


def descriptor():
    file = descriptor_pb2.FileDescriptorProto()
    caffe2_pb2.DESCRIPTOR.CopyToProto(file)
    return {"descriptor": as_bytes(file.SerializeToString())}


def run(request):
    workspace.ResetWorkspace()
    if "init" in request:
        workspace.RunNetOnce(read_net(request["init"]))
    for name, array in request.items():
        if name.startswith("feed/"):
            workspace.FeedBlob(name[len("feed/") :], array)
    predict = read_net(request["predict"])
    predict.name = predict.name or "predict"
    workspace.CreateNet(predict)
    seconds = []
    for _ in range(int(request["repeat"])):
        wall, cpu = time.perf_counter(), time.process_time()
        workspace.RunNet(predict.name)
        seconds.append((time.perf_counter() - wall, time.process_time() - cpu))
    reply = {
        "blob/" + name: workspace.FetchBlob(name) for name in json.loads(request["fetch"].tobytes().decode())
    }
    for name, value in reply.items():
        if not isinstance(value, np.ndarray):
            raise RuntimeError(f"{name} holds no tensor: {value!r}")
    reply["seconds"] = np.array(seconds)
    return reply


def answer(request):
    try:
        return run(request) if "predict" in request else descriptor()
    except Exception as error:
        return {"error": as_bytes(str(error).encode("utf-8", "replace"))}


def main():
    while True:
        header = sys.stdin.buffer.read(8)
        if len(header) < 8:
            return
        content = sys.stdin.buffer.read(int.from_bytes(header, "big"))
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            request = {name: archive[name] for name in archive.files}
        buffer = io.BytesIO()
        np.savez(buffer, **answer(request))
        replies.write(len(buffer.getvalue()).to_bytes(8, "big") + buffer.getvalue())
        replies.flush()


if __name__ == "__main__":
    main()
