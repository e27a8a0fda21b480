"""What the command line prints: answers on standard output, everything else on standard error.

Each kind of answer is a line of text or an object of JSON; the objects' keys are the names of the
fields of unroll/types.py and of unroll.v1.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from google.protobuf.json_format import MessageToDict

from unroll.forecasts import ForecastEnd, ForecastStep
from unroll.types import (
    Answer,
    Chunk,
    Classification,
    Embedding,
    FilledBlank,
    ModelState,
    NamedState,
    NextToken,
    SampleEnd,
    ScoredText,
    TaggedText,
    TaggedToken,
    Token,
)
from unroll.v1 import unroll_pb2 as pb

Object = dict[str, Any]


def emit(text: str) -> None:
    """One line of an answer, at once."""
    print(text, flush=True)


def emit_object(content: Mapping[str, Any]) -> None:
    """One object on one line, without the keys that have no value."""
    present = {key: value for key, value in content.items() if value is not None}
    emit(json.dumps(present, ensure_ascii=False))


def note(text: str, out: TextIO | None = None) -> None:
    """What is no answer; after what was answered before."""
    sys.stdout.flush()
    print(text, file=out or sys.stderr, flush=True)


def ranked(pairs: Iterable[tuple[str, float]]) -> str:
    return "  ".join(f"{name} {probability:.3f}" for name, probability in pairs)


def _labels(pairs: Iterable[tuple[str, float]], name: str = "label") -> list[Object]:
    return [{name: text, "probability": probability} for text, probability in pairs]


def _finite(number: float | None) -> float | None:
    """JSON knows no infinity."""
    return number if number is not None and math.isfinite(number) else None


# -- one answer to one text ------------------------------------------------------------------------


def classification_object(answer: Classification) -> Object:
    label, probability = answer.best
    return {
        "label": label,
        "probability": probability,
        "labels": _labels(answer.labels),
        "input_tokens": answer.input_tokens,
        "unknown_symbols": answer.unknown_symbols,
    }


def tagged_token_object(token: TaggedToken) -> Object:
    content: Object = {
        "text": token.text,
        "label": token.label,
        "probability": token.probability,
        "position": token.position,
    }
    return content | ({"top": _labels(token.top)} if token.top else {})


def tagged_object(answer: TaggedText) -> Object:
    tokens = [tagged_token_object(token) for token in answer.tokens]
    return {"tokens": tokens, "unknown_symbols": answer.unknown_symbols}


def tagged_lines(answer: TaggedText, with_top: bool) -> str:
    if not with_top:
        return " ".join(f"{token.text}/{token.label}" for token in answer.tokens)
    return "\n".join(f"{token.text}\t{ranked(token.top)}" for token in answer.tokens)


def filled_object(answer: FilledBlank) -> Object:
    return {
        "words": _labels(answer.words, "word"),
        "input_tokens": answer.input_tokens,
        "unknown_symbols": answer.unknown_symbols,
    }


def scored_object(answer: ScoredText) -> Object:
    return {
        "log_probability": _finite(answer.log_probability),
        "tokens": [token_object(token) for token in answer.tokens],
        "unknown_symbols": answer.unknown_symbols,
    }


def choices_object(texts: Sequence[str], answer: ScoredText) -> Object:
    """In the order that they were sent in."""
    choices = [
        {
            "text": text,
            "probability": choice.probability,
            "log_probability": _finite(choice.log_probability),
            "log_probability_per_token": _finite(choice.log_probability_per_token),
            "tokens": [token_object(token) for token in choice.tokens],
        }
        for text, choice in zip(texts, answer.choices, strict=True)
    ]
    return {"choices": choices, "unknown_symbols": answer.unknown_symbols}


def choices_lines(texts: Sequence[str], answer: ScoredText) -> str:
    """The likeliest first."""
    ranked = sorted(zip(texts, answer.choices, strict=True), key=lambda each: -each[1].probability)
    return "\n".join(
        f"{choice.probability:.3f}  {choice.log_probability:.4f} "
        f"({choice.log_probability_per_token:.4f} a token)  {text!r}"
        for text, choice in ranked
    )


def next_object(tokens: Sequence[NextToken]) -> Object:
    return {
        "next_tokens": [
            {**vars(token), "log_probability": _finite(token.log_probability)} for token in tokens
        ]
    }


def next_lines(tokens: Sequence[NextToken]) -> str:
    return "\n".join(
        f"{math.exp(token.log_probability):.3f}  {token.log_probability:.4f}  {token.text!r}"
        for token in tokens
    )


def embedding_line(answer: Embedding) -> str:
    return " ".join(f"{value:.6g}" for value in answer.values)


def scored_line(text: str, answer: ScoredText) -> str:
    scored = [token for token in answer.tokens if token.log_probability is not None]
    mean = answer.log_probability / max(len(scored), 1)
    return f"{answer.log_probability:.4f} ({mean:.4f} a token)  {text}"


# -- streams of tokens -----------------------------------------------------------------------------


def token_object(token: Token) -> Object:
    content: Object = {"id": token.id, "text": token.text, "position": token.position}
    if token.sample:
        content["sample"] = token.sample
    if token.log_probability is not None:
        content["log_probability"] = _finite(token.log_probability)
    if token.top:
        content["top"] = [
            {"id": number, "text": text, "log_probability": _finite(log_probability)}
            for number, text, log_probability in token.top
        ]
    return content


def chunk_object(chunk: Chunk) -> Object:
    """A message of a stream as it came; tokens of several samples make no one text."""
    is_one = not any(token.sample for token in chunk.tokens)
    return {
        "text": chunk.text if is_one else None,
        "tokens": [token_object(token) for token in chunk.tokens],
        "echo": "".join(token.text for token in chunk.echo) or None,
        "seed": chunk.seed,
        "ends": [vars(end) for end in chunk.ends] or None,
        "answer": vars(chunk.answer) if chunk.answer else None,
    }


class Gathered:
    """A stream as a whole: its samples' texts, and how each and all of them ended."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self.seed: int | None = None
        self.answer: Answer | None = None
        self.tokens: list[Token] = []
        self.ends: list[SampleEnd] = []
        for chunk in chunks:
            self.seed = chunk.seed if self.seed is None else self.seed
            self.answer = chunk.answer or self.answer
            self.tokens += chunk.tokens
            self.ends += chunk.ends

    def text(self, sample: int = 0) -> str:
        return "".join(token.text for token in self.tokens if token.sample == sample)

    def texts(self) -> list[str]:
        """Of each sample, those that ended first; of the only one, if none ended."""
        return [self.text(end.sample) for end in self.ends] or [self.text()]

    def object(self, with_tokens: bool) -> Object:
        """with_tokens: whether each token is listed."""
        samples = [{**vars(end), "text": self.text(end.sample)} for end in self.ends]
        content: Object = {"text": self.text(), "seed": self.seed}
        if self.answer:
            content |= vars(self.answer)
        if len(samples) > 1:
            content["samples"] = samples
        if with_tokens:
            content["tokens"] = [token_object(token) for token in self.tokens]
        return content


