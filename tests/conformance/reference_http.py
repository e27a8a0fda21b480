"""The reference server over HTTP: JSON and binary tensors, as its calls over gRPC have them.

Its steps are methods of their own, so that a server with a fault is a subclass.
"""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from conformance.tensors import RAW_ONLY, from_raw, to_raw
from tests.conformance.reference import ReferenceServer
from tests.conformance.reference_reading import Code, Refusal, invalid
from unroll.inference import grpc_service_pb2 as pb

HEADER_LENGTH = "inference-header-content-length"
SIZE = "binary_data_size"
_STATUSES = {Code.NOT_FOUND: 404, Code.UNIMPLEMENTED: 501, Code.UNKNOWN: 500}
_DTYPES = {"BOOL": bool, "BYTES": str}


class Stopped(Exception):
    """What a call over gRPC was aborted with."""

    def __init__(self, code: Any, message: str) -> None:
        super().__init__(message)
        self.code = code


class Context:
    """Of a call that comes over HTTP."""

    def abort(self, code: Any, message: str) -> None:
        raise Stopped(code, message)

    def invocation_metadata(self) -> tuple[()]:
        return ()


@dataclass
class Response:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def as_json(found: Any, status: int = 200, **headers: str) -> Response:
    return Response(json.dumps(found).encode(), status, headers)


def plain(message: Any) -> dict[str, Any]:
    """Every field, numbers as numbers."""
    found = {}
    for described in message.DESCRIPTOR.fields:
        value = getattr(message, described.name)
        kind = described.message_type
        if described.is_repeated and not (kind and kind.GetOptions().map_entry):
            found[described.name] = [plain(one) if kind else one for one in value]
        elif kind is None:
            found[described.name] = value
        elif not described.is_repeated and message.HasField(described.name):
            found[described.name] = plain(value)
    return found


