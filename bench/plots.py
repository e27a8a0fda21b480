"""Curves over the number of streams, as PNG files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from bench.streams import StreamRow

Line = Callable[[StreamRow], float | None]

_COLOURS = {
    "unroll fp32": "tab:blue",
    "unroll int8": "tab:orange",
    "unroll int8, one token a message": "tab:green",
    "unroll int8, equal prompts": "tab:olive",
    "one loop a request": "tab:red",
    "bare step fp32": "tab:gray",
    "bare step int8": "tab:brown",
}


def draw_plots(rows: Sequence[StreamRow], folder: Path) -> list[Path]:
    """One file a figure; every axis says its unit. Only the generator's rows: others are no curve
    beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for row in rows if row.is_prose]
    return [
        _draw(rows, folder / "tokens_per_second.png", "tokens/s",
              {"": lambda row: row.tokens_per_second}),
        _draw(rows, folder / "server_cpu.png", "CPU time a token, µs",
              {"": lambda row: row.decode_cpu_us}, "once every stream has its first token"),
        _draw(rows, folder / "first_token.png", "time to first token, ms",
              {"p50": _of("first_token_ms_p50"), "p99": _of("first_token_ms_p99")}),
        _draw(rows, folder / "inter_token.png", "inter-token time, ms",
              {"p50": _of("inter_token_ms_p50"), "p99": _of("inter_token_ms_p99")}),
    ]  # fmt: skip


def _draw(
    rows: Sequence[StreamRow], path: Path, axis: str, lines: Mapping[str, Line], note: str = ""
) -> Path:
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for what in dict.fromkeys(row.what for row in rows):
        for (name, line), style in zip(lines.items(), ("-", "--"), strict=False):
            _curve(axes, [row for row in rows if row.what == what], f"{what} {name}", line, style)
    _label(axes, axis, note, sorted({row.streams for row in rows}))
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _curve(axes: Axes, rows: Sequence[StreamRow], name: str, line: Line, style: str) -> None:
    points = [(row.streams, value) for row in rows if (value := line(row)) is not None]
    if points:
        colour = _COLOURS.get(rows[0].what)
        axes.plot(*zip(*points, strict=True), style, marker="o", color=colour, label=name.strip())


def _label(axes: Axes, axis: str, note: str, counts: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axes.minorticks_off()
    axes.set_xlabel("streams opened at once")
    axes.set_ylabel(axis)
    axes.set_title(note, fontsize="medium")
    axes.grid(alpha=0.3)
    axes.legend()


def _of(name: str) -> Line:
    """A figure that only streams over gRPC have."""
    return lambda row: getattr(row.over_grpc, name) if row.over_grpc else None