def print_samples(chunks: Iterable[Chunk]) -> None:
    """Several samples cannot be streamed to one screen: each when it is whole."""
    texts: dict[int, str] = {}
    for chunk in chunks:
        for token in chunk.tokens:
            texts[token.sample] = texts.get(token.sample, "") + token.text
        for end in chunk.ends:
            worth = f"score {end.score:.4f}" if end.score is not None else end.reason
            emit(texts.get(end.sample, ""))
            note(f"[sample {end.sample}; {worth}; log-probability {end.log_probability:.4f}]")


def print_stream(
    chunks: Iterable[Chunk],
    log_probabilities: bool = False,
    notes: TextIO | None = None,
    echo_end: str = "",
) -> Answer | None:
    """Tokens as they come, then a note of how the stream ended.

    log_probabilities: a line for each token. notes: None for standard error. echo_end: what stands
    between the input, where it is echoed, and the output.
    """
    seed, answer = None, None
    for chunk in chunks:
        seed, answer = chunk.seed if seed is None else seed, chunk.answer
        if chunk.echo:
            print("".join(token.text for token in chunk.echo), end=echo_end, flush=True)
        if log_probabilities:
            for token in chunk.tokens:
                emit(f"{token.position}\t{token.text!r}\t{token.log_probability:.4f}")
        else:
            print(chunk.text, end="", flush=True)
    if answer:
        if not log_probabilities:
            print(flush=True)
        note(_end_of(answer, seed), notes)
    return answer


def _end_of(answer: Answer, seed: int | None) -> str:
    first = 1000 * answer.time_to_first_token_seconds
    unknown = answer.unknown_symbols
    cached = f" ({answer.cached_tokens} cached)" if answer.cached_tokens else ""
    return (
        f"[{answer.reason}; {answer.input_tokens} tokens in{cached}, {answer.output_tokens} out, "
        f"first after {first:.1f} ms, seed {seed}]"
    ) + (f"\n[{unknown} symbols unknown to the model]" if unknown else "")


def named_state_line(state: NamedState) -> str:
    """Name, model, what led to it, its size, when it expires, what of it is unknown to the model,
    and why it cannot be used."""
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(state.expires))
    unknown = f"  {state.unknown_symbols} symbols unknown" if state.unknown_symbols else ""
    reason = f"  UNUSABLE: {state.reason}" if state.reason else ""
    return (
        f"{state.name}  {state.model}  {state.method}  {state.input_tokens} tokens  "
        f"{state.bytes / 1024:.1f} KiB  until {until}{unknown}{reason}"
    )


def forecast_line(name: str, step: ForecastStep) -> str:
    """Name, time or number of the step, and its quantiles."""
    numbers = "\t".join(f"{value:.6g}" for value in step.quantiles)
    return f"{name}\t{step.time or step.position + 1}\t{numbers}"


def forecast_note(end: ForecastEnd, seed: int | None) -> str:
    first = 1000 * end.time_to_first_step_seconds
    return (
        f"[{end.input_values} values in, {end.output_values} drawn, first step after "
        f"{first:.1f} ms, seed {seed}]"
    )


# -- models ----------------------------------------------------------------------------------------


def task_of(model: pb.Model) -> str:
    name: str = pb.Task.Name(model.task)
    return name.removeprefix("TASK_").lower()


def model_object(model: pb.Model) -> Object:
    content: Object = MessageToDict(
        model, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    content["task"] = task_of(model)
    return content


def model_lines(model: pb.Model) -> str:
    head = (
        f"{model.name} {model.version}  {task_of(model)}  {model.precision} on {model.provider}  "
        f"{model.description}"
    )
    return "\n".join((head, *map(_figure_line, model.figures)))


def _figure_line(figure: pb.Figure) -> str:
    floors = ", ".join(f"{floor.value:.4g} by {floor.by}" for floor in figure.floors)
    beside = f" (without a network: {floors})" if floors else ""
    return f"    {figure.name} {figure.value:.4g} {figure.unit} on {figure.split}{beside}"


def refused_object(refused: pb.RefusedModel) -> Object:
    return {"name": refused.name, "version": refused.version, "refused": refused.reason}


def state_line(state: ModelState) -> str:
    reason = f"  {state.reason}" if state.reason else ""
    return f"{state.name} {state.version}  {state.state}{reason}"
