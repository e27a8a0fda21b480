"""English to Spanish: sequence to sequence with attention, on verses, in pieces of words.

    python -m training.translate [--quick] [--resume] [--seed N] [--recipe FILE]

Split: every tenth verse of at most 20 English words is held out, every twentieth validates; the
others train, longer ones as well. Measured by BLEU as sacrebleu has it, whose signature each
figure names.
"""

from __future__ import annotations

import random
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import PADDING_ID
from training.beam import BeamModel, BeamSettings, beam_search
from training.bpe import cut_at_random, learn_pieces
from training.checkpoint import Figure, TrainedModel
from training.cli import Run, run_script
from training.data.packages import REINA_VALERA, WORLD_ENGLISH
from training.data.verses import Pair, load_pairs, split_pairs
from training.held_out import EvaluationContext, HeldOut
from training.measurements import ROUNDS, Measurement
from training.models import config_to_json
from training.models.seq2seq import Seq2Seq, Seq2SeqConfig

SOURCE_LIMIT = 80
TARGET_LIMIT = 96
BEAM = BeamSettings(width=5, penalty=1.0, most_tokens=TARGET_LIMIT)
TRANSLATED_TOGETHER = 32
QUICK_PAIRS = 4_000

# source (batch, pieces), inputs and targets (batch, pieces), all rows of one source length
Batch = tuple[Tensor, Tensor, Tensor]
# A source's ids, and a target's between its markers.
Row = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class TranslateSettings:
    """batch: source pieces. pieces: of each language's vocabulary.
    label_smoothing: share of each target's probability that is spread over all pieces.
    random_cuts: chance that a word's cut passes over a longer piece, in training.
    """

    batch: int
    pieces: int
    label_smoothing: float
    random_cuts: float


