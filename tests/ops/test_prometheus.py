"""Metrics, rules, alerts and the dashboard, queried from a real Prometheus over real replicas."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from functools import partial
from pathlib import Path

import grpc
import pytest

from tests.ops.prometheus import FILES, Monitoring, wait_until
from unroll.inference import grpc_service_pb2 as inference
from unroll.inference import grpc_service_pb2_grpc as inference_grpc
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

pytestmark = pytest.mark.ops

PACKAGES = "prometheus prometheus-alertmanager"
DASHBOARD = Path("deploy/grafana/dashboard.json")
# All models, and so few places that a caller alone can take them.
SMALL = (
    "--models", str(Path("models").resolve()),
    "--max-streams", "4", "--max-queue", "8", "--threads", "1",
)  # fmt: skip
# What Grafana fills in.
VARIABLES = {"$instance": ".*", "$model": ".*", "$__rate_interval": "5s"}


@pytest.fixture
def start_monitoring(need, tmp_path):
    prometheus, alertmanager = need("prometheus", "prometheus-alertmanager", package=PACKAGES)
    running = []

    def start(*replicas):
        targets = [f"127.0.0.1:{replica.http_port}" for replica in replicas]
        running.append(Monitoring(prometheus, alertmanager, targets, tmp_path))
        return running[-1]

    yield start
    for monitoring in running:
        monitoring.stop()


def run(*command):
    """What it printed. Fails with that, unless it exits with 0."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_own_tools_take_the_rules(need, saw):
    promtool, amtool = need("promtool", "amtool", package=PACKAGES)
    config = run(promtool, "check", "config", str(FILES / "prometheus.yml"))
    assert "SUCCESS: 2 rule files found" in config
    rules = sum(map(int, re.findall(r"SUCCESS: (\d+) rules found", config)))
    tests = run(promtool, "test", "rules", str(FILES / "tests" / "rules.yml"))
    assert "SUCCESS" in tests
    run(amtool, "check-config", str(FILES / "alertmanager.yml"))
    cases = len(re.findall(r"^  - name: ", (FILES / "tests/rules.yml").read_text(), re.M))
    alerts = len(re.findall(r"alert: ", (FILES / "alerts.yml").read_text()))
    saw(f"promtool: {rules} rules, {alerts} of them alerts, {cases} groups of unit tests pass")


def test_the_page_of_a_replica_is_what_prometheus_wants(need, start_replica, saw):
    (promtool,) = need("promtool", package=PACKAGES)
    replica = start_replica(*SMALL)
    traffic = Traffic(replica.target)
    traffic.everything()
    began = time.perf_counter()
    page = replica.metrics()
    milliseconds = 1e3 * (time.perf_counter() - began)
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, text=True, timeout=60
    )
    # Of Python's own client; what it calls its metrics is its own affair.
    found = [line for line in checked.stderr.splitlines() if not line.startswith("python_")]
    assert found == []
    series = sum(not line.startswith("#") for line in page.splitlines())
    families = page.count("# TYPE ")
    assert "request_id" not in page
    saw(f"{families} metrics, {series} series of 8 models in {milliseconds:.0f} ms, none unclean")


def test_every_rule_and_every_panel_answers_over_two_replicas(start_replica, start_monitoring, saw):
    replicas = [start_replica(*SMALL), start_replica(*SMALL)]
    monitoring = start_monitoring(*replicas)
    over, made = threading.Event(), [0, 0]

    def call(number):
        traffic = Traffic(replicas[number].target)
        while not over.is_set():
            traffic.everything()
            made[number] += 1

    callers = [threading.Thread(target=call, args=(number,)) for number in range(2)]
    began = time.monotonic()
    for caller in callers:
        caller.start()
    try:
        wait_until(lambda: sum(map(value, monitoring.query("up"))) == 2, 20, "both are scraped")
        recorded = re.findall(r"record: (\S+)", (FILES / "recording.yml").read_text())
        queries = [*recorded, *panel_expressions()]
        silent = set(queries)

        def all_answer():
            silent.difference_update([e for e in sorted(silent) if monitoring.has_data(e)])
            return not silent

        try:
            wait_until(all_answer, 60, "every expression answers")
        except AssertionError:
            pytest.fail(f"no data for: {sorted(silent)}")
        seconds = time.monotonic() - began
        rejecting = partial(monitoring.webhook.alert, "UnrollRejecting", "firing", model="prose")
        wait_until(rejecting, 60, "that requests are refused is reported")
    finally:
        over.set()
        for caller in callers:
            caller.join(60)
    assert min(made) > 0
    assert [rule["lastError"] for rule in monitoring.rules() if rule["health"] != "ok"] == []
    saw(
        f"{len(recorded)} recording rules and {len(queries) - len(recorded)} panel expressions "
        f"answered within {seconds:.0f} s of traffic ({sum(made)} rounds of 19 kinds of call); "
        "UnrollRejecting reached the webhook"
    )


