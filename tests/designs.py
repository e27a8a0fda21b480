"""Every design that the options of a model describe, as tiny untrained models.

A design is one value for each option. Most of them make sense together; what does not is
refused when the configuration is made, and then the design does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import combinations, product

from tests import tiny
from training.checkpoint import TrainedModel
from training.models import Config, DesignInvalid
from training.models.classifier import ClassifierConfig
from training.models.fill import FillConfig
from training.models.generator import GeneratorConfig
from training.models.options import RecurrentOptions
from training.models.seq2seq import Seq2SeqConfig
from training.models.tagger import TaggerConfig
from training.models.vec2seq import VectorToSequenceConfig

OPTIONS: dict[str, tuple[object, ...]] = {
    "model": (
        "classifier", "tagger", "fill", "generator", "vec2seq", "seq2seq", "seq2seq-attention",
    ),
    "cell": ("rnn", "gru", "lstm"),
    "recurrence": ("hidden", "output", "hidden_and_output"),
    "bidirectional": (False, True),
    "layers": (1, 2),
    "input_mlp": (0, 1),
    "transition_mlp": (0, 1),
    "output_mlp": (0, 1),
    "skip": (False, True),
}  # fmt: skip

Design = tuple[object, ...]  # one value for each option, in their order
Pair = frozenset[tuple[str, object]]

# So small that no design, shortcuts around its transition included, makes more of a rounding error
# from step to step: with 0.6 some random weights did, and two right answers drifted apart.
_LARGEST_WEIGHT = 0.3
_EMBEDDING = 6
_HIDDEN = 9
_LETTERS = len(tiny.LETTER_READER.vocabulary)
_WORDS = len(tiny.WORD_READER.vocabulary)
_MARKED = len(tiny.MARKED_WORD_READER.vocabulary)
_PHONES = len(tiny.PHONE_WRITER.vocabulary)


def _seq2seq(recurrent: RecurrentOptions, attention: bool) -> Seq2SeqConfig:
    # Attention of scores that are not scaled is in tiny.seq2seq().
    return Seq2SeqConfig(
        _LETTERS, _PHONES, _EMBEDDING, recurrent, tiny.SOURCE_LIMIT,
        attention=attention, scaled=attention,
    )  # fmt: skip


_CONFIGS: dict[object, Callable[[RecurrentOptions], Config]] = {
    "classifier": lambda r: ClassifierConfig(_WORDS, 2, _EMBEDDING, r),
    "tagger": lambda r: TaggerConfig(
        _WORDS, len(tiny.TAGS), _EMBEDDING, r, label_embedding_size=4 if r.reads_output else 0
    ),
    "fill": lambda r: FillConfig(_MARKED, 4, _EMBEDDING, r),
    "generator": lambda r: GeneratorConfig(_LETTERS, _EMBEDDING, r),
    "vec2seq": lambda r: VectorToSequenceConfig(len(tiny.NUTRIENTS), _PHONES, _EMBEDDING, 5, r),
    "seq2seq": lambda r: _seq2seq(r, attention=False),
    "seq2seq-attention": lambda r: _seq2seq(r, attention=True),
}


def config_of(design: Design) -> Config:
    """Raises DesignInvalid for options that do not go together."""
    model, *others = design
    options = dict(zip(list(OPTIONS)[1:], others, strict=True))
    return _CONFIGS[model](RecurrentOptions(hidden_size=_HIDDEN, **options))  # type: ignore[arg-type]


def trained_of(design: Design) -> TrainedModel:
    """A tiny model of the design with random weights."""
    config, model, name = config_of(design), design[0], name_of(design)
    made = partial(tiny.trained, name, config, largest=_LARGEST_WEIGHT)
    letters, words, phones = tiny.LETTER_READER, tiny.WORD_READER, tiny.PHONE_WRITER
    if model == "classifier":
        return made({"input": words}, labels=("sad", "glad"))
    if model == "tagger":
        return made({"input": words}, labels=tiny.TAGS)
    if model == "fill":
        readers = {"input": tiny.MARKED_WORD_READER}
        return made(readers, labels=tiny.WORDS[:4])
    if model == "generator":
        return made({"input": letters, "output": letters})
    if model == "vec2seq":
        limits = {"output_tokens": 60}
        return made({"output": phones}, limits=limits, vector=tiny.NUTRIENTS)
    limits = {"input_tokens": tiny.SOURCE_LIMIT, "output_tokens": 60}
    return made({"input": letters, "output": phones}, limits=limits)


def name_of(design: Design) -> str:
    """Short, and good for a folder: what differs from the simplest design."""
    model, cell, recurrence, bidirectional, layers, *mlps, skip = design
    parts = [str(model), str(cell)]
    parts += [str(recurrence)] if recurrence != "hidden" else []
    parts += ["both"] if bidirectional else []
    parts += [f"{layers}layers"] if layers != 1 else []
    parts += [name for name, depth in zip(("in", "trans", "out"), mlps, strict=True) if depth]
    parts += ["skip"] if skip else []
    return "-".join(parts)


@cache
def valid_designs() -> tuple[Design, ...]:
    return tuple(design for design in product(*OPTIONS.values()) if _exists(design))


def _exists(design: Design) -> bool:
    try:
        config_of(design)
    except DesignInvalid:
        return False
    return True


def pairs_of(design: Design) -> frozenset[Pair]:
    """Every pair of option values that the design has."""
    return frozenset(frozenset(pair) for pair in combinations(zip(OPTIONS, design, strict=True), 2))


def every_pair() -> Iterator[Pair]:
    for (one, values), (other, others) in combinations(OPTIONS.items(), 2):
        for pair in product(values, others):
            yield frozenset(zip((one, other), pair, strict=True))


def covering(designs: Iterable[Design]) -> list[Design]:
    """Few designs that together have every pair that any of ``designs`` has; greedy."""
    left = {design: pairs_of(design) for design in designs}
    missing = set().union(*left.values())
    chosen = []
    while missing:
        best = max(left, key=lambda design: len(left[design] & missing))
        missing -= left.pop(best)
        chosen.append(best)
    return chosen