class ReferenceHttp:
    """Of a ReferenceServer, whose calls it makes."""

    model = r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?"
    routes: tuple[tuple[str, str, str], ...] = (
        ("GET", "/v2", "server_metadata"),
        ("GET", "/v2/health/live", "live"),
        ("GET", "/v2/health/ready", "ready"),
        ("GET", "/v2/models/stats", "statistics"),
        ("GET", model, "metadata"),
        ("GET", f"{model}/ready", "model_ready"),
        ("GET", f"{model}/config", "config"),
        ("GET", f"{model}/stats", "statistics"),
        ("POST", f"{model}/infer", "infer"),
        ("POST", f"{model}/generate", "generate"),
        ("POST", f"{model}/generate_stream", "generate_stream"),
        ("POST", "/v2/repository/index", "index"),
    )

    def __init__(self, server: ReferenceServer) -> None:
        self.server = server

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        response = self.routed(method, path, headers, body)
        if "gzip" in headers.get("accept-encoding", "") and response.status == 200:
            response.body = gzip.compress(response.body)
            response.headers["content-encoding"] = "gzip"
        return response

    def routed(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        matches = [
            (verb, name, match.groupdict(""))
            for verb, pattern, name in self.routes
            if (match := re.fullmatch(pattern, path))
        ]
        if not matches:
            return as_json({"error": "there is no such path"}, 404)
        for verb, name, parts in matches:
            if verb == method:
                try:
                    return getattr(self, name)(parts, headers, body)
                except (Refusal, Stopped) as refusal:
                    return self.refusal(str(refusal), _STATUSES.get(refusal.code, 400))
        return as_json({"error": "it takes another method"}, 405, allow=matches[0][0])

    def refusal(self, message: str, status: int) -> Response:
        return as_json({"error": message}, status)

    def call(self, rpc: str, **fields: Any) -> Any:
        return getattr(self.server, rpc)(getattr(pb, f"{rpc}Request")(**fields), Context())

    # -- health, metadata and extensions

    def live(self, parts: Any, headers: Any, body: bytes) -> Response:
        return Response()

    def ready(self, parts: Any, headers: Any, body: bytes) -> Response:
        return Response()

    def model_ready(self, parts: Any, headers: Any, body: bytes) -> Response:
        return Response(status=200 if self.call("ModelReady", **parts).ready else 400)

    def server_metadata(self, parts: Any, headers: Any, body: bytes) -> Response:
        return as_json(plain(self.call("ServerMetadata")))

    def metadata(self, parts: Any, headers: Any, body: bytes) -> Response:
        return as_json(plain(self.call("ModelMetadata", **parts)))

    def config(self, parts: Any, headers: Any, body: bytes) -> Response:
        return as_json(plain(self.call("ModelConfig", **parts).config))

    def statistics(self, parts: Any, headers: Any, body: bytes) -> Response:
        return as_json(plain(self.call("ModelStatistics", **parts)))

    def index(self, parts: Any, headers: Any, body: bytes) -> Response:
        ready = bool(body and json.loads(body).get("ready"))
        return as_json(plain(self.call("RepositoryIndex", ready=ready))["models"])

    # -- inference

    def infer(self, parts: Any, headers: Mapping[str, str], body: bytes) -> Response:
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        length = self.json_length(headers, body)
        found, tail = _object(body[:length]), body[length:]
        answer = self.server.ModelInfer(self.request(parts, found, tail), Context())
        return self.answer(found, answer)

    def json_length(self, headers: Mapping[str, str], body: bytes) -> int:
        length = int(headers.get(HEADER_LENGTH, len(body)))
        if length > len(body):
            raise invalid(f"the JSON has {length} bytes, the body {len(body)}")
        return length

    def request(self, parts: Any, found: Any, tail: bytes) -> pb.ModelInferRequest:
        """All contents raw."""
        request = pb.ModelInferRequest(
            model_name=parts["name"], model_version=parts["version"], id=found.get("id", "")
        )
        for tensor in found.get("inputs", []):
            try:
                request.inputs.add(
                    name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"]
                )
                raw, tail = self.raw(tensor, tail)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise invalid(f"an input cannot be read: {error!r}") from error
            request.raw_input_contents.append(raw)
        for output in found.get("outputs", []):
            request.outputs.add(name=output["name"])
        return request

    def raw(self, tensor: Any, tail: bytes) -> tuple[bytes, bytes]:
        """Its bytes, and what follows them in ``tail``."""
        size = tensor.get("parameters", {}).get(SIZE)
        if size is None:
            return self.encode(tensor["datatype"], tensor["data"], tensor["shape"]), tail
        if size > len(tail):
            raise invalid(f"{size} binary bytes claimed, {len(tail)} there")
        return tail[:size], tail[size:]

    def encode(self, datatype: str, data: Any, shape: Any) -> bytes:
        flat = list(_flat(data))
        wanted = _DTYPES.get(datatype, (int, float))
        if not all(isinstance(value, wanted) for value in flat):
            raise ValueError(f"data is not all {datatype}")
        if datatype == "BYTES":
            array = np.array([value.encode() for value in flat], dtype=object)
        else:
            array = np.array(flat)
        return to_raw(datatype, array)

    def answer(self, found: Any, answer: pb.ModelInferResponse) -> Response:
        everything = found.get("parameters", {}).get("binary_data_output", False)
        wanted = {
            one["name"]: one.get("parameters", {}).get("binary_data", everything)
            for one in found.get("outputs", [])
        }
        outputs, tail = [], b""
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
            described = {"name": output.name, "datatype": output.datatype, "shape": [*output.shape]}
            is_binary = wanted.get(output.name, everything) or output.datatype in RAW_ONLY
            if is_binary:
                tail += raw
                outputs.append(described | {"parameters": {SIZE: self.size(raw)}})
            else:
                outputs.append(described | {"data": self.decode(output, raw)})
        head = {"model_name": answer.model_name, "model_version": answer.model_version}
        head |= {"id": answer.id, "outputs": outputs}
        content = json.dumps(head).encode()
        headers = {HEADER_LENGTH: str(len(content))} if tail else {}
        return Response(content + tail, headers=headers)

    def size(self, raw: bytes) -> int:
        return len(raw)

    def decode(self, output: Any, raw: bytes) -> list[Any]:
        values = from_raw(output.datatype, tuple(output.shape), raw).reshape(-1).tolist()
        return [v.decode() if isinstance(v, bytes) else v for v in values]

    # -- text in one flat object

    def flat(self, parts: Any, body: bytes) -> dict[str, Any]:
        found, model = _object(body), self.server.find(parts["name"], parts["version"])
        tensors = [
            {"name": t.name, "datatype": t.datatype, "shape": [1] * len(t.shape),
             "data": [found.get(t.name)]}
            for t in model.inputs
        ]  # fmt: skip
        answer = self.server.ModelInfer(self.request(parts, {"inputs": tensors}, b""), Context())
        described = {"model_name": answer.model_name, "model_version": answer.model_version}
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True):
            described[output.name] = self.decode(output, raw)[0]
        return described

    def generate(self, parts: Any, headers: Any, body: bytes) -> Response:
        return as_json(self.flat(parts, body))

    def generate_stream(self, parts: Any, headers: Any, body: bytes) -> Response:
        event = f"data: {json.dumps(self.flat(parts, body))}\n\n"
        return Response(event.encode(), headers={"content-type": "text/event-stream"})


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise invalid("no object")
    return found


