"""Each model judged on its whole held-out split by what the service answers over gRPC.

Data, splits and measures are training's own; the model is the bundle that is served, and no
PyTorch model takes part. What prose's step graphs reach is measured with the graphs themselves.
A judge measures the figures that it is given, in the manifest's order.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from sacrebleu.metrics import BLEU, CHRF

from bundle.manifest import INT8, FigureSpec
from bundle.store import Bundle
from bundle.tokenizer import split as split_text
from evaluation.calls import in_calls, written
from evaluation.confusion import Confusion
from evaluation.intervals import ROUNDS
from evaluation.judged import Judged, ratio, share
from export.quality import SteppedModel
from training import food, g2p, nationality, prose, translate
from training.data.bible_basic import load_sentences, split_sentences
from training.data.brown import load_sentences as load_brown
from training.data.brown import split_sentences as split_brown
from training.data.contrast import (
    HELD_OUT_WORDS,
    make_judged_pairs,
    make_sentences,
    make_swapped_pairs,
)
from training.data.names import load_names, split_by_name
from training.data.sentiment import LECTURE_SENTENCES, Example, load_held_out
from training.data.usda import load_foods, split_foods
from training.metrics import edit_distance, overlap_f1
from unroll import Client

_BEAM = re.compile(r"beam of (\d+)")
_BLOCK = 1_000  # characters of prose that are drawn together
_BLANK = "___"


@dataclass(frozen=True)
class Bench:
    """What a judge has: a client of the service, the bundle's own files, the data packages.

    claims: the figures to measure. confusion: where a judge of labels counts them beside these.
    """

    client: Client
    bundle: Bundle
    data: Path
    claims: tuple[FigureSpec, ...]
    confusion: Confusion = field(default_factory=Confusion)

    @property
    def name(self) -> str:
        return self.bundle.manifest.name


Judge = Callable[[Bench], list[Judged]]
Judges = Mapping[str, Judge]


def _length(text: str) -> int:
    return len(text)


def _classified(bench: Bench, texts: Sequence[str]) -> list[list[str]]:
    """Labels of each text, the likeliest first."""

    def ask(part: Sequence[str]) -> list[list[str]]:
        rows = bench.client.classify(bench.name, part)
        return [[label for label, _ in row.labels[:5]] for row in rows]

    return in_calls(ask, texts, _length)


def judge_sentiment(bench: Bench) -> list[Judged]:
    seed = bench.bundle.manifest.training["seed"]
    labels = bench.bundle.manifest.labels

    def right(examples: Sequence[Example]) -> list[bool]:
        said = _classified(bench, [example.text for example in examples])
        return [
            best[0] == labels[example.label] for best, example in zip(said, examples, strict=True)
        ]

    def both_right(pairs: Sequence[tuple[Example, Example]]) -> list[bool]:
        each = right([example for pair in pairs for example in pair])
        return [a and b for a, b in zip(each[::2], each[1::2], strict=True)]

    parts = (
        right(load_held_out(bench.data)),
        right(make_sentences(HELD_OUT_WORDS, 400, seed)),
        right([Example(text, label) for text, label in LECTURE_SENTENCES]),
        both_right(make_swapped_pairs(HELD_OUT_WORDS, 200, seed)),
        both_right(make_judged_pairs(HELD_OUT_WORDS, 200, seed)),
    )
    # A bundle of before says nothing of the last part.
    return [share(claim, part) for claim, part in zip(bench.claims, parts, strict=False)]


def judge_nationality(bench: Bench) -> list[Judged]:
    held_out = split_by_name(load_names(bench.data))["held-out"]
    limit = nationality.INPUT_LIMIT
    said = _classified(bench, [name[:limit] for name in held_out])
    places = [
        labels.index(wanted) if wanted in labels else len(labels)
        for labels, wanted in zip(said, held_out.values(), strict=True)
    ]
    bench.confusion.update(zip(held_out.values(), (best for best, *_ in said), strict=True))
    return [
        share(claim, [place < top for place in places])
        for claim, top in zip(bench.claims, (1, 5), strict=True)
    ]


def judge_tags(bench: Bench) -> list[Judged]:
    """A word of the corpus is right when all tokens it is made of are.

    A word that is not counts as taken for the label of its last wrong token.
    """
    vocabulary = bench.bundle.tokenizers["input"].vocabulary
    sentences = split_brown(load_brown(bench.data))["held-out"]
    tokens = [
        [
            (token, number)
            for number, (word, _) in enumerate(s)
            for token in split_text("words", word)
        ]
        for s in sentences
    ]

    def ask(part: Sequence[list[tuple[str, int]]]) -> list[list[str]]:
        texts = bench.client.tag(bench.name, [[token for token, _ in row] for row in part])
        return [[token.label for token in text.tokens] for text in texts]

    said = in_calls(ask, tokens, lambda row: sum(len(token) for token, _ in row))
    words, right, unknown, unknown_right = (np.zeros(len(sentences)) for _ in range(4))
    for place, (sentence, row, labels) in enumerate(zip(sentences, tokens, said, strict=True)):
        tags = [tag for _, tag in sentence]
        taken_for, is_unknown = tags.copy(), [False] * len(tags)
        for (token, number), label in zip(row, labels, strict=True):
            if label != tags[number]:
                taken_for[number] = label
            is_unknown[number] |= token not in vocabulary
        is_right = [a == b for a, b in zip(tags, taken_for, strict=True)]
        bench.confusion.update(zip(tags, taken_for, strict=True))
        words[place], right[place] = len(sentence), sum(is_right)
        unknown[place] = sum(is_unknown)
        unknown_right[place] = sum(a and b for a, b in zip(is_right, is_unknown, strict=True))
    parts = ((right, words), (unknown_right, unknown))
    return [
        ratio(claim, over, under, int(under.sum()), "sentences", scale=100)
        for claim, (over, under) in zip(bench.claims, parts, strict=True)
    ]


def judge_cloze(bench: Bench) -> list[Judged]:
    candidates = frozenset(bench.bundle.manifest.labels)
    sentences = split_sentences(load_sentences(bench.data))["held-out"]
    blanks = [
        (place, " ".join([*words[:number], _BLANK, *words[number + 1 :]]), word)
        for place, text in enumerate(sentences)
        for words in [split_text("words", text, lowercase=True)]
        for number, word in enumerate(words)
        if word in candidates
    ]

    def ask(texts: Sequence[str]) -> list[list[str]]:
        filled = bench.client.fill(bench.name, texts, top=5)
        return [[word for word, _ in blank.words] for blank in filled]

    said = in_calls(ask, [text for _, text, _ in blanks], _length)
    figures = []
    for claim, top in zip(bench.claims, (1, 5), strict=True):
        right, asked = np.zeros(len(sentences)), np.zeros(len(sentences))
        for (place, _, word), words in zip(blanks, said, strict=True):
            right[place] += word in words[:top]
            asked[place] += 1
        figures.append(ratio(claim, right, asked, len(blanks), "sentences", scale=100))
    return figures


def judge_g2p(bench: Bench) -> list[Judged]:
    words = g2p.read_splits(bench.data, quick=False)["held-out"]
    by_beam: dict[int, list[FigureSpec]] = defaultdict(list)
    for claim in bench.claims:
        by_beam[beam_of(claim)].append(claim)
    figures = []
    for beam, claims in by_beam.items():
        said = written(bench.client, bench.name, [{"source": word} for word in words], beam)
        near = [
            min((edit_distance(spoken.split(), v), len(v)) for v in words[word])
            for word, spoken in zip(words, said, strict=True)
        ]
        for claim in claims:
            if claim.name.startswith("word"):
                figures.append(share(claim, [edits > 0 for edits, _ in near]))
            else:
                edits, phones = zip(*near, strict=True)
                figures.append(ratio(claim, edits, phones, len(near), "words", scale=100))
    return figures


def beam_of(claim: FigureSpec) -> int:
    """How many hypotheses a figure was measured with; the split says so."""
    found = _BEAM.search(claim.split)
    return int(found[1]) if found else 1


def judge_translate(bench: Bench) -> list[Judged]:
    pairs = translate.read_splits(bench.data, quick=False)["held-out"]
    beam = beam_of(bench.claims[0])
    said = written(bench.client, bench.name, [{"source": p.english} for p in pairs], beam)
    wanted = [[pair.spanish for pair in pairs]]
    figures = []
    for claim, metric in zip(bench.claims, (BLEU(), CHRF()), strict=True):
        found = metric.corpus_score(said, wanted, n_bootstrap=ROUNDS)
        # What sacrebleu prints as "μ ± ci".
        middle, half = found._mean, found._ci
        figures.append(
            Judged(
                claim.name, found.score, claim.unit, claim.split, len(pairs), middle - half,
                middle + half, "bootstrap over verses (sacrebleu)",
            )
        )  # fmt: skip
    return figures


def judge_food(bench: Bench) -> list[Judged]:
    splits = split_foods(load_foods(bench.data).foods)
    figures = []
    claims = iter(bench.claims)
    for name in ("every tenth", "new names"):
        foods = splits[name]
        said = written(bench.client, bench.name, [{"vector": f.values} for f in foods], 1)
        pairs = [
            (food.words_of(text), food.words_of(f.name))
            for text, f in zip(said, foods, strict=True)
        ]
        figures.append(share(next(claims), [a[:1] == b[:1] for a, b in pairs]))
        overlaps = [overlap_f1(a, b) for a, b in pairs]
        figures.append(ratio(next(claims), overlaps, [1] * len(pairs), len(pairs), "foods"))
    return figures


def judge_prose(bench: Bench) -> list[Judged]:
    """Read in the pieces that training reads, each after the same characters before it."""
    held_out = prose.held_out_text(bench.data)
    edges = np.linspace(1, len(held_out), prose.EVALUATION_LANES + 1).astype(int).tolist()
    spans = [(max(0, begin - 1 - prose.CONTEXT), begin, end) for begin, end in pairwise(edges)]

    def ask(part: Sequence[tuple[int, int, int]]) -> list[list[float]]:
        scored = bench.client.score(bench.name, [held_out[first:end] for first, _, end in part])
        return [
            [-(token.log_probability or 0.0) for token in row.tokens[begin - first :]]
            for (first, begin, _), row in zip(part, scored, strict=True)
        ]

    lanes = in_calls(ask, spans, lambda span: span[2] - span[0])
    (claim,) = bench.claims
    return [_in_blocks(claim, [nats for lane in lanes for nats in lane])]


def judge_prose_steps(bench: Bench) -> list[Judged]:
    """Through the step graphs that are served, in this process: Score reads in fp32 always."""
    reader = bench.bundle.tokenizers["input"]
    ids = torch.tensor(reader.encode(prose.held_out_text(bench.data)).ids)
    figures = []
    for claim in bench.claims:
        graph = "step_int8" if claim.name.endswith(INT8) else "step"
        nats = prose.nats_of_characters(SteppedModel(bench.bundle.folder, graph), ids)
        figures.append(_in_blocks(claim, nats.tolist()))
    return figures


def _in_blocks(claim: FigureSpec, nats: Sequence[float]) -> Judged:
    """The mean, and an interval over blocks of neighbours."""
    blocks = [nats[start : start + _BLOCK] for start in range(0, len(nats), _BLOCK)]
    sums, sizes = [sum(block) for block in blocks], [len(block) for block in blocks]
    return ratio(claim, sums, sizes, len(nats), f"blocks of {_BLOCK:,} characters")


JUDGES: Judges = {
    "sentiment": judge_sentiment,
    "nationality": judge_nationality,
    "pos": judge_tags,
    "pos-online": judge_tags,
    "cloze": judge_cloze,
    "g2p": judge_g2p,
    "translate": judge_translate,
    "food": judge_food,
    "prose": judge_prose,
}

# What a bundle says of its step graphs in each precision: measured where that is served, or with
# the graphs themselves where no call of the service reads with them.
PRECISION_JUDGES: Judges = {"g2p": judge_g2p, "translate": judge_translate}
STEP_JUDGES: Judges = {"prose": judge_prose_steps}
