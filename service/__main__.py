"""python -m service serve | check

serve: run the service until SIGTERM or Ctrl-C.
check: verify every bundle and print what each is; exit 1 if one would be refused.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from bundle.errors import BundleError
from bundle.manifest import FP32
from service.config import Config, ConfigInvalid

_HELP = {
    "models": "folder of bundles",
    "address": "HOST:PORT of gRPC, port 0 for any free one",
    "http_address": "HOST:PORT of metrics and health",
    "device": "auto, cpu or cuda; cuda refuses to start without CUDA",
    "precision": "fp32, int8 (models that have it) or NAME=PRECISION,… such as int8,g2p=fp32",
    "threads": "of one engine for large batches, small ones take one; 0: two, if there are cores",
    "max_streams": "streams of one model that decode at once",
    "max_queue": "requests, or texts of Classify and Score, that may wait for a model",
    "max_batch": "texts of one predict batch",
    "batch_delay_share": "of a predict batch's time that texts may wait for company under load",
    "max_message_bytes": "largest request in bytes",
    "prime_share": "of a step's time that reading prompts may take while streams run",
    "engine_share": "of a step's time its engine must get a core; with less, tokens go together",
    "tokens_per_message": "for requests that do not say; 0: one, more under pressure",
    "stall_seconds": "how long a caller may leave its stream unread",
    "resume_keys": "file of hexadecimal keys for resume tokens, one a line, signing one first",
    "resume_seconds": "how long a resume token is good",
    "grace_seconds": "time for running streams to finish after SIGTERM",
    "max_sequences": "sequences of one model whose state is kept between requests",
    "sequence_idle_seconds": "without a request, after which a sequence ends",
    "model_control": "explicit: callers may load and unload models; none: they may not",
}


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    if chosen.command == "check":
        return check(chosen.models)
    names = [field.name for field in dataclasses.fields(Config)]
    try:
        config = Config(**{name: getattr(chosen, name) for name in names})
    except ConfigInvalid as error:
        print(f"configuration: {error}", file=sys.stderr)
        return 2
    return _serve(config)


def _serve(config: Config) -> int:
    # Imported late: checking bundles needs neither grpc nor onnxruntime.
    from service.app import NothingToServe, serve
    from service.http import HttpAddressInUse
    from service.rpc.server import AddressInUse
    from service.runtime.devices import DeviceUnavailable
    from service.runtime.repository import NoModels

    try:
        return asyncio.run(serve(config))
    except (
        NoModels, NothingToServe, DeviceUnavailable, AddressInUse, HttpAddressInUse,
    ) as error:  # fmt: skip
        print(f"cannot start: {error}", file=sys.stderr)
    return 1


def check(models: Path) -> int:
    """Verify the newest version of every model under ``models``; prints a line each."""
    from service.runtime.repository import NoModels, newest_versions, read_checked

    try:
        folders = newest_versions(models)
    except NoModels as error:
        print(error, file=sys.stderr)
        return 1
    failures = 0
    for folder in folders:
        try:
            bundle = read_checked(folder)
        except BundleError as error:
            print(f"{folder}: REFUSED: {error}")
            failures += 1
            continue
        size = sum(file.bytes for file in bundle.manifest.files.values())
        precisions = " and ".join((FP32, *bundle.manifest.precisions))
        print(
            f"{folder}: {bundle.manifest.task} in {precisions}, {size / 1e6:.1f} MB, "
            f"{len(bundle.manifest.files)} files verified, digest {bundle.digest[:12]}"
        )
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    serve_parser = commands.add_parser(
        "serve", help="run the service", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for field in dataclasses.fields(Config):
        serve_parser.add_argument(
            "--" + field.name.replace("_", "-"),
            type=Path if field.name in ("models", "resume_keys") else type(field.default),
            default=field.default,
            help=_HELP[field.name],
        )
    check_parser = commands.add_parser("check", help="verify every bundle")
    check_parser.add_argument("--models", type=Path, default=Config.models, help=_HELP["models"])
    return parser


if __name__ == "__main__":
    sys.exit(main())
