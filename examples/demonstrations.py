"""One call of each task, with the command that repeats it, and whether its answer is right.

Which task a model is of, the server says; what the model is sent and what is expected, tour.toml.
"""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from itertools import tee
from operator import mul
from pathlib import Path
from textwrap import indent
from typing import Any

from unroll import Client, Sampling
from unroll.chart import chart
from unroll.output import (
    choices_lines,
    forecast_line,
    named_state_line,
    next_lines,
    print_stream,
)
from unroll.types import Answer, Chunk
from unroll.v1 import unroll_pb2 as pb

Sample = Mapping[str, Any]  # a table of tour.toml

SAMPLES: Mapping[str, Mapping[str, Sample]] = tomllib.loads(
    Path(__file__).with_name("tour.toml").read_text(encoding="utf8")
)
SHOWN_WORDS = 5
_ZEROS = 4  # frames, where nobody says others


class TourFailed(Exception):
    pass


def demonstrate(client: Client, model: pb.Model) -> bool:
    """Call the model as its task is called; False for a task without a demonstration.

    Raises TourFailed when an answer is wrong, RequestFailed when a call fails.
    """
    show = _stream_tag if model.streams_tags else DEMONSTRATIONS.get(model.task)
    task = pb.Task.Name(model.task).removeprefix("TASK_").lower()
    if model.frames.channels:
        show, task = _classify_frames, "classify_frames"
    if show is None:
        return False
    sample = SAMPLES["models"].get(model.name)
    show(client, model.name, SAMPLES["tasks"][task] if sample is None else sample)
    return True


def _classify(client: Client, model: str, sample: Sample) -> None:
    texts = sample["texts"]
    _show(f"classify --model {model} " + shlex.join(texts))
    answers = client.classify(model, texts)
    expected = sample.get("labels", [None] * len(texts))
    for text, wanted, answer in zip(texts, expected, answers, strict=True):
        label, probability = answer.best
        print(f"  {label} {probability:.3f}  {text}")
        if wanted not in (None, label):
            raise TourFailed(f"{model} calls {text!r} {label}, not {wanted}")


def _classify_frames(client: Client, model: str, sample: Sample) -> None:
    """A sequence as a whole, and, where the model can, after each of its frames."""
    about = client.get_model(model)
    frames = sample.get("frames", [[0.0] * len(about.frames.channels)] * _ZEROS)
    header = ",".join(map(str, range(1, 1 + len(frames[0]))))
    quoted = " ".join([header, *(",".join(f"{value:g}" for value in one) for one in frames)])
    is_stepped = bool(about.stepper.inputs)
    flags = " --stream" if is_stepped else ""
    command = f"python -m unroll classify --model {model} --frames -{flags}"
    print(f"\n$ printf '%s\\n' {quoted} | {command}", flush=True)
    last: tuple[float, str] | None = None
    for chunk in client.stream_step(model, frames) if is_stepped else ():
        for result in chunk.results:
            said = memoryview(result.outputs["probabilities"]).cast("B").cast("f")
            last = max(zip(map(float, said), about.labels, strict=True))
            probability, label = last
            print(f"  -\t{result.position}\t{label} {probability:.3f}", flush=True)
    (answer,) = client.classify(model, frames=[frames])
    label, probability = answer.best
    if last is None:
        print(f"  {label} {probability:.3f}  -")
    elif last != (probability, label):
        raise TourFailed(f"{model} says {last} after the last frame, and {answer.best} of all")
    if sample.get("label", label) != label:
        raise TourFailed(f"{model} takes {sample['label']!r} for {label!r}")


def _tag(client: Client, model: str, sample: Sample) -> None:
    text = sample["text"]
    _show(f"tag --model {model} " + shlex.quote(text))
    (tagged,) = client.tag(model, [text])
    print("  " + " ".join(f"{token.text}/{token.label}" for token in tagged.tokens))
    labels = [token.label for token in tagged.tokens]
    expected = sample.get("labels", labels)
    if labels != expected:
        raise TourFailed(f"{model} tags {text!r} {' '.join(labels)}, not {' '.join(expected)}")


def _stream_tag(client: Client, model: str, sample: Sample) -> None:
    """One word a request: each label is there before the next word is sent."""
    text = sample["text"]
    words = text.split()
    print(f"\n$ echo {shlex.quote(text)} | python -m unroll stream-tag --model {model}", flush=True)
    answered = 0
    for chunk in client.stream_tag(model, ([word] for word in words)):
        for token in chunk.tokens:
            print(f"  {token.text}\t{token.label} {token.probability:.3f}", flush=True)
            answered += 1
    if answered != len(words):
        raise TourFailed(f"{model} answered {answered} of {len(words)} words")


def _fill(client: Client, model: str, sample: Sample) -> None:
    texts = sample["texts"]
    _show(f"fill --model {model} --top {SHOWN_WORDS} " + shlex.join(texts))
    blanks = client.fill(model, texts, top=SHOWN_WORDS)
    expected = sample.get("words", [()] * len(texts))
    for text, wanted, blank in zip(texts, expected, blanks, strict=True):
        words = [word for word, _ in blank.words]
        print(f"  {text}\n      {' '.join(words)}")
        if wanted and not set(words).intersection(wanted):
            raise TourFailed(f"{model} fills {text!r} with none of {', '.join(wanted)}")


