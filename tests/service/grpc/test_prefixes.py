"""The prefix cache over real channels: what it saves, whose it is, that bits do not change."""

import grpc
import pytest

from service.access.auth import new_token
from tests.service.grpc.test_generating import Answer
from unroll import Client
from unroll.v1 import unroll_pb2 as pb
from unroll.v1 import unroll_pb2_grpc

PROMPT = "abcdefghij klmn" * 4  # 60 of at most 64 tokens
HITS = ("unroll_prefix_cache_lookups_total", {"model": "letters", "outcome": "hit"})


def generate(client, model="letters", **options):
    if model == "letters":
        options.setdefault("prompt", PROMPT)
    chosen = {"seed": 7, "max_tokens": 20, "log_probabilities": True, **options}
    return Answer(client.generate(model, **chosen))


def hits(service):
    name, labels = HITS
    return service.metric(name, **labels)


def test_a_prompt_that_comes_again_costs_no_prefill(service, client):
    """All of it but the last token, which the step reads."""
    first, second = generate(client), generate(client)
    assert (first.answer.cached_tokens, second.answer.cached_tokens) == (0, 59)
    assert second.answer.input_tokens == 60
    assert second.reported == first.reported
    assert hits(service) == 1
    assert service.metric("unroll_prefix_cache_tokens_total", model="letters") == 59
    assert service.metric("unroll_primed_tokens_total", model="letters") == 59
    used = service.metric("unroll_prefix_cache_bytes")
    assert 0 < used == service.metric("unroll_memory_budget_used_bytes", kind="prefixes")
    assert service.metric("unroll_prefix_cache_states") == 1


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("length", [17, 30, 59, 60])
def test_a_beginning_that_was_read_before_changes_no_bit(start_service, precision, length):
    """Whatever other prompts begin with; with samples, penalties and the prompt itself too."""
    service = start_service(precision=precision)
    with Client(service.target, timeout=30) as client:
        for other in (PROMPT[:20] + "a" * 30, PROMPT[:length]):
            generate(client, prompt=other)
        for options in ({}, {"samples": 3, "repetition_penalty": 1.3}, {"echo": True}):
            cached, fresh = generate(client, **options), generate(client, no_cache=True, **options)
            assert cached.reported == fresh.reported
            assert cached.answer.cached_tokens > length - 16
            assert fresh.answer.cached_tokens == 0


def test_a_source_is_encoded_once(client):
    answers = [generate(client, "speller", source="abcd") for _ in range(2)]
    other = generate(client, "speller", source="abc")
    fresh = generate(client, "speller", source="abcd", no_cache=True)
    assert [one.answer.cached_tokens for one in answers] == [0, 4]
    assert other.answer.cached_tokens == 0
    assert answers[0].reported == answers[1].reported == fresh.reported


def test_a_vector_is_not_looked_up(client):
    vector = [1.0, 2.0, 3.0]
    answers = [generate(client, "foods", vector=vector) for _ in range(2)]
    assert [one.answer.cached_tokens for one in answers] == [0, 0]


def test_a_cache_may_be_off(start_service):
    service = start_service(prefix_cache_bytes=0)
    with Client(service.target, timeout=30) as client:
        assert [generate(client).answer.cached_tokens for _ in range(2)] == [0, 0]
    assert service.metric("unroll_prefix_cache_bytes") == 0


def test_a_small_cache_drops_what_is_oldest(start_service):
    service = start_service(prefix_cache_bytes=4000)
    with Client(service.target, timeout=30) as client:
        for letter in "abcdefgh":
            generate(client, prompt=letter * 40)
        last, first = (generate(client, prompt=letter * 40) for letter in "ha")
    assert (last.answer.cached_tokens, first.answer.cached_tokens) == (39, 0)
    assert service.metric("unroll_prefix_cache_evictions_total") > 0
    assert service.metric("unroll_prefix_cache_bytes") <= 4000


@pytest.mark.parametrize(("scope", "expected"), [("auto", 0), ("caller", 0), ("shared", 59)])
def test_callers_with_names_find_their_own_prompts(start_service, tmp_path, scope, expected):
    """Unless the server is told to share: how fast an answer comes says what another has sent."""
    secrets = dict(new_token(name, ["infer"]) for name in ("ann", "bob"))
    (tmp_path / "tokens").write_text("\n".join(secrets.values()))
    service = start_service(auth_tokens=tmp_path / "tokens", prefix_cache_scope=scope)
    ann, bob = (Client(service.target, timeout=30, token=secret) for secret in secrets)
    with ann, bob:
        counts = [generate(client).answer.cached_tokens for client in (ann, bob, ann, bob)]
    assert counts == [0, expected, 59, 59]


def test_callers_without_names_share_unless_told_apart_by_connection(start_service):
    for scope, expected in (("auto", 59), ("caller", 0)):
        service = start_service(prefix_cache_scope=scope)
        counts = []
        for _ in range(2):
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(service.target, options) as channel:
                stub = unroll_pb2_grpc.UnrollServiceStub(channel)
                request = pb.GenerateRequest(model="letters", prompt=PROMPT, max_tokens=1)
                counts.append(list(stub.Generate(request, timeout=30))[-1].usage.cached_tokens)
        assert counts == [0, expected]
