"""The core over REST: health, metadata and inference, with the extension of binary tensors.

The rules are those of the calls over gRPC; what is compared with, the endpoint itself said there.
"""

from __future__ import annotations

import gzip
import json
from typing import Any

from conformance import protocol as pb
from conformance.cases import (
    ANY_MODEL,
    REST,
    SERVER,
    SHOULD,
    UNARY,
    Failure,
    NotApplicable,
    Section,
    expect,
)
from conformance.core_metadata import UNKNOWN_VERSION
from conformance.endpoint import OVER_HTTP, Endpoint, Tensor
from conformance.rest_client import HEADER_LENGTH, answered, refused
from conformance.rest_requests import (
    BINARY_SIZE,
    binary_request,
    outputs_in,
    outputs_of,
    path_of,
    request_of,
)
from conformance.subjects import NO_SUCH, Subject, brief, same
from conformance.tensors import RAW_ONLY

INFER = "/infer"
_DEPTH = 100_000
UNAVAILABLE = 503

health = Section(REST, "HTTP: health", needs=OVER_HTTP)
metadata = Section(REST, "HTTP: metadata", needs=OVER_HTTP)
infer = Section(REST, "HTTP: inference", needs=OVER_HTTP)
binary = Section(REST, "Binary tensor data extension", needs=OVER_HTTP)


# -- health and metadata -----------------------------------------------------------------------


@health("rest-live-001", SERVER, "GET v2/health/live")
def server_is_live(endpoint: Endpoint) -> None:
    """The server is live."""
    answered(endpoint.rest.send("GET", "/v2/health/live"))


@health("rest-ready-001", SERVER, "GET v2/health/ready")
def server_is_ready(endpoint: Endpoint) -> None:
    """The server is ready."""
    answered(endpoint.rest.send("GET", "/v2/health/ready"))


@health("rest-ready-002", ANY_MODEL, "GET v2/models/NAME/ready")
def model_is_ready(subject: Subject) -> None:
    """A model that answers is ready, in each version its metadata lists."""
    for version in ("", *subject.model.versions):
        answered(subject.endpoint.rest.send("GET", path_of(subject, "/ready", version)))


@health("rest-ready-003", SERVER, "GET v2/models/NAME/ready")
def unknown_model_is_not_ready(endpoint: Endpoint) -> None:
    """An unknown model is not ready."""
    refused(endpoint.rest.send("GET", f"/v2/models/{NO_SUCH}/ready"), UNAVAILABLE)


@metadata("rest-meta-001", SERVER, "GET v2")
def server_describes_itself(endpoint: Endpoint) -> None:
    """The server's name, version and extensions are those of ServerMetadata."""
    described = endpoint.call("ServerMetadata", pb.ServerMetadataRequest())
    found = _object(endpoint.rest.get("/v2"))
    for name in ("name", "version"):
        expected = getattr(described, name)
        expect(found.get(name) == expected, f"{name} {expected!r}", repr(found.get(name)))
    extensions = found.get("extensions")
    expect(isinstance(extensions, list), "a list of extensions", brief(extensions))


@metadata("rest-meta-002", ANY_MODEL, "GET v2/models/NAME")
def model_describes_itself(subject: Subject) -> None:
    """A model's name, inputs and outputs are those of ModelMetadata, in each version."""
    for version in ("", *subject.model.versions):
        found = _object(subject.endpoint.rest.get(path_of(subject, "", version)))
        name = found.get("name")
        expect(name == subject.model.name, repr(subject.model.name), repr(name))
        for kind in ("inputs", "outputs"):
            expected = [_as_json(tensor) for tensor in getattr(subject.model, kind)]
            tensors = found.get(kind)
            expect(tensors == expected, f"{kind} {brief(expected)}", brief(tensors))


def _object(found: object) -> dict:
    if not isinstance(found, dict):
        raise Failure("an object", brief(found))
    return found


