"""The table of sampling parameters: the numbers that shape how a token is drawn.

Each is declared here once. The inputs of a step graph, the columns of an engine's rows, the
checks and the error texts of requests, the converters of both protocols, the probe at load and
the parity gate's random inputs are made from the rows. What a parameter computes stands in
export/sampler.py, or in service/engine/logits_processor.py where it follows what was made.

A seed and lists of token ids are no rows: they have no range, and no value that changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

# The wire carries a float32, which may lie beside the limit that was meant.
_ROUNDING = 1e-6

# Of a beam search's length penalty, either way; it is a request's or the model's, and no row.
LARGEST_PENALTY = 10.0


@dataclass(frozen=True)
class SamplingParameter:
    """One number that a request may choose.

    name: of its field in unroll.v1's ``Sampling``, of its parameter in the Open Inference
        Protocol, and in resume tokens and manifests.
    description: what it does; the paper where it has one.
    dtype: of its column, ``float32``, or ``int64`` for a whole number.
    default: where neither the request nor the model's manifest says.
    least, most: its range, both ends included, but for ``least`` if ``is_open_below``.
    smallest_positive: numbers above 0 and below it are refused; 0 for none.
    neutral: the value that changes nothing.
    graph_input: the input of the step graph that it becomes; None for one that the service
        itself applies, through the graph's input ``bias``.
    probe: what the probe at load sets, so that the kernels behind it run.
    parity: what the parity gate chooses among, row by row.
    """

    name: str
    description: str
    dtype: str
    default: float
    least: float
    most: float
    neutral: float
    graph_input: str | None
    probe: float
    parity: tuple[float, ...] = ()
    is_open_below: bool = False
    smallest_positive: float = 0.0

    @property
    def is_whole(self) -> bool:
        return self.dtype == "int64"

    def problem(self, value: float) -> str | None:
        """What is wrong with ``value``, for an error message; None for one in range.

        Ends of the range may be missed by the rounding of a float32. NaN is out of range.
        """
        if self.is_open_below:
            is_inside = self.least < value <= self.most + _ROUNDING
            choices = f"one above {self.least:g} and up to {self.most:g}"
        else:
            is_inside = self.least - _ROUNDING <= value <= self.most + _ROUNDING
            choices = f"one from {self.least:g} to {self.most:g}"
        if is_inside and 0 < value < self.smallest_positive * (1 - _ROUNDING):
            is_inside, choices = False, f"0 or at least {self.smallest_positive:g}"
        return None if is_inside else f"{self.name} is {value:g}; choose {choices}"


# In the order in which they apply, but for the penalties, which come first.
SAMPLING_PARAMETERS = (
    SamplingParameter(
        name="temperature",
        description="divides the logits; 0 takes the most probable token",
        dtype="float32",
        default=1.0,
        least=0.0,
        most=100.0,
        smallest_positive=0.01,
        neutral=1.0,
        graph_input="temperature",
        probe=1.0,
        parity=(0.0, 0.5, 1.0, 1.5),
    ),
    SamplingParameter(
        name="top_k",
        description="keeps the k most probable tokens; 0 keeps all",
        dtype="int64",
        default=0,
        least=0,
        most=2**32 - 1,
        neutral=0,
        graph_input="top_k",
        probe=0,
        parity=(0, 0, 1, 3),
    ),
    SamplingParameter(
        name="top_p",
        description="keeps the most probable tokens that together reach this probability "
        "(nucleus sampling, Holtzman et al. 2020, arXiv:1904.09751); 1 keeps all",
        dtype="float32",
        default=1.0,
        least=0.0,
        is_open_below=True,
        most=1.0,
        neutral=1.0,
        graph_input="top_p",
        probe=1.0,
        parity=(0.2, 0.9, 1.0, 1.0),
    ),
    SamplingParameter(
        name="min_p",
        description="keeps tokens at least this many times as probable as the likeliest "
        "(Nguyen et al. 2024, arXiv:2407.01082); 0 keeps all",
        dtype="float32",
        default=0.0,
        least=0.0,
        most=1.0,
        neutral=0.0,
        graph_input="min_p",
        probe=0.0,
        parity=(0.0, 0.0, 0.05, 0.3),
    ),
    SamplingParameter(
        name="typical_p",
        description="keeps the tokens whose surprise is nearest to the entropy of what the other "
        "cuts left, as many as together reach this probability (locally typical sampling, "
        "Meister et al. 2023, doi:10.1162/tacl_a_00536); 1 keeps all",
        dtype="float32",
        default=1.0,
        least=0.0,
        is_open_below=True,
        most=1.0,
        neutral=1.0,
        graph_input="typical_p",
        probe=0.9,
        parity=(0.2, 0.9, 1.0, 1.0),
    ),
    SamplingParameter(
        name="repetition_penalty",
        description="divides positive and multiplies negative logits of tokens that the prompt "
        "or the stream holds (Keskar et al. 2019, arXiv:1909.05858); 1 changes nothing",
        dtype="float32",
        default=1.0,
        least=0.01,
        most=100.0,
        neutral=1.0,
        graph_input="repetition",
        probe=1.0,
        parity=(1.0, 1.0, 1.3, 0.8),
    ),
    SamplingParameter(
        name="frequency_penalty",
        description="subtracted from a token's logit for each time the stream made it",
        dtype="float32",
        default=0.0,
        least=-2.0,
        most=2.0,
        neutral=0.0,
        graph_input=None,
        probe=0.0,
    ),
    SamplingParameter(
        name="presence_penalty",
        description="subtracted from the logit of a token that the stream made",
        dtype="float32",
        default=0.0,
        least=-2.0,
        most=2.0,
        neutral=0.0,
        graph_input=None,
        probe=0.0,
    ),
)

# Every parameter's name, with the value that changes nothing.
NEUTRAL: Mapping[str, float] = MappingProxyType({p.name: p.neutral for p in SAMPLING_PARAMETERS})

# The parameters that a step graph reads, by the name of the input; (batch,) each.
GRAPH_PARAMETERS: Mapping[str, SamplingParameter] = MappingProxyType(
    {p.graph_input: p for p in SAMPLING_PARAMETERS if p.graph_input is not None}
)


# What a model gives a request that does not choose, by name; what is not there is the table's.
SamplingDefaults = Mapping[str, float]


def problem_of_defaults(values: Mapping[str, object]) -> str | None:
    """What is wrong with ``values`` as SamplingDefaults, for an error message; None if nothing."""
    known = {parameter.name: parameter for parameter in SAMPLING_PARAMETERS}
    for name, value in values.items():
        if name not in known:
            return f"{name!r} is not one of {', '.join(known)}"
        parameter = known[name]
        if type(value) is int or (type(value) is float and not parameter.is_whole):
            if problem := parameter.problem(value):
                return problem
        else:
            return f"{name} is {value!r}, not a {'whole ' if parameter.is_whole else ''}number"
    return None


def missing_parameters(graph_inputs: Iterable[str]) -> tuple[str, ...]:
    """The parameters that a step graph with these inputs cannot apply: it was exported before
    they were there."""
    read = frozenset(graph_inputs)
    return tuple(p.name for name, p in GRAPH_PARAMETERS.items() if name not in read)
