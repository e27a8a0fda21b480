"""Extensions: Triton's configuration, index, statistics and scheduling parameters.

Statistics count every caller's requests: the endpoint must have no other callers while they run.
"""

from __future__ import annotations

from conformance import protocol as pb
from conformance.cases import (
    ANY_MODEL,
    EXTENSIONS,
    SERVER,
    SHOULD,
    UNARY,
    NotApplicable,
    Section,
    expect,
)
from conformance.endpoint import Endpoint, Model, Tensor
from conformance.requests import stacked
from conformance.subjects import NO_SUCH, UNKNOWN_MODEL, Subject, answered, refused

RPCS = {
    "model_configuration": "ModelConfig",
    "statistics": "ModelStatistics",
    "model_repository": "RepositoryIndex",
}
STATES = ("", "UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING")
SENT = 3

listed = Section(EXTENSIONS, "ServerMetadata")
configuration = Section(EXTENSIONS, "Model configuration extension", needs="ModelConfig")
repository = Section(EXTENSIONS, "Model repository extension", needs="RepositoryIndex")
statistics = Section(EXTENSIONS, "Statistics extension", needs="ModelStatistics")
schedule = Section(EXTENSIONS, "Schedule policy extension", needs="schedule_policy")
parameters = Section(EXTENSIONS, "Parameters extension")


@listed("ext-list-001", SERVER, "ServerMetadataResponse.extensions")
def listed_extensions_are_offered(endpoint: Endpoint) -> None:
    """What ServerMetadata lists as an extension is implemented."""
    names = answered(endpoint, "ServerMetadata", pb.ServerMetadataRequest()).extensions
    missing = [name for name in names if name in RPCS and not endpoint.offers(RPCS[name])]
    expect(not missing, "all that is listed", f"{missing} listed and UNIMPLEMENTED")


def config_of(subject: Subject) -> pb.ModelConfig:
    request = pb.ModelConfigRequest(name=subject.model.name)
    return answered(subject.endpoint, "ModelConfig", request).config


@configuration("ext-config-001", ANY_MODEL, "ModelConfig.name")
def config_names_the_model(subject: Subject) -> None:
    """A model's configuration names the model."""
    found = config_of(subject).name
    expect(found == subject.model.name, repr(subject.model.name), repr(found))


@configuration("ext-config-002", ANY_MODEL, "ModelConfig.input")
def config_has_the_tensors(subject: Subject) -> None:
    """Configuration and metadata name the same inputs and outputs."""
    config, model = config_of(subject), subject.model
    pairs = ((config.input, model.inputs), (config.output, model.outputs))
    for configured, described in pairs:
        found, expected = [one.name for one in configured], [one.name for one in described]
        expect(sorted(found) == sorted(expected), f"{expected} as metadata has", found)


@configuration("ext-config-003", ANY_MODEL, "ModelInput.data_type")
def config_has_the_datatypes(subject: Subject) -> None:
    """Configuration and metadata declare the same datatypes."""
    described = _described(subject.model)
    for name, kind, _ in _configured(subject):
        expected = described[name].datatype if name in described else "no such tensor"
        expect(kind == expected, f"{name}: {expected} as metadata has", kind)


@configuration("ext-config-004", ANY_MODEL, "ModelInput.dims")
def config_has_the_shapes(subject: Subject) -> None:
    """The metadata's shape is the configured one, after -1 where there is a batch."""
    described = _described(subject.model)
    batch = (-1,) if config_of(subject).max_batch_size > 0 else ()
    for name, _, dims in _configured(subject):
        expected = described[name].shape if name in described else ()
        expect(batch + dims == expected, f"{name}: {list(expected)}", list(batch + dims))


def _described(model: Model) -> dict[str, Tensor]:
    """By side and name: an input and an output may share one."""
    sides = (("input", model.inputs), ("output", model.outputs))
    return {f"{side} {tensor.name}": tensor for side, tensors in sides for tensor in tensors}


