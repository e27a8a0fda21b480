"""The container image: what is in it, and how it runs locked down."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import tomllib

import pytest

from service import __version__
from tests.ops.conftest import ROOT
from tests.ops.containers import Container, Podman
from unroll import AsyncClient, Client, Sampling

pytestmark = [pytest.mark.ops, pytest.mark.timeout(600)]

BASE = "localhost/python:3.11-slim-bookworm"
IMAGE, WITHOUT_MODELS = "localhost/unroll:test", "localhost/unroll:without-models"
RELEASE = f"v{__version__}"
MOST_MEGABYTES = 300
USER = "10001"
STREAMS = 24
# What the bundled models hold, a call for each task.
MODELS = {
    "cloze", "food", "g2p", "monthly", "nationality", "pos", "pos-online", "prose", "sentiment",
    "translate", "vowels", "vowels-online",
}  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Where the module's podman is held once one is there; its images leave with it."""
    held = {}
    yield held
    if held:
        held["podman"].close()


@pytest.fixture
def podman(need, shared, tmp_path_factory):
    program, _, _ = need("podman", "runc", "mmdebstrap")
    if os.geteuid() != 0:
        pytest.skip("missing: root, as which the containers' limits are set")
    if "podman" not in shared:
        shared["podman"] = Podman(program, tmp_path_factory.mktemp("podman"))
    return shared["podman"]


