"""Requests of the Open Inference Protocol that are served, of every kind, for the tiny models."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from tests.fuzz.drawing import Seed
from tests.fuzz.methods import INFERENCE
from unroll.inference import grpc_service_pb2 as pb

_Tensor = pb.ModelInferRequest.InferInputTensor
# By datatype: the field of typed elements, and how struct packs one.
_TYPED = {"INT64": ("int64_contents", "q"), "FP32": ("fp32_contents", "f")}


def inference_seeds() -> list[Seed]:
    """Each gives the same answer whenever it is called."""
    singles = [*_texts(), *_generations(), *_tensors()]
    seeds = [Seed(INFERENCE["ModelInfer"], (request,)) for request in singles]
    return [*seeds, *_streams(singles), *_descriptions()]


def changing_seeds() -> list[Seed]:
    """Requests whose answers depend on what was called before, or that change what is served."""
    parameter = pb.ModelRepositoryParameter(string_param='{"version_policy":{"latest":{}}}')
    setting = pb.LogSettingsRequest.SettingValue(uint32_param=0)
    seeds: dict[str, list[Message]] = {
        "ModelStatistics": [
            pb.ModelStatisticsRequest(),
            pb.ModelStatisticsRequest(name="mood", version="1"),
        ],
        "RepositoryModelLoad": [
            pb.RepositoryModelLoadRequest(model_name="mood"),
            pb.RepositoryModelLoadRequest(model_name="letters", parameters={"config": parameter}),
        ],
        "RepositoryModelUnload": [pb.RepositoryModelUnloadRequest(model_name="mood")],
        "SystemSharedMemoryStatus": [pb.SystemSharedMemoryStatusRequest(name="a")],
        "SystemSharedMemoryRegister": [
            pb.SystemSharedMemoryRegisterRequest(name="a", key="/a", byte_size=64)
        ],
        "SystemSharedMemoryUnregister": [pb.SystemSharedMemoryUnregisterRequest(name="a")],
        "CudaSharedMemoryStatus": [pb.CudaSharedMemoryStatusRequest(name="a")],
        "CudaSharedMemoryRegister": [
            pb.CudaSharedMemoryRegisterRequest(name="a", raw_handle=b"abcd", byte_size=64)
        ],
        "CudaSharedMemoryUnregister": [pb.CudaSharedMemoryUnregisterRequest(name="a")],
        "TraceSetting": [pb.TraceSettingRequest(model_name="mood")],
        "LogSettings": [
            pb.LogSettingsRequest(),
            pb.LogSettingsRequest(settings={"log_verbose_level": setting}),
        ],
    }
    return [Seed(INFERENCE[name], (message,)) for name in seeds for message in seeds[name]]


def going_on_seeds(
    answered: Sequence[tuple[pb.ModelInferRequest, pb.ModelInferResponse]],
) -> list[Seed]:
    """Calls that go on from the states that requests were answered with."""
    return [
        Seed(INFERENCE["ModelInfer"], (_going_on(request, answer),)) for request, answer in answered
    ]


def _going_on(request: pb.ModelInferRequest, answer: pb.ModelInferResponse) -> pb.ModelInferRequest:
    further = pb.ModelInferRequest(model_name=request.model_name)
    rows = answer.outputs[0].shape[0]
    if request.inputs[0].name == "tokens":
        read = {
            "tokens": ("INT64", [rows, 1], [2] * rows),
            "lengths": ("INT64", [rows], [1] * rows),
        }
    else:
        read = {"token": ("INT64", [rows, 1], [2] * rows)}
    _add_inputs(further, read, bool(answer.raw_output_contents))
    for number, output in enumerate(answer.outputs):
        if output.name.startswith("next_"):
            further.inputs.add(
                name=output.name.removeprefix("next_"),
                datatype=output.datatype,
                shape=output.shape,
                contents=output.contents if output.HasField("contents") else None,
            )
            further.raw_input_contents.extend(answer.raw_output_contents[number : number + 1])
    return further


def _request(
    model: str,
    inputs: Mapping[str, tuple[str, Sequence[int], Sequence[Any]]],
    raw: bool = False,
    outputs: Sequence[str] = (),
    **parameters: Any,
) -> pb.ModelInferRequest:
    """inputs: datatype, shape and elements by name."""
    request = pb.ModelInferRequest(model_name=model, id=f"of {model}")
    _add_inputs(request, inputs, raw)
    for name in outputs:
        request.outputs.add(name=name)
    for name, value in parameters.items():
        kind = {bool: "bool", int: "int64", str: "string", float: "double"}[type(value)]
        setattr(request.parameters[name], f"{kind}_param", value)
    return request


def _add_inputs(
    request: pb.ModelInferRequest,
    inputs: Mapping[str, tuple[str, Sequence[int], Sequence[Any]]],
    raw: bool,
) -> None:
    for name, (datatype, shape, elements) in inputs.items():
        tensor = request.inputs.add(name=name, datatype=datatype, shape=shape)
        if raw:
            request.raw_input_contents.append(_raw(datatype, elements))
        elif datatype == "BYTES":
            tensor.contents.bytes_contents.extend(elements)
        else:
            getattr(tensor.contents, _TYPED[datatype][0]).extend(elements)


def _raw(datatype: str, elements: Sequence[Any]) -> bytes:
    if datatype == "BYTES":
        return b"".join(len(text).to_bytes(4, "little") + text for text in elements)
    return struct.pack(f"<{len(elements)}{_TYPED[datatype][1]}", *elements)


def _text(*texts: bytes, name: str = "text") -> dict[str, tuple[str, Sequence[int], Any]]:
    return {name: ("BYTES", [len(texts), 1], texts)}


def _texts() -> list[pb.ModelInferRequest]:
    labelled = _request("mood", _text(b"good food"), raw=True, outputs=["probabilities", "label"])
    labelled.outputs[0].parameters["classification"].int64_param = 2
    return [
        _request("mood", _text(b"the food was good", b"bad")),
        labelled,
        _request("tags", _text(b"the food was not bad", b"good")),
        _request(
            "tags-online", _text(b"the food was", ), raw=True, sequence_id=7, sequence_start=True,
            sequence_end=True,
        ),
        _request("blank", _text(b"the ___ was good"), top_words=3),
        _request(
            "strokes",
            {
                "frames": ("FP32", [2, 2, 3], [0.5, 1, -2, 3, 0, 1, 4, 2, 8, 0, 0, 0]),
                "lengths": ("INT64", [2], [2, 1]),
            },
        ),
        _request("strokes.tensors", {"frames": ("FP32", [1, 1, 3], [0.5, 1, -2])}, raw=True),
    ]  # fmt: skip


def _prompt(text: bytes, name: str = "prompt") -> dict[str, tuple[str, Sequence[int], Any]]:
    return {name: ("BYTES", [1], [text])}


def _generations() -> list[pb.ModelInferRequest]:
    vector = {"vector": ("FP32", [3], [1.0, 2.5, 0.0])}
    return [
        _request(
            "letters", _prompt(b"abc"), max_tokens=24, seed="7", temperature=0.8, top_k=9.0,
            top_p="0.9", stop='["zz", "ab"]', min_tokens=2, logit_bias='{"2": 0.5}',
            banned_tokens="[4]", repetition_penalty=1.1, tokens_per_message=4,
            timeout=60_000_000, triton_enable_empty_final_response=True,
        ),
        _request("bigrams", _prompt(b"fed a"), raw=True, max_tokens="9", seed=2**40),
        _request("letters", _prompt(b"a"), seed=3, choices='["bad cab", "a fine hen"]'),
        _request("speller", _prompt(b"abc", "source"), seed=1, outputs=["text", "finish_reason"]),
        _request("foods", vector, raw=True, seed=3, allowed_tokens="[1, 2, 3]", max_tokens=12),
    ]  # fmt: skip


def _ids(tokens: str, lengths: str, *rows: Sequence[int]) -> dict[str, Any]:
    longest = max(map(len, rows))
    padded = [id for row in rows for id in (*row, *[0] * (longest - len(row)))]
    return {
        tokens: ("INT64", [len(rows), longest], padded),
        lengths: ("INT64", [len(rows), 1], [len(row) for row in rows]),
    }


def _tensors() -> list[pb.ModelInferRequest]:
    words = _ids("tokens", "lengths", [1, 2, 3], [4])
    sides = {**words, **_ids("right", "right_lengths", [2], [3, 1])}
    letters = _ids("tokens", "lengths", [1, 2, 3, 4], [5, 6])
    vectors = {"vector": ("FP32", [2, 3], [1.0, 2.0, 3.0, 0.0, 0.0, 9.5])}
    sources = _ids("source", "source_lengths", [1, 2, 3], [4])
    token = {"token": ("INT64", [2, 1], [1, 2])}
    one = _ids("tokens", "lengths", [3, 1])
    return [
        _request("mood.tensors", words),
        _request("tags.tensors", words, raw=True, outputs=["logits"]),
        _request(
            "tags-online.tensors", one, sequence_id="s", sequence_start=True, sequence_end=True
        ),
        _request("blank.tensors", sides),
        _request("letters.tensors", letters),
        _request("letters.tensors", one, raw=True, sequence_id=9, sequence_start=True,
             sequence_end=True),
        _request("bigrams.tensors", letters, raw=True),
        _request("speller.tensors", sources),
        _request("speller.tensors", {**sources, **token}, raw=True),
        _request("foods.tensors", vectors),
    ]  # fmt: skip


def _streams(singles: Sequence[pb.ModelInferRequest]) -> list[Seed]:
    method = INFERENCE["ModelStreamInfer"]
    numbered = [_copy(request, id=str(number)) for number, request in enumerate(singles)]
    words, letters = _text(b"the food was"), _ids("tokens", "lengths", [3])
    sequences = [
        [
            _request("tags-online", words, sequence_id=1, sequence_start=True),
            _request("tags-online", words, sequence_id=1),
            _request("tags-online", words, sequence_id=1, sequence_end=True),
        ],
        [
            _request("letters.tensors", letters, sequence_id="a", sequence_start=True),
            _request("letters.tensors", letters, sequence_id="a"),
        ],
    ]
    sent = [numbered[::3], numbered[1::3], numbered[2::3], *sequences]
    return [Seed(method, tuple(requests)) for requests in sent]


def _copy(request: pb.ModelInferRequest, **changes: Any) -> pb.ModelInferRequest:
    copy = pb.ModelInferRequest()
    copy.CopyFrom(request)
    for name, value in changes.items():
        setattr(copy, name, value)
    return copy


def _descriptions() -> list[Seed]:
    seeds: dict[str, list[Message]] = {
        "ServerLive": [pb.ServerLiveRequest()],
        "ServerReady": [pb.ServerReadyRequest()],
        "ServerMetadata": [pb.ServerMetadataRequest()],
        "ModelReady": [pb.ModelReadyRequest(name="mood", version="1")],
        "ModelMetadata": [pb.ModelMetadataRequest(name="letters.tensors")],
        "ModelConfig": [pb.ModelConfigRequest(name="foods", version="1")],
        "RepositoryIndex": [pb.RepositoryIndexRequest(ready=True)],
    }
    return [Seed(INFERENCE[name], (message,)) for name in seeds for message in seeds[name]]
