"""The role that each method needs."""

from __future__ import annotations

INFER, ADMIN = "infer", "admin"
ROLES = (INFER, ADMIN)

_ANYBODY: frozenset[str] = frozenset()
_EITHER = frozenset(ROLES)

# One of a method's roles is enough; none means that it needs no token, as probes send none.
# What is not here is refused. Neither role holds the other: who deploys need not read texts.
NEEDED: dict[str, frozenset[str]] = {
    **dict.fromkeys(("ServerLive", "ServerReady", "ModelReady"), _ANYBODY),
    **dict.fromkeys(
        (
            "Classify", "Tag", "StreamTag", "Fill", "Generate", "Forecast", "StreamStep", "Score",
            "Embed", "ModelInfer", "ModelStreamInfer", "CreateState", "ListStates", "DeleteState",
        ),
        frozenset((INFER,)),
    ),
    **dict.fromkeys(
        (
            "ListModels", "GetModel",
            "ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex",
            # Not offered; clients that try them go on without.
            "SystemSharedMemoryStatus", "SystemSharedMemoryRegister",
            "SystemSharedMemoryUnregister", "CudaSharedMemoryStatus",
            "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister",
        ),
        _EITHER,
    ),
    **dict.fromkeys(
        ("RepositoryModelLoad", "RepositoryModelUnload", "LogSettings", "TraceSetting"),
        frozenset((ADMIN,)),
    ),
}  # fmt: skip
