"""Metadata, configuration, statistics of models, and the repository index."""

from __future__ import annotations

import json
from collections.abc import Sequence

from service.oip.adapters import TENSORS, ModelAdapter
from service.oip.tensors import DATATYPES, TensorMetadata
from service.serving.control_types import READY, IndexEntry
from service.serving.model_info import ModelCard
from service.serving.model_version import ServedVersion
from service.serving.statistics import Duration
from unroll.inference import grpc_service_pb2 as pb
from unroll.inference import model_config_pb2 as config_pb

PLATFORM = "unroll_onnx"
BACKEND = "unroll"
_CPU = "CPUExecutionProvider"
_MICROSECONDS = 1e6


def metadata(name: str, versions: Sequence[str], adapter: ModelAdapter) -> pb.ModelMetadataResponse:
    return pb.ModelMetadataResponse(
        name=name,
        versions=versions,
        platform=PLATFORM,
        inputs=[_metadata(port) for port in adapter.inputs],
        outputs=[_metadata(port) for port in adapter.outputs],
    )


def _metadata(port: TensorMetadata) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=port.name, datatype=port.datatype, shape=port.shape
    )


def configuration(
    name: str,
    versions: Sequence[str],
    adapter: ModelAdapter,
    most_sequences: int,
    idle_seconds: float,
) -> config_pb.ModelConfig:
    """most_sequences, idle_seconds: as Sequences has them."""
    kinds, card = config_pb.ModelInstanceGroup, adapter.card
    config = config_pb.ModelConfig(
        name=name,
        platform=PLATFORM,
        backend=BACKEND,
        max_batch_size=adapter.max_batch,
        input=[
            config_pb.ModelInput(
                name=port.name,
                data_type=_type(port),
                dims=_dims(port, adapter),
                optional=port.optional,
            )
            for port in adapter.inputs
        ],
        output=[
            config_pb.ModelOutput(name=port.name, data_type=_type(port), dims=_dims(port, adapter))
            for port in adapter.outputs
        ],
        instance_group=[
            kinds(
                name=name,
                count=1,
                kind=kinds.KIND_CPU if card.provider == _CPU else kinds.KIND_GPU,
            )
        ],
        parameters={
            key: config_pb.ModelParameter(string_value=value)
            for key, value in _facts(card, adapter).items()
        },
    )
    config.version_policy.specific.versions.extend(map(int, versions))
    config.model_transaction_policy.decoupled = adapter.is_decoupled
    if adapter.keeps_sequences:
        batching = config.sequence_batching
        batching.max_sequence_idle_microseconds = round(idle_seconds * _MICROSECONDS)
        batching.oldest.max_candidate_sequences = most_sequences
        batching.state.extend(_states(adapter))
    elif not adapter.is_decoupled:
        config.dynamic_batching.SetInParent()
    return config


def _type(port: TensorMetadata) -> config_pb.DataType:
    return DATATYPES[port.datatype].config


def _dims(port: TensorMetadata, adapter: ModelAdapter) -> tuple[int, ...]:
    return port.shape[1:] if adapter.max_batch else port.shape


def _states(adapter: ModelAdapter) -> list[config_pb.ModelSequenceBatching.State]:
    """What the server keeps of a sequence, where requests can bring it themselves, too."""
    batching = config_pb.ModelSequenceBatching
    return [
        batching.State(
            input_name=port.name,
            output_name=f"next_{port.name}",
            data_type=_type(port),
            dims=port.shape[1:],
            initial_state=[
                batching.InitialState(
                    name="zeros", data_type=_type(port), dims=port.shape[1:], zero_data=True
                )
            ],
        )
        for port in adapter.state
    ]


def _facts(card: ModelCard, adapter: ModelAdapter) -> dict[str, str]:
    facts = {
        "task": card.task,
        "description": card.description,
        "digest": card.digest,
        "precision": card.precision,
        "fingerprint": card.fingerprint,
        "cpu_extensions": json.dumps(list(card.cpu_extensions)),
        "batch_invariant": json.dumps(card.batch_invariant),
        "batching": card.batching,
        "batching_reason": card.batching_reason,
        "limits": json.dumps(dict(card.limits)),
        "parameters": adapter.settings_help,
    }
    if card.stepper:
        spec = card.stepper.spec
        facts |= {
            "batching": card.stepper.batching,
            "batching_reason": card.stepper.reason,
            "frame_seconds": json.dumps(spec.frame_seconds),
            "shared": json.dumps(card.stepper.shared),
            "attributes": json.dumps(dict(spec.attributes), ensure_ascii=False),
        }
    for name, values in (
        ("labels", card.labels),
        ("vocabulary", card.vocabulary),
        ("vector_fields", card.vector_fields),
        ("channels", card.frames.channels if card.frames else ()),
    ):
        if values:
            facts[name] = json.dumps(values, ensure_ascii=False)
    return facts


def statistics(name: str, served: ServedVersion) -> pb.ModelStatistics:
    seen = served.statistics.snapshot()
    found = pb.ModelStatistics(
        name=name,
        version=served.version,
        last_inference=seen.last_inference_ms,
        inference_count=seen.inference_count,
        execution_count=seen.execution_count,
        inference_stats=pb.InferStatistics(
            success=_duration(seen.success),
            fail=_duration(seen.fail),
            queue=_duration(seen.queue),
            compute_input=_duration(seen.compute_input),
            compute_infer=_duration(seen.compute_infer),
            compute_output=_duration(seen.compute_output),
        ),
    )
    for rows, ran in seen.batches.items():
        found.batch_stats.add(batch_size=rows, compute_infer=_duration(ran))
    return found


def _duration(seen: Duration) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=seen.count, ns=seen.nanoseconds)


def index(entries: Sequence[IndexEntry], only_ready: bool) -> pb.RepositoryIndexResponse:
    """A model that is ready has two names."""
    response = pb.RepositoryIndexResponse()
    for entry in entries:
        if only_ready and entry.state != READY:
            continue
        for suffix in ("", TENSORS) if entry.state == READY else ("",):
            response.models.add(
                name=entry.name + suffix,
                version=entry.version,
                state=entry.state,
                reason=entry.reason,
            )
    return response
