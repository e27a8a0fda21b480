"""Constrained text over real channels."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.config import Config
from tests.conftest import RunningService
from unroll import Beam, Client, RequestFailed
from unroll.v1 import unroll_pb2 as pb

PATTERN = "(cab|deaf|a)( (bad|face|i))*mn"
EVIL = "[ab]*a[ab]{25}"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text("00112233445566778899aabbccddeeff\n")
    return path


def serving(models, keys, **settings):
    addresses = {"address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}
    return RunningService(
        Config(models=models, resume_keys=keys, device="cpu", **addresses, **settings)
    )


@pytest.fixture(scope="module")
def service(tiny_models, keys):
    one = serving(tiny_models, keys)
    yield one
    one.stop()


@pytest.fixture(scope="module")
def elsewhere(tiny_models, keys):
    """Another server with the same bundles and keys."""
    one = serving(tiny_models, keys)
    yield one
    one.stop()


@pytest.fixture
def client(service):
    with Client(service.target, timeout=60) as one:
        yield one


def gather(chunks):
    """The text of each sample, why each ended, and all tokens."""
    tokens, ends = [], {}
    for chunk in chunks:
        tokens += chunk.tokens
        ends |= {end.sample: end.reason for end in chunk.ends}
    texts = {n: "".join(t.text for t in tokens if t.sample == n) for n in ends}
    return texts, ends, tokens


def generate(client, **options):
    return gather(client.generate("letters", **{"prompt": "ab", "temperature": 1.5, **options}))


def test_every_sample_matches_as_a_whole(client):
    texts, ends, _ = generate(client, regex=PATTERN, samples=16, seed=1)
    assert len(set(texts.values())) > 2
    for number, text in texts.items():
        assert ends[number] == "end"
        assert re.fullmatch(PATTERN, text), text


def test_the_text_is_one_of_the_choices(client):
    spelt = ["bad cab", "a fine hen", "feed me"]
    texts, ends, _ = generate(client, choices=spelt, samples=12, seed=2)
    assert set(texts.values()) <= set(spelt)
    assert set(ends.values()) == {"end"}


def test_the_prompt_is_no_part_of_it(client):
    texts, _, _ = generate(client, prompt="mn", regex="[a-c]{3}", echo=True)
    assert re.fullmatch("[a-c]{3}", texts[0])


def test_the_end_symbol_comes_only_where_the_text_may_end(client):
    """Of a model with one: P, or any number of Q with an R at the end; symbols with spaces."""
    chunks = client.generate("speller", source="abc", regex="P|(Q )*R", samples=20, seed=3)
    texts, ends, _ = gather(chunks)
    assert all(re.fullmatch("P|(Q )*R", text) for text in texts.values())
    assert set(ends.values()) == {"end"}


def test_too_few_tokens_to_finish_is_said(client):
    texts, ends, _ = generate(client, choices=["a fine hen"], max_tokens=4)
    assert (texts[0], ends[0]) == ("a fi", "unfinished")
    texts, ends, _ = generate(client, regex="a+", max_tokens=4)
    assert (texts[0], ends[0]) == ("aaaa", "length")


def test_alone_and_among_others_the_same_bits(client, elsewhere):
    """With penalties, stop strings, min_tokens and log-probabilities beside."""
    requests = [
        {
            "regex": PATTERN,
            "seed": seed,
            "samples": 1 + seed % 3,
            "frequency_penalty": 0.3 * (seed % 2),
            "repetition_penalty": 1.0 + 0.1 * (seed % 4),
            "min_tokens": seed % 7,
            "stop": ["face"] if seed % 5 == 0 else [],
            "top_log_probabilities": seed % 3,
            "log_probabilities": True,
        }
        for seed in range(16)
    ]
    with ThreadPoolExecutor(16) as pool:
        crowd = list(pool.map(lambda options: generate(client, **options), requests))
    with Client(elsewhere.target, timeout=60) as other:
        for options, (texts, ends, tokens) in zip(requests, crowd, strict=True):
            alone = generate(other, **options)
            assert alone[:2] == (texts, ends)
            assert sorted(alone[2], key=lambda t: (t.sample, t.position)) == sorted(
                tokens, key=lambda t: (t.sample, t.position)
            )


def test_a_resumed_stream_goes_on_in_its_constraint_elsewhere(client, elsewhere):
    options = {"regex": "(a|b c|d){30,50}", "seed": 5, "log_probabilities": True}
    _, _, whole = generate(client, **options)
    chunks = list(
        client.generate(
            "letters", prompt="ab", temperature=1.5, resume_every=16, failover=False, **options
        )
    )
    points = [point for chunk in chunks for point in chunk.resume_points]
    assert len(points) >= 2
    with Client(elsewhere.target, timeout=60) as other:
        for point in points:
            rest = gather(
                other.generate("letters", resume_token=point.token, log_probabilities=True)
            )
            assert rest[2] == whole[point.next_position :]
        with pytest.raises(RequestFailed, match="keeps its constraint"):
            list(other.generate("letters", resume_token=points[0].token, regex="a"))


def test_an_unfinished_text_goes_on_with_more_tokens(client):
    chunks = list(
        client.generate(
            "letters", prompt="a", choices=["a fine hen"], max_tokens=4, resume_at_end=True,
            failover=False,
        )
    )  # fmt: skip
    (point,) = [point for chunk in chunks for point in chunk.resume_points]
    texts, ends, _ = gather(client.generate("letters", resume_token=point.token, max_tokens=20))
    assert (texts[0], ends[0]) == ("ne hen", "end")


def test_beams_satisfy_it(client):
    texts, ends, _ = gather(
        client.generate("letters", prompt="ab", regex="(a|bc){2,4}d", beam=Beam(5, 5))
    )
    assert len(texts) == 5
    assert all(re.fullmatch("(a|bc){2,4}d", text) for text in texts.values())
    assert set(ends.values()) == {"end"}


def test_banned_tokens_are_no_part_of_it(client):
    model = client.get_model("letters", with_vocabulary=True)
    banned = [list(model.vocabulary).index("a")]
    texts, _, _ = generate(client, regex="(a|b)(a|c)", banned_tokens=banned)
    assert texts[0] == "bc"
    with pytest.raises(RequestFailed, match="less what the request bans"):
        generate(client, regex="a", banned_tokens=banned)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"choices": ["good fox"]}, "lacks 'o', 'x'"),
        ({"regex": "x+"}, "cannot spell constraint.regex: it lacks 'x'"),
        ({"regex": "[a"}, "cannot be compiled"),
        ({"regex": ""}, "constraint.regex is empty"),
        ({"regex": "a[^\\s\\S]"}, "can never be satisfied"),
        ({"regex": EVIL}, "too many states"),
        ({"choices": []}, "holds 0 texts"),
        ({"choices": ["ab", "abc"]}, "'ab' begins the choice 'abc'"),
        ({"regex": "ab", "min_tokens": 3}, "longest text that the constraint lets through has 2"),
        ({"json_schema": {"type": "null"}}, "lacks 'u'"),
        ({"json_schema": {"type": "integer", "multipleOf": 2}}, "#/multipleOf cannot be held to"),
    ],
)
def test_what_cannot_be_made_is_refused(client, options, says):
    for _ in range(2):  # the second time its reason is known
        with pytest.raises(RequestFailed, match=re.escape(says)) as caught:
            generate(client, **options)
        assert caught.value.code == "INVALID_ARGUMENT"


def test_a_constraint_without_a_kind_is_refused(refusal):
    request = pb.GenerateRequest(model="letters", prompt="ab", constraint=pb.Constraint())
    assert "set choices, regex or json_schema" in refusal("Generate", request)


def test_an_evil_pattern_holds_up_nobody(client):
    """Others stream while one is compiled, and while other patterns are."""
    with ThreadPoolExecutor(4) as pool:
        evil = [
            pool.submit(lambda n=n: generate(client, regex=EVIL.replace("25", str(26 + n))))
            for n in range(2)
        ]
        began = time.monotonic()
        texts, _, _ = generate(client, max_tokens=50)
        assert len(texts[0]) == 50
        assert time.monotonic() - began < 10
        for each in evil:
            with pytest.raises(RequestFailed, match="too many states"):
                each.result()


def test_a_pattern_is_compiled_once(service, client):
    def found(outcome):
        return service.metric("unroll_constraints_total", outcome=outcome)

    pattern = "(ab|cd){2,9}"
    compiled, hits = found("compiled"), found("hit")
    for seed in range(3):
        generate(client, regex=pattern, seed=seed)
    assert (found("compiled") - compiled, found("hit") - hits) == (1, 2)
    assert service.metric("unroll_constraint_bytes") > 0


def test_automata_in_use_are_bounded(tiny_models, keys):
    """What does not fit is dropped once nobody uses it; a request never fails for that."""
    one = serving(tiny_models, keys, constraint_bytes=1 << 20)
    try:
        with Client(one.target, timeout=60) as client:
            for count in range(1000, 1006):
                generate(client, regex=f"[a-n]{{1,{count}}}mm", max_tokens=3)
            assert one.metric("unroll_constraint_bytes") < 2 << 20
    finally:
        one.stop()
