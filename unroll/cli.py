"""Command line of a client of Unroll.

    unroll classify --model sentiment "the food is not good"
    unroll classify --model vowels --frames utterance.csv
    unroll tag --model pos "The man went to the bank"
    tail -f LOG | unroll stream-tag --model pos-online
    unroll fill --model cloze "The man went to the ___ to withdraw money"
    unroll generate --model prose --prompt $'ROMEO:\\n' --seed 7
    unroll generate --model g2p --source unrolled
    unroll generate --model prose --prompt "To be, or not to " --choice be --choice go
    unroll generate --model g2p --lines words.txt --json
    unroll forecast --model monthly sales.csv --time month --horizon 12
    unroll vad speech.wav --model vad
    unroll score --model g2p --source unrolled "AH N R OW L D"
    unroll score --model prose "To be, or not to " --choice be --choice bee
    unroll next --model prose "To be, or not to b"
    unroll embed --model prose "To be, or not to be"
    unroll create-state romeo --model prose --prompt $'ROMEO:\\n'
    unroll generate --model prose --state romeo --seed 7
    unroll models [NAME]
    unroll load NAME
    unroll top [--once]

Answers go to standard output, everything else to standard error. A text of "-" is all of standard
input; --lines - reads one text a line.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence

import unroll
from unroll import commands
from unroll.channel import DEFAULT_TARGET, TargetInvalid, Tls, default_target
from unroll.clients import Client
from unroll.lines import LinesUnreadable
from unroll.sampling import FLAGS
from unroll.speech import HYSTERESIS, AudioUnreadable, SpeechOptions
from unroll.tables import TableUnreadable
from unroll.types import OptionInvalid, RequestFailed

PREFIX = "UNROLL_CLIENT_"
EXIT_CODES = """\
exit codes:
  0    every call was answered
  1    a call failed, of --lines a line's; or no server answered `top`
  2    an option, a file or the target cannot be used
  130  Ctrl-C (it ends `top` with 0 or 1)
  141  the reader of standard output left
"""
_FAILED, _UNUSABLE = 1, 2
# Options of numbers between commas, of which the first may be below 0.
_OF_NUMBERS = ("--vector", "--values")


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command line."""
    typed = sys.argv[1:] if arguments is None else arguments
    chosen = _parser(os.environ).parse_args(_with_minus(typed))
    try:
        code = _run(chosen)
        sys.stdout.flush()
        return code
    except RequestFailed as error:
        return _fail(str(error), _FAILED)
    except (
        TargetInvalid, OptionInvalid, LinesUnreadable, TableUnreadable, AudioUnreadable,
    ) as error:  # fmt: skip
        return _fail(str(error), _UNUSABLE)
    except ValueError as error:
        return _fail(f"a number is out of range: {error}", _UNUSABLE)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read the output has left; what is still to be flushed goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _with_minus(typed: Sequence[str]) -> list[str]:
    """``typed`` with ``--vector -1,2`` as ``--vector=-1,2``: argparse takes a minus for another
    option, unless one number stands alone."""
    joined: list[str] = []
    for text in typed:
        is_below_zero = text[:1] == "-" and text[1:2] in tuple(".0123456789")
        if is_below_zero and joined and joined[-1] in _OF_NUMBERS:
            joined[-1] += f"={text}"
        else:
            joined.append(text)
    return joined


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)
    return code


def _run(chosen: argparse.Namespace) -> int:
    chosen.target = chosen.target or default_target(os.environ)
    tls, token = _tls(chosen), _token(chosen.token_file, os.environ)
    with Client(chosen.target, chosen.timeout, tls=tls, token=token) as client:
        code: int = chosen.run(client, chosen)
        return code


def _tls(chosen: argparse.Namespace) -> Tls | None:
    """None unless one of its options is there."""
    ca, certificate, key, name = (
        getattr(chosen, option) or None
        for option in ("ca_certificate", "certificate", "key", "server_name")
    )
    if not (chosen.tls or ca or certificate or key or name):
        return None
    return Tls.read(ca, certificate, key, name or "")


def _token(file: str | None, environment: Mapping[str, str]) -> str | None:
    """Raises TargetInvalid, whose message does not show the argument: it may be the token."""
    if not file:
        return environment.get(PREFIX + "TOKEN")
    try:
        with open(file) as lines:
            return lines.read().strip()
    except (OSError, ValueError) as error:
        raise TargetInvalid("--token-file names no file that can be read") from error


