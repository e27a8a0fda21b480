"""python -m unroll classify | tag | stream-tag | fill | generate | score | models | top …

    python -m unroll classify --model sentiment "the food is not good"
    python -m unroll tag --model pos "The man went to the bank"
    tail -f LOG | python -m unroll stream-tag --model pos-online
    python -m unroll fill --model cloze "The man went to the ___ to withdraw money"
    python -m unroll generate --model prose --prompt $'ROMEO:\\n' --seed 7
    python -m unroll generate --model g2p --source unrolled
    python -m unroll generate --model food --vector 22.9,33.3,3.1,…
    python -m unroll score --model g2p --source unroll "AH N R OW L"
    python -m unroll models [NAME]
    python -m unroll top [--once]

Tokens are printed as they come. A text of "-" is read from standard input. Options of the
connection come before the command, and each can be a variable of the environment instead:
UNROLL_CLIENT_TARGET, UNROLL_CLIENT_TOKEN (the token itself) and so on.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from unroll import top as top_view
from unroll.channel import DEFAULT_TARGET, TargetInvalid, Tls
from unroll.clients import Client
from unroll.types import (
    Answer,
    Beam,
    GenerateOptions,
    Piece,
    RequestFailed,
    Sampling,
    sampling_numbers,
)
from unroll.v1 import unroll_pb2 as pb

PREFIX = "UNROLL_CLIENT_"


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser(os.environ).parse_args(arguments)
    try:
        tls, token = _tls(chosen), _token(chosen.token_file, os.environ)
        with Client(chosen.target, chosen.timeout, tls=tls, token=token) as client:
            return chosen.run(client, chosen) or 0
    except RequestFailed as error:
        print(error, file=sys.stderr)
        return 1
    except TargetInvalid as error:
        print(error, file=sys.stderr)
        return 2
    except ValueError as error:
        print(f"a number is out of range: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read the output has left; what is still to be flushed goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


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
    """Raises TargetInvalid, which does not tell what was given: it may be the token."""
    if not file:
        return environment.get(PREFIX + "TOKEN")
    try:
        with open(file) as lines:
            return lines.read().strip()
    except (OSError, ValueError) as error:
        raise TargetInvalid("--token-file names no file that can be read") from error


def classify(client: Client, chosen: argparse.Namespace) -> None:
    texts = _texts(chosen.texts)
    for text, answer in zip(texts, client.classify(chosen.model, texts), strict=True):
        label, probability = answer.best
        print(f"{label} {probability:.3f}  {text}")


def tag(client: Client, chosen: argparse.Namespace) -> None:
    texts = _texts(chosen.texts)
    if not chosen.top:
        for tagged in client.tag(chosen.model, texts):
            print(" ".join(f"{token.text}/{token.label}" for token in tagged.tokens))
        return
    for tagged in client.tag(chosen.model, texts, top=chosen.top):
        for token in tagged.tokens:
            print(f"{token.text}\t{_shown(token.top)}")


def stream_tag(client: Client, chosen: argparse.Namespace) -> None:
    """A line of standard input at a time: each token's label as soon as it is known."""
    for piece in client.stream_tag(chosen.model, iter(sys.stdin.readline, "")):
        for token in piece.tokens:
            print(f"{token.text}\t{token.label} {token.probability:.3f}", flush=True)


def fill(client: Client, chosen: argparse.Namespace) -> None:
    texts = _texts(chosen.texts)
    for text, blank in zip(texts, client.fill(chosen.model, texts, top=chosen.top), strict=True):
        print(f"{text}\n    {_shown(blank.words)}")


def _shown(ranked: Iterable[tuple[str, float]]) -> str:
    return "  ".join(f"{name} {probability:.3f}" for name, probability in ranked)


