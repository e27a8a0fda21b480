"""Two workers behind one port, as callers and operators meet them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from conformance import report
from conformance.endpoint import Endpoint
from conformance.runner import PASSED, run, select
from conformance.selection import Selection, choose
from service.envoy.installation import EnvoyMissing, find
from tests.attacks.harness import children_of, wait_until
from tests.conformance.test_service import INPUTS
from tests.service.oip.calls import Inference, ask
from tests.service.processes import Process, ports_of, serve
from tests.service.test_process import page_of
from unroll import NO_RETRIES, Client, RequestFailed, Retries, Sampling
from unroll.channel import Connection
from unroll.inference import grpc_service_pb2 as infer_pb

BUNDLED = Path("models")
# Models whose streams last long enough for something to happen meanwhile.
STREAMED = ("prose", "sentiment", "pos-online")
TOKENS = 600
PATIENT = Retries(attempts=8)
# Channels with equal options would share one connection.
LOCAL = (("grpc.use_local_subchannel_pool", 1),)


def has_envoy():
    try:
        find()
    except EnvoyMissing:
        return False
    return True


needs_envoy = pytest.mark.skipif(not has_envoy(), reason="Envoy is missing")
FRONT_ENDS = [pytest.param("envoy", marks=needs_envoy), "grpcio"]


class Service:
    """A process with two workers. models: the folder it serves."""

    def __init__(self, run, models, front_end, *arguments):
        self.models = models
        some = ("--workers", "2", "--front-end", front_end, "--log-requests", *arguments)
        self.process: Process = serve(run, models, *some)
        self.port, self.http = ports_of(self.process)
        self.target = f"127.0.0.1:{self.port}"
        self.pid = self.process.process.pid

    def client(self, **settings):
        return Client(self.target, **{"timeout": 60, **settings})

    def workers(self):
        """Their process ids, by number: they are started in this order."""
        return [pid for pid in sorted(children_of(self.pid)) if is_worker(pid)]

    def sample(self, pattern):
        """The sum of the metrics whose lines begin so."""
        lines = re.findall(rf"^{pattern}\S* (\S+)$", page_of(self.http, "/metrics"), re.MULTILINE)
        return sum(map(float, lines))

    def stop(self):
        self.process.process.send_signal(signal.SIGTERM)
        return self.process.end()


def is_worker(pid):
    try:
        return b"service.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def is_there(pid):
    """Also one that has ended and was not waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(autouse=True)
def _clients_have_connections_of_their_own(monkeypatch):
    opened = Connection.open

    def open_alone(self, module):
        self.options += [option for option in LOCAL if option not in self.options]
        return opened(self, module)

    monkeypatch.setattr(Connection, "open", open_alone)


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    root = tmp_path_factory.mktemp("streamed")
    for name in STREAMED:
        shutil.copytree(BUNDLED / name, root / name)
    return root


@pytest.fixture(scope="module")
def run_once():
    """As ``run``, for processes that tests of this module share."""
    started = []

    def start(*arguments):
        process = Process(*map(str, arguments))
        started.append(process.process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module", params=FRONT_ENDS)
def shared(request, run_once, tiny_models):
    """For tests that leave it as it was; every tiny model."""
    service = Service(run_once, tiny_models, request.param)
    service.front_end = request.param
    yield service
    assert service.stop() == 0


@pytest.fixture
def start(run):
    return lambda models, *arguments, front_end="envoy": Service(run, models, front_end, *arguments)


def generated(client, seed=1, tokens=TOKENS, **options):
    pieces = client.generate(
        "prose",
        prompt=f"The sea of {seed}",
        max_tokens=tokens,
        log_probabilities=True,
        sampling=Sampling(seed=seed),
        **options,
    )
    return [(token.id, token.log_probability) for piece in pieces for token in piece.tokens]


def letters(client, seed=7):
    pieces = client.generate(
        "letters",
        prompt="abc",
        max_tokens=100,
        log_probabilities=True,
        sampling=Sampling(seed=seed),
    )
    return [(token.id, token.log_probability) for piece in pieces for token in piece.tokens]


def connections(service, count, **settings):
    """Clients with a connection each."""
    return [service.client(**settings) for _ in range(count)]


# -- one service -------------------------------------------------------------------------------


def test_the_same_request_gives_the_same_bits_in_every_worker(shared):
    clients = connections(shared, 8)
    before = shared.sample(r'unroll_requests_total\{code="OK",method="Generate"')
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(letters, clients * 4))
    assert all(one == found[0] for one in found)
    counted = shared.sample(r'unroll_requests_total\{code="OK",method="Generate"')
    assert counted - before == len(found)
    for client in clients:
        client.close()


