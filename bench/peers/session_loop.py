"""The obvious alternative for frames: one ONNX Runtime session a stream behind gRPC threads.

python -m bench.peers.session_loop --bundle models/vad-like/1 --address 127.0.0.1:0 --workers 80

It answers unroll.v1's StreamStep with the same graph, one intra-op thread without spinning; each
frame is one session.run in the thread of its call.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import numpy as np

from bundle.store import Bundle, read_bundle
from service.runtime.sessions import SessionSettings, open_session
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc


class SessionLoop(unroll_pb2_grpc.UnrollServiceServicer):
    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.settings = SessionSettings("cpu", "CPUExecutionProvider", threads=1)

    def StreamStep(
        self, requests: Iterator[pb.StreamStepRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.StreamStepResponse]:
        manifest = self.bundle.manifest
        step = open_session(self.bundle, "step", self.settings)
        feed = {s.name: np.zeros((1, *s.shape), s.dtype) for s in manifest.state}
        frame, answer = manifest.graphs["step"].inputs[0], manifest.graphs["step"].outputs[0]
        outputs = [answer.name, *(f"next_{s.name}" for s in manifest.state)]
        shape = tuple(map(int, frame.shape[1:]))
        next(requests)  # the start
        for position, request in enumerate(requests):
            values = np.frombuffer(request.frame.inputs[0].raw, frame.dtype)
            feed[frame.name] = values.reshape(1, *shape)
            found, *after = step.run(outputs, feed)
            feed.update(zip((s.name for s in manifest.state), after, strict=True))
            tensor = pb.Tensor(name=answer.name, raw=found.tobytes())
            result = pb.StepResult(position=position, steps=1, outputs=[tensor])
            yield pb.StreamStepResponse(results=[result])


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers.session_loop", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="a stepper's")
    parser.add_argument("--address", default="127.0.0.1:0", help="HOST:PORT to listen on")
    parser.add_argument("--workers", type=int, default=80, help="threads, one a stream")
    chosen = parser.parse_args()
    server = grpc.server(futures.ThreadPoolExecutor(chosen.workers))
    loop = SessionLoop(read_bundle(chosen.bundle))
    unroll_pb2_grpc.add_UnrollServiceServicer_to_server(loop, server)
    port = server.add_insecure_port(chosen.address)
    server.start()
    print(f"gRPC on port {port}, one session a stream", flush=True)
    server.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(main())
