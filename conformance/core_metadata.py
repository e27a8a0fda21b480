"""Core: health and metadata."""

from __future__ import annotations

import grpc

from conformance import protocol as pb
from conformance.cases import (
    ANY_MODEL,
    CORE,
    SERVER,
    SHOULD,
    NotApplicable,
    Section,
    expect,
)
from conformance.endpoint import Endpoint
from conformance.subjects import NO_SUCH, UNKNOWN_MODEL, Subject, answered, refused, status_of
from conformance.tensors import DATATYPES

UNKNOWN_VERSION = "987654321"

live = Section(CORE, "ServerLive")
server_ready = Section(CORE, "ServerReady")
ready = Section(CORE, "ModelReady")
server_metadata = Section(CORE, "ServerMetadata")
metadata = Section(CORE, "ModelMetadata")


@live("core-live-001", SERVER, "ServerLiveResponse.live")
def server_is_live(endpoint: Endpoint) -> None:
    """ServerLive says that the server is live."""
    expect(answered(endpoint, "ServerLive", pb.ServerLiveRequest()).live, "live: true", "false")


@server_ready("core-ready-001", SERVER, "ServerReadyResponse.ready")
def server_is_ready(endpoint: Endpoint) -> None:
    """ServerReady says that the server is ready."""
    expect(answered(endpoint, "ServerReady", pb.ServerReadyRequest()).ready, "ready: true", "false")


@ready("core-ready-002", ANY_MODEL, "ModelReadyResponse.ready")
def model_is_ready(subject: Subject) -> None:
    """A model that answers is ready, in each version its metadata lists."""
    for version in ("", *subject.model.versions):
        request = pb.ModelReadyRequest(name=subject.model.name, version=version)
        is_ready = answered(subject.endpoint, "ModelReady", request).ready
        expect(is_ready, f"version {version!r} ready", "ready: false")


def never_ready(endpoint: Endpoint, name: str, version: str = "") -> None:
    """Either ready: false, or a status that says that it is unknown."""
    try:
        response = endpoint.call("ModelReady", pb.ModelReadyRequest(name=name, version=version))
    except grpc.RpcError as error:
        expect(error.code() in UNKNOWN_MODEL, "ready: false, or NOT_FOUND", status_of(error))
    else:
        expect(not response.ready, "ready: false, or NOT_FOUND", "ready: true")


@ready("core-ready-003", SERVER, "ModelReadyRequest.name")
def unknown_model_is_not_ready(endpoint: Endpoint) -> None:
    """An unknown model is not ready."""
    never_ready(endpoint, NO_SUCH)


@ready("core-ready-004", ANY_MODEL, "ModelReadyRequest.version")
def unknown_version_is_not_ready(subject: Subject) -> None:
    """An unknown version of a model is not ready."""
    _need_versions(subject)
    never_ready(subject.endpoint, subject.model.name, UNKNOWN_VERSION)


def _need_versions(subject: Subject) -> None:
    if not subject.model.versions:
        raise NotApplicable("its metadata lists no versions")


@server_metadata("core-meta-001", SERVER, "ServerMetadataResponse.name")
def server_has_a_name(endpoint: Endpoint) -> None:
    """The server has a name and a version."""
    answer = answered(endpoint, "ServerMetadata", pb.ServerMetadataRequest())
    expect(bool(answer.name), "a name", "an empty one")
    expect(bool(answer.version), "a version", "an empty one")


@server_metadata("core-meta-002", SERVER, "ServerMetadataResponse.extensions")
def extensions_are_named_once(endpoint: Endpoint) -> None:
    """Each extension is named once."""
    names = list(answered(endpoint, "ServerMetadata", pb.ServerMetadataRequest()).extensions)
    expect(all(names) and len(set(names)) == len(names), "distinct names", names)


def metadata_of(subject: Subject, version: str = "") -> pb.ModelMetadataResponse:
    request = pb.ModelMetadataRequest(name=subject.model.name, version=version)
    return answered(subject.endpoint, "ModelMetadata", request)


@metadata("core-meta-003", ANY_MODEL, "ModelMetadataResponse.name")
def metadata_names_the_model(subject: Subject) -> None:
    """A model's metadata names the requested model."""
    found = metadata_of(subject).name
    expect(found == subject.model.name, repr(subject.model.name), repr(found))


@metadata("core-meta-004", ANY_MODEL, "ModelMetadataResponse.platform", level=SHOULD)
def model_has_a_platform(subject: Subject) -> None:
    """A model has a platform."""
    expect(bool(metadata_of(subject).platform), "a platform", "an empty one")


@metadata("core-meta-005", ANY_MODEL, "ModelMetadataRequest.version")
def listed_versions_have_metadata(subject: Subject) -> None:
    """Each listed version has metadata of its own."""
    _need_versions(subject)
    for version in subject.model.versions:
        found = list(metadata_of(subject, version).versions)
        expect(version in found, f"version {version!r} among its versions", found)


@metadata("core-meta-006", ANY_MODEL, "TensorMetadata.name")
def tensors_have_names(subject: Subject) -> None:
    """Tensors have names, and no two inputs or outputs share one."""
    for tensors in (subject.model.inputs, subject.model.outputs):
        names = [tensor.name for tensor in tensors]
        expect(bool(names), "inputs and outputs", "none")
        expect(all(names) and len(set(names)) == len(names), "distinct names", names)


@metadata("core-meta-007", ANY_MODEL, "TensorMetadata.datatype")
def datatypes_are_known(subject: Subject) -> None:
    """Datatypes are those of the protocol."""
    for tensor in (*subject.model.inputs, *subject.model.outputs):
        expect(
            tensor.datatype in DATATYPES,
            f"{tensor.name}: one of {', '.join(DATATYPES)}",
            repr(tensor.datatype),
        )


@metadata("core-meta-008", ANY_MODEL, "TensorMetadata.shape")
def dimensions_are_positive(subject: Subject) -> None:
    """Dimensions are positive, or -1 where they vary."""
    for tensor in (*subject.model.inputs, *subject.model.outputs):
        fine = all(size == -1 or size > 0 for size in tensor.shape)
        expect(fine, f"{tensor.name}: -1 or positive", list(tensor.shape))


@metadata("core-meta-009", SERVER, "ModelMetadataRequest.name")
def metadata_of_unknown_model(endpoint: Endpoint) -> None:
    """The metadata of an unknown model is refused."""
    refused(endpoint, "ModelMetadata", pb.ModelMetadataRequest(name=NO_SUCH), UNKNOWN_MODEL)


@metadata("core-meta-010", ANY_MODEL, "ModelMetadataRequest.version")
def metadata_of_unknown_version(subject: Subject) -> None:
    """The metadata of an unknown version is refused."""
    _need_versions(subject)
    request = pb.ModelMetadataRequest(name=subject.model.name, version=UNKNOWN_VERSION)
    refused(subject.endpoint, "ModelMetadata", request, UNKNOWN_MODEL)
