"""The commands of the command line: each makes its calls, prints the answers, returns a code."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

from unroll import output
from unroll.chart import chart
from unroll.clients import Client
from unroll.forecasts import ForecastOptions, ForecastStep, Series
from unroll.lines import Line, Texts
from unroll.output import Gathered, emit, emit_object
from unroll.resume_files import read_token, with_token_kept
from unroll.sampling import FLAGS
from unroll.speech import Segment, Segmenter, SpeechOptions, read_frames
from unroll.tables import Table, read_sequences, read_table
from unroll.types import Beam, GenerateOptions, NamedState, OptionInvalid
from unroll.v1 import unroll_pb2 as pb

# Which input the lines of `generate --lines` are, by the model's task.
_INPUTS = {
    pb.TASK_GENERATE: "prompt",
    pb.TASK_SEQ2SEQ: "source",
    pb.TASK_VECTOR_TO_SEQUENCE: "vector",
}


class StreamBegin(TypedDict):
    """Options of stream_tag and of stream_step."""

    state: str
    allow_inexact: bool
    resume_at_end: bool


def numbers(text: str) -> list[float]:
    """NaN for an empty one."""
    return [float(number) if number.strip() else math.nan for number in text.split(",")]


def _texts(chosen: argparse.Namespace) -> Texts:
    """Exits with 2 where there is neither a text nor --lines, or both."""
    if bool(chosen.texts) == (chosen.lines is not None):
        chosen.parser.error("give TEXT or --lines FILE")
    return Texts(chosen.texts, chosen.lines, _concurrency(chosen))


def _concurrency(chosen: argparse.Namespace) -> int:
    if chosen.concurrency < 1:
        chosen.parser.error("--concurrency is at least 1")
    return int(chosen.concurrency)


def _show(chosen: argparse.Namespace, line: Line, content: output.Object, text: str) -> None:
    """One answer: as JSON with the text that it answers, or as text."""
    if chosen.json:
        emit_object({"line": line.number, **content})
    else:
        emit(text)


def classify(client: Client, chosen: argparse.Namespace) -> int:
    if chosen.frames is not None:
        return _classify_frames(client, chosen)
    if chosen.sequence is not None or chosen.stream:
        chosen.parser.error("--sequence and --stream go with --frames FILE")
    _check_no_stream(chosen)
    texts = _texts(chosen)
    for line, answer in texts.answers(lambda some: client.classify(chosen.model, some)):
        label, probability = answer.best
        content = {"text": line.text, **output.classification_object(answer)}
        _show(chosen, line, content, f"{label} {probability:.3f}  {line.text}")
    return int(bool(texts.failed))


def _classify_frames(client: Client, chosen: argparse.Namespace) -> int:
    """Of a file's sequences, each whole or after each of its frames."""
    if chosen.texts or chosen.lines is not None:
        chosen.parser.error("give TEXT, --lines FILE or --frames FILE")
    model = client.get_model(chosen.model)
    if not model.frames.channels:
        raise OptionInvalid(f"model {chosen.model!r} reads texts; leave --frames")
    sequences = read_sequences(chosen.frames, model.frames.channels, chosen.sequence)
    if chosen.stream:
        _check_one(chosen, len(sequences))
        for name, frames in sequences.items():
            _classify_as_they_come(client, chosen, name, frames, model.labels)
        return 0
    _check_no_stream(chosen)
    answers = client.classify(chosen.model, frames=list(sequences.values()))
    for name, answer in zip(sequences, answers, strict=True):
        if chosen.json:
            emit_object({"sequence": name, **output.classification_object(answer)})
        else:
            label, probability = answer.best
            emit(f"{label} {probability:.3f}  {name}")
    return 0


def _classify_as_they_come(
    client: Client,
    chosen: argparse.Namespace,
    name: str,
    frames: list[list[float]],
    labels: Sequence[str],
) -> None:
    chunks = client.stream_step(chosen.model, frames, **_begin(chosen))
    for chunk in with_token_kept(chunks, chosen.resume_out):
        for result in chunk.results:
            found = memoryview(result.outputs["probabilities"]).cast("B").cast("f").tolist()
            probability, label = max(zip(found, labels, strict=True))
            if chosen.json:
                emit_object(
                    {
                        "sequence": name,
                        "position": result.position,
                        "label": label,
                        "probability": probability,
                    }
                )
            else:
                emit(f"{name}\t{result.position}\t{label} {probability:.3f}")


