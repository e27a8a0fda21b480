"""The model card: public facts of a served model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bundle.frames import FrameSpec
from bundle.manifest import DataSource, FigureSpec, StateTensor
from bundle.series import SeriesSpec
from bundle.stepping import EXACT
from service.step_model import StepperSpec


@dataclass(frozen=True)
class Floor:
    """What a figure is without a network. by: what answered instead. split: with which that of the
    figure begins."""

    figure: str
    split: str
    by: str
    value: float

    def is_of(self, figure: FigureSpec) -> bool:
        return self.figure == figure.name and figure.split.startswith(self.split)


@dataclass(frozen=True)
class ModelCard:
    """What anyone may know of a served model.

    task: ``classify``, ``tag``, ``fill``, ``generate``, ``seq2seq``, ``vec2seq``, ``forecast`` or
        ``step``.
    labels: of a classifier or tagger; the words that a fill-in model chooses among.
    vector_fields: the values of the vector that prefills it, with their units.
    streams_tags: whether it labels a token before the next one is there.
    provider: what executes it.
    precision: what it runs in. precisions: what its bundle can run in, ``fp32`` first.
    vocabulary: the symbol of each output token by id; none where it makes none.
    input_ids: ids below it can be read; 0 for a model that reads a vector. state: of a row that is
        stepped, none for a model that is not. attended: places of the source that a step says it
        looks at; 0 for a model that says nothing of them.
    batch_invariant: whether rows were found to give the same bits in any batch, at load. batching:
        how they are run together here, of bundle.stepping.BATCHING. batching_reason: why that is
        not exact; empty where it is.
    fingerprint: hash of what was computed then, equal where kernels round alike.
    cpu_extensions: of this machine, by which kernels are chosen; no part of the fingerprint.
    sampling: the model's own defaults of sampling parameters, by name. missing_parameters: those
        that its step graph does not read.
    bundle_bytes: of all its files.
    length_penalty: of a beam search that does not choose one.
    series: that a forecaster reads. stepper: how a model of StreamStep is stepped. embeds: whether
        a text's state is answered as a vector. floors: of its figures. frames: that a classifier of
        numbers reads.
    """

    name: str
    version: str
    task: str
    description: str
    labels: tuple[str, ...]
    vector_fields: tuple[str, ...]
    streams_tags: bool
    limits: Mapping[str, int]
    sampling: Mapping[str, float]
    figures: tuple[FigureSpec, ...]
    data: tuple[DataSource, ...]
    digest: str
    provider: str
    precision: str
    precisions: tuple[str, ...]
    vocabulary: tuple[str, ...]
    input_ids: int
    state: tuple[StateTensor, ...]
    batch_invariant: bool
    fingerprint: str
    cpu_extensions: tuple[str, ...] = ()
    missing_parameters: tuple[str, ...] = ()
    bundle_bytes: int = 0
    series: SeriesSpec | None = None
    stepper: StepperSpec | None = None
    embeds: bool = False
    floors: tuple[Floor, ...] = ()
    frames: FrameSpec | None = None
    attended: int = 0
    length_penalty: float = 1.0
    batching: str = EXACT
    batching_reason: str = ""
