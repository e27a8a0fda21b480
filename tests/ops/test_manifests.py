"""The tools that know Kubernetes, KServe, HAProxy, Envoy and compose accept what deploy/ holds."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess

import pytest

from service.settings import read_settings
from tests.authority import Authority
from tests.clients.environments import KSERVE as KSERVE_CLIENT
from tests.deploy.manifests import (
    COMPOSE,
    DEPLOY,
    KSERVE,
    KUBERNETES,
    ROOT,
    container,
    documents,
    environment,
    of_kind,
    only,
)

pytestmark = pytest.mark.ops

OVERLAYS = ("small", "production", "gpu")
# With what no overlay takes in: those that an operator adds to production.
EVERYTHING = """
namespace: unroll
resources: [{production}]
components: [{components}/mutual-tls, {components}/tracing]
"""
KUBERNETES_VERSION = "1.31"
# Of the Prometheus operator: no schema is at hand, so these are the fields that may be there.
OPERATOR = {
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"jobLabel", "selector", "endpoints"}),
    "PrometheusRule": ("monitoring.coreos.com/v1", {"groups"}),
}
ENDPOINT = {"port", "path", "interval", "scrapeTimeout"}
RULE = {"record", "alert", "expr", "for", "keep_firing_for", "labels", "annotations"}
PROXY = {
    "PROXY_HOST": "127.0.0.1", "PROXY_PORT": "50051",
    "PROXY_ADMIN_HOST": "127.0.0.1", "PROXY_ADMIN_PORT": "8404",
    "REPLICA_1_HOST": "127.0.0.1", "REPLICA_1_PORT": "50061", "REPLICA_1_HTTP_PORT": "8002",
    "REPLICA_2_HOST": "127.0.0.1", "REPLICA_2_PORT": "50062", "REPLICA_2_HTTP_PORT": "8003",
    "WEB_ORIGIN": "http://localhost",
    "PROXY_HEAP_BYTES": "268435456", "PROXY_MAX_CONNECTIONS": "2000",
    "REPLICA_HOST": "127.0.0.1", "REPLICA_PORT": "50061",
}  # fmt: skip


def run(*command, variables=None, code=0):
    """What it wrote to standard output."""
    done = subprocess.run(
        [str(part) for part in command],
        env=os.environ | (variables or {}),
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stdout + done.stderr


@pytest.fixture
def rendered(need, tmp_path):
    """Each overlay, and all components at once: as a file of objects, and the objects."""
    (kubectl,) = need("kubectl")
    everything = tmp_path / "everything"
    everything.mkdir()
    here = os.path.relpath(KUBERNETES, everything)
    (everything / "kustomization.yaml").write_text(
        EVERYTHING.format(production=f"{here}/overlays/production", components=f"{here}/components")
    )
    folders = [KUBERNETES / "overlays" / name for name in OVERLAYS] + [everything]
    found = {}
    for folder in folders:
        text = run(kubectl, "kustomize", folder)
        file = tmp_path / f"{folder.name}.yaml"
        file.write_text(text)
        found[folder.name] = (file, documents(text))
    return found


def test_overlays_are_what_kubernetes_takes(rendered, need, saw):
    """Every built-in object has only fields of its kind; the operator's have those it reads."""
    (validate,) = need("kubernetes-validate")
    files = [file for file, _ in rendered.values()]
    said = subprocess.run(
        [validate, "-k", KUBERNETES_VERSION, "--strict", *map(str, files)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    lines = (said.stdout + said.stderr).splitlines()
    passed = sum(" passed for resource " in line for line in lines)
    objects = [document for _, found in rendered.values() for document in found]
    foreign = [document for document in objects if document["kind"] in OPERATOR]
    for document in foreign:
        version, fields = OPERATOR[document["kind"]]
        assert document["apiVersion"] == version
        assert document["spec"].keys() <= fields
        for endpoint in document["spec"].get("endpoints", ()):
            assert endpoint.keys() <= ENDPOINT
        for group in document["spec"].get("groups", ()):
            for rule in group["rules"]:
                assert rule.keys() <= RULE
                assert ("record" in rule) != ("alert" in rule)
    assert foreign
    assert passed == len(objects) - len(foreign)
    saw(
        f"{len(rendered)} renderings: {passed} objects valid for Kubernetes {KUBERNETES_VERSION}, "
        f"{len(foreign)} of the Prometheus operator by their fields"
    )


@pytest.mark.parametrize("overlay", [*OVERLAYS, "everything"])
def test_overlay_holds_together(rendered, overlay, tmp_path, saw):
    """The service reads the settings as mounted, and every reference finds what it names."""
    _, found = rendered[overlay]
    deployment = only(of_kind("Deployment", found))
    config_map = only(of_kind("ConfigMap", found))
    pod = deployment["spec"]["template"]["spec"]
    file = tmp_path / "unroll.toml"
    file.write_text(config_map["data"]["unroll.toml"])
    variables = environment(container(deployment)) | {"UNROLL_CONFIG": str(file)}
    config = read_settings({}, variables).config
    # TLS, or the plain word that the network is trusted; never both.
    assert config.allow_insecure != bool(config.tls_certificate)

    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    selectors += [s["spec"]["selector"] for s in of_kind("Service", found)]
    selectors += [
        d["spec"]["selector"]["matchLabels"] for d in of_kind("PodDisruptionBudget", found)
    ]
    selectors += [p["spec"]["podSelector"]["matchLabels"] for p in of_kind("NetworkPolicy", found)]
    selectors += [c["labelSelector"]["matchLabels"] for c in pod["topologySpreadConstraints"]]
    for selector in selectors:
        assert selector.items() <= labels.items()
    ports = {port["name"] for port in container(deployment)["ports"]}
    for policy in of_kind("NetworkPolicy", found):
        for rule in policy["spec"].get("ingress", ()):
            assert {port["port"] for port in rule["ports"]} <= ports
    for autoscaler in of_kind("HorizontalPodAutoscaler", found):
        assert autoscaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
        assert "replicas" not in deployment["spec"]
    named = {v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v}
    assert named == {config_map["metadata"]["name"]}
    namespaces = {d["metadata"].get("namespace") for d in found if d["kind"] != "Namespace"}
    assert namespaces == {only(of_kind("Namespace", found))["metadata"]["name"]}
    saw(f"{overlay}: {len(variables)} variables, {len(selectors)} selectors, {len(found)} objects")


def test_checkov_finds_nothing(rendered, need, tmp_path, saw):
    """Neither in what is rendered nor in the Dockerfile; checkov.yaml gives the exceptions."""
    (checkov,) = need("checkov")
    (tmp_path / "Dockerfile").write_text((ROOT / "Dockerfile").read_text())
    text = run(
        checkov, "--config-file", DEPLOY / "checkov.yaml", "-d", tmp_path, "-o", "json",
        variables={"BC_SKIP_MAPPING": "TRUE"},
    )  # fmt: skip
    results = {result["check_type"]: result for result in json.loads(text)}
    assert results.keys() == {"kubernetes", "dockerfile"}
    for result in results.values():
        assert result["results"]["failed_checks"] == []
        assert result["summary"]["parsing_errors"] == 0
        assert result["summary"]["passed"] > 50
    passed = {kind: result["summary"]["passed"] for kind, result in results.items()}
    skipped = sum(result["summary"]["skipped"] for result in results.values())
    saw(f"checks passed: {passed}, failed: 0, skipped in place: {skipped}")


def test_secrets_are_those_that_the_production_overlay_wants(rendered, need, tmp_path, saw):
    """make-secrets.sh makes each Secret and each file in it that the Deployment reads."""
    kubectl, _, validate = need("kubectl", "openssl", "kubernetes-validate")
    certificate, key, client_ca = (tmp_path / name for name in ("tls.pem", "key.pem", "ca.pem"))
    authority = Authority("unroll")
    pair = authority.issue("unroll-replicas.unroll.svc.cluster.local")
    certificate.write_bytes(pair.certificate)
    key.write_bytes(pair.key)
    client_ca.write_bytes(authority.pem)
    path = f"{os.path.dirname(kubectl)}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [KUBERNETES / "make-secrets.sh", certificate, key, client_ca],
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    (tmp_path / "secrets.yaml").write_text(done.stdout)
    run(validate, "-k", KUBERNETES_VERSION, "--strict", tmp_path / "secrets.yaml")
    made = {
        secret["metadata"]["name"]: {
            name: base64.b64decode(value) for name, value in secret["data"].items()
        }
        for secret in documents(done.stdout)
    }

    deployment = only(of_kind("Deployment", rendered["production"][1]))
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    secrets = {v["name"]: v["secret"]["secretName"] for v in volumes if "secret" in v}
    assert set(secrets.values()) == made.keys()
    folders = {
        mount["mountPath"]: secrets[mount["name"]]
        for mount in container(deployment)["volumeMounts"]
        if mount["name"] in secrets
    }
    wanted = 0
    for value in environment(container(deployment)).values():
        folder, _, name = value.rpartition("/")
        if folder in folders:
            assert made[folders[folder]][name]
            wanted += 1
    token = done.stderr.split("the token of operator: ")[1].strip()
    assert token.encode() not in b"".join(made["unroll-tokens"].values())
    saw(f"{len(made)} Secrets hold the {wanted} files that the Deployment reads, and no token")


def test_kserve_knows_every_field(saw):
    """Its own types take the runtime and the service, field by field."""
    if missing := KSERVE_CLIENT.missing():
        pytest.skip(missing)
    files = sorted(KSERVE.glob("*.yaml"))
    said = run(KSERVE_CLIENT.command, ROOT / "tests" / "ops" / "kserve_types.py", *files)
    assert len(said.splitlines()) == len(files) == 2
    saw(said.strip().replace("\n", ", "))


def test_adapter_rules_give_one_number_a_pod(need, tmp_path, saw):
    """Prometheus itself answers the queries of prometheus-adapter, as these are filled in."""
    (promtool,) = need("promtool", package="prometheus")
    path = KUBERNETES / "components" / "autoscaling" / "adapter-rules.yaml"
    queries = {}
    for rule in only(documents(path.read_text()))["rules"]:
        query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod")
        queries[rule["name"]["as"]] = query.replace(
            "<<.LabelMatchers>>", 'namespace="unroll",pod=~"a|b"'
        )
    # Pod b: the fullest of two models counts, texts of both engines, and no streams.
    series = {
        'unroll_active_rows{namespace="unroll",pod="a",model="prose"}': 64,
        'unroll_row_capacity{namespace="unroll",pod="a",model="prose"}': 256,
        'unroll_active_rows{namespace="unroll",pod="b",model="prose"}': 192,
        'unroll_row_capacity{namespace="unroll",pod="b",model="prose"}': 256,
        'unroll_active_rows{namespace="unroll",pod="b",model="g2p"}': 0,
        'unroll_row_capacity{namespace="unroll",pod="b",model="g2p"}': 256,
        'unroll_waiting_requests{namespace="unroll",pod="a",model="prose"}': 0,
        'unroll_waiting_requests{namespace="unroll",pod="b",model="prose"}': 5,
        'unroll_waiting_requests{namespace="unroll",pod="b",model="g2p"}': 2,
        'unroll_engine_work{namespace="unroll",pod="a",model="pos",engine="predict"}': 3,
        'unroll_engine_work{namespace="unroll",pod="b",model="prose",engine="generate"}': 99,
        'unroll_engine_work{namespace="unroll",pod="b",model="prose",engine="score"}': 8,
        'unroll_engine_work{namespace="unroll",pod="b",model="pos",engine="predict"}': 32,
    }
    wanted = {
        "unroll_row_occupancy": {"a": 0.25, "b": 0.75},
        "unroll_waiting_requests": {"a": 0, "b": 7},
        "unroll_batched_texts": {"a": 3, "b": 40},
    }
    assert queries.keys() == wanted.keys()
    checks = [
        {
            "expr": queries[name],
            "eval_time": "2m",
            "exp_samples": [{"labels": f'{{pod="{pod}"}}', "value": v} for pod, v in pods.items()],
        }
        for name, pods in wanted.items()
    ]
    values = [{"series": name, "values": f"{value}x20"} for name, value in series.items()]
    test = {"interval": "15s", "input_series": values, "promql_expr_test": checks}
    (tmp_path / "test.yml").write_text(json.dumps({"rule_files": [], "tests": [test]}))
    assert "SUCCESS" in run(promtool, "test", "rules", tmp_path / "test.yml")
    saw(f"{len(queries)} queries, {sum(map(len, wanted.values()))} values as they should be")


def test_haproxy_takes_its_file(need, saw):
    (haproxy,) = need("haproxy", package="haproxy")
    run(haproxy, "-c", "-f", DEPLOY / "haproxy" / "haproxy.cfg", variables=PROXY)
    version = run(haproxy, "-v").split()[2]
    saw(f"HAProxy {version}: valid")


@pytest.mark.parametrize(
    ("template", "variable"), [("envoy.yaml", "REPLICA_2_PORT"), ("edge.yaml", "PROXY_HEAP_BYTES")]
)
def test_envoy_takes_its_file(need, tmp_path, saw, template, variable):
    """Rendered from the environment; a variable that is not set is named."""
    (envoy,) = need("envoy")
    render = DEPLOY / "envoy" / "render.sh"
    rendered = tmp_path / template
    rendered.write_text(run(render, template, variables=PROXY))
    said = subprocess.run(
        [envoy, "--mode", "validate", "-c", rendered], capture_output=True, text=True, timeout=60
    )
    assert said.returncode == 0, said.stderr
    assert "Deprecated field" not in said.stderr
    without = {**PROXY, variable: ""}
    assert f"{variable} is not set" in run(render, template, variables=without, code=1)
    version = re.search(r"/(\d+\.\d+\.\d+)/", run(envoy, "--version"))[1]
    saw(f"Envoy {version}, {template}: valid, no deprecated field")


def test_compose_takes_its_files(need, saw):
    """On a network of its own and on the host's; the second publishes nothing."""
    (compose,) = need("podman-compose")
    files = {
        "own": ["-f", COMPOSE / "compose.yaml"],
        "host": ["-f", COMPOSE / "compose.yaml", "-f", COMPOSE / "compose.host.yaml"],
    }
    services = {
        name: only(documents(run(compose, *chosen, "config")))["services"]
        for name, chosen in files.items()
    }
    assert services["own"].keys() == services["host"].keys()
    assert services["own"]["haproxy"]["ports"]
    for service in services["host"].values():
        assert service["network_mode"] == "host"
        assert not service.get("ports")
    for service in (*services["own"].values(), *services["host"].values()):
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    saw(f"{len(services['own'])} services, on a network of their own and on the host's")