def tag(client: Client, chosen: argparse.Namespace) -> int:
    texts = _texts(chosen)
    for line, answer in texts.answers(lambda some: client.tag(chosen.model, some, top=chosen.top)):
        content = {"text": line.text, **output.tagged_object(answer)}
        _show(chosen, line, content, output.tagged_lines(answer, bool(chosen.top)))
    return int(bool(texts.failed))


def stream_tag(client: Client, chosen: argparse.Namespace) -> int:
    """A line of standard input at a time: each token's label as soon as it is known."""
    chunks = client.stream_tag(chosen.model, iter(sys.stdin.readline, ""), **_begin(chosen))
    for chunk in with_token_kept(chunks, chosen.resume_out):
        for token in chunk.tokens:
            if chosen.json:
                emit_object(output.tagged_token_object(token))
            else:
                emit(f"{token.text}\t{token.label} {token.probability:.3f}")
    return 0


def vad(client: Client, chosen: argparse.Namespace) -> int:
    """Speech segments of a file, or of what standard input brings, each as soon as it is known."""
    stepper = client.get_model(chosen.model).stepper
    if len(stepper.inputs) != 1 or len(stepper.inputs[0].shape) != 1:
        raise OptionInvalid(f"model {chosen.model!r} does not read frames of one channel of audio")
    frame, rate = stepper.inputs[0].shape[0], int(stepper.attributes.get("sample_rate", 16_000))
    threshold = chosen.threshold
    if threshold is None:
        threshold = float(stepper.attributes.get("threshold", SpeechOptions.threshold))
    options = SpeechOptions(
        threshold, chosen.min_speech / 1e3, chosen.min_silence / 1e3, chosen.padding / 1e3
    )
    segmenter, read = Segmenter(options, frame, rate), [0]
    frames = read_frames(chosen.audio, frame, rate, lambda count: read.__setitem__(0, count))

    def show(segments: Iterable[Segment]) -> None:
        for segment in segments:
            begin, end = segment.start / rate, segment.end / rate
            if chosen.json:
                emit_object({"start": round(begin, 3), "end": round(end, 3)})
            else:
                emit(f"{begin:9.3f} {end:9.3f}")

    answer = stepper.outputs[0].name
    chunks = client.stream_step(chosen.model, frames, outputs=[answer], **_begin(chosen))
    for chunk in with_token_kept(chunks, chosen.resume_out):
        for result in chunk.results:
            show(segmenter.push(memoryview(result.outputs[answer]).cast("B").cast("f")[0]))
    show(segmenter.end(read[0]))
    return 0


def fill(client: Client, chosen: argparse.Namespace) -> int:
    texts = _texts(chosen)
    for line, answer in texts.answers(lambda some: client.fill(chosen.model, some, top=chosen.top)):
        content = {"text": line.text, **output.filled_object(answer)}
        _show(chosen, line, content, f"{line.text}\n    {output.ranked(answer.words)}")
    return int(bool(texts.failed))


def score(client: Client, chosen: argparse.Namespace) -> int:
    source, vector, choices = chosen.source, chosen.vector, chosen.choice
    if choices and (source or vector) and not chosen.texts and chosen.lines is None:
        chosen.texts = [""]
    texts = _texts(chosen)

    def call(some: list[str]) -> Any:
        sources = [source] * len(some) if source else []
        vectors = [vector] * len(some) if vector else []
        return client.score(chosen.model, some, sources, vectors=vectors, choices=choices)

    for line, answer in texts.answers(call):
        content: output.Object = {"text": line.text, "source": source}
        if choices:
            content |= output.choices_object(choices, answer)
            _show(chosen, line, content, output.choices_lines(choices, answer))
        else:
            content |= output.scored_object(answer)
            _show(chosen, line, content, output.scored_line(line.text, answer))
    return int(bool(texts.failed))


def next_tokens(client: Client, chosen: argparse.Namespace) -> int:
    """Of a source or a vector alone, what an answer begins with."""
    source, vector = chosen.source, chosen.vector
    if (source or vector) and not chosen.texts and chosen.lines is None:
        chosen.texts = [""]
    texts = _texts(chosen)

    def call(some: list[str]) -> Any:
        sources = [source] * len(some) if source else []
        vectors = [vector] * len(some) if vector else []
        return client.next_tokens(chosen.model, some, sources, vectors=vectors, top=chosen.top)

    for line, answer in texts.answers(call):
        content = {"text": line.text, "source": source, **output.next_object(answer)}
        _show(chosen, line, content, output.next_lines(answer))
    return int(bool(texts.failed))