def generate(client: Client, chosen: argparse.Namespace) -> None:
    options: GenerateOptions = {
        "max_tokens": chosen.max_tokens,
        "min_tokens": chosen.min_tokens,
        "sampling": Sampling(**{name: getattr(chosen, name) for name in sampling_numbers()}),
        "stop": chosen.stop,
        "samples": chosen.samples,
        "log_probabilities": chosen.log_probabilities,
        "prompt": chosen.prompt,
        "source": chosen.source,
        "vector": chosen.vector,
    }
    if chosen.beam:
        options["beam"] = Beam(chosen.beam, chosen.beam)
    carry_on = chosen.carry_on
    if max(chosen.samples, chosen.beam) > 1:
        print_samples(client.generate(chosen.model, carry_on=carry_on, **options))
        return
    if chosen.prompt is not None and not chosen.log_probabilities:
        print(chosen.prompt, end="", flush=True)
    pieces = client.generate(chosen.model, carry_on=carry_on, **options)
    print_stream(pieces, chosen.log_probabilities)


def print_samples(pieces: Iterable[Piece]) -> None:
    """Several answers side by side cannot be streamed to one screen: each when it is whole."""
    texts: dict[int, str] = defaultdict(str)
    for piece in pieces:
        for token in piece.tokens:
            texts[token.sample] += token.text
        for end in piece.ends:
            worth = f"score {end.score:.4f}" if end.score is not None else end.reason
            print(f"[{end.sample}; {worth}; {end.log_probability:.4f}] {texts[end.sample]}")


def print_stream(pieces: Iterable[Piece], log_probabilities: bool = False) -> Answer | None:
    """Print tokens as they come, then how the stream ended."""
    seed, answer = None, None
    for piece in pieces:
        seed, answer = piece.seed if seed is None else seed, piece.answer
        if log_probabilities:
            for token in piece.tokens:
                print(f"{token.position}\t{token.text!r}\t{token.log_probability:.4f}")
        else:
            print(piece.text, end="", flush=True)
    if answer:
        print(
            f"\n[{answer.reason}; {answer.input_tokens} tokens in, {answer.output_tokens} out, "
            f"first after {1000 * answer.time_to_first_token_seconds:.1f} ms, seed {seed}]"
        )
        if answer.unknown_symbols:
            print(f"[{answer.unknown_symbols} symbols unknown to the model]")
    return answer


def score(client: Client, chosen: argparse.Namespace) -> None:
    texts = _texts(chosen.texts)
    sources = [chosen.source] * len(texts) if chosen.source else []
    vectors = [chosen.vector] * len(texts) if chosen.vector else []
    scores = client.score(chosen.model, texts, sources, vectors=vectors)
    for text, scored in zip(texts, scores, strict=True):
        known = [t for t in scored.tokens if t.log_probability is not None]
        mean = scored.log_probability / len(known)
        print(f"{scored.log_probability:.4f} ({mean:.4f} a token)  {text}")


def models(client: Client, chosen: argparse.Namespace) -> None:
    if chosen.name:
        print(client.get_model(chosen.name))
        return
    listed = client.list_models()
    for model in listed.models:
        task = pb.Task.Name(model.task).removeprefix("TASK_").lower()
        print(
            f"{model.name} {model.version}  {task}  {model.precision} on {model.provider}  "
            f"{model.description}"
        )
        for figure in model.figures:
            print(f"    {figure.name} {figure.value:.4g} {figure.unit} on {figure.split}")
    for refused in listed.refused_models:
        print(f"{refused.name} {refused.version}  REFUSED: {refused.reason}")


def top(client: Client, chosen: argparse.Namespace) -> int:
    urls = top_view.metrics_urls(chosen.target, chosen.metrics)
    return top_view.watch(urls, chosen.interval, chosen.once)


def _texts(texts: Sequence[str]) -> list[str]:
    return [sys.stdin.read() if text == "-" else text for text in texts]


def numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    def variable(name: str, default: str | None = None) -> str | None:
        return environment.get(PREFIX + name, default)

    parser = argparse.ArgumentParser(
        prog="python -m unroll",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--target",
        default=variable("TARGET", DEFAULT_TARGET),
        help="HOST:PORT of the service, several with commas between, or dns:///NAME:PORT; calls "
        f"go to each in turn ({PREFIX}TARGET, else {DEFAULT_TARGET})",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=variable("TIMEOUT"),
        help=f"deadline of the call in seconds ({PREFIX}TIMEOUT, else none)",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help=f"file of the bearer token (else {PREFIX}TOKEN holds it)",
    )
    parser.add_argument("--tls", action="store_true", help="TLS with gRPC's own root certificates")
    for name, text in (
        ("ca-certificate", "TLS: PEM file of who signed the server's certificate"),
        ("certificate", "mutual TLS: PEM file of the client's own"),
        ("key", "mutual TLS: PEM file of its key"),
        ("server-name", "TLS: that the server's certificate holds, if not the target's host"),
    ):
        is_name = name == "server-name"
        setting = name.replace("-", "_").upper()
        parser.add_argument(
            f"--{name}",
            metavar="NAME" if is_name else "FILE",
            default=variable(setting),
            help=f"{text} ({PREFIX}{setting})",
        )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("classify", help="labels of texts")
    command.set_defaults(run=classify)
    command.add_argument("--model", default="sentiment")
    command.add_argument("texts", nargs="+", metavar="TEXT")

    command = commands.add_parser("tag", help="labels of each token of texts")
    command.set_defaults(run=tag)
    command.add_argument("--model", default="pos")
    command.add_argument(
        "--top",
        type=int,
        default=0,
        help="labels shown per token, one line a token (default: 0, the chosen one)",
    )
    command.add_argument("texts", nargs="+", metavar="TEXT")

    command = commands.add_parser(
        "stream-tag", help="labels of tokens, as standard input brings them"
    )
    command.set_defaults(run=stream_tag)
    command.add_argument("--model", default="pos-online")

    command = commands.add_parser("fill", help="words for the blank in texts")
    command.set_defaults(run=fill)
    command.add_argument("--model", default="cloze")
    command.add_argument(
        "--top", type=int, default=0, help="words shown per blank (default: 0 = 5)"
    )
    command.add_argument("texts", nargs="+", metavar="TEXT", help="text with one blank, ___")

    command = commands.add_parser("generate", help="streamed tokens")
    command.set_defaults(run=generate)
    command.add_argument("--model", required=True)
    input_group = command.add_mutually_exclusive_group(required=True)
    input_group.add_argument("--prompt", help="text to continue")
    input_group.add_argument("--source", help="source sequence")
    input_group.add_argument(
        "--vector", type=numbers, metavar="V1,V2,…", help="numbers that condition the model"
    )
    command.add_argument("--max-tokens", type=int)
    for name, (kind, meaning) in sampling_numbers().items():
        command.add_argument(f"--{name.replace('_', '-')}", type=kind, help=meaning)
    command.add_argument("--min-tokens", type=int, default=0)
    command.add_argument("--samples", type=int, default=1, help="samples of one input (default: 1)")
    command.add_argument(
        "--beam", type=int, default=0, help="width of beam search (default: 0 = none)"
    )
    command.add_argument("--stop", action="append", default=[], help="stop string; repeatable")
    command.add_argument("--log-probabilities", action="store_true")
    command.add_argument(
        "--carry-on",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="failover to another server when one breaks or stops",
    )

    command = commands.add_parser("score", help="log-probabilities of texts")
    command.set_defaults(run=score)
    command.add_argument("--model", required=True)
    command.add_argument("--source", help="source sequence of the texts")
    command.add_argument("--vector", type=numbers, metavar="V1,V2,…", help="vector of the texts")
    command.add_argument("texts", nargs="+", metavar="TEXT")

    command = commands.add_parser("models", help="served models")
    command.set_defaults(run=models)
    command.add_argument("name", nargs="?")

    command = commands.add_parser("top", help="live metrics of servers, until Ctrl-C")
    command.set_defaults(run=top)
    command.add_argument(
        "--target", default=argparse.SUPPRESS, help="targets, as before the command"
    )
    command.add_argument(
        "--metrics",
        metavar="URL,URL,…",
        help="pages of metrics (default: http://HOST:8002/metrics of each host of the target)",
    )
    command.add_argument(
        "--interval",
        type=float,
        default=1.0,
        help="refresh interval, seconds (default: 1)",
    )
    command.add_argument("--once", action="store_true", help="a single table, after one interval")
    return parser


if __name__ == "__main__":
    sys.exit(main())
