"""Peers answer what they are said to answer; one that cannot run here is named."""

import asyncio
import sys
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

from bench import front_ends
from bench.batches import padded
from bench.door_loads import echo_call, echo_stream, infer
from bench.frame_callers import MODEL_STREAM_INFER, send_frames
from bench.frame_model import FRAME, FRAME_SECONDS, write_frame_model
from bench.peers import echo
from bench.peers.pyvoy import start_pyvoy
from bench.peers.triton import ENVIRONMENT, start_triton, start_triton_stepper
from bench.servers import Missing, Server
from bundle.store import read_bundle
from service.runtime.sessions import SessionSettings, open_session


@pytest.fixture
def mood(tiny_models):
    return read_bundle(tiny_models / "mood" / "1")


@pytest.fixture(params=["grpc.aio", "pyvoy"])
def echo_server(request):
    try:
        if request.param == "pyvoy":
            server = start_pyvoy("pyvoy", "bench.peers.echo:app")
        else:
            server = Server("grpc.aio", ["bench.peers.echo"])
    except Missing as missing:
        pytest.skip(str(missing))
    with server:
        yield server


def test_both_echoes_return_the_bytes_of_the_request(echo_server):
    """A long message, too, which reaches an ASGI application in parts."""
    with grpc.insecure_channel(echo_server.target) as channel:
        call, stream = channel.unary_unary(echo.CALL), channel.unary_stream(echo.STREAM)
        for message in (b"", b"unroll", bytes(range(256)) * 1000):
            assert call(message, timeout=20) == message
        assert [*stream(b"again", timeout=20)] == [b"again"] * echo.MESSAGES


def test_a_load_counts_calls_and_messages(echo_server):
    assert echo_call(3).run(echo_server, 0.01).per_second > 0
    assert echo_stream(3).run(echo_server, 0.01).client_cpu_us > 0


def test_an_application_ends_with_trailers_after_an_empty_body():
    sent = []
    parts = iter([
        {"type": "http.request", "body": b"\0\0\0\0\2u", "more_body": True},
        {"type": "http.request", "body": b"n", "more_body": False},
    ])  # fmt: skip

    async def receive():
        return next(parts)

    async def send(event):
        sent.append(event)

    asyncio.run(echo.app({"type": "http", "path": echo.CALL}, receive, send))
    start, body, last, trailers = sent
    assert start["trailers"]
    assert body == {"type": "http.response.body", "body": b"\0\0\0\0\2un", "more_body": True}
    assert last == {"type": "http.response.body", "body": b"", "more_body": False}
    assert trailers["headers"] == [(b"grpc-status", b"0")]


def test_answers_that_are_wrong_are_not_counted(mood):
    with pytest.raises(RuntimeError, match="other bytes"):
        echo_call(1).check(b"something else")
    with pytest.raises(RuntimeError, match="127 messages"):
        echo_stream(1).count([b""] * 127)


def test_a_service_without_the_choice_has_one_front_end(monkeypatch):
    monkeypatch.setattr(front_ends, "_serve_help", lambda: "--address TEXT")
    assert front_ends.available_front_ends() == (
        ["grpcio"], {"envoy": "`serve` has no --front-end"},
    )  # fmt: skip
    assert front_ends.front_end_arguments("grpcio") == ()


def test_envoy_is_skipped_by_name_without_what_it_needs(monkeypatch):
    def lack():
        raise Missing("this Python has no shared libpython")

    monkeypatch.setattr(front_ends, "_serve_help", lambda: "--front-end envoy|grpcio")
    monkeypatch.setattr(front_ends, "find_envoy", lack)
    names, skipped = front_ends.available_front_ends()
    assert (names, skipped) == (["grpcio"], {"envoy": "this Python has no shared libpython"})
    assert front_ends.front_end_arguments("grpcio") == ("--front-end", "grpcio")


def test_triton_is_skipped_by_name_where_it_is_not_installed(mood, tmp_path):
    with pytest.raises(Missing, match="make bench-triton"), start_triton(mood, tmp_path):
        pass


def test_triton_is_skipped_by_name_without_the_stub_of_its_python(mood, tmp_path):
    program = tmp_path / "lib/python3.11/site-packages/pytriton/tritonserver/bin/tritonserver"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.11.2\n")
    with (
        pytest.raises(Missing, match=r"no 3\.11/triton_python_backend_stub"),
        start_triton(mood, tmp_path),
    ):
        pass