def embed(client: Client, chosen: argparse.Namespace) -> int:
    texts = _texts(chosen)
    tensors = chosen.tensors
    for line, answer in texts.answers(lambda s: client.embed(chosen.model, s, tensors=tensors)):
        _show(chosen, line, {"text": line.text, **vars(answer)}, output.embedding_line(answer))
    return int(bool(texts.failed))


def generate(client: Client, chosen: argparse.Namespace) -> int:
    options = _options(chosen)
    given = (chosen.prompt, chosen.source, chosen.vector, chosen.lines)
    if not chosen.state and all(one is None for one in given):
        chosen.parser.error("give --prompt, --source, --vector, --lines or --state")
    if chosen.lines is not None:
        return _generate_lines(client, chosen, options)
    options |= {"prompt": chosen.prompt, "source": chosen.source, "vector": chosen.vector}
    chunks = client.generate(chosen.model, failover=chosen.failover, **options)
    if chosen.json:
        for chunk in chunks:
            emit_object(output.chunk_object(chunk))
    elif max(chosen.samples, chosen.beam) > 1:
        output.print_samples(chunks)
    else:
        output.print_stream(
            chunks, chosen.log_probabilities, echo_end="\n" if chosen.source is not None else ""
        )
    return 0


def _options(chosen: argparse.Namespace) -> GenerateOptions:
    options: GenerateOptions = {
        "max_tokens": chosen.max_tokens,
        "min_tokens": chosen.min_tokens,
        "stop": chosen.stop,
        "samples": chosen.samples,
        "log_probabilities": chosen.log_probabilities,
        "echo": chosen.echo,
        "no_cache": not chosen.cache,
        "choices": chosen.choices,
        "regex": chosen.regex,
        "json_schema": _schema(chosen.json_schema),
        "state": chosen.state,
        "allow_inexact": chosen.allow_inexact,
        "preset": chosen.preset,
    }
    sampling: Any = {name: getattr(chosen, name) for name in FLAGS}
    options |= sampling
    if chosen.beam:
        options["beam"] = Beam(chosen.beam, chosen.beam)
    return options


def _schema(file: str | None) -> str | None:
    """Raises OptionInvalid."""
    if file is None:
        return None
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise OptionInvalid(f"--json-schema names no file that can be read: {error}") from error


def _generate_lines(client: Client, chosen: argparse.Namespace, options: GenerateOptions) -> int:
    """Each line's output as a whole."""
    name = _INPUTS.get(client.get_model(chosen.model).task, "prompt")

    def call(some: list[str]) -> list[Gathered]:
        (text,) = some
        one: Any = {name: numbers(text) if name == "vector" else text}
        chunks = client.generate(chosen.model, failover=chosen.failover, **{**options, **one})
        return [Gathered(chunks)]

    texts = Texts([], chosen.lines, _concurrency(chosen))
    for line, answer in texts.answers(call):
        content = {name: line.text, **answer.object(chosen.log_probabilities)}
        _show(chosen, line, content, "\n".join(answer.texts()))
    return int(bool(texts.failed))


# Of a forecast whose caller names none: what is shown of it, and shaded in its chart.
_QUANTILES = (0.1, 0.5, 0.9)


def forecast(client: Client, chosen: argparse.Namespace) -> int:
    """A line a step of each series as it is drawn, then a chart of each."""
    if (chosen.file is None) == (chosen.values is None):
        chosen.parser.error("give FILE or --values V1,V2,…")
    if chosen.file is None:
        series = Series(chosen.values, chosen.start or "")
        table = Table(["values"], [series], chosen.horizon)
    else:
        table = read_table(
            chosen.file, chosen.time, chosen.targets, chosen.covariates, chosen.horizon
        )
    options: ForecastOptions = {
        "horizon": table.horizon,
        "samples": chosen.samples,
        "quantiles": _QUANTILES,
        "seed": chosen.seed,
    }
    steps: list[ForecastStep] = []
    seed = None
    for chunk in client.forecast(chosen.model, table.series, failover=chosen.failover, **options):
        seed = chunk.seed if seed is None else seed
        for step in chunk.steps:
            steps.append(step)
            name = table.names[step.series]
            if chosen.json:
                emit_object({"name": name, **vars(step), "samples": None})
            else:
                emit(output.forecast_line(name, step))
        if chunk.end and not chosen.json:
            _show_charts(table, steps, chosen.chart)
            output.note(output.forecast_note(chunk.end, seed))
    return 0