@dataclass(frozen=True)
class TranslateTask:
    """Teacher forcing; batches hold sources of one length, so the encoder pads nothing."""

    source: Tokenizer
    target: Tokenizer
    training: Sequence[Pair]
    validation: Sequence[Pair]
    seed: int
    settings: TranslateSettings

    def batches(self, epoch: int) -> list[Batch]:
        """Each epoch cuts the words into pieces otherwise."""
        choose = random.Random(self.seed * 10_007 + epoch)
        return self._batches(self._rows(self.training, self.settings.random_cuts, choose), choose)

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        choose = random.Random(0)
        return self._batches(self._rows(self.validation, 0.0, choose), choose)

    def _rows(self, pairs: Sequence[Pair], cuts: float, choose: random.Random) -> list[Row]:
        """Pairs that fit the limits; a longer one is left out."""
        encode_source = _encoder(self.source, cuts, choose)
        encode_target = _encoder(self.target, cuts, choose)
        begin, end = self.target.vocabulary.begin_id, self.target.vocabulary.end_id
        rows = []
        for pair in pairs:
            source, target = encode_source(pair.english), encode_target(pair.spanish)
            if 0 < len(source) <= SOURCE_LIMIT and len(target) < TARGET_LIMIT:
                rows.append((torch.tensor(source), torch.tensor([begin, *target, end])))
        return rows

    def _batches(self, rows: Sequence[Row], choose: random.Random) -> list[Batch]:
        by_length: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            by_length[len(row[0])].append(row)
        batches = []
        for length, same in by_length.items():
            # Targets of similar length side by side, so that little of a batch is padding.
            same.sort(key=lambda row: len(row[1]) + 4 * choose.random())
            size = max(1, self.settings.batch // length)
            for start in range(0, len(same), size):
                sources, targets = zip(*same[start : start + size], strict=True)
                marked = pad_sequence(list(targets), batch_first=True, padding_value=PADDING_ID)
                batches.append((torch.stack(sources), marked[:, :-1], marked[:, 1:]))
        choose.shuffle(batches)
        return batches

    def loss(self, model: Seq2Seq, batch: Batch, carry: None) -> tuple[Tensor, None]:
        total, count = _nats(model, batch, self.settings.label_smoothing)
        return total / count, None

    def validate(self, model: Seq2Seq) -> float:
        """Nats a piece."""
        sums = [_nats(model, batch, 0.0) for batch in self._validation_batches]
        return sum(total.item() for total, _ in sums) / sum(count for _, count in sums)


def _encoder(
    tokenizer: Tokenizer, cuts: float, choose: random.Random
) -> Callable[[str], list[int]]:
    if not cuts:
        return lambda text: tokenizer.encode(text).ids
    id_of = tokenizer.vocabulary.id_of
    return lambda text: [
        id_of(piece)
        for word in text.split()
        for piece in cut_at_random(tokenizer, word, cuts, choose)
    ]


def _nats(model: Seq2Seq, batch: Batch, label_smoothing: float) -> tuple[Tensor, int]:
    """The sum over the batch, and of how many pieces."""
    source, inputs, targets = batch
    logits, _ = model(inputs, model.encode(source, None))
    total = cross_entropy(
        logits.flatten(0, 1),
        targets.flatten(),
        ignore_index=PADDING_ID,
        label_smoothing=label_smoothing,
        reduction="sum",
    )
    return total, int((targets != PADDING_ID).sum())


def translate(
    model: BeamModel,
    tokenizers: Mapping[str, Tokenizer],
    texts: Sequence[str],
    settings: BeamSettings = BEAM,
) -> list[str]:
    """The best translation of each text, by beam search."""
    source, target = tokenizers["input"], tokenizers["output"]
    encoded = [torch.tensor(source.encode(text).ids[:SOURCE_LIMIT]) for text in texts]
    order = sorted(range(len(texts)), key=lambda number: len(encoded[number]))
    translated = [""] * len(texts)
    for start in range(0, len(order), TRANSLATED_TOGETHER):
        part = order[start : start + TRANSLATED_TOGETHER]
        lengths = torch.tensor([len(encoded[number]) for number in part])
        padded = pad_sequence([encoded[number] for number in part], batch_first=True)
        written = beam_search(model, padded, lengths, target.vocabulary, settings)
        for number, ids in zip(part, written, strict=True):
            translated[number] = target.decode(ids)
    return translated


def figures_of(
    translated: Sequence[str],
    pairs: Sequence[Pair],
    split: str,
    command: str,
    beam: int | None = None,
) -> tuple[Figure, ...]:
    """BLEU and chrF of the translations of ``pairs``, in the signatures' own words."""
    wanted = [[pair.spanish for pair in pairs]]
    figures = []
    for name, metric in (("BLEU", BLEU()), ("chrF", CHRF())):
        score = metric.corpus_score(list(translated), wanted).score
        unit = f"points, {metric.get_signature()}"
        figures.append(Figure(name, score, unit, split, len(pairs), command, beam))
    return tuple(figures)


def read_splits(data: Path, quick: bool) -> dict[str, list[Pair]]:
    pairs = load_pairs(data)
    return split_pairs(pairs[:: len(pairs) // QUICK_PAIRS] if quick else pairs)


def held_out(context: EvaluationContext) -> HeldOut[str, str]:
    pairs = read_splits(context.data, quick=False)["held-out"]
    wanted = [[pair.spanish for pair in pairs]]

    def measure(answers: Sequence[str]) -> list[Measurement]:
        measured = []
        for metric in (BLEU(), CHRF()):
            found = metric.corpus_score(list(answers), wanted, n_bootstrap=ROUNDS)
            # What sacrebleu prints as "μ ± ci".
            low, high = found._mean - found._ci, found._mean + found._ci
            method = "bootstrap over verses (sacrebleu)"
            measured.append(Measurement(found.score, len(pairs), low, high, method))
        return measured

    return HeldOut([pair.english for pair in pairs], measure)


def held_out_figures(
    model: BeamModel, tokenizers: Mapping[str, Tokenizer], data: Path, quick: bool, command: str
) -> tuple[Figure, ...]:
    """The held-out figures of a model, be it PyTorch's or an exported graph."""
    pairs = read_splits(data, quick)["held-out"]
    verses = "verses of at most 20 English words"
    split = f"every tenth of the {verses}" if not quick else f"every tenth of some {verses}"
    translated = translate(model, tokenizers, [pair.english for pair in pairs])
    return figures_of(translated, pairs, f"{split}, beam of {BEAM.width}", command, BEAM.width)


def train(run: Run) -> None:
    splits = read_splits(run.data, run.quick)
    options = run.recipe.task_settings(TranslateSettings)
    english = [pair.english for pair in splits["train"]]
    spanish = [pair.spanish for pair in splits["train"]]
    source = learn_pieces(english, options.pieces, lowercase=True)
    target = learn_pieces(spanish, options.pieces, has_markers=True)
    task = TranslateTask(source, target, splits["train"], splits["validation"], run.seed, options)
    config = run.recipe.config(
        Seq2SeqConfig,
        source_vocabulary_size=len(source.vocabulary),
        target_vocabulary_size=len(target.vocabulary),
        source_limit=SOURCE_LIMIT,
    )
    settings = run.recipe.fit_settings(run.seed)
    model, history = run.fit(Seq2Seq, config, task, settings)
    tokenizers = {"input": source, "output": target}
    trained = TrainedModel(
        name=run.model,
        description="Translates verses from English into the Spanish of Reina and Valera (1909).",
        config=config_to_json(config),
        weights=model.state_dict(),
        tokenizers=tokenizers,
        limits={"input_tokens": SOURCE_LIMIT, "output_tokens": TARGET_LIMIT},
        figures=held_out_figures(model, tokenizers, run.data, run.quick, run.command),
        data=(WORLD_ENGLISH.describe(), REINA_VALERA.describe()),
        training=run.facts(model, history),
    )
    run.finish(trained, history)


if __name__ == "__main__":
    sys.exit(run_script("translate", train))