def build(podman: Podman, tag: str, **arguments: str) -> None:
    done = subprocess.run(
        [ROOT / "deploy" / "build-image.sh", tag],
        env=podman.environment | arguments,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture
def image(podman, shared):
    if "image" not in shared:
        build(podman, IMAGE)
        shared["image"] = IMAGE
    return shared["image"]


@pytest.fixture
def start(podman):
    """Starts containers; all are ended."""
    started = []

    def start_one(image, **options):
        container = Container(podman, image, **options)
        started.append(container)
        return container

    yield start_one
    for container in started:
        podman.try_run("rm", "--force", "--time", "0", container.name)


def test_the_dockerfile_is_clean(need, saw):
    (hadolint,) = need("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "hadolint ignore" not in (ROOT / "Dockerfile").read_text()
    saw("hadolint found nothing")


def test_the_image_is_small_and_says_what_it_is(podman, image, saw):
    added = (podman.bytes_of(image) - podman.bytes_of(BASE)) / 1e6
    assert added <= MOST_MEGABYTES
    config = json.loads(podman.run("image", "inspect", image))[0]["Config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Entrypoint"] == ["python", "-m", "service", "serve"]
    assert set(config["ExposedPorts"]) == {"50051/tcp", "8002/tcp"}
    assert config["Labels"]["org.opencontainers.image.title"] == "Unroll"
    # Whoever publishes a port reaches the service.
    assert "UNROLL_ADDRESS=0.0.0.0:50051" in config["Env"]
    saw(f"{added:.0f} MB on top of its base, at most {MOST_MEGABYTES}")


def test_it_serves_locked_down(image, start, saw):
    """Read-only, without capabilities, 512 MB: each bundled model answers from outside."""
    container = start(image)
    seconds = container.wait_until_healthy()
    assert container.inspect("{{.State.Health.Status}}") == "healthy"

    with Client(container.target, timeout=30) as client:
        assert {model.name for model in client.list_models().models} == MODELS
        assert client.classify("sentiment", ["the food is not good"])[0].best[0] == "negative"
        assert len(client.classify("nationality", ["Hiroshi Tanaka"])[0].labels) > 100
        assert client.tag("pos", ["The man went"])[0].tokens[0].label == "at"
        pieces = list(client.stream_tag("pos-online", ["The man"]))
        words = [token.text for piece in pieces for token in piece.tokens]
        assert words == ["The", "man"]
        assert len(client.fill("cloze", ["The man went to the ___"])[0].words) == 5
        assert _text(client, "g2p", source="unrolled").split()
        assert _text(client, "prose", prompt="ROMEO:\n", max_tokens=20)
        assert _text(client, "food", vector=[1.0] * 29)

    metrics = container.get("/metrics")
    assert re.search(r'^unroll_requests_total\{.*model="prose".*\} 1\.0$', metrics, re.MULTILINE)
    status = container.execute("cat", "/proc/1/status").stdout
    assert re.search(rf"^Uid:\t{USER}\t{USER}\t{USER}\t{USER}$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
    assert container.execute("cat", "/proc/1/cmdline").stdout.startswith("python\0-m\0service")
    for place in ("/opt/unroll/models", "/opt/unroll", "/tmp", "/var/tmp"):
        written = container.execute("touch", f"{place}/written")
        assert "Read-only file system" in written.stderr, place
    assert "No module named 'torch'" in container.execute("python", "-c", "import torch").stderr
    assert "No module named pip" in container.execute("python", "-m", "pip").stderr
    # onnxruntime, set to report nothing, does not look for a place for its reports.
    assert "telemetry" not in container.log
    memory = int(container.inspect("{{.HostConfig.Memory}}"))
    assert memory == 512 * 1024 * 1024
    peak = _peak_memory(container)
    assert container.stop() == 0
    saw(
        f"healthy after {seconds:.1f} s, {len(MODELS)} models answered, exit 0, "
        f"memory at most {peak / 1e6:.0f} MB of {memory / 1e6:.0f}"
    )


def _text(client, model, **options):
    return "".join(piece.text for piece in client.generate(model, **options))


def _peak_memory(container):
    """Bytes, of either kind of control groups."""
    places = ("memory/memory.max_usage_in_bytes", "memory.peak")
    for place in places:
        read = container.execute("cat", f"/sys/fs/cgroup/{place}")
        if read.returncode == 0:
            return int(read.stdout)
    raise AssertionError("the container's memory cannot be read")


def test_models_from_outside(image, start, tmp_path, saw):
    """What is mounted over the bundled models is served instead of them."""
    models = tmp_path / "models"
    shutil.copytree(ROOT / "models" / "sentiment", models / "sentiment")
    container = start(image, options=[f"--volume={models}:/opt/unroll/models:ro"])
    container.wait_until_healthy()
    with Client(container.target, timeout=30) as client:
        (model,) = client.list_models().models
        assert client.classify("sentiment", ["great food"])[0].best[0] == "positive"
    assert container.stop() == 0
    saw(f"{model.name} alone served from a mount")


def test_an_image_without_models(podman, start, saw):
    build(podman, WITHOUT_MODELS, MODELS="none")
    added = (podman.bytes_of(WITHOUT_MODELS) - podman.bytes_of(BASE)) / 1e6
    container = start(WITHOUT_MODELS)
    code = container.exit_code()
    assert code == 1
    assert "cannot start: models holds no bundle" in container.log
    saw(f"{added:.0f} MB on top of its base; exit {code}, since nothing is mounted")


@pytest.mark.parametrize(
    ("settings", "flags", "message"),
    [
        ({"UNROLL_MAX_STREAMS": "many"}, (), "UNROLL_MAX_STREAMS is 'many'"),
        ({"UNROLL_MAX_STREEMS": "8"}, (), "is no setting; is 'max_streams' meant?"),
        ({}, ("--grace-seconds", "-1"), "grace_seconds is -1"),
    ],
)
def test_a_wrong_setting_stops_it_at_once(image, start, saw, settings, flags, message):
    container = start(image, settings=settings, flags=flags)
    code = container.exit_code()
    assert code == 2, container.log
    assert message in container.log
    saw(f"exit {code}: {container.log.strip().splitlines()[-1]}")


def test_signals_reach_the_first_process(image, start, saw):
    """Process 1 has no default actions: SIGTERM during the start ends it, a second one at once."""
    starting = start(image, settings={"UNROLL_PROPAGATION_SECONDS": "0"})
    while not starting.catches(signal.SIGTERM):
        assert starting.inspect("{{.State.Running}}") == "true", starting.log
    starting.signal("TERM")
    early = starting.exit_code(seconds=20)
    assert early in (0, 128 + signal.SIGTERM), starting.log

    stopping = start(image, settings={"UNROLL_PROPAGATION_SECONDS": "600"})
    stopping.wait_until_healthy()
    stopping.signal("TERM")
    while "not ready any more" not in stopping.log:
        assert stopping.inspect("{{.State.Running}}") == "true", stopping.log
    stopping.signal("TERM")
    code = stopping.exit_code(seconds=20)
    assert code == 128 + signal.SIGTERM
    saw(f"exit {early} on SIGTERM while it starts, exit {code} on a second one while it stops")


def test_streams_end_within_the_grace(image, start, saw):
    """SIGTERM under load: every running stream is delivered whole, then exit 0."""
    container = start(image, settings={"UNROLL_PROPAGATION_SECONDS": "1"})
    container.wait_until_healthy()
    tokens = 400

    async def drive():
        async with AsyncClient(container.target, timeout=60) as client:
            running = _Streams(client, STREAMS, tokens)
            await running.wait_until_all_run()
            already = running.ended
            code = await asyncio.to_thread(container.stop)
            return already, code, await running.texts()

    already, code, texts = asyncio.run(drive())
    assert code == 0, container.log
    assert "Traceback" not in container.log
    assert already == 0
    assert [len(text) for text in texts] == [tokens] * STREAMS
    saw(f"exit {code}, {STREAMS} of {STREAMS} running streams delivered all {tokens} tokens")


def test_streams_that_cannot_end_go_on_elsewhere(image, start, tmp_path, saw):
    """SIGTERM with a short grace: the client goes on at another container, bit for bit."""
    keys = tmp_path / "keys"
    keys.write_text("5a" * 32 + "\n")
    keys.chmod(0o444)
    settings = {
        "UNROLL_RESUME_KEYS": "/keys",
        "UNROLL_PROPAGATION_SECONDS": "0.2",
        "UNROLL_GRACE_SECONDS": "0.2",
    }
    first, second = (
        start(image, settings=settings, options=[f"--volume={keys}:/keys:ro"]) for _ in range(2)
    )
    first.wait_until_healthy()
    second.wait_until_healthy()
    tokens = 2000

    async def drive():
        async with AsyncClient(f"{first.target},{second.target}", timeout=200) as client:
            # Calls take turns among the connections that are open.
            while not all('method="ListModels"' in c.get("/metrics") for c in (first, second)):
                await client.list_models()
            running = _Streams(client, STREAMS, tokens)
            await running.wait_until_all_run()
            code = await asyncio.to_thread(first.stop)
            texts = await running.texts()
        async with AsyncClient(second.target, timeout=200) as client:
            return code, texts, await _Streams(client, STREAMS, tokens).texts()

    code, texts, undisturbed = asyncio.run(drive())
    assert code == 0, first.log
    assert "Traceback" not in first.log
    assert texts == undisturbed
    assert {len(text) for text in texts} == {tokens}
    metrics = second.get("/metrics")
    resumed = re.search(
        r'^unroll_streams_resumed_total\{model="prose"\} (\S+)$', metrics, re.MULTILINE
    )
    moved = float(resumed[1]) if resumed else 0
    assert moved > 0
    assert second.stop() == 0
    saw(
        f"exit {code}, {moved:.0f} streams went on elsewhere by a resume token; all {STREAMS} "
        f"complete and equal to an undisturbed run, {tokens} tokens each"
    )


class _Streams:
    """Seeded streams that run side by side."""

    def __init__(self, client, count, tokens):
        self._begun = [asyncio.Event() for _ in range(count)]
        self._tasks = [
            asyncio.create_task(self._read(client, number, tokens)) for number in range(count)
        ]

    async def _read(self, client, number, tokens):
        text, options = "", {"max_tokens": tokens, "sampling": Sampling(seed=number)}
        async for piece in client.generate("prose", prompt="ROMEO:\n", **options):
            text += piece.text
            if text:
                self._begun[number].set()
        return text

    @property
    def ended(self):
        return sum(task.done() for task in self._tasks)

    async def wait_until_all_run(self):
        waits = asyncio.gather(*(begun.wait() for begun in self._begun))
        await asyncio.wait_for(waits, 60)

    async def texts(self):
        return await asyncio.gather(*self._tasks)


@pytest.fixture
def checkout(tmp_path):
    """A copy of what an image is built from, as the first commit of a repository, tagged."""
    copy = tmp_path / "checkout"
    left_out = shutil.ignore_patterns("__pycache__")
    for name in ("bundle", "deploy", "service", "unroll"):
        shutil.copytree(ROOT / name, copy / name, ignore=left_out)
    shutil.copytree(ROOT / "models" / "sentiment", copy / "models" / "sentiment")
    for name in ("Dockerfile", "Makefile", "pyproject.toml", ".dockerignore", ".gitignore"):
        shutil.copy2(ROOT / name, copy)
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "1"), ("tag", RELEASE)):
        subprocess.run(["git", *who, *command], cwd=copy, check=True)
    return copy


def test_a_package_whose_hash_is_another_stops_the_build(podman, image, checkout, saw):
    lock = checkout / "deploy" / "locks" / "serve.txt"
    pattern = r"^prometheus-client==.*\n(    --hash=.*\n)+"
    (before,) = (match[0] for match in re.finditer(pattern, lock.read_text(), re.MULTILINE))
    after = re.sub("sha256:[0-9a-f]{4}", "sha256:0000", before)
    lock.write_text(lock.read_text().replace(before, after))
    done = subprocess.run(
        ["deploy/build-image.sh", "localhost/unroll:changed"],
        cwd=checkout,
        env=podman.environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert "prometheus-client" in done.stderr
    saw("a lock with another hash for one package: pip refuses it, and there is no image")


def test_a_release_names_its_base_and_lists_what_it_holds(podman, need, image, checkout, saw):
    """From a clean, tagged tree on a base image by its digest; without the digest, nothing."""
    need("cyclonedx-py")
    (checkout / ".venv-ops").symlink_to(ROOT / ".venv-ops")
    (checkout / ".git" / "info" / "exclude").write_text(".venv-ops\n")

    def release(base):
        return subprocess.run(
            ["make", "release", f"BASE_IMAGE={base}"],
            cwd=checkout,
            env=podman.environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    refused = release(BASE)
    assert refused.returncode != 0
    assert "give one as NAME@sha256:DIGEST" in refused.stderr
    digest = podman.run("image", "inspect", BASE, "--format", "{{.Digest}}")
    done = release(f"localhost/python@{digest}")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]

    tag = RELEASE.removeprefix("v")
    (released,) = json.loads(podman.run("image", "inspect", f"unroll:{tag}"))
    labels = released["Config"]["Labels"]
    assert labels["org.opencontainers.image.base.digest"] == digest
    assert labels["org.opencontainers.image.version"] == tag
    listed = json.loads((checkout / ".out" / f"unroll-{tag}.sbom.json").read_text())["components"]
    (container,) = (c for c in listed if c["type"] == "container")
    assert container["hashes"][0]["content"] == digest.removeprefix("sha256:")
    assert any(c["name"] == "onnxruntime" for c in listed)
    saw(f"unroll:{tag} on a base by its digest, with {len(listed)} components listed")


def test_the_bill_of_materials_lists_what_the_image_holds(need, image, start, saw):
    """The packages of the SBOM are those of the image, and those that are pinned."""
    need("cyclonedx-py")
    done = subprocess.run(["make", "sbom"], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    components = json.loads((ROOT / ".out" / "sbom.json").read_text())["components"]
    listed = {(_plain(c["name"]), c["version"]) for c in components if c["type"] == "library"}

    container = start(image)
    script = "import importlib.metadata as m; [print(d.name, d.version) for d in m.distributions()]"
    lines = container.execute("python", "-c", script).stdout.splitlines()
    assert listed == {tuple(_plain(line).split()) for line in lines}

    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    written = (*groups["service-core"], groups["serve"][1])
    pins = {tuple(pin.partition(";")[0].strip().split("==")) for pin in written}
    assert pins <= listed
    assert {"grpcio", "onnxruntime", "numpy"} <= {name for name, _ in listed}
    assert not {"torch", "onnx", "pip"} & {name for name, _ in listed}
    models = {c["name"]: c["hashes"][0]["content"] for c in components if "modelCard" in c}
    assert set(models) == MODELS
    with Client(container.target, timeout=30) as client:
        container.wait_until_healthy()
        served = {model.name: model.digest for model in client.list_models().models}
    assert models == served
    saw(f"{len(listed)} packages and {len(models)} models, the same as the image holds")


def _plain(name):
    """As package indexes compare it."""
    return name.lower().replace("_", "-")
