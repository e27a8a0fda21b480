"""The obvious alternative, written fairly: one ONNX Runtime loop a request behind gRPC threads.

python -m bench.peers.loop_server --bundle models/prose/1 --address 127.0.0.1:0 --workers 80

It answers unroll.v1's Generate with the same step graph, sampling inside, one intra-op thread
without spinning, and the prompt read by the same prefill graph; each step is one session.run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from bundle.manifest import RETRIES
from bundle.sampling import GRAPH_PARAMETERS, SamplingParameter
from bundle.store import Bundle, read_bundle
from service.engine.rng import BLOCK, digest_of, key_of, uniform_block
from service.runtime.runners import Prefiller
from service.runtime.sessions import SessionSettings, open_session
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc


class LoopServicer(unroll_pb2_grpc.UnrollServiceServicer):
    def __init__(self, bundle: Bundle) -> None:
        settings = SessionSettings("cpu", "CPUExecutionProvider", threads=1)
        self.state = bundle.manifest.state
        self.prefiller = Prefiller(open_session(bundle, "prime", settings), self.state)
        self.step = open_session(bundle, "step", settings)
        ports = self.step.get_inputs()
        self.parameters = [port.name for port in ports if port.name in GRAPH_PARAMETERS]
        carried = [f"next_{tensor.name}" for tensor in self.state if tensor.carried]
        wanted = ("next_token", "log_probability", *carried)
        self.outputs = [port.name for port in self.step.get_outputs() if port.name in wanted]
        vocabulary = len(bundle.tokenizers["output"].vocabulary)
        self.unadjusted = {
            "adjusted": np.zeros(0, np.int64),
            "seen": np.zeros((0, vocabulary), np.bool_),
            "bias": np.zeros((0, vocabulary), np.float32),
        }
        self.reader, self.writer = bundle.tokenizers["input"], bundle.tokenizers["output"]

    def Generate(
        self, request: pb.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GenerateResponse]:
        ids = self.reader.encode(request.prompt).ids
        (state,) = self.prefiller.prefill([ids[:-1]], [None])
        feed = {name: part[None] for name, part in state.items()}
        for name in self.parameters:
            feed[name] = _column(GRAPH_PARAMETERS[name], request.sampling)
        feed |= self.unadjusted
        key = key_of(request.sampling.seed, digest_of(ids))
        feed["token"] = np.array([ids[-1]], np.int64)
        for position in range(request.max_tokens):
            block, place = divmod(position, BLOCK)
            if place == 0:
                uniforms = uniform_block(key, 0, block, 1 + RETRIES)
            feed["uniform"] = uniforms[place : place + 1, 0]
            feed["retries"] = uniforms[place : place + 1, 1:]
            token, _, *after = self.step.run(self.outputs, feed)
            feed["token"] = token
            feed |= dict(zip((t.name for t in self.state if t.carried), after, strict=True))
            response = pb.GenerateResponse()
            number = int(token[0])
            response.tokens.add(
                id=number, text=self.writer.piece(number, position == 0), position=position
            )
            yield response


def _column(parameter: SamplingParameter, chosen: pb.Sampling) -> NDArray[Any]:
    """(1,) what the request chose, or what changes nothing."""
    name = parameter.name
    value = getattr(chosen, name) if chosen.HasField(name) else parameter.neutral
    return np.array([value], parameter.dtype)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.peers.loop_server")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle of the generator")
    parser.add_argument(
        "--address", default="127.0.0.1:0", help="gRPC address, HOST:PORT (default: a free port)"
    )
    parser.add_argument(
        "--workers", type=int, default=80, help="calls served at once (default: 80)"
    )
    chosen = parser.parse_args()
    server = grpc.server(futures.ThreadPoolExecutor(chosen.workers))
    unroll_pb2_grpc.add_UnrollServiceServicer_to_server(
        LoopServicer(read_bundle(chosen.bundle)), server
    )
    port = server.add_insecure_port(chosen.address)
    server.start()
    print(f"ready: gRPC on port {port}", flush=True)
    server.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(main())
