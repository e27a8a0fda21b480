"""Existing clients, unmodified, get their answers from the running service."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.conftest import Service
from tests.clients.environments import (
    CONFORMANCE,
    KSERVE,
    MLSERVER,
    NODE,
    OPENAI,
    ROOT,
    SCHEMATHESIS,
    SHELL,
    TRITON,
    UNROLL_6,
    UNROLL_7,
    Environment,
)
from unroll import Client

pytestmark = pytest.mark.clients

HERE = Path(__file__).parent
OPENAI_PAGE = ROOT / "docs" / "openai.md"
SCRIPTS = {
    "scripts/triton_server.py": TRITON,
    "scripts/triton_statistics.py": TRITON,
    "scripts/triton_infer.py": TRITON,
    "scripts/triton_sequences.py": TRITON,
    "scripts/triton_async.py": TRITON,
    "scripts/triton_stream.py": TRITON,
    "scripts/triton_aio.py": TRITON,
    "scripts/triton_load.py": TRITON,
    "scripts/triton_http.py": TRITON,
    "scripts/kserve_infer.py": KSERVE,
    "scripts/kserve_rest.py": KSERVE,
    "scripts/buf_curl.sh": SHELL,
    "node/infer.js": NODE,
}
OPENAIS = {"scripts/openai_completions.py": OPENAI, "node/complete.js": NODE}
# Those that call over HTTP, with the environment of each.
WEB_SCRIPTS = {
    "scripts/buf_curl_web.sh": SHELL,
    "scripts/mlserver_infer.py": MLSERVER,
    "scripts/schemathesis_run.sh": SCHEMATHESIS,
    "node/connect.mjs": NODE,
    "node/browser.mjs": NODE,
}
# Debian's and its derivatives' name first.
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WITHIN_SECONDS = 120


def run(environment: Environment, script: str, *arguments: object) -> None:
    """Run a client's script where the client is installed; it asserts what it receives."""
    if reason := environment.missing():
        pytest.skip(f"{script}: {reason}")
    command = [environment.command, str(HERE / script), *map(str, arguments)]
    finished = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_SECONDS
    )
    print(finished.stdout, finished.stderr, sep="")
    assert finished.returncode == 0, f"{script} failed; its output is below"


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_unmodified_client_gets_its_answers(service: Service, script: str) -> None:
    """Each script is a client's own way to call; it exits with 0 if every answer was right."""
    run(SCRIPTS[script], script, service.target)


@pytest.mark.parametrize("script", WEB_SCRIPTS)
def test_an_unmodified_client_of_http_gets_its_answers(
    service: Service, script: str, every_service: Path, page_port: int
) -> None:
    """Connect, gRPC-Web, WebSocket, OpenAPI: as above, and a page in a browser."""
    if not service.speaks_http():
        pytest.skip(f"{script}: the front end is grpcio")
    arguments: list[object] = [service.target]
    if script == "node/connect.mjs":
        arguments.append(every_service)
    if script == "node/browser.mjs":
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser is None:
            pytest.skip(f"{script}: there is no chromium (Debian: apt-get install chromium)")
        arguments += [browser, page_port]
    run(WEB_SCRIPTS[script], script, *arguments)


@pytest.fixture(scope="session")
def generated(service: Service) -> str:
    """What Generate makes of the request in the scripts of OpenAI's clients."""
    with Client(service.target, timeout=60) as client:
        chunks = client.generate("prose", prompt="ROMEO:\n", max_tokens=60, seed=7, temperature=0.7)
        return "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize("script", OPENAIS)
def test_openais_clients_get_the_text_of_generate(
    service: Service, generated: str, script: str
) -> None:
    run(OPENAIS[script], script, service.target, generated)


@pytest.mark.parametrize(("language", "flag"), [("sh", "-euc"), ("python", "-c")])
def test_the_examples_of_openais_clients_work(
    service: Service, generated: str, language: str, flag: str
) -> None:
    """Those in docs/openai.md, as they stand there but for the port."""
    # Later ones go on from earlier ones.
    example = "".join(re.findall(rf"```{language}\n(.*?)```", OPENAI_PAGE.read_text(), re.DOTALL))
    command = {"sh": "bash", "python": OPENAI.command}[language]
    if language == "python" and (reason := OPENAI.missing()):
        pytest.skip(reason)
    finished = subprocess.run(
        [command, flag, example.replace("127.0.0.1:50051", service.target)],
        capture_output=True,
        text=True,
        timeout=WITHIN_SECONDS,
    )
    assert finished.returncode == 0, finished.stderr
    if language == "python":
        assert generated in finished.stdout
        return
    *events, last = finished.stdout.split("\n\n")[:-1]
    assert last == "data: [DONE]"
    parts = [json.loads(event.removeprefix("data: ")) for event in events]
    assert "".join(part["choices"][0]["text"] for part in parts) == generated[:40]


@pytest.mark.parametrize("script", OPENAIS)
def test_keys_of_openais_clients_are_tokens(secured: tuple[Service, str], script: str) -> None:
    service, token = secured
    run(OPENAIS[script], script, service.target, "--key", token)


@pytest.mark.parametrize(
    ("environment", "beside"), [(UNROLL_6, "tritonclient"), (UNROLL_7, "")], ids=("6.33", "7")
)
def test_the_installed_client_gets_its_answers(
    service: Service, environment: Environment, beside: str
) -> None:
    """`pip install .`, with each major version of protobuf, and beside tritonclient."""
    run(environment, "scripts/unroll_calls.py", service.target, beside)


def test_the_installed_conformance_suite_tests_the_service(service: Service) -> None:
    """`pip install ./conformance`, without the clone: its module and its console script."""
    run(CONFORMANCE, "scripts/conformance_suite.py", service.target)


@pytest.fixture(scope="session")
def every_service(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of this project's protocol files as one descriptor set."""
    path = tmp_path_factory.mktemp("protocols") / "protocols.binpb"
    buf = Path(sys.executable).with_name("buf")
    subprocess.run([buf, "build", ROOT / "proto", "--output", path], check=True)
    return path


@pytest.fixture(scope="session")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This project's protocol files as one descriptor set."""
    path, root = tmp_path_factory.mktemp("protocol") / "protocol.binpb", ROOT / "proto"
    buf = Path(sys.executable).with_name("buf")
    command = [buf, "build", root, "--path", root / "unroll" / "inference", "--output", path]
    subprocess.run(command, check=True)
    return path


def test_every_message_is_tritonclients(described: Path) -> None:
    """Whatever is defined here, tritonclient defines with the same number, type and label."""
    modules = ("tritonclient.grpc.service_pb2", "tritonclient.grpc.model_config_pb2")
    run(TRITON, "scripts/same_messages.py", described, *modules, "--all")


def test_every_shared_message_is_kserves(described: Path) -> None:
    """KServe counts the fields of two requests otherwise than Triton; its client sends neither."""
    module = "kserve.protocol.grpc.grpc_predict_v2_pb2"
    requests = ("RepositoryModelLoadRequest", "RepositoryModelUnloadRequest")
    differs = [f"--differs=.inference.{request}.model_name" for request in requests]
    run(KSERVE, "scripts/same_messages.py", described, module, *differs)
