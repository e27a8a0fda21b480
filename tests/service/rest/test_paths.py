"""Paths, methods and everything but inference: the same calls as over gRPC, as JSON."""

import pytest

from service.access.auth import new_token
from tests.service.grpc.test_service import wait_until
from tests.service.rest.exchanges import Rest, texts
from unroll.inference import grpc_service_pb2 as pb


def test_probes_have_a_status_and_an_object(rest):
    assert (rest.get("/v2/health/live").status, rest.get("/v2/health/live").found) == (
        200, {"live": True},
    )  # fmt: skip
    assert rest.get("/v2/health/ready").found == {"ready": True}
    for path in ("/v2/models/mood/ready", "/v2/models/mood.tensors/versions/1/ready"):
        assert rest.get(path).status == 200
    for path in ("/v2/models/nobody/ready", "/v2/models/mood/versions/7/ready"):
        reply = rest.get(path)
        assert (reply.status, reply.found["ready"]) == (400, False)


def test_metadata_is_that_of_grpc(rest, inference):
    for name in ("mood", "mood.tensors", "letters", "foods.tensors"):
        of_grpc = inference.metadata(name)
        for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/1"):
            found = rest.get(path).found
            assert found["name"] == name
            assert found["versions"] == ["1"]
            for kind in ("inputs", "outputs"):
                wanted = [(t.name, t.datatype, list(t.shape)) for t in getattr(of_grpc, kind)]
                assert [(t["name"], t["datatype"], t["shape"]) for t in found[kind]] == wanted
    server = rest.get("/v2").found
    of_grpc = inference.stub.ServerMetadata(pb.ServerMetadataRequest(), timeout=20)
    assert (server["name"], server["version"]) == (of_grpc.name, of_grpc.version)
    assert server["extensions"] == list(of_grpc.extensions)


def test_configuration_has_numbers_and_names_of_types(rest):
    config = rest.get("/v2/models/mood/config").found
    assert config["max_batch_size"] == 1024
    assert config["input"][0]["data_type"] == "TYPE_STRING"
    assert config["input"][0]["dims"] == [1]
    assert "dynamic_batching" in config
    assert rest.get("/v2/models/letters/config").found["model_transaction_policy"] == {
        "decoupled": True
    }
    sequences = rest.get("/v2/models/letters.tensors/config").found["sequence_batching"]
    assert type(sequences["max_sequence_idle_microseconds"]) is int
    assert {state["input_name"] for state in sequences["state"]} >= {"hidden_0"}


def test_statistics_count_what_was_sent(service):
    rest = Rest(service.target)
    for _ in range(3):
        assert rest.infer("mood", {"inputs": [texts("good", "bad")]}).status == 200
    assert rest.infer("mood", {"inputs": [texts("good", name="nothing")]}).status == 400
    (stats,) = rest.get("/v2/models/mood/stats").found["model_stats"]
    assert stats["inference_stats"]["success"]["count"] == 3
    assert stats["inference_stats"]["fail"]["count"] == 1
    assert stats["inference_count"] == 6
    assert stats["inference_stats"]["success"]["ns"] > 0
    assert rest.get("/v2/models/mood/versions/1/stats").found["model_stats"] == [stats]
    every = {each["name"] for each in rest.get("/v2/models/stats").found["model_stats"]}
    assert every >= {"mood", "mood.tensors", "letters"}
    wait_until(lambda: service.app.inflight.calls == 0)
    good = {"model": "mood", "method": "ModelInfer", "code": "OK"}
    assert service.metric("unroll_requests_total", **good) == 3


def test_models_are_unloaded_loaded_and_listed(start_service, models_copy):
    rest = Rest(start_service(models=models_copy, propagation_seconds=0.0).target)

    def states(content=b""):
        reply = rest.post("/v2/repository/index", content)
        assert reply.status == 200
        return {each["name"]: each["state"] for each in reply.found}

    assert states()["mood"] == "READY"
    unloaded = rest.post(
        "/v2/repository/models/mood/unload", {"parameters": {"unload_dependents": False}}
    )
    assert (unloaded.status, unloaded.body) == (200, b"")
    assert states()["mood"] == "UNAVAILABLE"
    assert "mood" not in states({"ready": True})
    assert rest.get("/v2/models/mood/ready").status == 400
    assert rest.infer("mood", {"inputs": [texts("good")]}).status == 404
    config = '{"version_policy": {"specific": {"versions": [1]}}}'
    loaded = rest.post("/v2/repository/models/mood/load", {"parameters": {"config": config}})
    assert (loaded.status, loaded.body) == (200, b"")
    assert rest.infer("mood", {"inputs": [texts("good")]}).status == 200
    assert rest.post("/v2/repository/models/nobody/load").status == 404