def _write_of_prompt(client: Client, model: str, sample: Sample) -> None:
    prompt, most = sample["prompt"], sample["max_tokens"]
    flags, sampling = _sampling(sample)
    _show(f"generate --model {model} --prompt {_quoted(prompt)} --max-tokens {most}{flags} --echo")
    chunks = client.generate(model, prompt=prompt, max_tokens=most, sampling=sampling, echo=True)
    answer = _print(chunks)
    if answer is None or (answer.output_tokens != most and answer.reason != "end"):
        raise TourFailed(f"{model} did not write {most} tokens: {answer}")
    if "state" in sample:
        _write_from_state(client, model, sample)
    if "again" in sample:
        _write_after_a_beginning(client, model, sample["again"] | {"seed": sample["seed"]})
    if "preset" in sample:
        _write_with_preset(client, model, sample)
    if "follow" in sample:
        _choose(client, model, sample["follow"])
    if "regex" in sample:
        _write_constrained(client, model, sample)


def _write_from_state(client: Client, model: str, sample: Sample) -> None:
    """The same text, from a state that is kept by name: the prompt is read once for all of them."""
    name, prompt, most = sample["state"], sample["prompt"], sample["max_tokens"]
    flags, sampling = _sampling(sample)
    _show(f"create-state {name} --model {model} --prompt {_quoted(prompt)} --replace")
    state = client.create_state(name, model, prompt=prompt, replace=True)
    print(f"  {named_state_line(state)}")
    _show(f"generate --model {model} --state {name} --max-tokens {most}{flags}")
    printed, again = tee(client.generate(model, state=name, max_tokens=most, sampling=sampling))
    _print(printed)
    whole = client.generate(model, prompt=prompt, max_tokens=most, sampling=sampling)
    if _text(again) != _text(whole):
        raise TourFailed(f"{model} writes otherwise from a state than from its prompt")
    _show(f"delete-state {name}")
    client.delete_state(name)


def _write_after_a_beginning(client: Client, model: str, sample: Sample) -> None:
    """Two prompts that begin alike: of the second one what they share was read before."""
    most, answer = sample["max_tokens"], None
    flags, sampling = _sampling(sample)
    for prompt in (sample["prompt"], sample["prompt"] + sample["more"]):
        _show(f"generate --model {model} --prompt {_quoted(prompt)} --max-tokens {most}{flags}")
        answer = _print(client.generate(model, prompt=prompt, max_tokens=most, sampling=sampling))
    if client.get_model(model).batch_invariant and not (answer and answer.cached_tokens):
        raise TourFailed(
            f"{model} read a prompt from its beginning, which it had read before; has the server a "
            "prefix cache (--prefix-cache-bytes)?"
        )


def _write_with_preset(client: Client, model: str, sample: Sample) -> None:
    """The text of a preset is that of its parameters; nothing on a server that has no such one."""
    name, prompt, most, seed = (sample[key] for key in ("preset", "prompt", "max_tokens", "seed"))
    presets = client.get_model(model).presets
    if name not in presets:
        return
    _show(
        f"generate --model {model} --prompt {_quoted(prompt)} --preset {name} --max-tokens {most} "
        f"--seed {seed}"
    )
    options: Any = {"prompt": prompt, "max_tokens": most}
    printed, again = tee(client.generate(model, preset=name, seed=seed, **options))
    _print(printed)
    values = {field.name: value for field, value in presets[name].ListFields()}
    said = client.generate(model, sampling=Sampling(seed=seed, **values), **options)
    if _text(again) != _text(said):
        raise TourFailed(f"{model} writes otherwise by the preset {name!r} than by its parameters")


