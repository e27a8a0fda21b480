"""What the front ends are measured with: requests as bytes, and checks of what comes back."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence

import numpy as np

from bench.batches import padded
from bench.callers import SERVICE, make_request
from bench.loads import EventLoad, LoadRound, StreamLoad, UnaryLoad
from bench.peers import echo
from bench.predicting import sentence, sentences
from bench.settings import TEMPERATURE, TOP_P, prompt_of
from bundle.store import Bundle
from service.runtime.sessions import SessionSettings, open_session
from unroll.inference import grpc_service_pb2 as infer_pb
from unroll.v1 import unroll_pb2 as pb

CLASSIFY_TEXTS = 32
# So many requests of that many texts at once: the next batch always waits already.
CLASSIFY_CALLERS = 4
# About what an answer of ModelInfer takes that holds a label and its probability.
_ECHOED = bytes(128)
_INFERENCE = "/" + infer_pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name


class BareGraph:
    """The classifier's graph alone, on one thread, in batches of texts as a request has them."""

    def __init__(self, classifier: Bundle) -> None:
        settings = SessionSettings("cpu", "CPUExecutionProvider", threads=1)
        self._session = open_session(classifier, "predict", settings)
        encode = classifier.tokenizers["input"].encode
        self._batches = [
            padded([encode(text).ids for text in texts]) for texts in _batches(classifier)
        ]

    def run(self, seconds: float) -> LoadRound:
        """Texts a second, and CPU time a text, which is all of this process."""
        feeds, texts = itertools.cycle(self._batches), 0
        self._session.run(["probabilities"], next(feeds))
        cpu, started = time.process_time(), time.perf_counter()
        while not texts or time.perf_counter() - started < seconds:
            feed = next(feeds)
            self._session.run(["probabilities"], feed)
            texts += len(feed["lengths"])
        wall, cpu = time.perf_counter() - started, time.process_time() - cpu
        return LoadRound(texts / wall, 1e6 * cpu / texts, 0.0)


def echo_call(callers: int) -> UnaryLoad:
    return UnaryLoad(echo.CALL, [_ECHOED], callers, 1, _check_echo)


def echo_stream(streams: int) -> StreamLoad:
    return StreamLoad(echo.STREAM, [_ECHOED] * streams, _count_echoes)


def classify(classifier: Bundle) -> UnaryLoad:
    """Requests of CLASSIFY_TEXTS texts; it counts texts."""
    requests = [
        pb.ClassifyRequest(model=classifier.manifest.name, texts=texts).SerializeToString()
        for texts in _batches(classifier)
    ]

    def check(answer: bytes) -> None:
        found = len(pb.ClassifyResponse.FromString(answer).classifications)
        _expect(found == CLASSIFY_TEXTS, f"{found} texts were classified of {CLASSIFY_TEXTS}")

    return UnaryLoad(f"{SERVICE}/Classify", requests, CLASSIFY_CALLERS, CLASSIFY_TEXTS, check)


def infer(classifier: Bundle, callers: int) -> UnaryLoad:
    """One text over and over, to any server of the Open Inference Protocol that has the model."""
    text = sentence(classifier)
    request = infer_pb.ModelInferRequest(model_name=classifier.manifest.name)
    _add_text(request, "text", text, [1, 1])
    expected = _label(classifier, text)

    def check(answer: bytes) -> None:
        response = infer_pb.ModelInferResponse.FromString(answer)
        names = [output.name for output in response.outputs]
        found = response.raw_output_contents[names.index("label")][4:].decode()
        _expect(found == expected, f"the text was labelled {found!r}, not {expected!r}")

    path = f"{_INFERENCE}/ModelInfer"
    return UnaryLoad(path, [request.SerializeToString()], callers, 1, check)