def test_sums_are_those_of_the_calls_that_were_made(shared):
    """Metrics of all workers together, the protocol's statistics too, and one line each."""
    clients = connections(shared, 6)
    with Inference(shared.target) as inference:

        def statistics():
            (found,) = inference.stub.ModelStatistics(
                infer_pb.ModelStatisticsRequest(name="mood"), timeout=20
            ).model_stats
            return found.inference_count, sum(b.compute_infer.count for b in found.batch_stats)

        inputs, _ = statistics()
        seconds = shared.sample(r'unroll_request_seconds_count\{method="Classify"')
        for client in clients * 3:
            client.classify("mood", ["good", "bad"])
        after, batches = statistics()
        assert after - inputs == 36
        assert batches >= 1
        counted = shared.sample(r'unroll_request_seconds_count\{method="Classify"')
        assert counted - seconds == 18
        assert shared.sample("unroll_ready") == 1
        assert shared.sample("unroll_worker_up") == 2
        assert shared.sample(r'unroll_model_loaded\{model="mood"') == 1
    for client in clients:
        client.close()


def test_a_resume_token_of_one_worker_is_good_in_the_other(shared):
    with shared.client() as client:
        whole, points = [], []
        for piece in client.generate(
            "letters", prompt="abc", max_tokens=96, sampling=Sampling(seed=3), resume_every=32
        ):
            whole += [token.id for token in piece.tokens]
            points += piece.resume_points
    point = points[0]

    def resumed(client):
        pieces = client.generate("letters", resume_token=point.token)
        return [token.id for piece in pieces for token in piece.tokens]

    clients = connections(shared, 8, retries=NO_RETRIES)
    for client in clients:
        assert resumed(client) == whole[point.next_position :]
        client.close()


def test_a_sequence_goes_on_over_its_connection_and_is_refused_over_others(shared):
    """Its state is in one worker; requests that name none go to any worker meanwhile."""
    first = Inference(shared.target, LOCAL)
    others = [Inference(shared.target, LOCAL) for _ in range(8)]

    def tag(inference, number, **flags):
        parameters = {"sequence_id": number, **flags}
        request = ask("tags-online", {"text": [["the food is good"]]}, parameters=parameters)
        return inference.stub.ModelInfer(request, timeout=20)

    tag(first, 900, sequence_start=True)
    refusals = []
    for number, inference in enumerate(others, start=1):
        tag(inference, number, sequence_start=True)
        inference.stub.ModelInfer(ask("mood", {"text": [["good"]]}), timeout=20)
        tag(inference, number)
        try:
            tag(inference, 900)
        except grpc.RpcError as error:
            refusals.append(error.details())
        tag(inference, number, sequence_end=True)
    tag(first, 900, sequence_end=True)
    assert refusals
    assert all("must come over one connection" in refusal for refusal in refusals)
    for inference in (first, *others):
        inference.channel.close()


def test_conformance_to_the_inference_protocol(shared):
    with Endpoint(shared.target, timeout=60) as endpoint:
        chosen = choose(endpoint, Selection(inputs=INPUTS, stable=True))
        results = list(run(endpoint, chosen, select()))
    lines = [report.line_of(one) for one in results if one.status != PASSED]
    if shared.front_end == "grpcio":  # which speaks gRPC alone
        lines = [line for line in lines if "the protocol is not spoken over HTTP" not in line]
    assert lines == []
    assert len(results) == len(select())


# -- models ------------------------------------------------------------------------------------


def is_classified(client):
    """Whether the model is there; anything but that it is not is raised."""
    try:
        client.classify("mood", ["good"])
    except RequestFailed as failure:
        if failure.code != "NOT_FOUND":
            raise
        return False
    return True


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_loads_and_unloads_reach_every_worker_and_those_that_come_later(
    start, tiny_models, tmp_path, front_end
):
    for name in ("letters", "mood"):
        shutil.copytree(tiny_models / name, tmp_path / name)
    service = start(tmp_path, front_end=front_end)
    clients = connections(service, 6, retries=NO_RETRIES)
    with Inference(service.target) as inference:
        mood = {"model_name": "mood"}
        inference.stub.RepositoryModelUnload(infer_pb.RepositoryModelUnloadRequest(**mood))
        assert not any(map(is_classified, clients))
        with pytest.raises(grpc.RpcError) as caught:
            inference.stub.RepositoryModelUnload(infer_pb.RepositoryModelUnloadRequest(**mood))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        os.kill(service.workers()[0], signal.SIGKILL)
        service.process.read_until("serves again")
        clients += connections(service, 6, retries=NO_RETRIES)
        assert not any(map(is_classified, clients[6:]))
        inference.stub.RepositoryModelLoad(infer_pb.RepositoryModelLoadRequest(**mood))
        clients += connections(service, 6, retries=NO_RETRIES)
        assert all(map(is_classified, clients[6:]))
    for client in clients:
        client.close()
    assert service.stop() == 0