def _configured(subject: Subject) -> list[tuple[str, str, tuple[int, ...]]]:
    """Side and name, datatype, dimensions."""
    config, found = config_of(subject), []
    for side, tensors in (("input", config.input), ("output", config.output)):
        for tensor in tensors:
            kind = pb.data_type_name(tensor.data_type).removeprefix("TYPE_")
            kind = "BYTES" if kind == "STRING" else kind
            found.append((f"{side} {tensor.name}", kind, tuple(tensor.dims)))
    return found


@configuration("ext-config-005", SERVER, "ModelConfigRequest.name")
def config_of_unknown_model(endpoint: Endpoint) -> None:
    """The configuration of an unknown model is refused."""
    refused(endpoint, "ModelConfig", pb.ModelConfigRequest(name=NO_SUCH), UNKNOWN_MODEL)


def _index(endpoint: Endpoint, ready: bool = False) -> list:
    request = pb.RepositoryIndexRequest(ready=ready)
    return list(answered(endpoint, "RepositoryIndex", request).models)


@repository("ext-index-001", SERVER, "RepositoryIndexResponse.models")
def ready_models_are_ready(endpoint: Endpoint) -> None:
    """Whatever the index lists as READY, ModelReady says is ready."""
    for entry in _index(endpoint):
        if entry.state == "READY":
            request = pb.ModelReadyRequest(name=entry.name, version=entry.version)
            is_ready = answered(endpoint, "ModelReady", request).ready
            expect(is_ready, f"{entry.name!r} {entry.version!r} ready", "ready: false")


@repository("ext-index-002", ANY_MODEL, "ModelIndex.name")
def answering_model_is_listed(subject: Subject) -> None:
    """A model that answers is listed as READY, in the versions its metadata lists."""
    found = {
        entry.version
        for entry in _index(subject.endpoint)
        if entry.name == subject.model.name and entry.state == "READY"
    }
    expect(bool(found), "listed as READY", "not listed")
    expect({*subject.model.versions} <= found, f"{subject.model.versions}", sorted(found))


@repository("ext-index-003", SERVER, "ModelIndex.state")
def states_are_known(endpoint: Endpoint) -> None:
    """States are those of the extension, and no version is listed twice."""
    entries = _index(endpoint)
    for entry in entries:
        expect(entry.state in STATES, f"{entry.name}: one of {STATES}", repr(entry.state))
    names = [(entry.name, entry.version) for entry in entries]
    expect(len(set(names)) == len(names), "each version once", names)


@repository("ext-index-004", SERVER, "RepositoryIndexRequest.ready")
def only_ready_ones_on_request(endpoint: Endpoint) -> None:
    """Where only READY models are requested, exactly those are listed."""
    found = sorted((one.name, one.version) for one in _index(endpoint, ready=True))
    expected = sorted((o.name, o.version) for o in _index(endpoint) if o.state == "READY")
    expect(found == expected, str(expected), found)


def statistics_of(subject: Subject, version: str) -> pb.ModelStatistics:
    request = pb.ModelStatisticsRequest(name=subject.model.name, version=version)
    found = list(answered(subject.endpoint, "ModelStatistics", request).model_stats)
    expect(len(found) == 1, f"statistics of version {version!r} alone", len(found))
    return found[0]


def _answering_version(subject: Subject) -> str:
    return subject.infer(subject.request()).model_version


@statistics("ext-stats-001", UNARY, "ModelStatistics.name")
def statistics_name_the_model(subject: Subject) -> None:
    """Statistics name the requested model and version."""
    version = _answering_version(subject)
    found = statistics_of(subject, version)
    expected = (subject.model.name, version)
    expect((found.name, found.version) == expected, str(expected), (found.name, found.version))


def _around(subject: Subject, rows: int = 1) -> tuple[pb.ModelStatistics, pb.ModelStatistics]:
    """The statistics before and after SENT requests of so many rows."""
    version = _answering_version(subject)
    arrays = stacked(*[subject.arrays] * rows) if rows > 1 else subject.arrays
    before = statistics_of(subject, version)
    for _ in range(SENT):
        subject.infer(subject.request(arrays))
    return before, statistics_of(subject, version)


