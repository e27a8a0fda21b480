"""A connection to an endpoint, and its models as the endpoint itself describes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Self

import grpc

from conformance import protocol as pb
from conformance.rest_client import Rest

Code = grpc.StatusCode
# Calls that a server need not have.
RPCS = ("ModelStreamInfer", "ModelConfig", "ModelStatistics", "RepositoryIndex")
# The same protocol on another transport, which a server need not have either.
OVER_HTTP = "HTTP"


@dataclass(frozen=True)
class Tensor:
    """shape: as in ModelMetadata; -1 where the request chooses."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """What ModelMetadata says, and ModelConfig where it is offered.

    optional, states: names of inputs. max_batch_size: None where there is no ModelConfig.
    """

    name: str
    versions: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    optional: frozenset[str] = frozenset()
    states: frozenset[str] = frozenset()
    max_batch_size: int | None = None
    is_decoupled: bool = False
    keeps_sequences: bool = False

    @property
    def has_batch(self) -> bool:
        """Whether the first dimension is the batch. Without ModelConfig: where all are -1."""
        if self.max_batch_size is not None:
            return self.max_batch_size > 0
        return all(t.shape[:1] == (-1,) for t in (*self.inputs, *self.outputs))


class Endpoint:
    """Calls of one endpoint, each with a deadline."""

    def __init__(self, target: str, timeout: float = 10.0, http: str = "") -> None:
        """timeout: seconds a call, or a whole stream, may take. http: host and port of REST, the
        target's own unless said otherwise."""
        self.target, self.timeout = target, timeout
        unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(target, options=unlimited)
        self.stub = pb.Stub(self.channel)
        self.rest = Rest(http or target, timeout)
        self._offers: dict[str, bool] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def call(self, rpc: str, request: Any) -> Any:
        """Raises grpc.RpcError."""
        return getattr(self.stub, rpc)(request, timeout=self.timeout)

    def start(self, request: pb.ModelInferRequest) -> grpc.Future:
        """The answer to come of a ModelInfer."""
        return self.stub.ModelInfer.future(request, timeout=self.timeout)

    def stream(self, *metadata: tuple[str, str]) -> Stream:
        return Stream(self, metadata)

    def offers(self, feature: str) -> bool:
        """Whether an optional call is implemented, or an extension listed; looked up once."""
        if feature not in self._offers:
            self._offers[feature] = (
                self.rest.is_offered() if feature == OVER_HTTP else self._is_implemented(feature)
            )
        return self._offers[feature]

    def _is_implemented(self, feature: str) -> bool:
        if feature in RPCS:
            return self._probe(feature) is not Code.UNIMPLEMENTED
        return feature in self.call("ServerMetadata", pb.ServerMetadataRequest()).extensions

    def _probe(self, rpc: str) -> grpc.StatusCode:
        """The status of a call with an empty message."""
        try:
            if rpc == "ModelStreamInfer":
                with self.stream() as stream:
                    stream.rest()
            else:
                self.call(rpc, getattr(pb, f"{rpc}Request")())
        except grpc.RpcError as error:
            return error.code()
        return Code.OK

    def ready_models(self) -> list[str]:
        """Names that RepositoryIndex lists as READY, each once."""
        if not self.offers("RepositoryIndex"):
            return []
        index = self.call("RepositoryIndex", pb.RepositoryIndexRequest()).models
        return list(dict.fromkeys(entry.name for entry in index if entry.state == "READY"))

    def describe(self, name: str) -> Model:
        """Raises grpc.RpcError where ModelMetadata does not answer."""
        metadata = self.call("ModelMetadata", pb.ModelMetadataRequest(name=name))
        return Model(
            name=name,
            versions=tuple(metadata.versions),
            inputs=_tensors(metadata.inputs),
            outputs=_tensors(metadata.outputs),
            **self._configured(name),
        )

    def _configured(self, name: str) -> dict[str, Any]:
        if not self.offers("ModelConfig"):
            return {}
        config = self.call("ModelConfig", pb.ModelConfigRequest(name=name)).config
        return {
            "optional": frozenset(i.name for i in config.input if i.optional),
            "states": frozenset(s.input_name for s in config.sequence_batching.state),
            "max_batch_size": config.max_batch_size,
            "is_decoupled": config.model_transaction_policy.decoupled,
            "keeps_sequences": config.HasField("sequence_batching"),
        }


def _tensors(described: Iterable[Any]) -> tuple[Tensor, ...]:
    return tuple(Tensor(t.name, t.datatype, tuple(t.shape)) for t in described)


class Stream:
    """A ModelStreamInfer call. What is read raises grpc.RpcError where the call has failed."""

    def __init__(self, endpoint: Endpoint, metadata: Sequence[tuple[str, str]] = ()) -> None:
        self._requests: SimpleQueue[pb.ModelInferRequest | None] = SimpleQueue()
        self._call = endpoint.stub.ModelStreamInfer(
            iter(self._requests.get, None), timeout=endpoint.timeout, metadata=list(metadata)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def send(self, *requests: pb.ModelInferRequest) -> None:
        for request in requests:
            self._requests.put(request)

    def close(self) -> None:
        """Say that no request follows."""
        self._requests.put(None)

    def cancel(self) -> None:
        self._call.cancel()
        self.close()

    def next(self) -> pb.ModelStreamInferResponse:
        """Raises StopIteration where the stream has ended."""
        return next(self._call)

    def rest(self) -> list[pb.ModelStreamInferResponse]:
        """Close, and everything that still comes."""
        self.close()
        return list(self._call)
