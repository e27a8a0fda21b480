"""The draw of the next token as ONNX nodes: what export/sampler.py describes, for a batch.

Its cost is that of a few passes over the vocabulary: nothing is sorted and no long running sum is
made, but in rows that need it. Each row goes its own way, which its own numbers decide:

1. A token is drawn among all, whatever the cuts.
2. Rows with top-p or min-p alone: what is more probable than the token is summed up, to see
   whether they keep it. If not, another token is drawn among the more probable ones, once.
3. Rows with top-k or typical-p, and those whose second token was not kept either: tokens are
   ranked. The likeliest ``_FEW`` where they hold all that is kept; else, all.

Steps 2 and 3 run on the rows that need them, gathered, so no row may depend on where it lies: of
onnxruntime's operators those are used whose bits do not. Its sum along an axis in the middle takes
another kernel for a single row, and its logarithm rounds otherwise at the end of an array than in
its middle; a softmax, a running sum and a sum along the last axis, of blocks of 16 numbers and
multiples, do not. ``Where`` takes ten times as long as a product with zeros and ones.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from export.nodes import Nodes

# What the function reads, in this order: the logits, what is added to those of tokens that are
# never drawn, then inputs of the step graph.
DRAW_INPUTS = (
    "logits", "suppressed", "temperature", "top_k", "top_p", "min_p", "typical_p", "repetition",
    "uniform", "retries", "adjusted", "seen", "bias",
)  # fmt: skip
DRAW_OUTPUTS = ("next_token", "log_probability", "log_probabilities")

# How many of the likeliest tokens are ranked before all are.
_FEW = 64
# Vocabularies up to this size are drawn from in one piece, and ranked as a whole.
_SMALL = 256

_CUTS = ("top_k", "top_p", "min_p", "typical_p")


def draw_function(domain: str, name: str, vocabulary: int, opset: int) -> onnx.FunctionProto:
    """The function of DRAW_INPUTS, for logits (batch, vocabulary), that gives DRAW_OUTPUTS."""
    nodes = _Draw(vocabulary)
    for value, output in zip(nodes.draw(), DRAW_OUTPUTS, strict=True):
        nodes.name_as(value, output)
    imports = [helper.make_opsetid("", opset)]
    return helper.make_function(domain, name, DRAW_INPUTS, DRAW_OUTPUTS, nodes.all, imports)


def _block_size(vocabulary: int) -> int:
    """Of the blocks whose sums a draw chooses among: a multiple of 16 near the square root, one of
    which the vocabulary is a multiple where there is such a one."""
    root = vocabulary**0.5
    wholes = [size for size in range(16, vocabulary, 16) if vocabulary % size == 0]
    near = [size for size in wholes if root / 4 < size < root * 4]
    if near:
        return min(near, key=lambda size: size + vocabulary // size)
    return 1 << max(4, round(float(np.log2(root))))


class _Draw(Nodes):
    """Rows are (rows, padded vocabulary): whole blocks, those beyond the vocabulary of tokens that
    cannot be drawn."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.is_small = vocabulary <= _SMALL
        self.block = 1 if self.is_small else _block_size(vocabulary)
        self.padded = -(-vocabulary // self.block) * self.block
        # Of the blocks among whose largest the likeliest few are looked for.
        self.few_block = 32 if vocabulary > 16_384 and self.padded % 32 == 0 else 16

    def draw(self) -> tuple[str, str, str]:
        known = self("LogSoftmax", "logits", axis=-1)
        greedy = self("LessOrEqual", "temperature", np.float32(0))
        scaled = self._scaled(greedy)
        probability = self("Softmax", scaled, axis=-1)
        token = self._pick(probability, self._column("uniform", add=True))
        token = self.either(
            self.any(greedy),
            lambda: self("Where", greedy, self._likeliest(scaled), token),
            lambda: token,
        )
        token = self._within_the_cuts(scaled, probability, token, self("Not", greedy))
        # A row of NaN has no token: any will do, its log-probability tells.
        token = self("Min", token, np.int64(self.vocabulary - 1))
        return token, self._column(self._at(known, token)), known

    # -- the scaled logits ---------------------------------------------------------------------

    def _scaled(self, greedy: str) -> str:
        """Logits with penalties and bias over the temperature, -inf for what is never drawn."""
        divisor = self("Where", greedy, np.float32(1), "temperature")
        inverse = self._column(self("Reciprocal", divisor), add=True)
        scaled = self.either(
            self("Greater", self("Size", "adjusted"), np.int64(0)),
            lambda: self._with_adjusted(self("Mul", "logits", inverse), inverse),
            lambda: self("Mul", "logits", inverse),
        )
        if self.is_small:
            return self("Add", scaled, "suppressed")
        if padding := self.padded - self.vocabulary:
            scaled = self("Pad", scaled, np.array([0, 0, 0, padding]), np.float32(-np.inf))
        # A few numbers of each row are set in place: to add a row to all is another pass.
        banned = self("NonZero", self("Less", "suppressed", np.float32(0)))
        rows = self("Shape", self._column(divisor, add=True))
        banned = self("Expand", banned, rows)
        nothing = self("Expand", np.float32(-np.inf), self("Shape", banned))
        return self("ScatterElements", scaled, banned, nothing, axis=1)

    def _with_adjusted(self, scaled: str, inverse: str) -> str:
        """``scaled`` with the rows that have penalties or a bias made anew."""
        own = self("Gather", "logits", "adjusted")
        penalty = self._column(self("Gather", "repetition", "adjusted"), add=True)
        seen = self("Cast", "seen", to=TensorProto.FLOAT)
        # Tokens that were seen: a positive logit is divided, a negative one multiplied.
        positive = self("Relu", own)
        negative = self("Sub", own, positive)
        repeated = self(
            "Add",
            self("Mul", positive, self._factor(seen, self("Reciprocal", penalty))),
            self("Mul", negative, self._factor(seen, penalty)),
        )
        adjusted = self("Mul", self("Add", repeated, "bias"), self("Gather", inverse, "adjusted"))
        return self("ScatterND", scaled, self._column("adjusted", add=True), adjusted)

    def _factor(self, seen: str, penalty: str) -> str:
        """``penalty`` where ``seen`` is 1, 1 where it is 0."""
        one = np.float32(1)
        return self("Add", self("Mul", seen, self("Sub", penalty, one)), one)

    # -- drawing -------------------------------------------------------------------------------

    def _pick(self, weights: str, share: str) -> str:
        """The token (rows,) that ``share`` (rows, 1) picks by ``weights``, in the order of ids."""
        if self.is_small:
            edges = self("CumSum", weights, np.int64(1))
            return self._beyond(edges, self("Mul", share, self._last(edges)))
        blocks = self._blocks(weights, self.block)
        sums = self("ReduceSum", blocks, np.array([2]), keepdims=0)
        edges = self("CumSum", sums, np.int64(1))
        aim = self("Mul", share, self._last(edges))
        block = self("Min", self._beyond(edges, aim), np.int64(self.padded // self.block - 1))
        weight = self._at(sums, block)
        before = self("Sub", self._at(edges, block), weight)
        # How far into the block; its sum and its last edge may differ by rounding.
        rest = self("Div", self("Sub", aim, before), weight)
        rest = self("Clip", rest, np.float32(0), np.float32(1 - 2**-24))
        inner = self("CumSum", self._row_of(blocks, block), np.int64(1))
        place = self._beyond(inner, self("Mul", rest, self._last(inner)))
        return self("Add", self("Mul", block, np.int64(self.block)), place)

    def _beyond(self, edges: str, aim: str) -> str:
        """(rows,) how many of ``edges`` (rows, n) lie at or below ``aim`` (rows, 1).

        A uniform is at most 1 - 2⁻²⁴, so its product with the last edge rounds to less than that:
        an edge lies above it, and the first one that does ends a token that has a weight.
        """
        return self._count(self("LessOrEqual", edges, aim))

    def _likeliest(self, scaled: str) -> str:
        """(rows,) the lowest id among the most probable."""
        if self.is_small:
            return self("ArgMax", scaled, axis=1, keepdims=0)
        blocks = self._blocks(scaled, self.block)
        best = self("ReduceMax", blocks, np.array([2]), keepdims=0)
        block = self("ArgMax", best, axis=1, keepdims=0)
        place = self("ArgMax", self._row_of(blocks, block), axis=1, keepdims=0)
        return self("Add", self("Mul", block, np.int64(self.block)), place)

    # -- cuts ----------------------------------------------------------------------------------

    def _within_the_cuts(self, scaled: str, probability: str, token: str, sampled: str) -> str:
        """``token``, in rows whose cuts do not keep it another one."""
        ranked = self("And", sampled, self("Or", *self._asks_for_ranks("top_k", "typical_p")))
        cut = self("Or", self("Less", "top_p", np.float32(1)), self._above("min_p", 0))
        tried = self("And", self("And", sampled, cut), self("Not", ranked))

        def with_cuts() -> str:
            kept = self._is_kept(scaled, probability, token, "top_p", "min_p")
            again = self("And", tried, self("Not", kept))
            return self.either(
                self.any(self("Or", ranked, again)),
                lambda: self._another(scaled, probability, token, ranked, again),
                lambda: token,
            )

        return self.either(self.any(self("Or", ranked, tried)), with_cuts, lambda: token)

    def _another(self, scaled: str, probability: str, token: str, ranked: str, again: str) -> str:
        """``token``, drawn anew in the rows ``again``, and by rank in the rows ``ranked``."""
        second, last = self("Split", "retries", outputs=2, axis=1, num_outputs=2)

        def once_more() -> str:
            places = self._places(again)
            found = self._drawn_anew(scaled, probability, token, second, places)
            return self("ScatterElements", token, places, found)

        tokens = self.either(self.any(again), once_more, lambda: token)
        # Negative where the second one is not kept either.
        left = self("Or", ranked, self("Less", tokens, np.int64(0)))

        def by_rank() -> str:
            uniform = self("Where", ranked, "uniform", self._column(last))
            places = self._places(left)
            found = self._ranked(scaled, probability, uniform, places)
            return self("ScatterElements", tokens, places, found)

        return self.either(self.any(left), by_rank, lambda: tokens)

    def _asks_for_ranks(self, top_k: str, typical_p: str) -> tuple[str, str]:
        is_typical = self("And", self._above(typical_p, 0), self("Less", typical_p, np.float32(1)))
        return self._limits(top_k), is_typical

    def _limits(self, top_k: str) -> str:
        positive = self("Greater", top_k, np.int64(0))
        return self("And", positive, self("Less", top_k, np.int64(self.vocabulary)))

    def _is_kept(self, scaled: str, probability: str, token: str, top_p: str, min_p: str) -> str:
        """(rows,) whether top-p and min-p keep the token. All that are as probable as the last one
        that top-p keeps are kept."""
        own = self._column(self._at(probability, token))
        largest = self("ReduceMax", probability, np.array([1]), keepdims=0)
        above = self._column(self._sum(self._more_probable(scaled, probability, token)))
        inside = self("Or", self("Less", above, top_p), self._at_least(top_p, 1))
        return self("And", inside, self("GreaterOrEqual", own, self("Mul", min_p, largest)))

    def _more_probable(self, scaled: str, probability: str, token: str) -> str:
        """``probability`` with zeros for what is no more probable than the token."""
        more = self("Greater", scaled, self._at(scaled, token))
        return self("Mul", probability, self("Cast", more, to=TensorProto.FLOAT))

    def _drawn_anew(
        self, scaled: str, probability: str, token: str, uniform: str, places: str
    ) -> str:
        """A second token for each of the rows ``places`` (n,), -1 where it is not kept.

        What is kept is more probable than what is not, so the second one is drawn among what is
        more probable than the first, by ``uniform`` (rows, 1).
        """
        scaled, probability, token, uniform, top_p, min_p = self._rows(
            (scaled, probability, token, uniform, "top_p", "min_p"), places
        )
        more = self._more_probable(scaled, probability, token)
        found = self("Min", self._pick(more, uniform), np.int64(self.vocabulary - 1))
        kept = self._is_kept(scaled, probability, found, top_p, min_p)
        return self("Where", kept, found, np.int64(-1))

    # -- ranks ---------------------------------------------------------------------------------

    def _ranked(self, scaled: str, probability: str, uniform: str, places: str) -> str:
        """The tokens (n,) of the rows ``places`` (n,), drawn among those the cuts keep."""
        rows = self._rows((scaled, probability, uniform, *_CUTS), places)
        if self.is_small:
            return self._among_all(*rows)
        tokens = self._few(rows[0])
        found, is_all = self._among(tokens, *rows)
        missed = self("Not", is_all)

        def the_rest() -> str:
            others = self._places(missed)
            ranked = self._among_all(*self._rows(rows, others))
            return self("ScatterElements", found, others, ranked)

        return self.either(self.any(missed), the_rest, lambda: found)

    def _few(self, scaled: str) -> str:
        """The _FEW likeliest tokens of each row, (rows, _FEW), the likeliest first and of equals
        the lowest.

        They lie in the _FEW blocks with the largest tokens, in order.
        """
        blocks = self._blocks(scaled, self.few_block)
        best = self("ReduceMax", blocks, np.array([2]), keepdims=0)
        count = min(_FEW, self.padded // self.few_block)
        _, chosen = self("TopK", best, np.array([count]), outputs=2, axis=1)
        chosen, _ = self("TopK", chosen, np.array([count]), outputs=2, axis=1, largest=0)
        within = self("GatherND", blocks, self._column(chosen, add=True, axis=2), batch_dims=1)
        within = self("Reshape", within, np.array([-1, count * self.few_block]))
        _, place = self("TopK", within, np.array([_FEW]), outputs=2, axis=1)
        size = np.int64(self.few_block)
        block = self("GatherElements", chosen, self("Div", place, size), axis=1)
        return self("Add", self("Mul", block, size), self("Mod", place, size))

    def _among_all(self, scaled: str, *others: str) -> str:
        _, tokens = self("TopK", scaled, np.array([self.vocabulary]), outputs=2, axis=1)
        return self._among(tokens, scaled, *others)[0]

    def _among(
        self,
        tokens: str,
        scaled: str,
        probability: str,
        uniform: str,
        top_k: str,
        top_p: str,
        min_p: str,
        typical_p: str,
    ) -> tuple[str, str]:
        """One of the ranked ``tokens`` (rows, n) a row, and whether all that is kept is there."""
        logit = self("GatherElements", scaled, tokens, axis=1)
        weight = self("GatherElements", probability, tokens, axis=1)
        limited = self._limits(top_k)
        limit = self("Where", limited, top_k, np.int64(self.vocabulary))
        count = self._size(tokens)
        rank = self("Range", np.int64(0), count, np.int64(1))
        first = self("Less", rank, self._column(limit, add=True))
        weight = self("Mul", weight, self("Cast", first, to=TensorProto.FLOAT))

        # Top-p: of what top-k has left; without it the probabilities of all tokens add up to 1.
        sums = self("CumSum", weight, np.int64(1))
        mass = self("Where", limited, self._column(self._last(sums)), np.float32(1))
        share = self._column(self("Mul", top_p, mass), add=True)
        inside = self("Less", self("Sub", sums, weight), share)
        inside = self("Or", inside, self._column(self._at_least(top_p, 1), add=True))
        last = self("Max", self("Sub", self._count(inside), np.int64(1)), np.int64(0))
        edge = self._at(logit, last)
        likeliest = self("Gather", weight, np.array([0]), axis=1)
        least = self("Mul", self._column(min_p, add=True), likeliest)
        enough = self("GreaterOrEqual", weight, least)
        kept = self("And", self("GreaterOrEqual", logit, edge), enough)
        weight = self("Mul", weight, self("Cast", kept, to=TensorProto.FLOAT))

        # Nothing beyond the last one is kept if that one is not.
        beyond = self("Not", self._column(self("Gather", kept, np.array([-1]), axis=1)))
        whole = self("LessOrEqual", limit, count)
        unlimited = self("Not", limited)
        is_all = self("Or", self("And", limited, whole), self("And", unlimited, beyond))

        _, typical = self._asks_for_ranks(top_k, typical_p)
        weight = self.either(
            self.any(typical),
            lambda: self._typical(weight, logit, typical, typical_p),
            lambda: weight,
        )
        edges = self("CumSum", weight, np.int64(1))
        aim = self("Mul", self._column(uniform, add=True), self._last(edges))
        place = self("Min", self._beyond(edges, aim), self("Sub", count, np.int64(1)))
        return self._column(self._at(tokens, place)), is_all

    def _typical(self, weight: str, logit: str, typical: str, typical_p: str) -> str:
        """``weight`` with zeros for what locally typical sampling cuts."""
        gone = self("LessOrEqual", weight, np.float32(0))
        left = self("Where", gone, np.float32(-np.inf), logit)
        probability = self("Softmax", left, axis=-1)
        surprise = self("Neg", self("LogSoftmax", left, axis=-1))
        terms = self("Where", gone, np.float32(0), self("Mul", probability, surprise))
        entropy = self._last(self("CumSum", terms, np.int64(1)))
        distance = self("Abs", self("Sub", surprise, entropy))
        # Of equally distant tokens the more probable one is first, then the one of the lower id.
        count = self("Unsqueeze", self._size(weight), np.array([0]))
        _, order = self("TopK", distance, count, outputs=2, axis=1, largest=0)
        ordered = self("GatherElements", probability, order, axis=1)
        before = self("Sub", self("CumSum", ordered, np.int64(1)), ordered)
        inside = self("Less", before, self._column(typical_p, add=True))
        inside = self("Cast", inside, to=TensorProto.FLOAT)
        inside = self("ScatterElements", inside, order, inside, axis=1)
        off = self("Cast", self("Not", typical), to=TensorProto.FLOAT)
        return self("Mul", weight, self("Max", inside, self._column(off, add=True)))

    # -- small words ---------------------------------------------------------------------------

    def _column(self, values: str, *, add: bool = False, axis: int = 1) -> str:
        """(rows, 1) as (rows,), or with ``add`` the other way round."""
        made: str = self("Unsqueeze" if add else "Squeeze", values, np.array([axis]))
        return made

    def _at(self, values: str, places: str) -> str:
        """(rows, 1) the one of each row's ``values`` (rows, n) at ``places`` (rows,)."""
        made: str = self("GatherElements", values, self._column(places, add=True), axis=1)
        return made

    def _last(self, values: str) -> str:
        made: str = self("Gather", values, np.array([-1]), axis=1)
        return made

    def _size(self, values: str) -> str:
        """() how many columns there are."""
        made: str = self("Gather", self("Shape", values), np.int64(1))
        return made

    def _count(self, flags: str) -> str:
        whole = self("Cast", flags, to=TensorProto.INT64)
        made: str = self("ReduceSum", whole, np.array([1]), keepdims=0)
        return made

    def _sum(self, values: str) -> str:
        """(rows, 1) the sum of each row: of its blocks, then a running one of these."""
        if not self.is_small:
            blocks = self._blocks(values, self.block)
            values = self("ReduceSum", blocks, np.array([2]), keepdims=0)
        return self._last(self("CumSum", values, np.int64(1)))

    def _blocks(self, values: str, size: int) -> str:
        made: str = self("Reshape", values, np.array([-1, self.padded // size, size]))
        return made

    def _row_of(self, blocks: str, block: str) -> str:
        """(rows, size) one block of each row."""
        made: str = self("GatherND", blocks, self._column(block, add=True), batch_dims=1)
        return made

    def _above(self, values: str, limit: float) -> str:
        made: str = self("Greater", values, np.float32(limit))
        return made

    def _at_least(self, values: str, limit: float) -> str:
        made: str = self("GreaterOrEqual", values, np.float32(limit))
        return made

    def _places(self, flags: str) -> str:
        """(n,) the rows where ``flags`` hold."""
        made: str = self("Squeeze", self("NonZero", flags), np.array([0]))
        return made

    def _rows(self, values: Sequence[str], places: str) -> tuple[str, ...]:
        return tuple(self("Gather", value, places) for value in values)


__all__ = ["DRAW_INPUTS", "DRAW_OUTPUTS", "draw_function"]