def _show_charts(table: Table, steps: list[ForecastStep], wanted: bool | None) -> None:
    """wanted: None where standard output is a terminal."""
    if not (sys.stdout.isatty() if wanted is None else wanted):
        return
    for number, (name, series) in enumerate(zip(table.names, table.series, strict=True)):
        own = [step.quantiles for step in steps if step.series == number]
        past = [math.nan if value is None else value for value in series.values]
        lower, middle, upper = ([one[place] for one in own] for place in range(3))
        emit(f"\n{name}, then the median between the 10 % and the 90 % quantile")
        emit(chart(past, lower, middle, upper))


def create_state(client: Client, chosen: argparse.Namespace) -> int:
    state = client.create_state(
        chosen.name,
        chosen.model,
        prompt=chosen.prompt,
        source=chosen.source,
        resume_token=read_token(chosen.resume_token),
        state=chosen.state,
        ttl_seconds=chosen.ttl,
        replace=chosen.replace,
        allow_inexact=chosen.allow_inexact,
    )
    _show_state(chosen, state)
    return 0


def _begin(chosen: argparse.Namespace) -> StreamBegin:
    """Of a stream whose input comes as it runs."""
    return {
        "state": chosen.state,
        "allow_inexact": chosen.allow_inexact,
        "resume_at_end": chosen.resume_out is not None,
    }


def _check_no_stream(chosen: argparse.Namespace) -> None:
    """Exits with 2 where there is what only a stream takes."""
    if chosen.state or chosen.allow_inexact or chosen.resume_out is not None:
        chosen.parser.error("--state, --allow-inexact and --resume-out go with --stream")


def _check_one(chosen: argparse.Namespace, sequences: int) -> None:
    """Raises OptionInvalid where several streams would end in one file."""
    if chosen.resume_out is not None and sequences > 1:
        raise OptionInvalid(
            f"--resume-out keeps the end of one sequence, and {chosen.frames} has {sequences}; "
            "leave --sequence"
        )


def states(client: Client, chosen: argparse.Namespace) -> int:
    for state in client.list_states(chosen.model):
        _show_state(chosen, state)
    return 0


def delete_state(client: Client, chosen: argparse.Namespace) -> int:
    for name in chosen.names:
        client.delete_state(name)
    return 0


def _show_state(chosen: argparse.Namespace, state: NamedState) -> None:
    if chosen.json:
        emit_object(vars(state))
    else:
        emit(output.named_state_line(state))


def models(client: Client, chosen: argparse.Namespace) -> int:
    for name in chosen.names:
        model = client.get_model(name)
        if chosen.json:
            emit_object(output.model_object(model))
        else:
            emit(str(model).rstrip("\n"))
    if chosen.names:
        return 0
    listed = client.list_models()
    for model in listed.models:
        if chosen.json:
            emit_object(output.model_object(model))
        else:
            emit(output.model_lines(model))
    for refused in listed.refused_models:
        if chosen.json:
            emit_object(output.refused_object(refused))
        else:
            emit(f"{refused.name} {refused.version}  REFUSED: {refused.reason}")
    return 0


def load(client: Client, chosen: argparse.Namespace) -> int:
    for name in chosen.names:
        client.load_model(name)
        _show_states(client, chosen, name)
    return 0


def unload(client: Client, chosen: argparse.Namespace) -> int:
    for name in chosen.names:
        client.unload_model(name)
        _show_states(client, chosen, name)
    return 0


def _show_states(client: Client, chosen: argparse.Namespace, name: str) -> None:
    for state in client.repository():
        if state.name == name:
            if chosen.json:
                emit_object(vars(state))
            else:
                emit(output.state_line(state))


def top(client: Client, chosen: argparse.Namespace) -> int:
    """Makes no call: it reads the servers' pages of metrics."""
    # Here alone, so that no other command needs what only the distribution brings.
    try:
        from unroll import top as view
    except ModuleNotFoundError as missing:
        output.note(f"`unroll top` needs {missing.name}, which `pip install .` brings")
        return 2
    urls = view.metrics_urls(chosen.target, chosen.metrics)
    return view.watch(urls, chosen.interval, chosen.once, chosen.json)