def infer_stream(bundle: Bundle, streams: int, tokens: int) -> StreamLoad:
    """So many tokens a stream, one a message; it counts tokens."""
    requests = []
    for seed in range(streams):
        request = infer_pb.ModelInferRequest(model_name=bundle.manifest.name)
        _add_text(request, "prompt", prompt_of(seed), [1])
        for name, number in (("max_tokens", tokens), ("seed", seed), ("tokens_per_message", 1)):
            request.parameters[name].int64_param = number
        for name, share in (("temperature", TEMPERATURE), ("top_p", TOP_P)):
            request.parameters[name].double_param = share
        request.parameters["no_cache"].bool_param = True
        requests.append(request.SerializeToString())

    def count(messages: Sequence[bytes]) -> int:
        made = sum(_tokens(message) for message in messages)
        _expect(made == tokens, f"{made} tokens came where {tokens} were requested")
        return made

    return StreamLoad(f"{_INFERENCE}/ModelStreamInfer", requests, count)


def stream(bundle: Bundle, streams: int, tokens: int) -> StreamLoad:
    """As infer_stream, of Generate."""
    requests = [
        make_request(bundle.manifest.name, seed, tokens, one_a_message=True).SerializeToString()
        for seed in range(streams)
    ]

    def count(messages: Sequence[bytes]) -> int:
        made = sum(len(pb.GenerateResponse.FromString(message).tokens) for message in messages)
        _expect(made == tokens, f"{made} tokens came where {tokens} were requested")
        return made

    return StreamLoad(f"{SERVICE}/Generate", requests, count)


def events(bundle: Bundle, streams: int, tokens: int) -> EventLoad:
    """As stream, of OpenAI's completions."""
    fields = {
        "model": bundle.manifest.name, "max_tokens": tokens, "stream": True,
        "temperature": TEMPERATURE, "top_p": TOP_P, "tokens_per_message": 1, "no_cache": True,
    }  # fmt: skip
    bodies = [
        json.dumps({**fields, "prompt": prompt_of(seed), "seed": seed}).encode()
        for seed in range(streams)
    ]

    def count(answer: bytes) -> int:
        # The last one says why the stream ended, and [DONE] follows it.
        made = answer.count(b'data: {"id"')
        _expect(b"data: [DONE]" in answer, f"the events end with {answer[-200:]!r}")
        _expect(made in (tokens, tokens + 1), f"{made} events came for {tokens} tokens")
        return tokens

    return EventLoad("/v1/completions", bodies, count)


def _batches(classifier: Bundle) -> list[list[str]]:
    texts = sentences(classifier)
    return [texts[i : i + CLASSIFY_TEXTS] for i in range(0, len(texts), CLASSIFY_TEXTS)]


def _label(classifier: Bundle, text: str) -> str:
    """What the graph alone says."""
    settings = SessionSettings("cpu", "CPUExecutionProvider", threads=1)
    session = open_session(classifier, "predict", settings)
    ids = classifier.tokenizers["input"].encode(text).ids
    (rows,) = session.run(["probabilities"], padded([ids]))
    return classifier.manifest.labels[int(np.argmax(rows[0]))]


def _add_text(
    request: infer_pb.ModelInferRequest, name: str, text: str, shape: Sequence[int]
) -> None:
    """A tensor of one BYTES element, raw."""
    request.inputs.add(name=name, datatype="BYTES", shape=shape)
    encoded = text.encode()
    request.raw_input_contents.append(len(encoded).to_bytes(4, "little") + encoded)


def _tokens(message: bytes) -> int:
    response = infer_pb.ModelStreamInferResponse.FromString(message)
    _expect(not response.error_message, response.error_message)
    shapes = {output.name: output.shape for output in response.infer_response.outputs}
    return int(shapes["tokens"][0])


def _check_echo(answer: bytes) -> None:
    _expect(answer == _ECHOED, "the echo returned other bytes")


def _count_echoes(messages: Sequence[bytes]) -> int:
    whole = len(messages) == echo.MESSAGES and all(message == _ECHOED for message in messages)
    _expect(whole, f"the echo returned {len(messages)} messages, or other bytes")
    return len(messages)


def _expect(is_so: bool, otherwise: str) -> None:
    if not is_so:
        raise RuntimeError(otherwise)