def _text(chunks: Iterable[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def _choose(client: Client, model: str, sample: Sample) -> None:
    """Which of several continuations is the likeliest, and which token comes next."""
    text, choices = sample["text"], sample["choices"]
    _show(
        f"score --model {model} {_quoted(text)} "
        + " ".join(f"--choice {_quoted(choice)}" for choice in choices)
    )
    (scored,) = client.score(model, [text], choices=choices)
    print(indent(choices_lines(choices, scored), "  "), flush=True)
    if choices[scored.best] != sample["best"]:
        raise TourFailed(f"{model} takes {choices[scored.best]!r} after {text!r}")
    begun = text + sample["best"][:1]
    _show(f"next --model {model} {_quoted(begun)}")
    (tokens,) = client.next_tokens(model, [begun])
    print(indent(next_lines(tokens), "  "), flush=True)


def _embed(client: Client, model: str, sample: Sample) -> None:
    """Texts as vectors: the first is nearer to the second than to the third."""
    texts = sample["texts"]
    _show(f"embed --model {model} " + " ".join(map(_quoted, texts)))
    first, *others = client.embed(model, texts)
    near = [sum(map(mul, first.values, other.values)) for other in others]
    for text, similarity in zip(texts[1:], near, strict=True):
        print(f"  cosine {similarity:.3f}  {texts[0]!r}, {text!r}", flush=True)
    if near[0] < near[1]:
        raise TourFailed(f"{model} puts {texts[0]!r} nearer to {texts[2]!r} than to {texts[1]!r}")


def _write_constrained(client: Client, model: str, sample: Sample) -> None:
    """The same prompt, held to an expression."""
    prompt, regex = sample["prompt"], sample["regex"]
    flags, sampling = _sampling(sample)
    constraint = f"--regex {shlex.quote(regex)}"
    _show(f"generate --model {model} --prompt {_quoted(prompt)} {constraint}{flags}")
    printed, again = tee(client.generate(model, prompt=prompt, regex=regex, sampling=sampling))
    answer = _print(printed)
    text = "".join(chunk.text for chunk in again)
    if answer is None or answer.reason != "end" or not re.fullmatch(regex, text):
        raise TourFailed(f"{model} wrote {text!r}, which does not match {regex!r}: {answer}")


def _write_of_source(client: Client, model: str, sample: Sample) -> None:
    flags, sampling = _sampling(sample)
    _show(f"generate --model {model} --source {shlex.quote(sample['source'])}{flags}")
    chunks = client.generate(model, source=sample["source"], sampling=sampling)
    _check_written(model, sample, chunks)
    if "embed" in sample:
        _embed(client, model, sample["embed"])


def _write_of_vector(client: Client, model: str, sample: Sample) -> None:
    card = client.get_model(model)
    absent = None if "unknown_values" in card.limits else 0.0
    vector = [sample["vector"].get(field, absent) for field in card.vector_fields]
    values = ",".join("" if value is None else f"{value:g}" for value in vector)
    flags, sampling = _sampling(sample)
    _show(f"generate --model {model} --vector {values}{flags}")
    _check_written(model, sample, client.generate(model, vector=vector, sampling=sampling))


def _check_written(model: str, sample: Sample, chunks: Iterable[Chunk]) -> None:
    """That it comes to an end, and holds what it is to hold."""
    printed, again = tee(chunks)
    answer = _print(printed)
    text = _text(again)
    if answer is None or answer.reason != "end":
        raise TourFailed(f"{model} did not come to the end of its answer: {answer}")
    if sample.get("contains", "") not in text:
        raise TourFailed(f"{model} wrote {text!r}, which does not hold {sample['contains']!r}")


def _forecast(client: Client, model: str, sample: Sample) -> None:
    """Quantiles of each step, as they are drawn, then a chart."""
    values = [float(value) for value in sample["values"]]
    horizon, seed = sample["horizon"], sample["seed"]
    numbers = ",".join(f"{value:g}" for value in values)
    _show(f"forecast --model {model} --values {numbers} --horizon {horizon} --seed {seed} --chart")
    chunks = client.forecast(model, [values], horizon=horizon, seed=seed, quantiles=(0.1, 0.5, 0.9))
    steps = [step for chunk in chunks for step in chunk.steps]
    for step in steps:
        print(f"  {forecast_line('values', step)}", flush=True)
    if [step.position for step in steps] != list(range(horizon)):
        raise TourFailed(f"{model} forecast {len(steps)} of {horizon} steps")
    low, middle, high = ([step.quantiles[place] for step in steps] for place in range(3))
    print(chart(values, low, middle, high))
    within = sample.get("within")
    if within and not within[0] <= steps[-1].quantiles[1] <= within[1]:
        raise TourFailed(f"{model} forecasts {steps[-1].quantiles[1]:g} at last, not {within}")


def _sampling(sample: Sample) -> tuple[str, Sampling]:
    """As flags of the command, and as the call has it."""
    chosen = {key: sample[key] for key in ("temperature", "seed") if key in sample}
    flags = "".join(f" --{key} {value:g}" for key, value in chosen.items())
    return flags, Sampling(**chosen)


def _quoted(prompt: str) -> str:
    """As a shell reads it; line feeds as bash's $'…' spells them."""
    if "\n" not in prompt:
        return shlex.quote(prompt)
    return "$'" + prompt.replace("\\", r"\\").replace("'", r"\'").replace("\n", r"\n") + "'"


def _print(chunks: Iterable[Chunk]) -> Answer | None:
    """As the command does, its note on standard output too."""
    return print_stream(chunks, notes=sys.stdout)


def _show(command: str) -> None:
    print(f"\n$ python -m unroll {command}", flush=True)


DEMONSTRATIONS: Mapping[int, Callable[[Client, str, Sample], None]] = {
    pb.TASK_CLASSIFY: _classify,
    pb.TASK_TAG: _tag,
    pb.TASK_FILL: _fill,
    pb.TASK_GENERATE: _write_of_prompt,
    pb.TASK_SEQ2SEQ: _write_of_source,
    pb.TASK_VECTOR_TO_SEQUENCE: _write_of_vector,
    pb.TASK_FORECAST: _forecast,
}