def test_a_replica_that_stops_is_reported_to_the_webhook(start_replica, start_monitoring, saw):
    stays, stops = start_replica(), start_replica("--propagation-seconds", "0")
    monitoring = start_monitoring(stays, stops)
    instance = f"127.0.0.1:{stops.http_port}"
    wait_until(lambda: sum(map(value, monitoring.query("up"))) == 2, 20, "both are scraped")
    stops.terminate()
    assert stops.wait() == 0
    stopped = time.monotonic()
    webhook = monitoring.webhook

    def down(status):
        return webhook.alert("UnrollReplicaDown", status, instance=instance)

    wait_until(lambda: down("firing"), 30, "the alert fires")
    at, alert = down("firing")
    assert alert["annotations"]["runbook_url"] == "RUNBOOK.md#unrollreplicadown"
    assert "UnrollReplicaDown" in Path("RUNBOOK.md").read_text()
    restarted = start_replica(http_port=stops.http_port)
    back = time.monotonic()
    assert restarted.is_ready()
    wait_until(lambda: down("resolved"), 30, "the alert is over")
    others = [a for _, a in webhook.heard if a["labels"].get("instance") != instance]
    assert [a["labels"]["alertname"] for a in others] == []
    saw(
        f"UnrollReplicaDown reached the webhook {at - stopped:.1f} s after the stop (scrapes every "
        f"0.2 s, for: 1s), resolved {down('resolved')[0] - back:.1f} s after the restart"
    )


def value(sample):
    return float(sample["value"][1])


def panel_expressions():
    """Of the dashboard, its variables filled in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = []
    for panel in panels:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, instead in VARIABLES.items():
                expression = expression.replace(name, instead)
            assert "$" not in expression, expression
            expressions.append(expression)
    assert len(expressions) > 50
    return expressions


class Traffic:
    """One caller of everything, the wrong and the impatient included."""

    def __init__(self, target):
        channel = grpc.insecure_channel(target)
        self.unroll = unroll_pb2_grpc.UnrollServiceStub(channel)
        self.inference = inference_grpc.GRPCInferenceServiceStub(channel)

    def everything(self):
        self.whole()
        self.streams()
        self.refused()
        self.given_up()
        self.managed()

    def whole(self):
        unroll = self.unroll
        unroll.Classify(pb.ClassifyRequest(model="sentiment", texts=["not bad", "not good"]))
        unroll.Tag(pb.TagRequest(model="pos", items=[pb.TagItem(text="The man went")]))
        unroll.Fill(pb.FillRequest(model="cloze", texts=["He went to the ___ again"]))
        unroll.Score(pb.ScoreRequest(model="prose", items=[pb.ScoreItem(text="ROMEO")]))
        unroll.ListModels(pb.ListModelsRequest())
        unroll.GetModel(pb.GetModelRequest(name="prose"))
        text = inference.ModelInferRequest(model_name="sentiment")
        tensor = text.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
        tensor.contents.bytes_contents.append(b"the food is not good")
        self.inference.ModelInfer(text)
        list(self.inference.ModelStreamInfer(iter([text])))

    def streams(self):
        words = [pb.StreamTagRequest(start=pb.StreamTagStart(model="pos-online"))]
        words.append(pb.StreamTagRequest(words=pb.Words(words=["The", "man"])))
        list(self.unroll.StreamTag(iter(words)))
        list(self.unroll.Generate(pb.GenerateRequest(model="g2p", source="unrolled")))
        *_, last = self.unroll.Generate(generation(max_tokens=16, resume_at_end=True))
        (point,) = last.resume_points
        resumed = pb.GenerateRequest(model="prose", resume_token=point.token, max_tokens=8)
        assert list(self.unroll.Generate(resumed))

    def refused(self):
        expect("NOT_FOUND", self.unroll.Classify, pb.ClassifyRequest(model="none", texts=["a"]))
        expect("INVALID_ARGUMENT", self.unroll.Classify, pb.ClassifyRequest(model="sentiment"))
        forged = pb.GenerateRequest(model="prose", resume_token=b"none")
        expect("INVALID_ARGUMENT", lambda r: list(self.unroll.Generate(r)), forged)
        # More streams than there are places for.
        calls = [self.unroll.Generate(generation(max_tokens=400)) for _ in range(16)]
        codes = [code_of(lambda call=call: list(call)) for call in calls]
        assert {"OK", "RESOURCE_EXHAUSTED"} >= set(codes)
        assert "RESOURCE_EXHAUSTED" in codes

    def given_up(self):
        call = self.unroll.Generate(generation(max_tokens=4096))
        next(call)
        call.cancel()
        late = self.unroll.Generate(generation(max_tokens=4096), timeout=0.05)
        assert code_of(lambda: list(late)) == "DEADLINE_EXCEEDED"

    def managed(self):
        load = inference.RepositoryModelLoadRequest(model_name="nationality")
        self.inference.RepositoryModelLoad(load)


def generation(**settings):
    return pb.GenerateRequest(model="prose", prompt="ROMEO:\n", **settings)


def expect(code, call, request):
    assert code_of(lambda: call(request)) == code


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name
    return "OK"
