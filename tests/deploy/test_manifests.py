"""What deploy/ says of the service is so: its settings, ports, times, metrics and rules."""

from __future__ import annotations

import re
import subprocess
import tomllib

import pytest
import yaml

from service import services
from service.__main__ import _parser
from service.config import Config, split_address
from service.settings import read_settings
from tests.deploy.manifests import (
    COMPOSE,
    DEPLOY,
    KSERVE,
    KUBERNETES,
    ROOT,
    container,
    environment,
    of_kind,
    only,
    patches,
    read,
)

SETTINGS_FILE = KUBERNETES / "base" / "unroll.toml"
AUTOSCALING = KUBERNETES / "components" / "autoscaling"
DEPLOYMENTS = dict(patches())
BASE = DEPLOYMENTS["base/deployment.yaml"]


def settings(variables: dict[str, str]) -> Config:
    """As the service reads them, with the file that the manifests mount."""
    file = {"UNROLL_CONFIG": str(SETTINGS_FILE)} if "UNROLL_CONFIG" in variables else {}
    return read_settings({}, variables | file).config


def seconds_to_stop(config: Config) -> float:
    """From SIGTERM to the end, at most."""
    return config.propagation_seconds + config.grace_seconds + services._HAND_OVER_SECONDS


def kserve() -> tuple[dict, dict]:
    """The runtime's container and the predictor."""
    runtime = only(read(KSERVE / "serving-runtime.yaml"))["spec"]
    return only(runtime["containers"]), only(read(KSERVE / "inference-service.yaml"))["spec"][
        "predictor"
    ]


def kserve_settings() -> Config:
    chosen = _parser().parse_args(["serve", *kserve()[0]["args"]])
    return read_settings(vars(chosen), {}).config


def replicas_of_compose(*files: str) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for file in files:
        for name, service in yaml.load((COMPOSE / file).read_text(), Loader=_Reset)[
            "services"
        ].items():
            before = found.get(name, {})
            variables = before.get("environment", {}) | service.get("environment", {})
            found[name] = before | service | {"environment": variables}
    return found


class _Reset(yaml.SafeLoader):
    """Of compose files, which may empty a list of the file before with !reset."""


_Reset.add_constructor("!reset", lambda loader, node: None)


def filled(value: str) -> str:
    """With the defaults of its variables, as compose fills them in."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


# -- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", sorted(DEPLOYMENTS))
def test_variables_are_settings(where):
    """Those of the base with those of a component or an overlay; the service starts with them."""
    variables = environment(container(BASE)) | environment(container(DEPLOYMENTS[where]))
    if "UNROLL_TLS_CLIENT_CA" in variables:
        tls = DEPLOYMENTS["components/tls/deployment.yaml"]
        variables |= environment(container(tls))
    config = settings(variables)
    for name, value in tomllib.loads(SETTINGS_FILE.read_text()).items():
        assert getattr(config, name) == value


def test_variables_of_secrets_are_where_they_are_mounted():
    """Each path that a component sets lies in a folder that the same component mounts."""
    checked = 0
    for where, deployment in DEPLOYMENTS.items():
        if where.startswith("components/mutual-tls"):
            deployment = DEPLOYMENTS["components/tls/deployment.yaml"]
        mounts = {m["name"]: m["mountPath"] for m in container(deployment).get("volumeMounts", ())}
        volumes = deployment["spec"]["template"]["spec"].get("volumes", ())
        assert mounts.keys() == {volume["name"] for volume in volumes}
        for value in environment(container(DEPLOYMENTS[where])).values():
            if value.startswith("/"):
                assert any(value.startswith(folder + "/") for folder in mounts.values()), value
                checked += 1
    assert checked == 6  # the configuration, keys, tokens, certificate and key, client CA


def test_services_get_no_variables_of_the_cluster():
    """A Service named unroll would set UNROLL_PORT, which is no setting."""
    assert BASE["spec"]["template"]["spec"]["enableServiceLinks"] is False
    assert kserve()[1]["enableServiceLinks"] is False


def test_compose_gives_settings():
    for files in (["compose.yaml"], ["compose.yaml", "compose.host.yaml"]):
        services = replicas_of_compose(*files)
        configs = [
            settings({k: filled(v) for k, v in services[name]["environment"].items()})
            for name in ("replica-1", "replica-2")
        ]
        # Distinguished by name on a network of their own, by port on the host's.
        addresses = {address for c in configs for address in (c.address, c.http_address)}
        assert len(addresses) == (4 if len(files) == 2 else 2)


# -- ports ------------------------------------------------------------------------------------


def test_ports_agree():
    """What the service listens on, what the container names, and what probes and Services call."""
    config = settings(environment(container(BASE)))
    ports = {p["name"]: p["containerPort"] for p in container(BASE)["ports"]}
    grpc = split_address(config.address, "address")[1]
    http = split_address(config.http_address, "http_address")[1]
    assert ports == {"grpc": grpc, "http": http}
    assert container(BASE)["readinessProbe"]["grpc"]["port"] == grpc
    assert container(BASE)["startupProbe"]["grpc"]["port"] == grpc
    assert container(BASE)["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    for service in read(KUBERNETES / "base" / "services.yaml"):
        for port in service["spec"]["ports"]:
            assert port["port"] == ports[port["targetPort"]]


def test_ports_of_kserve_agree():
    served, config = kserve()[0], kserve_settings()
    grpc = split_address(config.address, "address")[1]
    http = split_address(config.http_address, "http_address")[1]
    assert [p["containerPort"] for p in served["ports"]] == [grpc, http]  # the Service's is first
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert served[probe]["httpGet"]["port"] == http
    assert str(config.models) == "/mnt/models"


def test_compose_proxy_knows_the_replicas():
    """HAProxy gets every variable that its file reads, with the replicas' own ports."""
    wanted = set(re.findall(r"\$\{(\w+)\}", (DEPLOY / "haproxy" / "haproxy.cfg").read_text()))
    for files in (["compose.yaml"], ["compose.yaml", "compose.host.yaml"]):
        services = replicas_of_compose(*files)
        environment = {k: filled(v) for k, v in services["haproxy"]["environment"].items()}
        assert environment.keys() == wanted
        for number in "12":
            config = settings(
                {k: filled(v) for k, v in services[f"replica-{number}"]["environment"].items()}
            )
            assert environment[f"REPLICA_{number}_PORT"] == config.address.rpartition(":")[2]
            assert (
                environment[f"REPLICA_{number}_HTTP_PORT"] == config.http_address.rpartition(":")[2]
            )