def test_triton_labels_as_the_graph_does(mood):
    if not ENVIRONMENT.exists():
        pytest.skip("Triton is not installed: make bench-triton")
    with start_triton(mood) as server:
        # It raises for a label that is not the graph's.
        assert infer(mood, 2).run(server, 0.01).per_second > 0


@pytest.fixture
def backend(monkeypatch):
    """What Triton gives a model to import, by hand; the module that does is imported anew."""
    utils = SimpleNamespace(
        get_input_tensor_by_name=lambda request, name: request[name],
        Tensor=lambda name, array: (name, array),
        InferenceResponse=dict,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
    monkeypatch.delitem(sys.modules, "bench.peers.triton_model", raising=False)
    yield
    sys.modules.pop("bench.peers.triton_model", None)


def test_the_model_of_triton_answers_each_request_of_a_batch(mood, tiny_models, backend):
    from bench.peers.triton_model import model_of

    model = model_of(str(mood.folder))()
    model.initialize({})
    texts = ["good food", "not great the food was bad", "bad"]
    requests = [
        {"text": SimpleNamespace(as_numpy=lambda rows=rows: np.array(rows, object))}
        for rows in ([[texts[0].encode()], [texts[1].encode()]], [[texts[2].encode()]])
    ]
    first, second = model.execute(requests)
    session = open_session(mood, "predict", SessionSettings("cpu", "CPUExecutionProvider", 1))
    ids = [mood.tokenizers["input"].encode(text).ids for text in texts]
    (rows,) = session.run(["probabilities"], padded(ids))
    found = np.concatenate([first["probabilities"], second["probabilities"]])
    np.testing.assert_array_equal(found, rows)
    labels = [b"sad", b"glad"]
    assert first["label"].tolist() == [[labels[row.argmax()]] for row in rows[:2]]
    np.testing.assert_array_equal(second["probability"], [[rows[2].max()]])


def infer_request(**tensors):
    return {name: SimpleNamespace(as_numpy=lambda a=a: a) for name, a in tensors.items()}


def test_the_stepper_of_triton_keeps_each_streams_state(tmp_path, backend):
    """Two frames of one stream in one batch, too, follow one another."""
    from bench.peers.triton_model import stepper_of

    bundle = read_bundle(write_frame_model(tmp_path))
    model = stepper_of(str(bundle.folder))()
    model.initialize({})
    frames = np.random.default_rng(2).normal(0, 0.1, (2, 3, 1, FRAME)).astype(np.float32)

    def request(stream, place):
        number = np.array([[7 + stream]], np.int64)
        return infer_request(stream=number, frame=frames[stream, place])

    answers = model.execute([request(0, 0), request(1, 0), request(0, 1)])
    answers += model.execute([request(1, 1), request(0, 2)])
    found = {
        (0, 0): answers[0], (1, 0): answers[1], (0, 1): answers[2], (1, 1): answers[3],
        (0, 2): answers[4],
    }  # fmt: skip
    session = open_session(bundle, "step", SessionSettings("cpu", "CPUExecutionProvider", 1))
    for stream in (0, 1):
        state = {s.name: np.zeros((1, *s.shape), s.dtype) for s in bundle.manifest.state}
        for place in range(3 - stream):
            feed = {"frame": frames[stream, place], **state}
            names = ["speech", *(f"next_{name}" for name in state)]
            speech, *after = session.run(names, feed)
            state = dict(zip(state, after, strict=True))
            np.testing.assert_allclose(found[stream, place]["speech"], speech, atol=1e-6)


def test_triton_is_skipped_by_name_for_frames(tmp_path):
    bundle = read_bundle(write_frame_model(tmp_path))
    with (
        pytest.raises(Missing, match="make bench-triton"),
        start_triton_stepper(bundle, tmp_path / "nowhere"),
    ):
        pass


def test_triton_steps_frames_that_are_sent(tmp_path):
    if not ENVIRONMENT.exists():
        pytest.skip("Triton is not installed: make bench-triton")
    bundle = read_bundle(write_frame_model(tmp_path))
    frames = [np.full(FRAME, 0.01, "<f4").tobytes()]
    with start_triton_stepper(bundle) as server:
        sent = send_frames(server.target, 2, 0.5, FRAME_SECONDS, frames, call=MODEL_STREAM_INFER)
    assert sent.answered > 0
    assert sent.failed == 0