def _flat(data: Any) -> Iterator[Any]:
    if isinstance(data, list):
        for value in data:
            yield from _flat(value)
    else:
        yield data


class Overwhelmed(ReferenceHttp):
    """Answers everything with 500."""

    def respond(self, *request: Any) -> Response:
        return as_json({"error": "no"}, 500)


class Agreeable(ReferenceHttp):
    """Takes everything, and says nothing."""

    def respond(self, *request: Any) -> Response:
        return as_json({})


class ForgetsIds(ReferenceHttp):
    def request(self, parts: Any, found: Any, tail: bytes) -> pb.ModelInferRequest:
        return super().request(parts, {**found, "id": ""}, tail)


class TakesFlatDataOnly(ReferenceHttp):
    def encode(self, datatype: str, data: Any, shape: Any) -> bytes:
        if any(isinstance(value, list) for value in data):
            raise ValueError("data is nested")
        return super().encode(datatype, data, shape)


class MarksNoCompression(ReferenceHttp):
    def respond(self, *request: Any) -> Response:
        response = super().respond(*request)
        response.headers.pop("content-encoding", None)
        return response


class MiscountsBinary(ReferenceHttp):
    def size(self, raw: bytes) -> int:
        return len(raw) - 1


class SaysNothingOfErrors(ReferenceHttp):
    def refusal(self, message: str, status: int) -> Response:
        return Response(b"no", status)


@dataclass(frozen=True)
class HttpFault:
    """A server that is wrong in one way. meant: the case that is to find it out. follows: what
    cannot but fail with it."""

    server: type[ReferenceHttp]
    meant: str
    follows: tuple[str, ...] = ()


HTTP_FAULTS = (
    HttpFault(ForgetsIds, "rest-infer-002"),
    HttpFault(TakesFlatDataOnly, "rest-infer-005"),
    HttpFault(MarksNoCompression, "rest-infer-008"),
    HttpFault(MiscountsBinary, "rest-binary-002", ("rest-binary-001", "rest-binary-003")),
    HttpFault(SaysNothingOfErrors, "rest-refuse-009", ("rest-generate-003",)),
)
HTTP_CARELESS = (Agreeable, Overwhelmed)


@contextmanager
def serving_http(served: ReferenceHttp) -> Iterator[str]:
    """Host and port while it serves."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            size = int(self.headers.get("content-length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(size)
            response = served.respond(self.command, self.path, headers, body)
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body)

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