@statistics("ext-stats-002", UNARY, "InferStatistics.success")
def successes_are_counted(subject: Subject) -> None:
    """Each request that is answered counts once as a success, and takes time."""
    before, after = (each.inference_stats.success for each in _around(subject))
    expect(after.count - before.count == SENT, f"{SENT} more", after.count - before.count)
    expect(after.ns > before.ns, "more nanoseconds", f"{before.ns}, then {after.ns}")


@statistics("ext-stats-003", UNARY, "ModelStatistics.inference_count")
def rows_are_counted(subject: Subject) -> None:
    """Each row of a batch counts as an inference."""
    rows = 2
    try:
        subject.need_batch(rows)
    except NotApplicable:
        rows = 1
    before, after = _around(subject, rows)
    found = after.inference_count - before.inference_count
    expect(found == SENT * rows, f"{SENT * rows} more", found)


@statistics("ext-stats-004", UNARY, "ModelStatistics.execution_count")
def executions_are_counted(subject: Subject) -> None:
    """Requests one after another are executed, and the time of the last one is reported."""
    before, after = _around(subject)
    found = after.execution_count - before.execution_count
    expect(found >= SENT, f"at least {SENT} more", found)
    fine = after.last_inference >= before.last_inference > 0
    expect(fine, "a time that grows", f"{before.last_inference}, then {after.last_inference}")


@statistics("ext-stats-005", UNARY, "InferStatistics.queue")
def durations_are_counted(subject: Subject) -> None:
    """Queue and computing time have an entry for each success."""
    before, after = (each.inference_stats for each in _around(subject))
    for name in ("queue", "compute_input", "compute_infer", "compute_output"):
        found = getattr(after, name).count - getattr(before, name).count
        expect(found == SENT, f"{name}: {SENT} more", found)


@statistics("ext-stats-006", UNARY, "InferStatistics.success")
def refusals_are_no_successes(subject: Subject) -> None:
    """A refused request is no success."""
    version = _answering_version(subject)
    before = statistics_of(subject, version).inference_stats.success.count
    subject.refuses(subject.request({}))
    after = statistics_of(subject, version).inference_stats.success.count
    expect(after == before, str(before), after)


@statistics("ext-stats-007", SERVER, "ModelStatisticsRequest.name")
def statistics_of_unknown_model(endpoint: Endpoint) -> None:
    """The statistics of an unknown model are refused."""
    refused(endpoint, "ModelStatistics", pb.ModelStatisticsRequest(name=NO_SUCH), UNKNOWN_MODEL)


@statistics("ext-stats-008", ANY_MODEL, "ModelStatisticsRequest.name")
def statistics_of_all(subject: Subject) -> None:
    """Where no model is named, the statistics of all come."""
    answer = answered(subject.endpoint, "ModelStatistics", pb.ModelStatisticsRequest())
    names = sorted({one.name for one in answer.model_stats})
    expect(subject.model.name in names, f"{subject.model.name!r} among them", names)


@schedule("ext-param-001", UNARY, "ModelInferRequest.parameters")
def numbers_are_taken(subject: Subject) -> None:
    """The parameters priority and timeout (microseconds) are accepted as int64."""
    subject.infer(subject.request(parameters={"timeout": 30_000_000, "priority": 1}))


@parameters("ext-param-002", UNARY, "InferParameter", level=SHOULD)
def any_kind_of_number_is_taken(subject: Subject) -> None:
    """timeout is accepted as an int64, a uint64, a double or a string: clients send all of them."""
    for value in (30_000_000, 30_000_000.0, "30000000"):
        subject.infer(subject.request(parameters={"timeout": value}))
    request = subject.request()
    request.parameters["timeout"].uint64_param = 30_000_000
    subject.infer(request)