def _as_json(tensor: Tensor) -> dict[str, object]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


@metadata("rest-meta-003", SERVER, "GET v2/models/NAME")
def metadata_of_unknown_model(endpoint: Endpoint) -> None:
    """The metadata of an unknown model is refused."""
    refused(endpoint.rest.send("GET", f"/v2/models/{NO_SUCH}"), UNAVAILABLE)


@metadata("rest-meta-004", ANY_MODEL, "GET v2/models/NAME/versions/VERSION")
def metadata_of_unknown_version(subject: Subject) -> None:
    """The metadata of an unknown version is refused."""
    if not subject.model.versions:
        raise NotApplicable("its metadata lists no versions")
    path = path_of(subject, "", UNKNOWN_VERSION)
    refused(subject.endpoint.rest.send("GET", path), UNAVAILABLE)


# -- inference ---------------------------------------------------------------------------------


@infer("rest-infer-001", UNARY, "$inference_request.inputs")
def request_is_answered(subject: Subject) -> None:
    """A request in JSON is answered, and the answer names the model."""
    reply = answered(
        subject.endpoint.rest.send("POST", path_of(subject, INFER), request_of(subject))
    )
    outputs_of(reply)
    name = reply.found.get("model_name")
    expect(name == subject.model.name, repr(subject.model.name), repr(name))


@infer("rest-infer-002", UNARY, "$inference_response.id")
def id_comes_back(subject: Subject) -> None:
    """The id of the request comes back."""
    for id in ("a", "über 7"):
        reply = answered(
            subject.endpoint.rest.send("POST", path_of(subject, INFER), request_of(subject, id=id))
        )
        expect(reply.found.get("id") == id, repr(id), repr(reply.found.get("id")))


@infer("rest-infer-003", UNARY, "$response_output.data")
def answers_as_over_grpc(subject: Subject) -> None:
    """The outputs are those of ModelInfer."""
    subject.need_stable()
    expected = subject.outputs(subject.typed())
    same(_posted(subject), expected)


def _posted(subject: Subject, **how: object) -> dict:
    content = request_of(subject, **how)  # type: ignore[arg-type]
    return outputs_of(subject.endpoint.rest.send("POST", path_of(subject, INFER), content))


@infer("rest-infer-004", UNARY, "$request_output.name")
def requested_output_comes_alone(subject: Subject) -> None:
    """A requested output comes alone."""
    for output in subject.model.outputs:
        found = list(_posted(subject, outputs=[{"name": output.name}]))
        expect(found == [output.name], f"{output.name} alone", found)


@infer("rest-infer-005", UNARY, "$request_input.data")
def nested_data_is_taken(subject: Subject) -> None:
    """Data nested as its shape says is the same as flat data."""
    expected = _posted(subject)
    found = _posted(subject, nested=True)
    if subject.is_stable or subject.must_be_stable:
        same(found, expected)


@infer("rest-infer-006", UNARY, "POST v2/models/NAME/versions/VERSION/infer")
def requested_version_answers(subject: Subject) -> None:
    """A version in the path answers, and says so."""
    if not subject.model.versions:
        raise NotApplicable("its metadata lists no versions")
    for version in subject.model.versions:
        path = path_of(subject, INFER, version)
        reply = answered(subject.endpoint.rest.send("POST", path, request_of(subject)))
        found = reply.found.get("model_version")
        expect(found in (version, None), f"model_version {version!r}", repr(found))


@infer("rest-infer-007", UNARY, "Content-Encoding", level=SHOULD)
def compressed_request_is_read(subject: Subject) -> None:
    """A request compressed with gzip is read."""
    body = gzip.compress(json.dumps(request_of(subject)).encode())
    headers = {"Content-Encoding": "gzip"}
    outputs_of(subject.endpoint.rest.send("POST", path_of(subject, INFER), body, headers))


