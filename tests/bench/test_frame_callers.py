"""Callers of frames, against a server of grpcio whose answers are chosen here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from bench.frame_callers import MODEL_STREAM_INFER, send_frames
from bench.frame_model import FRAME
from unroll.inference import grpc_service_pb2 as inference_pb
from unroll.inference import grpc_service_pb2_grpc as inference_grpc

FRAMES = [bytes(4 * FRAME)]
Answer = inference_pb.ModelStreamInferResponse


@contextmanager
def _serving(is_refused: Callable[[int], bool]) -> Iterator[str]:
    """Its address. is_refused: by the number of a stream's frame."""

    class Servicer(inference_grpc.GRPCInferenceServiceServicer):
        def ModelStreamInfer(self, request_iterator, context):
            for number, _ in enumerate(request_iterator):
                yield Answer(error_message="no such input" if is_refused(number) else "")

    server = grpc.server(ThreadPoolExecutor(4))
    inference_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_a_frame_that_is_refused_is_counted_and_its_stream_goes_on():
    with _serving(lambda number: number == 1) as target:
        sent = send_frames(target, 2, 0.3, 0.05, FRAMES, call=MODEL_STREAM_INFER)
    assert sent.refused == 2
    assert sent.refusal == "no such input"
    assert sent.answered == sent.sent - 2 == len(sent.latencies)


def test_a_server_that_refuses_every_frame_is_no_measurement():
    with (
        _serving(lambda number: True) as target,
        pytest.raises(RuntimeError, match="every frame was refused: no such input"),
    ):
        send_frames(target, 2, 0.3, 0.05, FRAMES, call=MODEL_STREAM_INFER)
