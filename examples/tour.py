"""A short tour of the service through real gRPC calls, with a server of its own.

python -m examples.tour [--stay] [--target HOST:PORT]

Starts ``python -m service serve``, waits until it is ready, shows one call of each kind with
the command that repeats it, then stops the server (or, with --stay, serves until Ctrl-C).
Exits non-zero with the reason when anything fails. With --target it uses a running server.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from examples.demonstrations import SAMPLES, TourFailed, demonstrate
from examples.over_http import show_classify, show_completion, show_page
from unroll.channel import DEFAULT_TARGET, target_of
from unroll.clients import Client
from unroll.types import RequestFailed

START_SECONDS = 60
# Nobody else sends calls that would have to learn first that it stops.
_SERVE = (
    *(sys.executable, "-m", "service", "serve", "--propagation-seconds", "0"),
    "--metrics-on-port",  # the page shows them beside many streams
    *("--presets", str(Path(__file__).with_name("presets.toml"))),
)
STOPPED_BY_USER = 130


def tour(client: Client, target: str = "") -> None:
    """target: of the server, to call it over HTTP as well where it speaks that.

    Raises TourFailed when an answer is wrong, RequestFailed when a call fails.

    Every model that is served is shown, those of tour.toml first. One of them that the server
    does not know is left out, and named at the end; one whose bundle it refused fails the tour.
    """
    listed = client.list_models()
    served = {model.name: model for model in listed.models}
    refused = {model.name: model.reason for model in listed.refused_models}
    left_out = []
    for name in dict.fromkeys((*SAMPLES["models"], *sorted({*served, *refused}))):
        if name in refused and name not in served:
            raise TourFailed(f"the server refused {name}: {refused[name]}")
        if name not in served or not demonstrate(client, served[name]):
            left_out.append(name)
    _show_over_http(client, target, served)
    rest = f" Not here, so not shown: {', '.join(left_out)}." if left_out else ""
    print(f"\nThe tour is over: every call was answered.{rest}", flush=True)


def _show_over_http(client: Client, target: str, served: Mapping[str, object]) -> None:
    """A classifier and a generator of tour.toml, as far as they are served."""
    if "sentiment" in served:
        sample = SAMPLES["models"]["sentiment"]
        show_classify(target, "sentiment", sample["texts"][0], sample["labels"][0])
    if "prose" in served:
        sample = SAMPLES["models"]["prose"]["again"]
        options = {"prompt": sample["prompt"], "max_tokens": sample["max_tokens"], "seed": 7}
        chunks = client.generate("prose", **options) if target else ()
        show_completion(target, {"model": "prose", **options}, "".join(c.text for c in chunks))


def refuse_another_server(client: Client, target: str) -> None:
    """Raises TourFailed where a server answers already: the tour would be about that one."""
    try:
        client.list_models()
    except RequestFailed:
        return
    raise TourFailed(f"a server answers on {target} already; stop it, or tour it with --target")


def own_address(environment: Mapping[str, str]) -> str:
    """Where a server of the tour's own listens: where UNROLL_ADDRESS says, as any server's.

    Raises TourFailed for an address at which it could not be found.
    """
    address = environment.get("UNROLL_ADDRESS") or DEFAULT_TARGET
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not int(port):
        raise TourFailed(f"UNROLL_ADDRESS is {address!r}; the tour needs HOST:PORT, no port 0")
    return address


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
    parser = argparse.ArgumentParser(prog="python -m examples.tour")
    parser.add_argument("--stay", action="store_true", help="service kept running until Ctrl-C")
    parser.add_argument("--target", help="running server, HOST:PORT (default: a server of its own)")
    chosen = parser.parse_args(arguments)
    # SIGTERM is to end the server too, as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = None
    try:
        address = own_address(os.environ)
        target = chosen.target or target_of(address)
        with Client(target, timeout=START_SECONDS) as client:
            if not chosen.target:
                refuse_another_server(client, target)
                server = subprocess.Popen([*_SERVE, "--address", address])
            wait_until_ready(client, server)
            show_page(target)
            tour(client, target)
        if server is not None:
            if chosen.stay:
                print(f"Serving on {target} until Ctrl-C.", flush=True)
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
