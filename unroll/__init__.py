"""Client of Unroll, which serves recurrent networks over gRPC.

``Client`` blocks, ``AsyncClient`` is for event loops. The stubs lie beside them, in ``unroll.v1``
and ``unroll.inference``: whoever imports those alone, as the service does, loads no client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unroll.channel import NO_RETRIES, RETRIES, Retries, TargetInvalid, Tls
    from unroll.clients import AsyncClient, Client
    from unroll.forecasts import (
        ForecastChunk,
        ForecastEnd,
        ForecastOptions,
        ForecastStep,
        Series,
    )
    from unroll.sampling import Sampling, SamplingKeywords
    from unroll.step_streams import (
        Frame,
        StepChunk,
        StepOptions,
        StepResult,
        StepStreamEnd,
    )
    from unroll.tag_streams import TagChunk, TagStreamEnd, TagStreamOptions
    from unroll.types import (
        Answer,
        Beam,
        Chunk,
        Classification,
        Embedding,
        FilledBlank,
        GenerateOptions,
        ModelState,
        NamedState,
        NextToken,
        OptionInvalid,
        RequestFailed,
        ResumePoint,
        SampleEnd,
        ScoredChoice,
        ScoredText,
        StateChange,
        TaggedText,
        TaggedToken,
        Token,
        Watch,
    )

__version__ = "0.2.0"

__all__ = [
    "NO_RETRIES",
    "RETRIES",
    "Answer",
    "AsyncClient",
    "Beam",
    "Chunk",
    "Classification",
    "Client",
    "Embedding",
    "FilledBlank",
    "ForecastChunk",
    "ForecastEnd",
    "ForecastOptions",
    "ForecastStep",
    "Frame",
    "GenerateOptions",
    "ModelState",
    "NamedState",
    "NextToken",
    "OptionInvalid",
    "RequestFailed",
    "ResumePoint",
    "Retries",
    "SampleEnd",
    "Sampling",
    "SamplingKeywords",
    "ScoredChoice",
    "ScoredText",
    "Series",
    "StateChange",
    "StepChunk",
    "StepOptions",
    "StepResult",
    "StepStreamEnd",
    "TagChunk",
    "TagStreamEnd",
    "TagStreamOptions",
    "TaggedText",
    "TaggedToken",
    "TargetInvalid",
    "Tls",
    "Token",
    "Watch",
]

# Modules of all other names are unroll.types.
_HOMES = {
    **dict.fromkeys(("NO_RETRIES", "RETRIES", "Retries", "TargetInvalid", "Tls"), "channel"),
    **dict.fromkeys(("AsyncClient", "Client"), "clients"),
    **dict.fromkeys(
        ("ForecastChunk", "ForecastEnd", "ForecastOptions", "ForecastStep", "Series"), "forecasts"
    ),
    **dict.fromkeys(("Sampling", "SamplingKeywords"), "sampling"),
    **dict.fromkeys(
        ("Frame", "StepChunk", "StepOptions", "StepResult", "StepStreamEnd"), "step_streams"
    ),
    **dict.fromkeys(("TagChunk", "TagStreamEnd", "TagStreamOptions"), "tag_streams"),
}


def __getattr__(name: str) -> Any:
    """Load a public name's module when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'types')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