@pytest.mark.parametrize(
    ("path", "content", "words"),
    [
        ("/v2/repository/models/mood/load", {"parameters": {"file:1/x": "eA=="}}, "brings a file"),
        ("/v2/repository/models/mood/load", {"parameters": {"config": [1]}}, "a list"),
        ("/v2/repository/models/mood/load", {"parameter": {}}, "parameter"),
        ("/v2/repository/elsewhere/models/mood/load", {}, "elsewhere"),
        ("/v2/repository/elsewhere/index", {}, "elsewhere"),
        ("/v2/repository/index", {"ready": "yes"}, "true or false"),
        ("/v2/logging", {"log_info": "yes"}, "log_info"),
        ("/v2/logging", {"log_colour": True}, "log_colour"),
        ("/v2/logging", {"log_info": None}, "log_info"),
    ],
)
def test_what_control_does_not_take_is_refused_by_name(rest, path, content, words):
    reply = rest.post(path, content)
    assert reply.status == 400
    assert words in reply.error


def test_log_settings_are_read_and_changed(rest):
    before = rest.get("/v2/logging").found
    assert before["log_error"] is True
    try:
        changed = rest.post("/v2/logging", {"log_info": True, "log_verbose_level": 1}).found
        assert changed["log_verbose_level"] == 1
        assert rest.get("/v2/logging").found == changed
    finally:
        assert rest.post("/v2/logging", before).found == before


NOT_OFFERED = [
    ("GET", "/v2/trace/setting"), ("POST", "/v2/trace/setting"),
    ("POST", "/v2/models/mood/trace/setting"), ("GET", "/v2/systemsharedmemory/status"),
    ("POST", "/v2/systemsharedmemory/region/a/register"),
    ("POST", "/v2/systemsharedmemory/unregister"), ("GET", "/v2/cudasharedmemory/region/a/status"),
    ("POST", "/v2/cudasharedmemory/region/a/register"), ("POST", "/v2/cudasharedmemory/unregister"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), NOT_OFFERED)
def test_what_is_not_offered_says_what_to_use_instead(rest, method, path):
    reply = rest.send(method, path, {} if method == "POST" else b"")
    assert reply.status == 501
    assert "raw" in reply.error or "/metrics" in reply.error


def test_unknown_paths_and_methods_are_errors_in_json(rest):
    for path in ("/v2/models", "/v2/nothing", "/v2/models/mood/predict", "/v2//models/mood"):
        reply = rest.get(path)
        assert reply.status == 404, path
        assert reply.headers["content-type"] == "application/json"
        assert reply.error
    for method, path, allowed in (
        ("GET", "/v2/models/mood/infer", "POST"),
        ("POST", "/v2/models/mood", "GET"),
        ("DELETE", "/v2/logging", "GET, POST"),
    ):
        reply = rest.send(method, path)
        assert (reply.status, reply.headers["allow"]) == (405, allowed)
        assert method in reply.error
    assert rest.get("/nothing").status == 404


def test_head_is_get_without_its_body(rest):
    reply, whole = rest.send("HEAD", "/v2/models/mood"), rest.get("/v2/models/mood")
    assert (reply.status, reply.body) == (200, b"")
    assert reply.headers["content-length"] == str(len(whole.body))


def test_an_escaped_slash_is_part_of_a_name(rest):
    reply = rest.get("/v2/models/a%2Fb")
    assert reply.status == 404
    assert "'a/b'" in reply.error


def test_a_caller_that_is_not_known_is_refused_before_its_body_is_read(start_service, tmp_path):
    (ann, line), (admin, other) = new_token("ann", ["infer"]), new_token("adm", ["admin"])
    tokens = tmp_path / "tokens"
    tokens.write_text(f"{line}\n{other}\n")
    tokens.chmod(0o600)
    rest = Rest(start_service(auth_tokens=tokens).target)
    content = {"inputs": [texts("good")]}
    assert rest.get("/v2/health/ready").status == 200
    nobody = rest.infer("mood", content)
    assert (nobody.status, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert rest.infer("mood", content, authorization=f"Bearer {ann}").status == 200
    assert rest.infer("mood", content, authorization=f"Bearer {admin}").status == 403
    loads = "/v2/repository/models/mood/load"
    assert rest.post(loads, authorization=f"Bearer {ann}").status == 403
    generate = {"text_input": "a", "max_tokens": 2}
    for way in ("generate", "generate_stream"):
        path = f"/v2/models/letters/{way}"
        assert rest.post(path, generate, authorization=f"Bearer {ann}").status == 200
        assert rest.post(path, generate, authorization=f"Bearer {admin}").status == 403
        assert rest.post(path, generate).status == 401
