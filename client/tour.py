"""A short tour of the service through real gRPC calls, with a server of its own.

python -m client.tour [--stay] [--target HOST:PORT]

Starts ``python -m service serve``, waits until it is ready, shows one call of each kind with
the command that repeats it, then stops the server (or, with --stay, serves until Ctrl-C).
Exits non-zero with the reason when anything fails. With --target it uses a running server.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from client.__main__ import print_stream
from client.clients import DEFAULT_TARGET, Client
from client.results import RequestFailed, Sampling

LECTURE = (
    ("The food was not bad, great in fact", "positive"),
    ("The food was not great, bad in fact", "negative"),
    ("the food is not good", "negative"),
    (
        "The food was not good, surprisingly instead of the ratings for the restaurant being high",
        "negative",
    ),
)
WORD = "unrolled"
PROMPT = "ROMEO:\n"
PROSE_CHARACTERS = 200
SEED = 7
START_SECONDS = 60
STOPPED_BY_USER = 130


class TourFailed(Exception):
    pass


def tour(client: Client) -> None:
    """Raises TourFailed when an answer is wrong, RequestFailed when a call fails."""
    _classify(client)
    _pronounce(client)
    _write(client)
    print("\nThe tour is over: every call was answered.", flush=True)


def _classify(client: Client) -> None:
    texts = [text for text, _ in LECTURE]
    _show("python -m client classify --model sentiment " + shlex.join(texts))
    answers = client.classify("sentiment", texts)
    for (text, expected), answer in zip(LECTURE, answers, strict=True):
        label, probability = answer.best
        print(f"  {label} {probability:.3f}  {text}")
        if label != expected:
            raise TourFailed(f"sentiment calls {text!r} {label}, the lecture calls it {expected}")


def _pronounce(client: Client) -> None:
    _show(f"python -m client generate --model g2p --source {WORD}")
    answer = print_stream(client.generate("g2p", source=WORD))
    if answer is None or answer.reason != "end":
        raise TourFailed(f"g2p did not come to the end of {WORD!r}: {answer}")


def _write(client: Client) -> None:
    _show(
        "python -m client generate --model prose "
        f"--prompt $'{PROMPT.strip()}\\n' --max-tokens {PROSE_CHARACTERS} "
        f"--temperature 0.7 --seed {SEED}"
    )
    print(PROMPT, end="")
    pieces = client.generate(
        "prose",
        prompt=PROMPT,
        max_tokens=PROSE_CHARACTERS,
        sampling=Sampling(temperature=0.7, seed=SEED),
    )
    answer = print_stream(pieces)
    if answer is None or answer.output_tokens != PROSE_CHARACTERS:
        raise TourFailed(f"prose did not write {PROSE_CHARACTERS} characters: {answer}")


def _show(command: str) -> None:
    print(f"\n$ {command}", flush=True)


def refuse_another_server(client: Client) -> None:
    """Raises TourFailed where a server answers already: the tour would be about that one."""
    try:
        client.list_models()
    except RequestFailed:
        return
    raise TourFailed(
        f"a server answers on {DEFAULT_TARGET} already; stop it, or tour it with --target"
    )


def wait_until_ready(client: Client, server: subprocess.Popen[bytes] | None) -> None:
    """Raises TourFailed when the server ends or is not ready within START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server is not None and server.poll() is not None:
            raise TourFailed(f"the server ended with exit code {server.returncode}")
        try:
            client.list_models()
            return
        except RequestFailed as error:
            if error.code != "UNAVAILABLE":
                raise
            time.sleep(0.1)
    raise TourFailed(f"the server was not ready within {START_SECONDS} seconds")


def stop(server: subprocess.Popen[bytes]) -> None:
    """Raises TourFailed unless SIGTERM makes the server exit with 0."""
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    try:
        code = server.wait(START_SECONDS)
    except subprocess.TimeoutExpired as error:
        server.kill()
        raise TourFailed(f"the server did not end within {START_SECONDS} seconds") from error
    if code != 0:
        raise TourFailed(f"the server ended with exit code {code}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m client.tour")
    parser.add_argument("--stay", action="store_true", help="go on serving until Ctrl-C")
    parser.add_argument("--target", help="HOST:PORT of a running server; starts none")
    chosen = parser.parse_args(arguments)
    # SIGTERM is to end the server too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = None
    try:
        with Client(chosen.target or DEFAULT_TARGET, timeout=START_SECONDS) as client:
            if not chosen.target:
                refuse_another_server(client)
                server = subprocess.Popen([sys.executable, "-m", "service", "serve"])
            wait_until_ready(client, server)
            tour(client)
        if server is not None:
            if chosen.stay:
                print(f"Serving on {DEFAULT_TARGET} until Ctrl-C.", flush=True)
                server.wait()
            stop(server)
    except (TourFailed, RequestFailed) as error:
        print(f"the tour failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Ctrl-C reaches the server as well, which then finishes its streams.
        return 0 if chosen.stay else STOPPED_BY_USER
    finally:
        if server is not None and server.poll() is None:
            server.terminate()
            server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