@infer("rest-infer-008", UNARY, "Accept-Encoding")
def compressed_response_is_marked(subject: Subject) -> None:
    """A response is compressed only as its header says."""
    content, headers = request_of(subject), {"Accept-Encoding": "gzip"}
    reply = answered(subject.endpoint.rest.send("POST", path_of(subject, INFER), content, headers))
    encoding = reply.headers.get("content-encoding", "identity")
    expect(encoding in ("identity", "gzip"), "gzip, or none", repr(encoding))
    body = gzip.decompress(reply.body) if encoding == "gzip" else reply.body
    outputs_in(type(reply)(reply.status, {}, body).found)


# -- binary tensors ----------------------------------------------------------------------------


def _need_binary(subject: Subject) -> None:
    if not subject.endpoint.offers("binary_tensor_data"):
        raise NotApplicable("binary_tensor_data is not among the server's extensions")


@binary("rest-binary-001", UNARY, "binary_data_size")
def binary_inputs_are_read(subject: Subject) -> None:
    """Binary inputs are answered as raw ones of ModelInfer are."""
    _need_binary(subject)
    body, headers = binary_request(subject)
    found = outputs_of(subject.endpoint.rest.send("POST", path_of(subject, INFER), body, headers))
    if subject.is_stable or subject.must_be_stable:
        same(found, subject.outputs(subject.request()))


@binary("rest-binary-002", UNARY, "binary_data")
def one_output_in_binary(subject: Subject) -> None:
    """An output comes in binary where it is requested so, and the others in JSON."""
    _need_binary(subject)
    first, *others = (output.name for output in subject.model.outputs)
    outputs = [{"name": first, "parameters": {"binary_data": True}}]
    outputs += [{"name": name, "parameters": {"binary_data": False}} for name in others]
    body, headers = binary_request(subject, outputs=outputs)
    reply = answered(subject.endpoint.rest.send("POST", path_of(subject, INFER), body, headers))
    outputs_of(reply)
    expect(HEADER_LENGTH.lower() in reply.headers, HEADER_LENGTH, sorted(reply.headers))
    in_json = {one["name"] for one in outputs_in(reply.found) if "data" in one}
    # JSON does not hold every datatype.
    expected = {
        output.name
        for output in subject.model.outputs
        if output.name != first and output.datatype not in RAW_ONLY
    }
    expect(in_json == expected, f"in JSON: {sorted(expected)}", sorted(in_json))


@binary("rest-binary-003", UNARY, "binary_data_output")
def all_outputs_in_binary(subject: Subject) -> None:
    """All outputs come in binary where the request says so."""
    _need_binary(subject)
    body, headers = binary_request(subject, parameters={"binary_data_output": True})
    reply = answered(subject.endpoint.rest.send("POST", path_of(subject, INFER), body, headers))
    outputs_of(reply)
    left = [one["name"] for one in outputs_in(reply.found) if "data" in one]
    expect(not left, "all outputs in binary", f"{left} in JSON")


@binary("rest-binary-004", UNARY, "binary_data_size")
def sizes_are_held_against_the_body(subject: Subject) -> None:
    """Binary tensors that claim more bytes than the body has are refused."""
    _need_binary(subject)
    content = request_of(subject)
    for tensor in content["inputs"]:
        del tensor["data"]
        tensor["parameters"] = {BINARY_SIZE: 2**40}
    head = json.dumps(content).encode()
    headers = {HEADER_LENGTH: str(len(head))}
    path = path_of(subject, INFER)
    refused(subject.endpoint.rest.send("POST", path, head + bytes(8), headers))


@binary("rest-binary-005", SERVER, HEADER_LENGTH)
def header_beyond_the_body(endpoint: Endpoint) -> None:
    """A length of the JSON beyond the body is refused."""
    headers = {HEADER_LENGTH: "1000000"}
    path = f"/v2/models/{NO_SUCH}{INFER}"
    refused(endpoint.rest.send("POST", path, {"inputs": []}, headers), UNAVAILABLE)


