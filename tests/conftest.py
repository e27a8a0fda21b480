"""Fixtures that more than one folder of tests uses."""

from __future__ import annotations

import asyncio
import functools
import gc
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
import torch.onnx._internal.exporter._registration

from service.app import App
from service.config import Config
from tests import tiny
from tests.front_ends import with_front_end
from unroll import NO_RETRIES, Client

Answer = TypeVar("Answer")

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--proof", action="store_true", help="draw many more requests in tests of the promise"
    )
    parser.addoption(
        "--all-designs", action="store_true", help="export every design, not every pair of options"
    )
    parser.addoption(
        "--soak", action="store_true", help="feed ten times as many tokens to a long stream"
    )
    parser.addoption("--fuzz", action="store_true", help="send ten times as many mutated messages")
    parser.addoption("--attacks", action="store_true", help="attack in full, not the quick half")
    parser.addoption("--fuzz-name", default="1", help="another name draws other messages")
    parser.addoption("--robustness", type=int, default=0, help="histories under injected faults")
    parser.addoption("--robustness-name", default="1", help="another name draws other histories")


@dataclass(frozen=True)
class Proof:
    """How much is drawn to prove a promise, and where its summary goes.

    mixes, requests: of each variant, and of each mix. leaves: requests that are given up.
    """

    mixes: int
    requests: int
    leaves: int
    lines: list[str]

    def report(self, line: str) -> None:
        """Have ``line`` printed at the end of the run."""
        self.lines.append(line)


_LINES = pytest.StashKey[list[str]]()


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Proof:
    lines = request.config.stash.setdefault(_LINES, [])
    if request.config.getoption("--proof"):
        return Proof(mixes=20, requests=60, leaves=10_000, lines=lines)
    return Proof(mixes=1, requests=40, leaves=1_000, lines=lines)


@dataclass(frozen=True)
class Soak:
    """How many tokens one stream is fed, and where its figures go."""

    tokens: int
    lines: list[str]

    def report(self, line: str) -> None:
        """Have ``line`` printed at the end of the run."""
        self.lines.append(line)


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> Soak:
    lines = request.config.stash.setdefault(_LINES, [])
    return Soak(200_000 if request.config.getoption("--soak") else 20_000, lines)


@dataclass(frozen=True)
class Fuzz:
    """How many mutated messages are sent, what names their draw, and where figures go."""

    messages: int
    name: str
    lines: list[str]

    def report(self, line: str) -> None:
        """Have ``line`` printed at the end of the run."""
        self.lines.append(line)


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Fuzz:
    lines = request.config.stash.setdefault(_LINES, [])
    messages = 50_000 if request.config.getoption("--fuzz") else 5_000
    return Fuzz(messages, request.config.getoption("--fuzz-name"), lines)


@dataclass(frozen=True)
class Attacks:
    """How hard the service is attacked, and where figures go. is_full: not the quick half."""

    is_full: bool
    lines: list[str]

    def amount(self, quick: int, full: int) -> int:
        return full if self.is_full else quick

    def report(self, line: str) -> None:
        """Have ``line`` printed at the end of the run."""
        self.lines.append(line)


@pytest.fixture
def attacks(request: pytest.FixtureRequest) -> Attacks:
    lines = request.config.stash.setdefault(_LINES, [])
    return Attacks(request.config.getoption("--attacks"), lines)


@dataclass(frozen=True)
class Robustness:
    """How many histories are drawn, how many things each caller does in one, and their name."""

    runs: int
    things: int
    name: str
    lines: list[str]

    def report(self, line: str) -> None:
        """Have ``line`` printed at the end of the run."""
        self.lines.append(line)


@pytest.fixture(scope="session")
def robustness(request: pytest.FixtureRequest) -> Robustness:
    lines = request.config.stash.setdefault(_LINES, [])
    runs = request.config.getoption("--robustness")
    name = request.config.getoption("--robustness-name")
    return Robustness(runs or 1, 20 if runs else 10, name, lines)