# -- a worker that ends ------------------------------------------------------------------------


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_worker_that_is_killed_disturbs_no_stream_of_others_and_its_own_go_on(
    start, streamed, front_end
):
    """Clients carry lost streams on with equal tokens; callers without retries get UNAVAILABLE."""
    service = start(streamed, front_end=front_end)
    seeds = range(8)
    with service.client() as client:
        wanted = {seed: generated(client, seed) for seed in seeds}
    carried = connections(service, 8, retries=PATIENT)
    plain = connections(service, 8, retries=NO_RETRIES)

    def attempt(client, seed):
        try:
            return generated(client, seed)
        except RequestFailed as failure:
            return failure.code

    with ThreadPoolExecutor(16) as pool:
        calls = [pool.submit(attempt, c, s) for c, s in zip(carried, seeds, strict=True)]
        bare = [pool.submit(attempt, c, s) for c, s in zip(plain, seeds, strict=True)]
        assert wait_until(lambda: service.sample(r"unroll_active_rows\{") >= 8, 20)
        os.kill(service.workers()[0], signal.SIGKILL)
        assert [call.result() for call in calls] == [wanted[seed] for seed in seeds]
        lost = [call.result() for call in bare]
    whole = [found == wanted[seed] for found, seed in zip(lost, seeds, strict=True)]
    assert any(whole), "streams of the other worker go on"
    assert {found for found, is_whole in zip(lost, whole, strict=True) if not is_whole} <= {
        "UNAVAILABLE"
    }
    service.process.read_until("worker 0 serves again")
    assert service.sample(r'unroll_worker_restarts_total\{worker="0"') == 1
    assert service.sample("unroll_worker_up") == 2
    with service.client() as client:
        assert generated(client, 1) == wanted[1]
    for client in (*carried, *plain):
        client.close()
    assert service.stop() == 0


def is_ready(service):
    try:
        return page_of(service.http, "/readyz") == "ready\n"
    except urllib.error.HTTPError as error:
        with error:
            return error.code != 503


@needs_envoy
def test_while_no_worker_serves_callers_are_told_and_it_is_not_ready(start, tiny_models):
    service = start(tiny_models)
    for pid in service.workers():
        os.kill(pid, signal.SIGKILL)
    with service.client(retries=NO_RETRIES) as client, pytest.raises(RequestFailed) as caught:
        client.list_models()
    assert caught.value.code == "UNAVAILABLE"
    assert wait_until(lambda: not is_ready(service), 5)
    assert page_of(service.http, "/livez") == "alive\n"
    body = b'{"model": "letters", "prompt": "a"}'
    headers = {"content-type": "application/json"}
    url = f"http://{service.target}/v1/completions"
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20)
    assert refused.value.headers["retry-after"] == "1"
    refused.value.close()
    assert wait_until(lambda: service.sample("unroll_worker_up") == 2, 60)
    assert is_ready(service)
    with service.client() as client:
        assert client.list_models().models
    assert service.stop() == 0


@needs_envoy
def test_envoy_that_is_killed_gets_its_workers_again(start, tiny_models):
    service = start(tiny_models)
    (envoy,) = (pid for pid in children_of(service.pid) if not is_worker(pid))
    os.kill(envoy, signal.SIGKILL)
    assert wait_until(lambda: service.sample("unroll_front_end_restarts_total") == 1, 20)
    assert wait_until(lambda: is_ready(service), 60)
    with service.client(retries=PATIENT) as client:
        assert len({len(letters(client)) for _ in range(4)}) == 1
    assert service.stop() == 0