# -- refusals ----------------------------------------------------------------------------------


def _refused(subject: Subject, content: object) -> None:
    refused(subject.endpoint.rest.send("POST", path_of(subject, INFER), content))


@infer("rest-refuse-001", UNARY, "$inference_request")
def no_json(subject: Subject) -> None:
    """A body that is no JSON object is refused."""
    for body in (b"", b"{", b"inputs", b"[]", b"\xff\xfe", b"null"):
        _refused(subject, body)


@infer("rest-refuse-002", SERVER, "POST v2/models/NAME/infer")
def unknown_model(endpoint: Endpoint) -> None:
    """A request to an unknown model is refused."""
    tensor = {"name": "input", "datatype": "INT64", "shape": [1], "data": [1]}
    path = f"/v2/models/{NO_SUCH}{INFER}"
    refused(endpoint.rest.send("POST", path, {"inputs": [tensor]}), UNAVAILABLE)


@infer("rest-refuse-003", UNARY, "$inference_request.inputs")
def no_inputs(subject: Subject) -> None:
    """A request without inputs is refused."""
    _refused(subject, {"inputs": []})
    _refused(subject, {})


@infer("rest-refuse-004", UNARY, "$request_output.name")
def unknown_output(subject: Subject) -> None:
    """An output that the model does not have is refused."""
    _refused(subject, request_of(subject, outputs=[{"name": NO_SUCH}]))


@infer("rest-refuse-005", UNARY, "$request_input.data")
def data_of_another_size(subject: Subject) -> None:
    """Data that is not as much as its shape says is refused."""
    content = request_of(subject)
    content["inputs"][0]["data"] *= 2
    _refused(subject, content)


@infer("rest-refuse-006", UNARY, "$request_input.data")
def data_of_another_kind(subject: Subject) -> None:
    """Data of another kind than its datatype is refused."""
    wrong: Any
    for wrong in ({"a": 1}, None, [[]]):
        content = request_of(subject)
        first = content["inputs"][0]
        first["data"] = [wrong] * len(first["data"])
        _refused(subject, content)


@infer("rest-refuse-007", UNARY, "$request_input.shape")
def shape_of_another_kind(subject: Subject) -> None:
    """A shape that is no list of whole numbers of 64 bits is refused."""
    wrong: Any
    for wrong in ("1", 1, {}, ["a"], [2**70], [[1]], [1.5]):
        content = request_of(subject)
        content["inputs"][0]["shape"] = wrong
        _refused(subject, content)


@infer("rest-refuse-008", UNARY, "$inference_request")
def deep_json(subject: Subject) -> None:
    """JSON that is nested very deeply is refused, and the server goes on."""
    _refused(subject, b"[" * _DEPTH)
    _refused(subject, b'{"inputs":' * _DEPTH)
    answered(subject.endpoint.rest.send("GET", "/v2/health/live"))


@infer("rest-refuse-009", UNARY, "$inference_error_response.error")
def errors_say_why(subject: Subject) -> None:
    """A refusal is an object whose error says in words what is wrong."""
    path = path_of(subject, INFER)
    content: Any
    for content in ({"inputs": []}, request_of(subject, outputs=[{"name": NO_SUCH}])):
        found = refused(subject.endpoint.rest.send("POST", path, content)).found
        error = found.get("error") if isinstance(found, dict) else None
        expect(isinstance(error, str) and len(error) > 3, "an error in words", brief(found))


@infer("rest-refuse-010", SERVER, "POST v2/models/NAME/infer", level=SHOULD)
def other_methods_and_paths(endpoint: Endpoint) -> None:
    """A path that does not exist is refused with 404, another method than a path's with 405."""
    found = endpoint.rest.send("GET", "/v2/no/such/path").status
    expect(found == 404, "404", found)
    found = endpoint.rest.send("GET", f"/v2/models/{NO_SUCH}{INFER}").status
    expect(found == 405, "405", found)