# -- options ---------------------------------------------------------------------------------------


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="unroll",
        description=__doc__,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"unroll {unroll.__version__}")
    _add_connection(parser, lambda name: environment.get(PREFIX + name))
    # The same after the command; there nothing is said by default, so that it overrides nothing.
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", help="JSON output, one object a line")
    _add_connection(
        common.add_argument_group("connection"), lambda _: argparse.SUPPRESS, argparse.SUPPRESS
    )
    commands_of = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[..., int], text: str) -> argparse.ArgumentParser:
        command = commands_of.add_parser(name, help=text, description=text, parents=[common])
        command.set_defaults(run=run, parser=command)
        return command

    command = add("classify", commands.classify, "labels of texts, or of sequences of frames")
    _add_model(command, "sentiment")
    _add_frames(command)
    _add_begin(command)
    _add_texts(command)

    command = add("tag", commands.tag, "labels of each token of texts")
    _add_model(command, "pos")
    _add_number(command, "--top", 0, "labels printed per token, one line a token; 0 = the chosen")
    _add_texts(command)

    command = add(
        "stream-tag", commands.stream_tag, "labels of tokens, as standard input brings them"
    )
    _add_model(command, "pos-online")
    _add_begin(command)

    _add_vad(add("vad", commands.vad, "start and end of speech in audio, in seconds"))

    command = add("fill", commands.fill, "words for the blank in texts, ___")
    _add_model(command, "cloze")
    _add_number(command, "--top", 0, "words printed per blank; 0 = 5")
    _add_texts(command)

    _add_generate(add("generate", commands.generate, "streamed tokens"))

    _add_forecast(add("forecast", commands.forecast, "quantiles of how series go on, with a chart"))

    command = add("score", commands.score, "log-probabilities of texts")
    command.add_argument("--model", required=True, help="name of the model")
    command.add_argument("--source", help="source sequence of the texts")
    _add_vector(command, "vector of the texts")
    command.add_argument(
        "--choice",
        action="append",
        default=[],
        metavar="TEXT",
        help="continuation of the texts to score instead of them; repeatable, the likeliest first",
    )
    _add_texts(command)

    command = add("next", commands.next_tokens, "likeliest next tokens after texts")
    command.add_argument("--model", required=True, help="name of the model")
    command.add_argument("--source", help="source sequence that the texts answer")
    _add_vector(command, "vector that the texts answer")
    _add_number(command, "--top", 5, "tokens printed per text, 1 to 20")
    _add_texts(command)

    command = add("embed", commands.embed, "vectors of texts: the state that reading them leaves")
    command.add_argument("--model", required=True, help="name of the model")
    command.add_argument(
        "--tensors",
        type=_names,
        default=[],
        metavar="NAME,NAME,…",
        help="tensors of the state (default: hidden state of the last layer)",
    )
    _add_texts(command)

    _add_states(add)

    command = add("models", commands.models, "served models")
    command.add_argument("names", nargs="*", metavar="NAME", help="models (default: all)")

    for name, run, text in (
        ("load", commands.load, "load of models' newest versions (role admin)"),
        ("unload", commands.unload, "unload of models (role admin)"),
    ):
        command = add(name, run, text)
        command.add_argument("names", nargs="+", metavar="NAME", help="models")

    command = add("top", commands.top, "live metrics of servers, until Ctrl-C")
    command.add_argument(
        "--metrics",
        metavar="URL,URL,…",
        help="pages of metrics (default: http://HOST:8002/metrics of each host of the target)",
    )
    command.add_argument(
        "--interval", type=float, default=1.0, help="refresh interval in seconds (default: 1)"
    )
    command.add_argument("--once", action="store_true", help="a single table, after one interval")
    return parser


