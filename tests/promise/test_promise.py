"""The promise: the same request gives the same tokens, bit for bit, whatever else runs.

Random mixes run side by side on one service; each of their requests runs by itself on another,
in a second process; whatever was answered must be equal. `make proof` draws many more of them.
"""

from __future__ import annotations

import asyncio
import shutil
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path

import pytest

from bench.servers import Server
from bundle.sampling import missing_parameters
from bundle.store import read_bundle
from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from service.config import usable_cores
from tests import tiny
from tests.promise.mixes import (
    BEGINNINGS,
    CANCEL,
    FORK,
    GO_ON,
    RESUME,
    SLOW,
    Draw,
    Kind,
    Question,
    draw_mix,
    draw_questions,
    state_name,
    state_text,
)
from tests.promise.processes import Watched, nothing_runs
from tests.promise.readings import Crowd, Reading, ask_alone, read_alone, resumed
from unroll import Client
from unroll.v1 import unroll_pb2 as pb

BUNDLED = Path(__file__).parents[2] / "models"
ROWS = 10  # so few that requests wait, samples take turns, and beams wait for one another
AT_ONCE = 24
# So few that states go while others come.
CACHE_BYTES = 400_000
# What kernels that round otherwise in a batch may move a log-probability by.
TOLERANCE = 1e-4
PRECISIONS = ("fp32", "int8")

# None of which may be missing.
COUNTED = (
    "resumes", "cancels", "cached tokens", "cached sources", "states", "choices", "next tokens",
    "embeddings",
)  # fmt: skip
# Questions with one answer, to a Generate.
QUESTIONS_SHARE = 0.5

# Characters of an input, the most tokens to request.
SIZES = {
    "prose": (600, 60), "g2p": (20, 40), "letters": (600, 120), "speller": (10, 60),
    "lexicon": (600, 24),  # a step of which takes as long as six of 10,000 words
}  # fmt: skip


