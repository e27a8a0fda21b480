"""The manifest: all a service needs to know of a model, as frozen values and as JSON."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np

from bundle import schema_3
from bundle.errors import ManifestInvalid, SchemaUnknown
from bundle.frames import FrameSpec
from bundle.sampling import GRAPH_PARAMETERS, LARGEST_PENALTY, problem_of_defaults
from bundle.series import DISTRIBUTIONS, SeriesSpec
from bundle.stepping import DTYPES, SteppingSpec, problem_of, problem_of_choice
from bundle.tasks import TaskSpec, register_spec, spec_of
from bundle.time_features import FrequencyInvalid

SCHEMA_VERSION = 4

CLASSIFY = "classify"
GENERATE = "generate"
SEQ2SEQ = "seq2seq"
TAG = "tag"
FILL = "fill"
VEC2SEQ = "vec2seq"
FORECAST = "forecast"
STEP = "step"


# What a model runs in: as it was trained, or as a precision of its manifest.
FP32 = "fp32"
INT8 = "int8"

# A training's profile: all of the data, or the small model of ``--quick``.
FULL = "full"
QUICK = "quick"

# The free batch axis, first of every tensor but for those of the graph ``rows``; tokens of a
# sequence lie along the second.
BATCH = "batch"
TIME = "time"

# The free axis of a step graph's rows with penalties or a bias: which rows of the batch they are
# (``adjusted``), and the rows of the vocabulary that they alone need.
ADJUSTED = "adjusted"
ADJUSTED_INPUTS = ("adjusted", "seen", "bias")
# Uniform numbers a token, beside the first one.
RETRIES = 2

# What a step graph reads before the state, and writes before the carried state. One that was
# exported before a sampling parameter was there lacks that input alone. One of 0.2 and before has
# a row of ``seen`` and of ``bias`` for each row of the batch: it can be exported anew, not served.
STEP_INPUTS = ("token", *GRAPH_PARAMETERS, "uniform", "retries", "adjusted", "seen", "bias")
DENSE_STEP_INPUTS = tuple(name for name in STEP_INPUTS if name not in ("retries", "adjusted"))
STEP_OUTPUTS = ("next_token", "log_probability", "log_probabilities", "logits")

# What a step with attention writes after that: how much it looked at each place of the source,
# (batch, places) numbers from 0 that add up to 1. A step that was exported before lacks it.
ATTENTION = "attention"

# The same of a forecaster, whose step draws a value.
SERIES_STEP_INPUTS = ("value", "observed", "features", "uniform")
SERIES_STEP_OUTPUTS = ("next_value", "parameters")

# The limit of a model whose vector may hold values below 0: by how much at most. Without it a
# vector's values are at least 0.
BELOW_ZERO = "below_zero"

# The limit of a model whose vector may hold unknown values, as NaN: of how many at most. Without
# it each value is known.
UNKNOWN_VALUES = "unknown_values"

# The graph that moves streams between rows where their state lies on a device. Optional: in
# host memory rows move without it.
ROWS = "rows"


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a graph; a dimension is a number or the name of a free axis."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class GraphSpec:
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class StateTensor:
    """One tensor of a stream's state.

    shape: of one row, without the batch axis that the graphs put first.
    carried: each step makes it anew (as ``next_NAME``); otherwise prefill sets it for good.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    carried: bool

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def step_inputs(vocabulary: int) -> tuple[TensorSpec, ...]:
    """STEP_INPUTS as tensors. vocabulary: how many tokens, or labels, a step draws among."""
    columns = [TensorSpec(name, p.dtype, (BATCH,)) for name, p in GRAPH_PARAMETERS.items()]
    return (
        TensorSpec("token", "int64", (BATCH,)),
        *columns,
        TensorSpec("uniform", "float32", (BATCH,)),
        TensorSpec("retries", "float32", (BATCH, RETRIES)),
        TensorSpec("adjusted", "int64", (ADJUSTED,)),
        TensorSpec("seen", "bool", (ADJUSTED, vocabulary)),
        TensorSpec("bias", "float32", (ADJUSTED, vocabulary)),
    )


