"""What anyone may know of a served model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from service.engine.requests import SamplingShape


@dataclass(frozen=True)
class Figure:
    name: str
    value: float
    unit: str
    split: str
    examples: int


@dataclass(frozen=True)
class DataSource:
    package: str
    version: str
    licence: str


@dataclass(frozen=True)
class ModelCard:
    """What anyone may know of a served model.

    task: ``classify``, ``generate`` or ``seq2seq``. provider: what executes it.
    """

    name: str
    version: str
    task: str
    description: str
    labels: tuple[str, ...]
    limits: Mapping[str, int]
    sampling: SamplingShape
    figures: tuple[Figure, ...]
    data: tuple[DataSource, ...]
    digest: str
    provider: str
    precision: str = "fp32"
    precisions: tuple[str, ...] = ("fp32",)
    vocabulary: tuple[str, ...] = ()
    batch_invariant: bool = False
    fingerprint: str = ""
