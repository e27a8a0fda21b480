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
    precision: what it runs in. precisions: what its bundle can run in, ``fp32`` first.
    vocabulary: the symbol of each output token by id; none for a classifier.
    batch_invariant: whether rows were found to give the same bits in any batch, at load.
    fingerprint: hash of what was computed then, equal where kernels round alike.
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
    precision: str
    precisions: tuple[str, ...]
    vocabulary: tuple[str, ...]
    batch_invariant: bool
    fingerprint: str