@needs_envoy
def test_more_workers_than_one_envoy_carries_have_several_on_one_port(run, tiny_models):
    service = Service(run, tiny_models, "envoy", "--workers", "4")
    envoys = [pid for pid in children_of(service.pid) if not is_worker(pid)]
    assert len(envoys) == 2
    assert len(service.workers()) == 4
    clients = connections(service, 12)
    assert len({tuple(letters(client)) for client in clients}) == 1
    os.kill(envoys[0], signal.SIGKILL)
    assert wait_until(lambda: service.sample("unroll_front_end_restarts_total") == 1, 20)
    for client in clients:
        assert letters(client)
        client.close()
    assert service.stop() == 0


@needs_envoy
def test_a_worker_that_stands_still_is_killed_and_started_again(start, tiny_models):
    service = start(tiny_models, "--liveness-seconds", "3")
    first = service.workers()[0]
    os.kill(first, signal.SIGSTOP)
    service.process.read_until("worker 0 is killed")
    service.process.read_until("serves again")
    assert not is_there(first)
    assert service.stop() == 0


# -- signals -----------------------------------------------------------------------------------


@needs_envoy
def test_a_stop_hands_streams_over_and_ends_with_zero(start, streamed):
    service = start(streamed, "--grace-seconds", "0")
    with service.client(retries=NO_RETRIES) as client:
        streams = [
            client.generate("prose", prompt="a", max_tokens=4000, resume_every=64) for _ in range(6)
        ]
        for stream in streams:
            next(stream)
        service.process.process.send_signal(signal.SIGTERM)
        for stream in streams:
            with pytest.raises(RequestFailed) as ended:
                list(stream)  # goes on, and finds that the whole service stops
            assert ended.value.code == "UNAVAILABLE"
    assert service.process.end() == 0
    assert "stopped, every call finished or was handed over" in service.process.output


@needs_envoy
def test_a_stop_lets_streams_finish(start, streamed):
    service = start(streamed)
    with service.client() as client, ThreadPoolExecutor(6) as pool:
        wanted = generated(client)
        calls = [pool.submit(generated, client) for _ in range(6)]
        assert wait_until(lambda: service.sample(r"unroll_active_rows\{") >= 4, 20)
        service.process.process.send_signal(signal.SIGTERM)
        assert [call.result() for call in calls] == [wanted] * 6
    assert service.process.end() == 0
    lines = service.process.output.splitlines()
    served = [line for line in lines if " request " in line and "method=Generate" in line]
    assert {re.search(r"worker=(\d)", line)[1] for line in served} == {"0", "1"}


@needs_envoy
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_with_their_parent(start, tiny_models, number):
    """Killed, or by a second signal while it waits."""
    service = start(tiny_models, "--propagation-seconds", "600")
    children = children_of(service.pid)
    assert len(children) == 3
    if number == signal.SIGTERM:
        service.process.process.send_signal(number)
        service.process.read_until("not ready any more, takes calls for 600 s")
        with service.client() as client:
            assert letters(client)
    service.process.process.send_signal(number)
    assert service.process.end() in (-signal.SIGKILL, 128 + signal.SIGTERM)
    assert wait_until(lambda: not any(map(is_there, children)), 20)


@needs_envoy
def test_a_hang_up_reaches_every_worker(start, tiny_models, tmp_path):
    settings = tmp_path / "unroll.toml"
    settings.write_text('log_level = "info"\n')
    service = start(tiny_models, "--config", settings)
    settings.write_text('log_level = "warning"\nmax_queue = 7\n')
    service.process.process.send_signal(signal.SIGHUP)
    service.process.read_until("needs a restart: max_queue")
    time.sleep(0.5)  # for the workers
    with service.client() as client:
        for _ in range(6):
            client.list_models()
    service.process.process.send_signal(signal.SIGTERM)
    service.process.end()
    after = service.process.output.split("needs a restart")[1]
    assert "method=ListModels" not in after


# -- starts that fail --------------------------------------------------------------------------


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_port_that_is_taken_stops_the_start(start, run, tiny_models, front_end):
    taken = start(tiny_models, front_end=front_end)
    again = run(
        "serve", "--models", tiny_models, "--workers", "2", "--front-end", front_end,
        "--address", taken.target, "--http-address", "127.0.0.1:0",
    )  # fmt: skip
    assert again.end() == 1
    assert f"cannot listen on {taken.target}" in again.output
    assert taken.stop() == 0


def test_a_folder_without_models_stops_the_start(run, tmp_path):
    process = serve(run, tmp_path, "--workers", "2")
    assert process.end() == 1
    assert "cannot start: a worker did not start (exit code 1)" in process.output
