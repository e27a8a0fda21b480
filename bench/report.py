"""A run as Markdown tables, for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from bench.bars import NO_INT8, Verdict
from bench.before import Before
from bench.constrained import Constrained
from bench.door_loads import CLASSIFY_CALLERS, CLASSIFY_TEXTS
from bench.doors import Doors
from bench.findings import Findings
from bench.frames import LATEST_MS, FrameRound, Frames
from bench.joining import Joining
from bench.kernels import Kernels
from bench.loads import CONNECTIONS
from bench.machine import Machine
from bench.medians import Round, Spread
from bench.memory import Memory
from bench.peers.echo import MESSAGES
from bench.predicting import SENTENCE_WORDS, PredictRow
from bench.prefixes import PrefixRow
from bench.settings import PEER_STREAMS, Settings
from bench.starting import Starts
from bench.stream_loads import EVEN_TEMPERATURE
from bench.streams import StreamRow
from bench.words import ROWS, Words
from bench.workers import Workers


def write_report(
    findings: Findings,
    verdicts: Sequence[Verdict],
    machine: Machine,
    settings: Settings,
    before: Before | None = None,
) -> str:
    """before: figures of an earlier revision, to stand beside those of this run."""
    parts = [_head(findings, machine, settings), bars_table(verdicts)]
    if before and any(v.value is not None and v.what in before.figures for v in verdicts):
        parts.append(_before(before, verdicts, machine))
    if findings.streams:
        parts.append(_streams(findings.streams))
    if findings.kernels:
        parts.append(_kernels(findings.kernels))
    if findings.words:
        parts.append(_words(findings.words))
    if findings.constrained:
        parts.append(_constrained(findings.constrained))
    if findings.joining:
        parts.append(_joining(findings.joining))
    if findings.prefixes:
        parts.append(_prefixes(findings.prefixes))
    if findings.memory or findings.start:
        parts.append(_memory(findings))
    if findings.predict:
        parts.append(_predict(findings.predict, settings))
    if findings.doors:
        parts.append(_doors(findings.doors, settings))
    if findings.workers:
        parts.append(_workers(findings.workers, settings))
    if findings.frames:
        parts.append(_frames(findings.frames, settings))
    return "\n\n".join(parts) + "\n"


def _head(findings: Findings, machine: Machine, settings: Settings) -> str:
    lines = [
        "# Benchmark",
        "",
        f"`make bench` on {machine.sentence()}. Bundles `{settings.bundle}` and "
        f"`{settings.classifier}`. Client, servers and loops share these cores; each server is a "
        f"process of its own; the service has its default settings{_front_end(settings)}, "
        "everything else computes on one thread. Figures are medians "
        f"of {settings.rounds} rounds in alternating order unless said otherwise.",
    ]
    if machine.was_busy:
        lines += ["", "**The machine was busy when the run began: do not quote these figures.**"]
    if not findings.has_int8:
        lines += ["", f"int8: {NO_INT8}."]
    return "\n".join(lines)


def _front_end(settings: Settings) -> str:
    return f" and the front end {settings.front_end}" if settings.front_end else ""


def bars_table(verdicts: Sequence[Verdict]) -> str:
    missed = sum(verdict.is_met is False for verdict in verdicts)
    rows = ((v.what, v.wanted, _value(v), v.outcome) for v in verdicts)
    table = _table(("what", "bar", "measured", ""), rows)
    unknown = sum(verdict.is_met is None for verdict in verdicts)
    met = len(verdicts) - missed - unknown
    count = f"{met} met, {missed} missed, {unknown} not measured."
    return f"## Bars\n\n{table}\n\n{count}"


def _before(before: Before, verdicts: Sequence[Verdict], machine: Machine) -> str:
    header = ("what", *(f"before, {name}" for name in before.machines), "this run")
    rows = (
        (v.what, *(figure or "–" for figure in before.figures[v.what]), _value(v))
        for v in verdicts
        if v.what in before.figures
    )
    machines = "; ".join(f"{name}: {what}" for name, what in before.machines.items())
    note = (
        f"Before is revision {before.revision} of {before.date}, where it had the figure. "
        f"{machines}. This run: {machine.sentence()}. {before.note} Machines differ: ratios can be "
        "compared between them, times and rates only within one."
    )
    return f"## Before and now\n\n{_table(header, rows)}\n\n{note}"


def _value(verdict: Verdict) -> str:
    return "–" if verdict.value is None else f"{verdict.value:.2f}{verdict.unit}"


def _streams(rows: Sequence[StreamRow]) -> str:
    bare = {(r.what.split()[-1], r.streams): r.tokens_per_second for r in rows if r.bare}
    header = (
        "server", "streams", "rounds", "tokens/s", "of the bare step",
        "server CPU a token (once all decode), µs", "first token p50 / p99, ms",
        "inter-token p50 / p99, ms", "tokens a message", "client CPU a token, µs",
    )  # fmt: skip
    table = _table(header, (_stream_cells(row, bare) for row in rows))
    note = (
        "Streams opened at once, each with a 32-character prompt that no other has, temperature "
        "0.8, top-p 0.95, default coalescing unless a row says otherwise. Of equal prompts the "
        "prefix cache knows the state; all others it looks up in vain. Foods are made of a vector "
        f"each, among 4,801 words at temperature {EVEN_TEMPERATURE:g}, at which few names end "
        "before the model's longest. The inter-token time of a message of k tokens is the time "
        "since the message before, shared by its k tokens. The bare step is the same graph and I/O "
        "binding with as many rows, no network. One loop a request is not measured above "
        f"{PEER_STREAMS} streams: its rate does not rise with them."
    )
    return f"## Streams over gRPC\n\n{table}\n\n{note}"


def _stream_cells(row: StreamRow, bare: dict[tuple[str, int], float]) -> tuple[str, ...]:
    begin = (row.what, f"{row.streams:,}", str(row.rounds))
    if row.bare:
        return (*begin, f"{row.bare.tokens_per_second:,.0f}", "1", f"{row.bare.cpu_us:.0f}",
                "–", "–", "–", "–")  # fmt: skip
    assert row.over_grpc is not None, "a row is of a server or of a loop"
    r = row.over_grpc
    precision = "int8" if row.what.startswith("unroll int8") else "fp32"
    return (
        *begin,
        f"{r.tokens_per_second:,.0f}",
        f"{r.tokens_per_second / bare[precision, row.streams]:.2f}" if row.is_prose else "–",
        f"{r.server_cpu_us:.0f} ({r.decode_cpu_us:.0f})",
        f"{r.first_token_ms_p50:.1f} / {r.first_token_ms_p99:.1f}",
        f"{r.inter_token_ms_p50:.2f} / {r.inter_token_ms_p99:.2f}",
        f"{r.tokens_per_message:.2f}",
        f"{r.client_cpu_us:.0f}",
    )


def _kernels(kernels: Kernels) -> str:
    loops = _table(
        ("loop", "precision", "batch", "tokens/s", "CPU a token, µs"),
        (
            (r.what, r.precision, str(r.rows), f"{r.tokens_per_second:,.0f}", f"{r.cpu_us:.1f}")
            for r in kernels.loops
        ),
    )
    products = _table(
        ("rows", "GFLOP/s"),
        ((str(rows), f"{rate:.1f}") for rows, rate in kernels.product_gflops.items()),
    )
    note = (
        f"The matrix product is onnxruntime's, {kernels.inner} × {kernels.outer}, weights "
        f"constant. A step's products take {kernels.flops_per_token / 1e6:.2f} MFLOP a token."
    )
    return f"## Without network\n\n{loops}\n\n{products}\n\n{note}"


def _words(words: Words) -> str:
    header = ("words", "units", "a token is drawn by", "step, µs", "its products, µs", "ratio")
    rows = (
        (
            f"{r.words:,}", str(r.units), r.way, f"{r.step_us:.0f}", f"{r.products_us:.0f}",
            f"{r.ratio:.2f}",
        )
        for r in words.rows
    )  # fmt: skip
    note = (
        f"Of a token, {ROWS} rows a step, one thread. One LSTM with random weights, so that nearly "
        "all words are about as probable; temperature 0.8 but for greedy, top-p 0.95. The products "
        "are onnxruntime's own of the step's weights, one after the other."
    )
    return f"## Large vocabularies\n\n{_table(header, rows)}\n\n{note}"


def _constrained(constrained: Constrained) -> str:
    header = ("texts are held to", "states", "transitions", "a token's mask, µs", "compiling, ms")
    rows = (
        (
            row.of, f"{row.states:,}", f"{row.transitions:,}", f"{row.token_us:.1f}",
            f"{row.compile_ms:.0f}",
        )
        for row in constrained.rows
    )  # fmt: skip
    note = (
        "Processor time at 10,000 words, beside the step: the state after a token, and its row of "
        "bias. Compiling is done once a pattern, by a process of its own that is counted from its "
        "start."
    )
    return f"## Constrained text\n\n{_table(header, rows)}\n\n{note}"


def _joining(found: Sequence[Joining]) -> str:
    header = (
        "server", "streams running", "decode step, ms", "first token of a newcomer, ms",
        "in steps", "of a cached prompt, ms", "in steps", "of the long prompt, ms", "alone, ms",
        "p99 inter-token without, ms", "with, ms", "tokens a message",
    )  # fmt: skip
    rows = (
        (
            j.what, str(j.running), f"{j.step_ms:.2f}", f"{j.first_token_ms:.1f}",
            f"{j.first_token_steps:.2f}", f"{j.cached_first_token_ms:.1f}",
            f"{j.cached_first_token_steps:.2f}", f"{j.long_first_token_ms:.0f}",
            f"{j.long_alone_ms:.0f}",
            f"{j.inter_token_ms_p99_without:.2f}", f"{j.inter_token_ms_p99_with:.2f}",
            f"{j.tokens_per_message:.2f}",
        )
        for j in found
    )  # fmt: skip
    characters, cached = found[0].long_prompt_characters, found[0].cached_prompt_characters
    note = (
        f"A newcomer has a 32-character prompt of its own, read in full, or one of {cached:,} that "
        "the prefix cache knows. The last columns are of the streams that run while a prompt of "
        f"{characters:,} characters joins, from its sending to its first token."
    )
    return f"## Joining running streams\n\n{_table(header, rows)}\n\n{note}"


def _prefixes(rows: Sequence[PrefixRow]) -> str:
    header = (
        "precision", "prompt, tokens", "prefill past the cache, µs a token", "of a miss",
        "cost of a miss", "first token of a hit, ms", "in a step alone",
    )  # fmt: skip
    table = _table(
        header,
        (
            (
                row.precision, f"{row.tokens:,}", f"{row.without_us:.2f}", f"{row.miss_us:.2f}",
                f"{100 * row.miss_cost:+.1f} %", f"{row.hit_ms:.2f}", f"{row.hit_steps:.2f}",
            )
            for row in rows
        ),
    )  # fmt: skip
    note = (
        "The engine without network, on one thread, prompts of random symbols. Processor time of "
        "reading a prompt that nobody has sent before, which leaves the prefix cache alone and "
        "which it does not know, taking turns; the cost is the median of such pairs. Then the "
        "time from the arrival of a prompt that the cache knows to its first token, and that as "
        "steps of one row."
    )
    return f"## Cached prompts\n\n{table}\n\n{note}"


def _memory(findings: Findings) -> str:
    lines = []
    if findings.start:
        lines.append(_starts(findings.start))
    if findings.memory:
        lines.append(_idle(findings.memory))
    return "## Start and memory\n\n" + "\n\n".join(lines)


def _starts(starts: Starts) -> str:
    header = ("front end", "ready, s", "resident, MB")
    rows = (
        (
            row.what,
            _spread(row.figures, lambda r: r.seconds, ".2f"),
            _spread(row.figures, lambda r: r.resident_bytes / 1e6),
        )
        for row in starts.rows
    )
    note = (
        "From the start of the process, with all models of the folder. Resident is what all "
        "processes of the service hold together, pages that they share counted once."
    )
    return f"{_table(header, rows)}\n\n{note}{_skipped(starts.skipped)}"


def _idle(memory: Memory) -> str:
    if not memory.is_valid:
        return (
            f"Idle streams: {memory.started} of {2 * memory.streams} started, and the server "
            f"{'went' if memory.settled else 'did not go'} quiet, so streams that nobody reads "
            "could not be weighed."
        )
    return (
        f"A further stream that nobody reads costs {memory.resident_bytes_per_stream / 1024:.1f} "
        f"KiB resident ({memory.proportional_bytes_per_stream / 1024:.1f} KiB proportional), its "
        f"state is {memory.state_bytes / 1024:.1f} KiB; from streams {memory.streams + 1} to "
        f"{2 * memory.streams}."
    )


def _predict(rows: Sequence[PredictRow], settings: Settings) -> str:
    table = _table(
        ("clients", "texts a request", "requests/s", "texts/s", "server CPU a request, µs",
         "answer p50 / p99, ms"),
        (
            (str(r.clients), str(r.texts), f"{r.medians.requests_per_second:,.0f}",
             f"{r.texts * r.medians.requests_per_second:,.0f}", f"{r.medians.server_cpu_us:,.0f}",
             f"{r.medians.answer_ms_p50:.1f} / {r.medians.answer_ms_p99:.1f}")
            for r in rows
        ),
    )  # fmt: skip
    note = (
        f"`{settings.classifier}`; texts of 3 to 40 words of its own vocabulary. The service's "
        "queue is long enough for all of them."
    )
    return f"## Predict\n\n{table}\n\n{note}"


def _doors(doors: Doors, settings: Settings) -> str:
    header = (
        "of", "server", "a second", "server CPU of each, µs", "client CPU of each, µs",
    )  # fmt: skip
    rows = (
        (
            row.unit,
            row.what,
            _spread(row.figures, lambda r: r.per_second),
            _spread(row.figures, lambda r: r.server_cpu_us, ".1f"),
            _spread(row.figures, lambda r: r.client_cpu_us),
        )
        for row in doors.rows
    )
    note = (
        f"Medians, and the least and the greatest, of {settings.rounds} rounds of "
        f"{settings.door_seconds:g} s; {doors.callers} callers or streams at once over "
        f"{CONNECTIONS} connections, requests as ready bytes. CPU is that of all processes of a "
        "server. An echo returns the 128 bytes of its request, once or "
        f"{MESSAGES} times; pyvoy is an ASGI application inside Envoy. ModelInfer labels one text "
        f"of {SENTENCE_WORDS} words; Triton runs the same graph in its Python backend with dynamic "
        f"batching, one instance, on the CPU. Classify is called {CLASSIFY_CALLERS} times at once "
        f"with {CLASSIFY_TEXTS} texts each; the bare graph runs the same batches on one thread. "
        f"ModelStreamInfer, Generate and OpenAI's completions as server-sent events make "
        f"{settings.tokens} tokens a stream in {doors.precision}, one a message, each after a "
        "prompt of its own that is read in full; events come over HTTP/1.1, a connection a stream."
    )
    return f"## Front door\n\n{_table(header, rows)}\n\n{note}{_skipped(doors.skipped)}"


def _workers(found: Workers, settings: Settings) -> str:
    header = (
        "of", "workers", "a second", "server CPU of each, µs", "of it Envoy and parent, µs",
        "busiest worker's share", "client CPU of each, µs",
    )  # fmt: skip
    rows = (
        (
            row.unit,
            str(row.workers),
            _spread(row.figures, lambda r: r.per_second),
            _spread(row.figures, lambda r: r.server_cpu_us, ".1f"),
            f"{row.figures.median.front_end_cpu_us:.1f}",
            f"{row.figures.median.busiest_share:.2f}",
            f"{row.figures.median.client_cpu_us:.0f}",
        )
        for row in found.rows
    )
    sizes = "; ".join(
        f"{count}: {found.resident_bytes[count] / 1e6:.0f} MB resident, "
        f"{found.proportional_bytes[count] / 1e6:.0f} MB proportional"
        for count in found.resident_bytes
    )
    note = (
        f"{found.callers} streams or callers a worker, one token a message. What so many cores "
        "carry, for the bars, is cores / server CPU of each: the client's processor time is "
        f"counted out, since it shares the cores. Memory when ready, by workers: {sizes}."
    )
    return f"## Workers\n\n{_table(header, rows)}\n\n{note}"


def _frames(frames: Frames, settings: Settings) -> str:
    header = (
        "what", "streams", "p50 ms", "p99 ms", "answered", "server CPU µs a frame",
        "streams a core", "client CPU µs a frame",
    )  # fmt: skip
    rows = (
        (
            row.what,
            f"{row.streams:,}",
            _spread(row.figures, lambda r: r.p50_ms, ".1f"),
            _spread(row.figures, lambda r: r.p99_ms, ".1f"),
            _answered(row.figures.median),
            _spread(row.figures, lambda r: r.server_cpu_us),
            f"{row.figures.median.streams_a_core:.0f}",
            _spread(row.figures, lambda r: r.client_cpu_us),
        )
        for row in frames.rows
    )
    bare = ", ".join(f"{us:.0f} µs a row of {rows}" for rows, us in frames.bare_us.items())
    note = (
        f"A model of voice activity with random weights; each stream sends a frame of "
        f"{LATEST_MS:.0f} ms every {LATEST_MS:.0f} ms, out of step with the others, for "
        f"{settings.frame_seconds:g} s. Latency is from when a frame was due to its answer; "
        "streams a core are those whose frames take one core's time. The bare step takes "
        f"{bare} of processor time."
    )
    return f"## Frames\n\n{_table(header, rows)}\n\n{note}{_skipped(frames.skipped)}"


def _answered(found: FrameRound) -> str:
    refused = f", {found.refused:.1%} refused" if found.refused else ""
    return f"{found.answered:.0%}{refused}"


def _skipped(reasons: Mapping[str, str]) -> str:
    said = "; ".join(f"{what} ({why})" for what, why in reasons.items())
    return f"\n\nNot measured: {said}." if reasons else ""


def _spread(figures: Spread[Round], number: Callable[[Round], float], form: str = ",.0f") -> str:
    """The median, and in brackets the least and the greatest."""
    middle, least, most = map(number, (figures.median, figures.least, figures.greatest))
    return f"{middle:{form}} ({least:{form}} – {most:{form}})"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