# Files of many tests that take long all the same.
_LONG = (
    "tests/service/test_lifecycle.py",
    "tests/service/grpc/test_generating.py",
    "tests/service/grpc/test_frames.py",
    "tests/service/grpc/test_service.py",
    "tests/service/workers/test_serving.py",
    "tests/unroll/test_command_line.py",
    "tests/evaluation/test_evaluation.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of processes that take a file at a time, none may be left with a long one at the end: the
    dearest files have few tests, so those with the fewest come first (`make test`)."""
    if not hasattr(config, "workerinput"):
        return
    files = [item.nodeid.partition("::")[0] for item in items]
    count = Counter(files)
    order = {file: (file not in _LONG, count[file], file) for file in count}
    items.sort(key=lambda item: order[item.nodeid.partition("::")[0]])  # which keeps a file's order


def pytest_collection_finish() -> None:
    """What there is by now stays: collections that looked at all test modules and at PyTorch again
    and again would be a tenth of the processor time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that runs a part of the tests hands its lines to the one that began it."""
    if output := getattr(session.config, "workeroutput", None):
        output["lines"] = session.config.stash.get(_LINES, [])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    lines = getattr(node, "workeroutput", {}).get("lines", [])
    node.config.stash.setdefault(_LINES, []).extend(lines)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for line in config.stash.get(_LINES, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def _operators_are_listed_once() -> Iterator[None]:
    """The exporter lists a thousand operators, with the types of their arguments, anew for every
    graph: a third of a tiny export."""
    registry = torch.onnx._internal.exporter._registration.ONNXRegistry
    listed = functools.cache(registry.from_torchlib)

    def copied(*opset: int, **named: int) -> Any:
        kept, made = listed(*opset, **named), registry()
        made._opset_version = kept._opset_version
        made.functions = {operator: list(forms) for operator, forms in kept.functions.items()}
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "from_torchlib", staticmethod(copied))
        yield


@pytest.fixture(scope="session", autouse=True)
def _services_do_not_collect() -> Iterator[None]:
    """What tests leave in this process is not a service's to give back: collecting it takes a
    second of every thread, and services that last for a session would do so again and again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.app.trim_memory", lambda: None)
        yield


class RunningService:
    """An App on a thread with an event loop of its own, both ports free ones."""

    def __init__(self, config: Config) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.app = self.run(self._start(config))
        except BaseException:
            self._end_loop()
            raise

    async def _start(self, config: Config) -> App:
        app = App(with_front_end(config))
        await app.start()
        return app

    def run(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def stop(self) -> bool:
        """Whether every call finished within the grace."""
        try:
            return self.run(self.app.stop())
        finally:
            self._end_loop()

    def _end_loop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.app.front_end.port}"

    def metric(self, name: str, **labels: str) -> float:
        """The value of a metric now; 0 where it has none yet."""
        return self.app.metrics.registry.get_sample_value(name, labels) or 0.0


@contextmanager
def running(models: Path, **settings: Any) -> Iterator[RunningService]:
    """A service of these models with its defaults, but for ``settings``."""
    addresses = {"address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}
    service = RunningService(Config(**{"models": models, "device": "cpu", **addresses, **settings}))
    try:
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="session")
def tiny_models() -> Path:
    """A folder with a tiny bundle of each task; do not change it."""
    return tiny.export_once()


@pytest.fixture
def models_copy(tiny_models: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundles that a test may spoil."""
    return Path(shutil.copytree(tiny_models, tmp_path / "models"))


@pytest.fixture
def front_end() -> str:
    """Of the services of a test; folders whose tests need more than gRPC have one of their own."""
    return "auto"


@pytest.fixture
def start_service(tiny_models: Path, front_end: str) -> Iterator[Callable[..., RunningService]]:
    """Starts services over the tiny models; keywords replace settings. All are stopped."""
    running: list[RunningService] = []
    config = Config(
        models=tiny_models,
        address="127.0.0.1:0",
        http_address="127.0.0.1:0",
        device="cpu",
        grace_seconds=5.0,
        front_end=front_end,
    )

    def start(**settings: Any) -> RunningService:
        service = RunningService(replace(config, **settings))
        running.append(service)
        return service

    yield start
    for service in running:
        if service.loop.is_running():
            service.stop()


@pytest.fixture
def service(start_service: Callable[..., RunningService]) -> RunningService:
    return start_service()


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    # What the service says is to be seen, and not what another attempt brings.
    with Client(service.target, timeout=30, retries=NO_RETRIES) as client:
        yield client
