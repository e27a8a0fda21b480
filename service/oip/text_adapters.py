"""Adapters of texts: texts in; labels, words and their probabilities out."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from service.engine.errors import WrongInput
from service.engine.requests import TagSnapshot
from service.oip.adapters import InferResult, ModelAdapter, Setting, about
from service.oip.parameters import InferParameters
from service.oip.tensors import Array, TensorMetadata, bytes_array, raw_text, texts_of
from service.serving.classifier import Classified, TextClassifierModel
from service.serving.fill_mask import MAX_TOP_WORDS, FilledBlank, FillModel
from service.serving.inputs import off_loop
from service.serving.tagger import TaggedToken, TaggerModel, TagParams

_NUMBER = struct.Struct("<f")
_TEXT = TensorMetadata("text", "BYTES", (-1, 1))


class ClassifyText(ModelAdapter):
    reads_texts = True

    def __init__(self, model: TextClassifierModel) -> None:
        super().__init__(model.card)
        self.model = model
        self.inputs = (_TEXT,)
        self.outputs = label_outputs(model.card.labels)
        self._raw_labels = {label: raw_text(label) for label in model.card.labels}
        self._numbers = struct.Struct(f"<{len(model.card.labels)}f")

    async def infer(self, inputs: Mapping[str, Array], settings: Any) -> InferResult:
        rows = await self.rows_of(texts_of(inputs["text"], "text"))
        return await off_loop(len(rows) * len(self.card.labels), lambda: answered(rows))

    async def rows_of(self, texts: Sequence[str]) -> list[Classified]:
        with about("text"):
            return await self.model.classify(texts)

    def result_of(self, rows: Sequence[Classified]) -> InferResult:
        return answered(rows)

    def raw_of(self, rows: Sequence[Classified]) -> dict[str, bytes]:
        best = [row.best for row in rows]
        return {
            "label": b"".join([self._raw_labels[label] for label, _ in best]),
            "probability": b"".join([_NUMBER.pack(probability) for _, probability in best]),
            "probabilities": b"".join([self._numbers.pack(*row.probabilities) for row in rows]),
        }

    def said_of(self, rows: Sequence[Classified]) -> dict[str, Setting]:
        return _said(rows)


def label_outputs(labels: tuple[str, ...]) -> tuple[TensorMetadata, ...]:
    """Of answered()."""
    return (
        TensorMetadata("label", "BYTES", (-1, 1)),
        TensorMetadata("probability", "FP32", (-1, 1)),
        TensorMetadata("probabilities", "FP32", (-1, len(labels)), labels=labels),
    )


def answered(rows: Sequence[Classified]) -> InferResult:
    best = [row.best for row in rows]
    return InferResult(
        {
            "label": bytes_array([label for label, _ in best], (-1, 1)),
            "probability": np.array([[p] for _, p in best], np.float32),
            "probabilities": np.array([row.probabilities for row in rows], np.float32),
        },
        _said(rows),
    )


def _said(rows: Sequence[Classified]) -> dict[str, Setting]:
    return {"unknown_symbols": sum([row.unknown_symbols for row in rows])}


class TagText(ModelAdapter):
    """Rows of fewer tokens than the longest are filled up with empty ones.

    A tagger that reads from left to right goes on with a sequence's words, too.
    """

    def __init__(self, model: TaggerModel) -> None:
        super().__init__(model.card)
        self.model = model
        self.keeps_sequences = model.stream is not None
        self.inputs = (_TEXT,)
        self.outputs = (
            TensorMetadata("tokens", "BYTES", (-1, -1)),
            TensorMetadata("labels", "BYTES", (-1, -1)),
            TensorMetadata("probabilities", "FP32", (-1, -1)),
            TensorMetadata("lengths", "INT64", (-1, 1)),
        )

    async def infer(self, inputs: Mapping[str, Array], settings: Any) -> InferResult:
        texts = texts_of(inputs["text"], "text")
        with about("text"):
            tagged = await self.model.tag([TagParams(text, ()) for text in texts])
        unknown = sum(text.unknown_symbols for text in tagged)
        rows = [text.tokens for text in tagged]
        return await off_loop(sum(map(len, rows)), lambda: _tagged(rows, unknown))

    async def go_on(
        self, inputs: Mapping[str, Array], settings: Any, state: TagSnapshot | None
    ) -> tuple[InferResult, TagSnapshot]:
        (text,) = texts_of(inputs["text"], "text")
        limit, reader = self.card.limits["input_tokens"], self.model.reader
        with about("text"):
            self.model.check_unread(reader, text, "it", limit)
            words = reader.words_of(text)
            self.model.check_tokens(len(words), "it", limit)
            encoded = reader.encode_words(words)
            turn = await self.model.streams.turn(encoded.ids, words, state)
        return _tagged([turn.tokens], encoded.unknown), turn.after


def _tagged(rows: Sequence[Sequence[TaggedToken]], unknown: int) -> InferResult:
    shape = (len(rows), max(map(len, rows)))
    tokens, labels = np.full(shape, b"", object), np.full(shape, b"", object)
    probabilities = np.zeros(shape, np.float32)
    for number, row in enumerate(rows):
        tokens[number, : len(row)] = [token.text.encode() for token in row]
        labels[number, : len(row)] = [token.label.encode() for token in row]
        probabilities[number, : len(row)] = [token.probability for token in row]
    lengths = np.array([[len(row)] for row in rows], np.int64)
    return InferResult(
        {"tokens": tokens, "labels": labels, "probabilities": probabilities, "lengths": lengths},
        {"unknown_symbols": unknown},
    )


class FillText(ModelAdapter):
    settings_help = f"this model knows 'top_words', 1 to {MAX_TOP_WORDS}"

    def __init__(self, model: FillModel) -> None:
        super().__init__(model.card)
        self.model = model
        self.inputs = (_TEXT,)
        self.outputs = (
            TensorMetadata("words", "BYTES", (-1, -1)),
            TensorMetadata("probabilities", "FP32", (-1, -1)),
        )

    def settings(self, parameters: InferParameters) -> int:
        top = parameters.whole("top_words")
        if top is not None and not 1 <= top <= MAX_TOP_WORDS:
            raise WrongInput(f"parameter 'top_words' is {top}; choose 1 to {MAX_TOP_WORDS}")
        return top or 0

    async def infer(self, inputs: Mapping[str, Array], settings: int) -> InferResult:
        texts = texts_of(inputs["text"], "text")
        with about("text"):
            rows = await self.model.fill(texts, settings)
        return await off_loop(sum(len(row.words) for row in rows), lambda: _filled(rows))


def _filled(rows: Sequence[FilledBlank]) -> InferResult:
    words = [word for row in rows for word, _ in row.words]
    return InferResult(
        {
            "words": bytes_array(words, (len(rows), -1)),
            "probabilities": np.array([[p for _, p in row.words] for row in rows], np.float32),
        },
        {"unknown_symbols": sum(row.unknown_symbols for row in rows)},
    )