def _add_connection(
    parser: argparse._ActionsContainer,
    default: Callable[[str], str | None],
    flag: object = False,
) -> None:
    """default: of an option, by the rest of its variable's name. flag: default of --tls."""
    parser.add_argument(
        "--target",
        default=default("TARGET"),
        help="HOST:PORT of the service, several with commas between, or dns:///NAME:PORT; calls "
        f"go to each in turn (default: {PREFIX}TARGET, UNROLL_ADDRESS or {DEFAULT_TARGET})",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        default=default("TIMEOUT"),
        help=f"deadline of each call in seconds (default: {PREFIX}TIMEOUT, or none)",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        default=flag or None,
        help=f"file of the bearer token (default: {PREFIX}TOKEN is the token)",
    )
    parser.add_argument(
        "--tls", action="store_true", default=flag, help="TLS with gRPC's own root certificates"
    )
    for name, metavar, text in (
        ("ca-certificate", "FILE", "TLS: PEM file of who signed the server's certificate"),
        ("certificate", "FILE", "mutual TLS: PEM file of the client's certificate"),
        ("key", "FILE", "mutual TLS: PEM file of the client's key"),
        ("server-name", "NAME", "TLS: name in the server's certificate (default: the host)"),
    ):
        variable = name.replace("-", "_").upper()
        parser.add_argument(
            f"--{name}",
            metavar=metavar,
            default=default(variable),
            help=f"{text} ({PREFIX}{variable})",
        )