@pytest.fixture(scope="session")
def models(
    request: pytest.FixtureRequest, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Bundled models, and tiny ones whose sizes no kernel likes: 13 and 11; one of 10,000 words.

    With --proof one of 50,000 as well.
    """
    large = [tiny.words("lexicon", 50_000)] if request.config.getoption("--proof") else []
    root = tmp_path_factory.mktemp("promise") / "models"
    for source, names in ((BUNDLED, ("prose", "g2p")), (tiny_models, ("letters", "speller"))):
        for name in names:
            shutil.copytree(source / name, root / name)
    odd = (tiny.generator("gru", "gru", 11), tiny.generator("rnn", "rnn", 13))
    for model in (*odd, tiny.words(), *large):
        tiny.export(model, root / model.name / "1")
    for name in ("letters", "gru", "rnn", "words", *(model.name for model in large)):
        tiny.edit_manifest(root / name / "1", lambda m: m["limits"].update(input_tokens=600))
    return root


def kinds_of(models: Path) -> list[Kind]:
    kinds = []
    for folder in sorted(models.iterdir()):
        bundle = read_bundle(folder / "1")
        longest, most_tokens = SIZES.get(folder.name, SIZES["letters"])
        output = bundle.tokenizers["output"].vocabulary
        kinds.append(
            Kind(
                folder.name,
                bundle.manifest.task == "seq2seq",
                _letters(bundle.tokenizers["input"]),
                longest,
                most_tokens,
                len(output) - (3 if output.has_markers else 1),
                missing_parameters(port.name for port in bundle.manifest.graphs["step"].inputs),
                *_symbols(output),
                bundle.tokenizers["output"].kind == "symbols",
                set("truefalse") <= {output.symbol_of(token) for token in range(1, len(output))},
            )
        )
    return kinds


def _symbols(vocabulary: Vocabulary) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Some of letters and digits alone, and their ids."""
    ids = [t for t in range(1, len(vocabulary)) if vocabulary.symbol_of(t).isalnum()][:40]
    return tuple(vocabulary.symbol_of(token) for token in ids), tuple(ids)


def _letters(tokenizer: Tokenizer) -> str:
    vocabulary = tokenizer.vocabulary
    symbols = [vocabulary.symbol_of(token) for token in range(1, len(vocabulary) - 1)]
    return "".join(symbol for symbol in symbols if len(symbol) == 1 and symbol.isprintable())


@contextmanager
def both(models: Path, folder: Path, precision: str, threads: int) -> Iterator[tuple[Watched, str]]:
    """The crowded service, and the target of the one that answers one request at a time."""
    keys = folder / "keys"
    keys.write_text("00112233445566778899aabbccddeeff\n")
    command = ["service", "serve", "--models", str(models), "--device", "cpu"]
    command += ["--address", "127.0.0.1:0", "--http-address", "127.0.0.1:0"]
    command += ["--resume-keys", str(keys), "--threads", str(threads)]
    command += ["--propagation-seconds", "0"]
    command += ["--precision", precision, "--prefix-cache-bytes", "0"]
    crowded = {
        "max_streams": ROWS, "threads": threads, "resume_keys": keys, "precision": precision,
        "prefix_cache_bytes": CACHE_BYTES,
    }  # fmt: skip
    with Server("alone", command) as alone, Watched(models=models, **crowded) as watched:
        yield watched, alone.target


class Comparison:
    """What was compared, and what was not equal.

    invariant: for each model, whether the probe at load found that it can keep the promise.
    """

    def __init__(self, loop: asyncio.Runner, alone: str) -> None:
        self.loop, self.alone = loop, alone
        self.counts: Counter[str] = Counter()
        self.mismatches: list[str] = []
        self.largest_difference: dict[str, float] = {}
        with Client(alone, timeout=30) as client:
            self.invariant = {m.name: m.batch_invariant for m in client.list_models().models}

    def keep_states(self, kinds: list[Kind], watched: Watched) -> None:
        """Those that draws of ``kinds`` begin from."""
        with Client(watched.target, timeout=30) as client:
            for kind in kinds:
                for number in range(BEGINNINGS):
                    text = state_text(kind, number)
                    given = {"source": text} if kind.is_source else {"prompt": text}
                    client.create_state(state_name(kind, number), kind.name, **given)

    def run(self, mix: list[Draw], questions: list[Question], watched: Watched) -> None:
        expected = {draw.number: read_alone(self.alone, draw.request) for draw in mix}
        requests = {draw.number: self._request(draw, expected) for draw in mix}
        alone = [ask_alone(self.alone, question) for question in questions]
        found, answers = self.loop.run(_all_at_once(watched, mix, requests, questions))
        for draw in mix:
            self._compare(draw, found[draw.number], expected[draw.number])
        for question, answer, other in zip(questions, answers, alone, strict=True):
            self._compare_answers(question, answer, other)

    def _compare_answers(
        self, question: Question, found: bytes | str, expected: bytes | str
    ) -> None:
        request = question.request
        self.counts["questions"] += 1
        self.counts["refusals"] += isinstance(expected, str)
        if isinstance(expected, bytes):
            if isinstance(request, pb.EmbedRequest):
                self.counts["embeddings"] += len(request.texts)
            else:
                self.counts["choices"] += sum(len(item.choices) for item in request.items)
                self.counts["next tokens"] += sum(i.top_next_tokens for i in request.items)
        if not self.invariant[request.model]:
            self.counts["parted"] += found != expected
        elif found != expected:
            self.mismatches.append(f"{question.method} differs\n{request}")

    def _request(self, draw: Draw, expected: dict[int, Reading]):
        """What the crowded service is sent: the request, or to go on from a point of it."""
        whole = expected[draw.number]
        if draw.fate not in (GO_ON, FORK) or not whole.points:
            self.counts["states"] += bool(draw.state)
            return draw.from_state if draw.state else draw.request
        point = whole.points[draw.after % len(whole.points)]
        further = resumed(draw.request, point, draw.number if draw.fate == FORK else None)
        if draw.fate == FORK:
            expected[draw.number] = read_alone(self.alone, further)
        else:
            expected[draw.number] = _from_point(whole, point)
        self.counts["resumes"] += 1
        return further

    def _compare(self, draw: Draw, found: Reading, expected: Reading) -> None:
        self.counts["requests"] += 1
        self.counts["cached tokens"] += found.cached
        is_of_source = draw.request.WhichOneof("input") == "source"
        self.counts["cached sources"] += bool(found.cached and is_of_source and not draw.state)
        self.counts["cancels"] += draw.fate == CANCEL and not found.is_whole
        self.counts["refusals"] += bool(expected.refused)
        if draw.fate == RESUME and found.points and not found.is_whole:
            point = found.points[-1]
            self.counts["resumes"] += 1
            rest = read_alone(self.alone, resumed(draw.request, point))
            found, expected = _joined(found, point, rest), _of_sample(expected, point.sample)
        self.counts["tokens"] += found.count
        if self.invariant[draw.request.model]:
            wrong = _difference(found, expected)
        else:
            wrong = self._measure(draw.request.model, found, expected)
        if wrong:
            self.mismatches.append(f"{draw.fate}: {wrong}\n{draw.request}")

    def _measure(self, model: str, found: Reading, expected: Reading) -> str:
        """Of kernels that round otherwise in a batch: by how much, until tokens part."""
        largest = self.largest_difference.get(model, 0.0)
        for sample, tokens in found.tokens.items():
            for position, token in sorted(tokens.items()):
                other = expected.tokens[sample].get(position)
                if other is None or other[0] != token[0]:
                    self.counts["parted"] += 1
                    break
                largest = max(largest, abs(_value(token[2]) - _value(other[2])))
        self.largest_difference[model] = largest
        return "" if largest <= TOLERANCE else f"{model} moved by {largest}"


def _value(bits: bytes) -> float:
    value: float = struct.unpack("<f", bits)[0]
    return value


async def _all_at_once(
    watched: Watched, mix: list[Draw], requests, questions: list[Question]
) -> tuple[dict[int, Reading], list[bytes | str]]:
    """Slow readers go on when all others are done, and the service has nothing left to do."""
    crowd = Crowd(watched.target, AT_ONCE)
    reads: dict[int, asyncio.Future[Reading]] = {}
    asked: list[asyncio.Future[bytes | str]] = []
    for draw, question in zip_longest(mix, questions):  # they come in turn, and get places so
        reads[draw.number] = asyncio.ensure_future(crowd.read(draw, requests[draw.number]))
        if question:
            asked.append(asyncio.ensure_future(crowd.ask(question)))
    try:
        answers = await asyncio.gather(*asked)
        await asyncio.gather(*(reads[draw.number] for draw in mix if draw.fate != SLOW))
        await asyncio.to_thread(watched.wait_until, nothing_runs, 30.0)
        crowd.release()
        return {number: await read for number, read in reads.items()}, answers
    finally:
        for read in (*reads.values(), *asked):
            read.cancel()
        await crowd.close()


def _from_point(whole: Reading, point) -> Reading:
    """What is left of the point's sample after it."""
    left = Reading(is_whole=whole.is_whole)
    tokens = whole.tokens[point.sample]
    left.tokens[point.sample] = {p: t for p, t in tokens.items() if p >= point.next_position}
    left.ends = _ends_of_resumed(whole, point.sample)
    return left


def _of_sample(whole: Reading, sample: int) -> Reading:
    part = Reading(is_whole=whole.is_whole, echo=whole.echo)
    part.tokens[sample] = whole.tokens[sample]
    part.ends = _ends_of_resumed(whole, sample)
    return part


def _ends_of_resumed(whole: Reading, sample: int):
    """Of an end, what a stream that went on elsewhere shares with one that did not."""
    return {sample: whole.ends[sample][0]}


def _joined(before: Reading, point, rest: Reading) -> Reading:
    """The point's sample: what came up to it, and what came of it elsewhere."""
    joined = Reading(is_whole=rest.is_whole, echo=before.echo, refused=rest.refused)
    earlier = before.tokens[point.sample].items()
    joined.tokens[point.sample] = {p: t for p, t in earlier if p < point.next_position}
    for position, token in rest.tokens[point.sample].items():
        assert position not in joined.tokens[point.sample], "reported twice"
        joined.tokens[point.sample][position] = token
    joined.ends = rest.ends
    return joined


def _difference(found: Reading, expected: Reading) -> str:
    """Where two readings differ; what was cut short is compared as far as it goes."""
    if found.refused != expected.refused:
        return f"{found.refused!r} is not {expected.refused!r}"
    for sample, tokens in found.tokens.items():
        for position, token in sorted(tokens.items()):
            other = expected.tokens[sample].get(position)
            if token != other:
                return f"sample {sample} position {position}: {token} is not {other}"
    if found.echo and found.echo != expected.echo:
        return "the echo differs"
    if not found.is_whole:
        return ""
    if {s: len(t) for s, t in found.tokens.items() if t} != {
        s: len(t) for s, t in expected.tokens.items() if t
    }:
        return "some tokens are missing"
    for sample, end in expected.ends.items():
        mine = found.ends[sample] if isinstance(end, tuple) else found.ends[sample][0]
        if mine != end:
            return f"sample {sample} ended with {mine}, not {end}"
    if expected.usage and found.usage != expected.usage:
        return f"usage {found.usage} is not {expected.usage}"
    return ""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_a_request_gets_depends_on_nothing_else(
    models: Path, tmp_path: Path, precision: str, threads: int, proof
) -> None:
    """Whatever its neighbours, its reader and its way through two services."""
    if threads > usable_cores():
        pytest.skip(f"this process may use {usable_cores()} cores")
    kinds = kinds_of(models)
    with (
        both(models, tmp_path, precision, threads) as (watched, alone),
        asyncio.Runner() as loop,
    ):
        comparison = Comparison(loop, alone)
        comparison.keep_states(kinds, watched)
        for number in range(proof.mixes):
            seed = f"{precision} {number}"
            mix = draw_mix(seed, kinds, proof.requests)
            questions = draw_questions(seed, kinds, int(QUESTIONS_SHARE * proof.requests))
            comparison.run(mix, questions, watched)
        seen = watched.report()
    counts = comparison.counts
    counts["pauses"] = sum(rows["pauses"] for rows in seen["models"].values())
    counted = ", ".join(f"{counts[what]} {what}" for what in sorted(counts))
    proof.report(f"promise, {precision}, {threads} threads: {counted}, "
               f"{len(comparison.mismatches)} mismatches")  # fmt: skip
    for model, largest in sorted(comparison.largest_difference.items()):
        proof.report(f"  {model}, not batch invariant: log-probabilities moved by {largest:.1e}")
    assert not comparison.mismatches, "\n".join(comparison.mismatches[:5])
    assert sum(rows["canaries_read"] for rows in seen["models"].values()) == 0
    assert min(counts[what] for what in (*COUNTED, "pauses")) > 0
    assert counts["refusals"] < (counts["requests"] + counts["questions"]) / 10