def series_step_inputs(features: int) -> tuple[TensorSpec, ...]:
    """SERIES_STEP_INPUTS as tensors. features: of each step."""
    return (
        TensorSpec("value", "float32", (BATCH,)),
        TensorSpec("observed", "float32", (BATCH,)),
        TensorSpec("features", "float32", (BATCH, features)),
        TensorSpec("uniform", "float32", (BATCH,)),
    )


def rows_ports(
    state: tuple[StateTensor, ...],
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of the graph ``rows``.

    Row i of ``next_NAME`` is the row of NAME and ``incoming_NAME``, one after the other, that
    ``from_carried`` names for carried tensors and ``from_fixed`` for the others.
    """
    kinds = dict.fromkeys(rows_index(tensor) for tensor in state)
    indices = [TensorSpec(kind, "int64", ("rows",)) for kind in kinds]
    current = [TensorSpec(t.name, t.dtype, (BATCH, *t.shape)) for t in state]
    incoming = [TensorSpec(f"incoming_{t.name}", t.dtype, ("incoming", *t.shape)) for t in state]
    moved = [TensorSpec(f"next_{t.name}", t.dtype, ("rows", *t.shape)) for t in state]
    return (*indices, *current, *incoming), tuple(moved)


def rows_index(tensor: StateTensor) -> str:
    """The input of the graph ``rows`` that says where each row of ``tensor`` comes from."""
    return "from_carried" if tensor.carried else "from_fixed"


@dataclass(frozen=True)
class WeightTensor:
    """Where one tensor lies in the weights file; offset in bytes."""

    dtype: str
    shape: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Weights:
    file: str
    tensors: dict[str, WeightTensor]


@dataclass(frozen=True)
class TokenizerSpec:
    """vocabulary: the key of its vocabulary in the vocabulary file."""

    kind: str
    lowercase: bool
    vocabulary: str


@dataclass(frozen=True)
class FileSpec:
    sha256: str
    bytes: int


@dataclass(frozen=True)
class FigureSpec:
    """A measured figure: what, in which unit, on how many examples of which split.

    command: that measured it. beam: hypotheses side by side, 1 for the likeliest token at each
    step, None where nothing is decoded. precision: of the graphs. profile: of the training.
    """

    name: str
    value: float
    unit: str
    split: str
    examples: int
    command: str
    beam: int | None = None
    precision: str = FP32
    profile: str = FULL


@dataclass(frozen=True)
class PrecisionSpec:
    """Another way to run the model beside fp32.

    graphs: which graph runs in place of which of the task's, with the same inputs and outputs.
    figures: measured with these graphs and with the ones they replace, on held-out data.
    """

    graphs: dict[str, str]
    figures: tuple[FigureSpec, ...]


@dataclass(frozen=True)
class DataSource:
    package: str
    version: str
    sha256: str
    licence: str


@dataclass(frozen=True)
class ExportFacts:
    """parity: the largest |ONNX - PyTorch| of each graph that the gate measured.

    tolerance: of that gate, absolute and relative at once: each number x of PyTorch's may be
    missed by tolerance + tolerance · |x|, a logit by as much with the largest |x| of its row.
    """

    torch: str
    onnx: str
    onnxruntime: str
    opset: int
    parity: dict[str, float]
    tolerance: float


# Fields of the manifest that some models have and all others lack.
_OF_SOME = ("series", "stepping", "frames", "length_penalty", "add_bos_token")


@dataclass(frozen=True)
class Manifest:
    """task: one that ``bundle/tasks.py`` knows.
    model: the configuration training built the model from, for export to build it again; empty
    for a model that was not trained here.
    limits: the largest inputs and outputs in tokens (``input_tokens``, ``output_tokens``); of a
    forecaster in values (``context``, ``horizon``); of a classifier of frames in these
    (``input_frames``); of a model whose vector may hold values below 0, by how much
    (``below_zero``), and of one whose values may be unknown, of how many (``unknown_values``).
    labels: of a classifier or tagger; the words that a fill-in model chooses among.
    vector: names, with units, of the values of the vector that prefills the model.
    precisions: what the model can run in beside fp32, such as ``int8``.
    files: every other file of the bundle by name.
    series: that a forecaster reads. stepping: how a model is stepped over numbers. frames: that a
    classifier of numbers reads. length_penalty: of a beam search that does not choose one, where it
    is not 1. add_bos_token: of a generator, whether each text is read after the beginning's token,
    and not the empty one alone. Each is left out of the JSON of every other model.
    """

    schema_version: int
    name: str
    version: int
    task: str
    description: str
    model: dict[str, Any]
    graphs: dict[str, GraphSpec]
    weights: Weights
    state: tuple[StateTensor, ...]
    tokenizers: dict[str, TokenizerSpec]
    vocabulary_file: str
    labels: tuple[str, ...]
    vector: tuple[str, ...]
    sampling: dict[str, int | float]
    limits: dict[str, int]
    figures: tuple[FigureSpec, ...]
    precisions: dict[str, PrecisionSpec]
    data: tuple[DataSource, ...]
    training: dict[str, Any]
    export: ExportFacts
    files: dict[str, FileSpec] = field(default_factory=dict)
    series: SeriesSpec | None = None
    stepping: SteppingSpec | None = None
    frames: FrameSpec | None = None
    length_penalty: float | None = None
    add_bos_token: bool | None = None

    def to_json(self) -> dict[str, Any]:
        content = dataclasses.asdict(self)
        for name in _OF_SOME:
            if content[name] is None:
                del content[name]
        return content

    @property
    def attended(self) -> int:
        """Places of the source that a step says it looks at; 0 where it says nothing of them."""
        step = self.graphs.get("step")
        ports = step.outputs[len(STEP_OUTPUTS) : len(STEP_OUTPUTS) + 1] if step else ()
        if not ports or ports[0].name != ATTENTION:
            return 0
        places = ports[0].shape[-1]
        return places if isinstance(places, int) else 0

    @classmethod
    def from_json(cls, content: Any) -> Manifest:
        """Raises SchemaUnknown for another schema version, ManifestInvalid for all else."""
        if not isinstance(content, Mapping):
            raise ManifestInvalid("it does not hold an object")
        found = content.get("schema_version")
        if found == schema_3.VERSION:
            content = schema_3.upgraded(content, SCHEMA_VERSION)
        elif found != SCHEMA_VERSION:
            raise SchemaUnknown(
                f"it has schema version {found!r}, this release reads {schema_3.VERSION} "
                f"and {SCHEMA_VERSION}"
            )
        absent = dict.fromkeys(_OF_SOME)
        manifest: Manifest = _decode(cls, {**absent, **content}, "manifest")
        _check(manifest)
        return manifest


def _check(manifest: Manifest) -> None:
    spec = spec_of(manifest.task)
    for what, wanted, given in (
        ("graph", spec.graphs, manifest.graphs),
        ("tokenizer", spec.tokenizers, manifest.tokenizers),
        ("limit", tuple(f"{role}_tokens" for role in spec.tokenizers), manifest.limits),
    ):
        missing = [name for name in wanted if name not in given]
        if missing:
            raise ManifestInvalid(f"task {manifest.task!r} needs the {what} {missing[0]!r}")
    if problem := problem_of_defaults(manifest.sampling):
        raise ManifestInvalid(f"sampling: {problem}")
    penalty = manifest.length_penalty
    if penalty is not None and not -LARGEST_PENALTY <= penalty <= LARGEST_PENALTY:
        raise ManifestInvalid(
            f"length_penalty is {penalty:g}; choose -{LARGEST_PENALTY:g} to {LARGEST_PENALTY:g}"
        )
    if manifest.add_bos_token and manifest.task != GENERATE:
        raise ManifestInvalid(f"add_bos_token is for the task {GENERATE!r} alone")
    _check_files(manifest)
    _check_precisions(manifest)
    spec.check(manifest)


def _check_files(manifest: Manifest) -> None:
    graph_files = [graph.file for graph in manifest.graphs.values()]
    for name in (*manifest.files, *graph_files, manifest.weights.file, manifest.vocabulary_file):
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            raise ManifestInvalid(f"file name {name!r} is not a plain name")
        if name not in manifest.files:
            raise ManifestInvalid(f"file {name!r} is used but has no hash in the manifest")


def _check_precisions(manifest: Manifest) -> None:
    for precision, spec in manifest.precisions.items():
        for replaced, graph in spec.graphs.items():
            for name in (replaced, graph):
                if name not in manifest.graphs:
                    raise ManifestInvalid(f"precision {precision!r} names no graph: {name!r}")
            ours, theirs = manifest.graphs[graph], manifest.graphs[replaced]
            _expect(f"inputs of {graph!r}", theirs.inputs, ours.inputs)
            _expect(f"outputs of {graph!r}", theirs.outputs, ours.outputs)


def _check_state(manifest: Manifest) -> None:
    """The state is what the step graph reads, and what is carried is what it writes."""
    state = [TensorSpec(t.name, t.dtype, (BATCH, *t.shape)) for t in manifest.state]
    carried = [
        TensorSpec(f"next_{t.name}", t.dtype, (BATCH, *t.shape))
        for t in manifest.state
        if t.carried
    ]
    step = manifest.graphs["step"]
    controls = [port.name for port in takewhile(lambda p: p.name in STEP_INPUTS, step.inputs)]
    count = len(controls)
    needed = [name for name in STEP_INPUTS if name not in GRAPH_PARAMETERS]
    given = [name for name in controls if name not in GRAPH_PARAMETERS]
    if given != [name for name in DENSE_STEP_INPUTS if name not in GRAPH_PARAMETERS]:
        _expect("step's controls", needed, given)
    _expect("state", tuple(state), step.inputs[count:])
    written = step.outputs[len(STEP_OUTPUTS) :]
    if places := manifest.attended:
        _expect("attention", TensorSpec(ATTENTION, "float32", (BATCH, places)), written[0])
        written = written[1:]
    _expect("carried state", tuple(carried), written)
    if ROWS in manifest.graphs:
        rows, (inputs, outputs) = manifest.graphs[ROWS], rows_ports(manifest.state)
        _expect("inputs of 'rows'", inputs, rows.inputs)
        _expect("outputs of 'rows'", outputs, rows.outputs)


def _check_labels(manifest: Manifest, *free: str) -> None:
    """free: the axes of the predictions before that of the labels."""
    _expect("labels", (*free, len(manifest.labels)), _output(manifest, "predict", 0).shape)


def _check_classes(manifest: Manifest) -> None:
    _check_labels(manifest, BATCH)


def _check_classifier(manifest: Manifest) -> None:
    """It reads texts, or frames; the latter step by step too, where it has the graph."""
    _check_classes(manifest)
    spec, predict = manifest.frames, manifest.graphs["predict"]
    if spec is None:
        if "input" not in manifest.tokenizers or "input_tokens" not in manifest.limits:
            raise ManifestInvalid(
                "a classifier needs the tokenizer 'input' and the limit 'input_tokens', or the "
                "field 'frames'"
            )
        if "step" in manifest.graphs:
            raise ManifestInvalid("a classifier of texts is not stepped; leave the graph 'step'")
        return
    if problem := spec.problem:
        raise ManifestInvalid(f"frames: {problem}")
    if manifest.limits.get("input_frames", 0) < 1:
        raise ManifestInvalid("a classifier of frames needs the limit 'input_frames', at least 1")
    read = (
        TensorSpec("frames", "float32", (BATCH, TIME, len(spec.channels))),
        TensorSpec("lengths", "int64", (BATCH,)),
    )
    _expect("frames", read, predict.inputs)
    if "step" in manifest.graphs:
        _check_stepping(manifest)


def _check_tagger(manifest: Manifest) -> None:
    _check_labels(manifest, BATCH, TIME)
    if "step" in manifest.graphs:
        _check_state(manifest)


def _check_generator(manifest: Manifest) -> None:
    _check_state(manifest)
    if manifest.state and "prime" not in manifest.graphs:
        raise ManifestInvalid("a generator that carries a state needs the graph 'prime'")


def _check_seq2seq(manifest: Manifest) -> None:
    _check_state(manifest)
    _check_memory(manifest)


def _check_vec2seq(manifest: Manifest) -> None:
    _check_state(manifest)
    (vector,) = manifest.graphs["prime"].inputs
    _expect("vector", (BATCH, len(manifest.vector)), vector.shape)


def _check_forecaster(manifest: Manifest) -> None:
    spec = manifest.series
    if spec is None:
        raise ManifestInvalid("a forecaster needs the field 'series'")
    if spec.distribution not in DISTRIBUTIONS:
        raise ManifestInvalid(
            f"distribution {spec.distribution!r} is not one of {', '.join(DISTRIBUTIONS)}"
        )
    try:
        features = spec.features_size
    except FrequencyInvalid as error:
        raise ManifestInvalid(str(error)) from error
    for name in ("context", "horizon"):
        if manifest.limits.get(name, 0) < 1:
            raise ManifestInvalid(f"task {manifest.task!r} needs the limit {name!r}, at least 1")
    if not 1 <= spec.least_context <= manifest.limits["context"]:
        raise ManifestInvalid(
            f"least_context is {spec.least_context}, and the limit context "
            f"{manifest.limits['context']}"
        )
    step = manifest.graphs["step"]
    controls, outputs = len(SERIES_STEP_INPUTS), len(SERIES_STEP_OUTPUTS)
    _expect("step's inputs", series_step_inputs(features), step.inputs[:controls])
    _expect("state", _ports(manifest.state, ""), step.inputs[controls:])
    carried = tuple(tensor for tensor in manifest.state if tensor.carried)
    _expect("carried state", _ports(carried, "next_"), step.outputs[outputs:])


def _check_stepping(manifest: Manifest) -> None:
    """The graph reads the frames, what is shared and the state; it writes the answers and what is
    carried. Rows are the first axis of all but what is shared."""
    spec = manifest.stepping
    if spec is None:
        raise ManifestInvalid("a model that is stepped needs the field 'stepping'")
    if problem := problem_of(spec):
        raise ManifestInvalid(f"stepping: {problem}")
    if manifest.limits.get("message_steps", 0) < 1:
        raise ManifestInvalid(f"task {manifest.task!r} needs the limit 'message_steps', at least 1")
    step = manifest.graphs["step"]
    names = [port.name for port in step.inputs]
    given = [*spec.frames, *(shared.name for shared in spec.shared)]
    _expect("frames and shared inputs", given, names[: len(given)])
    _expect("state", _ports(manifest.state, ""), step.inputs[len(given) :])
    answers = tuple(port.name for port in step.outputs[: len(spec.answers)])
    _expect("answers", spec.answers, answers)
    _expect("carried state", _ports(manifest.state, "next_"), step.outputs[len(answers) :])
    _check_ports_of_step(step, spec)


def _check_ports_of_step(step: GraphSpec, spec: SteppingSpec) -> None:
    choices = {shared.name: shared.choices for shared in spec.shared}
    for port in (*step.inputs, *step.outputs):
        rows = () if port.name in choices else (BATCH,)
        if port.dtype not in DTYPES:
            raise ManifestInvalid(f"{port.name!r} is of type {port.dtype!r}, not a number")
        of_row = port.shape[len(rows) :]
        if port.shape[: len(rows)] != rows or not all(
            type(size) is int and size > 0 for size in of_row
        ):
            raise ManifestInvalid(f"{port.name!r} has the shape {list(port.shape)}")
        for value in choices.get(port.name, ()):
            if problem := problem_of_choice(port.dtype, value):
                raise ManifestInvalid(f"a choice of {port.name!r}: {problem}")


def _ports(state: tuple[StateTensor, ...], prefix: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(f"{prefix}{t.name}", t.dtype, (BATCH, *t.shape)) for t in state)


def _check_memory(manifest: Manifest) -> None:
    """A source's memory holds the longest source."""
    limit = manifest.limits["input_tokens"]
    for tensor in manifest.state:
        if not tensor.carried and limit > tensor.shape[0]:
            raise ManifestInvalid(
                f"the limit input_tokens is {limit}, and {tensor.name!r} holds {tensor.shape[0]}"
            )


def _output(manifest: Manifest, graph: str, number: int) -> TensorSpec:
    outputs = manifest.graphs[graph].outputs
    if len(outputs) <= number:
        raise ManifestInvalid(f"graph {graph!r} has {len(outputs)} outputs")
    return outputs[number]


def _expect(what: str, wanted: object, given: object) -> None:
    if wanted != given:
        raise ManifestInvalid(f"{what}: {wanted} does not match the graph's {given}")


# A tagger that reads from left to right alone has a ``step`` too, and so does such a classifier of
# frames; a generator that carries no state has no ``prime``. Vectors and frames need no tokenizer.
_INPUT, _BOTH = ("input",), ("input", "output")
for _spec in (
    TaskSpec(CLASSIFY, ("predict",), ("step",), (), _check_classifier),
    TaskSpec(TAG, ("predict",), ("step",), _INPUT, _check_tagger),
    TaskSpec(FILL, ("predict",), (), _INPUT, _check_classes),
    TaskSpec(GENERATE, ("step", "score"), ("prime",), _BOTH, _check_generator),
    TaskSpec(SEQ2SEQ, ("prime", "step", "score"), (), _BOTH, _check_seq2seq),
    TaskSpec(VEC2SEQ, ("prime", "step", "score"), (), ("output",), _check_vec2seq),
    TaskSpec(FORECAST, ("prime", "step"), (), (), _check_forecaster),
    TaskSpec(STEP, ("step",), (), (), _check_stepping),
):
    register_spec(_spec)


def _decode(wanted: Any, content: Any, where: str) -> Any:
    """``content``, as JSON gave it, as a value of the type ``wanted``; strict about both."""
    if dataclasses.is_dataclass(wanted):
        return _decode_object(wanted, content, where)
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is tuple and isinstance(content, list | tuple):
        return tuple(_decode(arguments[0], part, f"{where}[{i}]") for i, part in enumerate(content))
    if origin is dict and isinstance(content, Mapping):
        return {key: _decode(arguments[1], part, f"{where}.{key}") for key, part in content.items()}
    if origin is types.UnionType and type(content) in arguments:
        return content
    if origin is types.UnionType and dataclasses.is_dataclass(arguments[0]):
        return _decode_object(arguments[0], content, where)
    if wanted is Any:
        return content
    if wanted is float and type(content) in (int, float):
        return float(content)
    if isinstance(wanted, type) and type(content) is wanted:
        return content
    raise ManifestInvalid(f"{where} is {content!r}, not of type {wanted}")


@functools.cache
def _hints_of(wanted: type) -> dict[str, Any]:
    """The types of its fields; reading them from text takes most of the time of decoding."""
    return typing.get_type_hints(wanted)


def _decode_object(wanted: Any, content: Any, where: str) -> Any:
    if not isinstance(content, Mapping):
        raise ManifestInvalid(f"{where} is {content!r}, not an object")
    hints = _hints_of(wanted)
    missing, unknown = sorted(hints.keys() - content.keys()), sorted(content.keys() - hints.keys())
    if missing or unknown:
        raise ManifestInvalid(f"{where}: missing fields {missing}, unknown fields {unknown}")
    return wanted(**{key: _decode(hints[key], content[key], f"{where}.{key}") for key in hints})