def _add_model(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument("--model", default=default, help=f"name of the model (default: {default})")


def _add_number(command: argparse.ArgumentParser, name: str, default: int, text: str) -> None:
    command.add_argument(
        name, type=int, default=default, metavar="N", help=f"{text} (default: {default})"
    )


def _add_vector(command: argparse._ActionsContainer, text: str) -> None:
    command.add_argument(
        "--vector",
        type=commands.numbers,
        metavar="V1,V2,…",
        help=f"{text}: the values of the model's vector_fields, empty where one is unknown",
    )


def _add_frames(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--frames",
        metavar="FILE",
        help="CSV file with a header and a row a frame, for a model that reads numbers; - is "
        "standard input",
    )
    command.add_argument(
        "--sequence",
        metavar="COLUMN",
        help="column of --frames that says which sequence a row is of (default: all are one)",
    )
    command.add_argument(
        "--stream", action="store_true", help="label after each of --frames, as StreamStep gives it"
    )


def _add_texts(command: argparse.ArgumentParser) -> None:
    command.add_argument("texts", nargs="*", metavar="TEXT", help="text; - is standard input")
    _add_lines(command, command, "one text a line")


def _add_lines(
    command: argparse.ArgumentParser, group: argparse._ActionsContainer, text: str
) -> None:
    group.add_argument(
        "--lines", metavar="FILE", help=f"file of {text}; - is standard input; answers in order"
    )
    _add_number(command, "--concurrency", 8, "calls under way at once with --lines")


def _names(text: str) -> list[str]:
    return text.split(",")


def _add_forecast(command: argparse.ArgumentParser) -> None:
    _add_model(command, "monthly")
    command.add_argument(
        "file", nargs="?", metavar="FILE", help="CSV file with a header; - is standard input"
    )
    command.add_argument(
        "--values", type=commands.numbers, metavar="V1,V2,…", help="values of a series; nan = none"
    )
    command.add_argument("--start", metavar="TIME", help="time of the first of --values, ISO 8601")
    command.add_argument("--time", metavar="COLUMN", help="column of timestamps in FILE")
    for name, text in (
        ("targets", "columns to forecast (default: all others)"),
        ("covariates", "columns that are known of the steps to come too, in rows of their own"),
    ):
        command.add_argument(
            f"--{name}", type=_names, default=[], metavar="COLUMN,COLUMN,…", help=text
        )
    _add_number(
        command, "--horizon", 0, "steps; 0 = rows without targets, or else the model's most"
    )
    _add_number(command, "--samples", 0, "ways to go on drawn per series; 0 = 100")
    command.add_argument("--seed", type=int, metavar="N", help="seed (default: chosen)")
    command.add_argument(
        "--chart",
        action=argparse.BooleanOptionalAction,
        help="chart of each series (default: where standard output is a terminal)",
    )
    _add_failover(command)


def _add_vad(command: argparse.ArgumentParser) -> None:
    _add_model(command, "vad")
    _add_begin(command)
    command.add_argument(
        "audio",
        metavar="WAV",
        help="file of 16-bit samples at the model's rate; - = raw samples from standard input",
    )
    usual = SpeechOptions()
    command.add_argument(
        "--threshold",
        type=float,
        help=f"probability from which a frame is speech; speech ends {HYSTERESIS:g} below it "
        f"(default the model's, else {usual.threshold:g})",
    )
    for name, seconds, text in (
        ("--min-speech", usual.least_speech, "shortest speech, in milliseconds"),
        ("--min-silence", usual.least_silence, "silence that ends speech, in milliseconds"),
        ("--padding", usual.padding, "audio added before and after each segment, in milliseconds"),
    ):
        command.add_argument(
            name,
            type=float,
            default=1e3 * seconds,
            metavar="MS",
            help=f"{text} (default %(default)g)",
        )


def _add_begin(command: argparse.ArgumentParser) -> None:
    """Of a stream whose input comes as it runs, as commands._begin reads it."""
    command.add_argument(
        "--state", default="", metavar="NAME", help="named state to begin from (default: none)"
    )
    _add_allow_inexact(command)
    command.add_argument(
        "--resume-out",
        metavar="FILE",
        help="file for the resume token of the stream's end, of which `create-state` makes a state",
    )


def _add_allow_inexact(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--allow-inexact",
        action="store_true",
        help="states of other kernels too, which may round otherwise",
    )


def _add_failover(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--failover",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="resumption on another server when one breaks or stops (default: on)",
    )


def _add_states(add: Callable[..., argparse.ArgumentParser]) -> None:
    command = add("create-state", commands.create_state, "state kept by name, to begin from")
    command.add_argument("name", metavar="NAME", help="name of the state")
    command.add_argument("--model", required=True, help="name of the model")
    group = command.add_mutually_exclusive_group()
    group.add_argument("--prompt", help="text that leads to it")
    group.add_argument("--source", help="source sequence that leads to it")
    group.add_argument(
        "--resume-token",
        metavar="FILE",
        help="file of a resume token, the state at that place, as --resume-out writes it; - is "
        "standard input",
    )
    _add_allow_inexact(command)
    command.add_argument(
        "--state", default="", metavar="NAME", help="state to read the prompt after"
    )
    command.add_argument(
        "--ttl",
        type=float,
        metavar="SECONDS",
        help="life in seconds (default: the server's longest)",
    )
    command.add_argument("--replace", action="store_true", help="in place of one with that name")

    command = add("states", commands.states, "own named states")
    command.add_argument("--model", default="", help="name of the model (default: all)")

    command = add("delete-state", commands.delete_state, "deletion of named states")
    command.add_argument("names", nargs="+", metavar="NAME", help="states")


def _add_generate(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", required=True, help="name of the model")
    inputs = command.add_argument_group("input, one of")
    group = inputs.add_mutually_exclusive_group()
    group.add_argument("--prompt", help="text to continue")
    group.add_argument("--source", help="source sequence")
    _add_vector(group, "vector that conditions the model")
    _add_lines(command, group, "one prompt, source or vector a line, as the model reads")
    command.add_argument(
        "--state", default="", metavar="NAME", help="named state to begin from, before any prompt"
    )
    _add_allow_inexact(command)
    command.add_argument(
        "--max-tokens", type=int, metavar="N", help="largest number of tokens (default: model's)"
    )
    _add_number(command, "--min-tokens", 0, "tokens before which the output does not end")
    _add_number(command, "--samples", 1, "independent outputs of one input")
    _add_number(command, "--beam", 0, "width of beam search; 0 = none")
    command.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="stop string; repeatable"
    )
    constraint = command.add_argument_group("constraint of the output, one of")
    group = constraint.add_mutually_exclusive_group()
    group.add_argument(
        "--choice",
        action="append",
        dest="choices",
        metavar="TEXT",
        help="text that the output may be; repeatable",
    )
    group.add_argument(
        "--regex", metavar="PATTERN", help="expression (Rust's regex) that the output matches"
    )
    group.add_argument(
        "--json-schema", metavar="FILE", help="file of the JSON Schema that the output satisfies"
    )
    command.add_argument("--echo", action="store_true", help="prompt or source before what is made")
    command.add_argument(
        "--log-probabilities", action="store_true", help="log-probability of each token"
    )
    command.add_argument(
        "--cache",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="use of the server's prefix cache (default: on)",
    )
    _add_failover(command)
    sampling = command.add_argument_group("sampling (defaults: the model's)")
    sampling.add_argument(
        "--preset",
        default="",
        metavar="NAME",
        help="set of parameters of the server (default: none)",
    )
    for name, flag in FLAGS.items():
        metavar = flag.metavar or ("N" if flag.parse is int else "X")
        sampling.add_argument(
            f"--{name.replace('_', '-')}", type=flag.parse, metavar=metavar, help=flag.help
        )