# -- times ------------------------------------------------------------------------------------


def test_grace_of_kubernetes_covers_the_service_s():
    """Kubernetes kills later than the service needs for its own end, and not much later."""
    needed = seconds_to_stop(settings(environment(container(BASE))))
    granted = BASE["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert needed + 5 <= granted <= needed + 30
    assert kserve()[1]["terminationGracePeriodSeconds"] >= seconds_to_stop(kserve_settings()) + 5
    for name in ("replica-1", "replica-2"):
        service = replicas_of_compose("compose.yaml")[name]
        needed = seconds_to_stop(settings(service["environment"]))
        assert int(service["stop_grace_period"].removesuffix("s")) >= needed + 5


def test_proxies_notice_within_the_propagation():
    """Two failed checks, of an interval and a time-out each, end before calls are refused."""
    window = Config().propagation_seconds
    haproxy = (DEPLOY / "haproxy" / "haproxy.cfg").read_text()
    inter, fall = re.search(r"check inter (\d+)s fall (\d+)", haproxy).groups()
    assert int(inter) * int(fall) < window
    check = only(_cluster()["health_checks"])
    assert int(check["interval"][:-1]) * check["unhealthy_threshold"] < window
    assert check["no_traffic_interval"] == check["interval"]


def _cluster() -> dict:
    template = (DEPLOY / "envoy" / "envoy.yaml").read_text()
    rendered = re.sub(r"\$\{\w+\}", "1", template)
    return only(yaml.safe_load(rendered)["static_resources"]["clusters"])


# -- metrics and rules ------------------------------------------------------------------------


def test_autoscaler_queries_what_the_adapter_offers():
    """Each metric has a rule, and each rule reads metrics that the service has."""
    autoscaler = only(read(AUTOSCALING / "autoscaler.yaml"))
    rules = only(read(AUTOSCALING / "adapter-rules.yaml"))["rules"]
    wanted = {m["pods"]["metric"]["name"] for m in autoscaler["spec"]["metrics"]}
    assert wanted == {rule["name"]["as"] for rule in rules}
    page = set(re.findall(r"^\| `(unroll_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.M))
    read_by_rules = set()
    for rule in rules:
        read_by_rules |= set(re.findall(r"unroll_\w+", rule["seriesQuery"] + rule["metricsQuery"]))
    assert "unroll_active_rows" in read_by_rules
    assert read_by_rules <= page


def test_autoscaler_replaces_the_number_of_replicas():
    """With both, each rollout would undo what the autoscaler did."""
    component = only(read(AUTOSCALING / "kustomization.yaml"))
    (patch,) = component["patches"]
    assert yaml.safe_load(patch["patch"]) == [{"op": "remove", "path": "/spec/replicas"}]
    assert "replicas" in BASE["spec"]


def test_rules_are_those_of_prometheus(tmp_path):
    """The operator's objects hold the rules of deploy/prometheus, and are made from them."""
    subprocess.run([KUBERNETES / "wrap-rules.sh", tmp_path], check=True)
    for name in ("recording", "alerts"):
        made = KUBERNETES / "components" / "monitoring" / f"{name}.yaml"
        assert made.read_text() == (tmp_path / f"{name}.yaml").read_text(), "make manifests"
        rules = only(read(DEPLOY / "prometheus" / f"{name}.yml"))
        assert only(of_kind("PrometheusRule", read(made)))["spec"] == rules


def test_monitor_finds_the_replicas():
    """It selects one Service, by labels that the Service has, and a port that it has."""
    monitor = only(read(KUBERNETES / "components" / "monitoring" / "service-monitor.yaml"))
    pairs = only(read(KUBERNETES / "base" / "kustomization.yaml"))["labels"][0]["pairs"]
    found = [
        service
        for service in read(KUBERNETES / "base" / "services.yaml")
        if monitor["spec"]["selector"]["matchLabels"].items()
        <= (service["metadata"]["labels"] | pairs).items()
    ]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in only(found)["spec"]["ports"]]
    # The rules know the job by this name.
    assert pairs[monitor["spec"]["jobLabel"]] == "unroll"
