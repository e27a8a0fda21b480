"""Named states over real channels: who begins from one gets what who reads it all gets."""

import grpc
import numpy as np
import pytest

from service.access.auth import new_token
from tests import tiny
from tests.service.grpc.test_generating import Answer
from unroll import Beam, Client, RequestFailed
from unroll.v1 import unroll_pb2 as pb

PROMPT, MORE = "abc def ghi jkl mn a", "bcd efg"


def generate(client, model="letters", **options):
    chosen = {"seed": 7, "max_tokens": 20, "log_probabilities": True, **options}
    return Answer(client.generate(model, **chosen))


def by_sample(answer):
    """Each sample's tokens in their order, with all that is reported of them."""
    samples = {}
    for token, reported in zip(answer.tokens, answer.reported, strict=True):
        samples.setdefault(token.sample, []).append(reported)
    return samples


def refused(code, match, call, *args, **options):
    with pytest.raises(RequestFailed, match=match) as caught:
        call(*args, **options)
    assert caught.value.code == code


# -- bits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_stream_after_a_state_is_that_of_the_whole_prompt(start_service, precision):
    """Copy on write: however often, with samples, penalties that count the prompt, and beams."""
    service = start_service(precision=precision)
    with Client(service.target, timeout=30) as client:
        made = client.create_state("start", "letters", prompt=PROMPT)
        assert (made.name, made.model, made.method, made.input_tokens) == (
            "start", "letters", "Generate", len(PROMPT),
        )  # fmt: skip
        for options in (
            {}, {"samples": 3}, {"repetition_penalty": 1.5}, {"top_log_probabilities": 3},
        ):  # fmt: skip
            whole = generate(client, prompt=PROMPT + MORE, no_cache=True, **options)
            for _ in range(2):
                after = generate(client, state="start", prompt=MORE, **options)
                # How samples' tokens come between one another is nobody's business.
                assert by_sample(after) == by_sample(whole)
                assert after.answer.input_tokens == whole.answer.input_tokens
                assert after.answer.cached_tokens == len(PROMPT) - 1
        alone = generate(client, state="start")
        assert alone.reported == generate(client, prompt=PROMPT).reported
        assert generate(client, state="start", prompt="").reported == alone.reported


def test_a_state_may_begin_from_another_which_stays_as_it_is(client):
    client.create_state("one", "letters", prompt="abc")
    client.create_state("two", "letters", state="one", prompt="def")
    client.create_state("copy", "letters", state="one")
    whole = generate(client, prompt="abcdefg")
    assert generate(client, state="two", prompt="g").reported == whole.reported
    for name in ("one", "copy"):
        assert generate(client, state=name, prompt="defg").reported == whole.reported
    assert [state.name for state in client.list_states()] == ["copy", "one", "two"]


def test_a_state_of_more_tokens_than_a_prompt_may_have_goes_on(client):
    """A recurrent state takes no more room for it; of the tokens a digest is kept."""
    client.create_state("long", "letters", prompt="a" * 60)
    longer = client.create_state("long", "letters", state="long", prompt="b" * 60, replace=True)
    assert longer.input_tokens == 1
    first, second = (generate(client, state="long", prompt="c") for _ in range(2))
    assert first.reported == second.reported
    other = client.create_state("other", "letters", state="long", prompt="b")
    assert other.input_tokens == 2


def test_a_state_of_a_resume_token_goes_on_where_that_stream_was(client):
    """And is the same state, whatever follows."""
    stream = generate(client, prompt=PROMPT, resume_at_end=True, temperature=0.0)
    token = stream.points[-1].token
    client.create_state("point", "letters", resume_token=token)
    after = generate(client, state="point", temperature=0.0)
    resumed = generate(client, resume_token=token, max_tokens=20, temperature=None, seed=None)
    assert after.ids == resumed.ids
    assert (
        generate(client, state="point", prompt="abc").reported
        == generate(client, state="point", prompt="abc").reported
    )


def test_a_stream_that_began_from_a_state_can_move(client):
    client.create_state("start", "letters", prompt=PROMPT)
    options = {"state": "start", "prompt": MORE, "max_tokens": 40, "repetition_penalty": 1.2}
    whole = generate(client, **options)
    points = generate(client, resume_every=16, **options).points
    rest = Answer(client.generate("letters", resume_token=points[0].token, log_probabilities=True))
    assert rest.reported == whole.reported[points[0].next_position :]


def test_a_source_is_encoded_once_for_all_streams_of_its_state(client):
    made = client.create_state("word", "speller", source="abcd")
    assert made.input_tokens == 4
    whole = generate(client, "speller", source="abcd")
    after = generate(client, "speller", state="word")
    assert after.reported == whole.reported
    assert after.answer.cached_tokens == 4
    beams = [
        [(end.score, end.log_probability) for end in answer.ends]
        for answer in (
            generate(client, "speller", beam=Beam(3, 2), seed=None, **begin)
            for begin in ({"source": "abcd"}, {"state": "word"})
        )
    ]
    assert beams[0] == beams[1]


def tags(client, words, **options):
    chunks = list(client.stream_tag("tags-online", [words], **options))
    return [(t.text, t.label, t.probability) for chunk in chunks for t in chunk.tokens], chunks


def test_tags_go_on_from_a_state(client):
    first, second = ["the", "food", "is"], ["not", "great"]
    whole, _ = tags(client, first + second)
    _, chunks = tags(client, first, resume_at_end=True)
    (point,) = [point for chunk in chunks for point in chunk.resume_points]
    client.create_state("words", "tags-online", prompt=" ".join(first))
    client.create_state("point", "tags-online", resume_token=point.token)
    client.create_state("after", "tags-online", state="words", prompt="not")
    for name in ("words", "point"):
        for _ in range(2):
            assert tags(client, second, state=name)[0] == whole[3:]
    assert tags(client, ["great"], state="after")[0] == whole[4:]
    assert client.list_states("tags-online")[0].method == "StreamTag"


# -- names, owners, time -----------------------------------------------------------------------


def test_states_are_listed_until_they_are_deleted(service, client):
    made = client.create_state("b", "letters", prompt="abc", ttl_seconds=50)
    assert made.expires - made.created == pytest.approx(50)
    client.create_state("a", "speller", source="abc")
    assert [state.name for state in client.list_states()] == ["a", "b"]
    assert client.list_states("letters") == [made]
    assert service.metric("unroll_named_states") == 2
    assert service.metric("unroll_memory_budget_used_bytes", kind="states") > 0
    refused("ALREADY_EXISTS", "replace", client.create_state, "b", "letters", prompt="a")
    client.create_state("b", "letters", prompt="a", replace=True)
    client.delete_state("b")
    refused("NOT_FOUND", "no state 'b' of yours", client.delete_state, "b")
    refused("NOT_FOUND", "ListStates has those", generate, client, state="b")
    assert [state.name for state in client.list_states()] == ["a"]


def test_a_state_is_its_callers_alone(start_service, tmp_path):
    secrets = dict(new_token(name, ["infer"]) for name in ("ann", "bob"))
    (tmp_path / "tokens").write_text("\n".join(secrets.values()))
    service = start_service(auth_tokens=tmp_path / "tokens", max_states=1)
    ann, bob = (Client(service.target, timeout=30, token=secret) for secret in secrets)
    with ann, bob:
        ann.create_state("mine", "letters", prompt="abc")
        assert bob.list_states() == []
        refused("NOT_FOUND", "of yours", generate, bob, state="mine")
        refused("NOT_FOUND", "of yours", bob.delete_state, "mine")
        bob.create_state("mine", "letters", prompt="def")
        assert generate(ann, state="mine").reported != generate(bob, state="mine").reported
        refused("RESOURCE_EXHAUSTED", "may have 1", bob.create_state, "more", "letters", prompt="a")


# -- a folder, and another bundle --------------------------------------------------------------


def test_a_folder_keeps_states_over_a_restart(start_service, tmp_path):
    answers = []
    for _ in range(2):
        service = start_service(state_store=tmp_path / "states")
        with Client(service.target, timeout=30) as client:
            if not answers:
                client.create_state("start", "letters", prompt=PROMPT)
            answers.append(generate(client, state="start", prompt=MORE).reported)
        service.stop()
    assert answers[0] == answers[1]


def test_a_state_of_another_bundle_or_precision_is_refused_and_says_why(
    start_service, models_copy, tmp_path
):
    def serve(**settings):
        return start_service(models=models_copy, state_store=tmp_path / "states", **settings)

    service = serve()
    with Client(service.target, timeout=30) as client:
        client.create_state("start", "letters", prompt=PROMPT)
        assert client.list_states()[0].reason == ""
    service.stop()
    service = serve(precision="int8")
    with Client(service.target, timeout=30) as client:
        refused("FAILED_PRECONDITION", "state 'start' is for precision 'fp32', this server runs "
                "'int8'", generate, client, state="start")  # fmt: skip
    service.stop()
    tiny.edit_manifest(models_copy / "letters" / "1", lambda m: m.update(description="another"))
    service = serve()
    with Client(service.target, timeout=30) as client:
        refused("FAILED_PRECONDITION", "state 'start' is for bundle", generate, client,
                state="start")  # fmt: skip
        assert "is for bundle" in client.list_states()[0].reason
        refused("FAILED_PRECONDITION", "is for bundle", client.create_state, "new", "letters",
                state="start", prompt="a")  # fmt: skip
        client.unload_model("letters")
        assert "was unloaded" in client.list_states()[0].reason
    service.stop()


def test_a_folder_that_cannot_be_used_stops_the_start(start_service, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match=r"state_store: .*file cannot be used"):
        start_service(state_store=tmp_path / "file")


# -- refusals ----------------------------------------------------------------------------------

REFUSED = {
    "a name that is none": ({"name": "../a"}, "is no name of a state"),
    "no life": ({"ttl_seconds": 0.0}, "ttl_seconds is 0; choose more than 0"),
    "nothing to read": ({"prompt": None}, "is made of a prompt, the request has no input"),
    "a source for a prompt": ({"prompt": None, "source": "a"}, "the request has a source"),
    "a model without": ({"model": "mood"}, "model 'mood' does not go on from a state"),
    "a tagger that reads both ways": ({"model": "tags"}, "needs the tokens to the right"),
    "a prompt for a source": ({"model": "speller"}, "made of a source, the request has a prompt"),
    "a vector": ({"model": "foods"}, "is made of a vector"),
    "too long a prompt": ({"prompt": "a" * 65}, "accepts 64"),
    "a token and a state": (
        {"prompt": None, "resume_token": b"x", "state": "start"}, "resume token holds a state",
    ),
    "no token": ({"prompt": None, "resume_token": b"x"}, "this is no resume token"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_state_can_be_made_of_is_refused(client, case):
    fields, match = REFUSED[case]
    client.create_state("start", "letters", prompt="abc")
    chosen = {"name": "one", "model": "letters", "prompt": "abc", **fields}
    refused("INVALID_ARGUMENT", match, client.create_state, **chosen)
    assert [state.name for state in client.list_states()] == ["start"]


def test_what_does_not_go_with_a_state_is_refused(service, client):
    client.create_state("start", "letters", prompt="abc")
    client.create_state("word", "speller", source="abc")
    for fields, match in (
        ({"echo": True}, "leave echo, or state"),
        ({"model": "speller", "state": "word", "source": "a"}, "leave source, or state"),
    ):
        refused("INVALID_ARGUMENT", match, generate, client, **{"state": "start", **fields})
    request = pb.GenerateRequest(model="letters", state="start", resume_token=b"x")
    with grpc.insecure_channel(service.target) as channel:
        call = channel.unary_stream(
            "/unroll.v1.UnrollService/Generate",
            request_serializer=pb.GenerateRequest.SerializeToString,
        )
        with pytest.raises(grpc.RpcError, match="a state and a resume token"):
            list(call(request, timeout=20))
    refused("FAILED_PRECONDITION", "goes on with a call of Generate, not of StreamTag", tags,
            client, ["the"], state="start")  # fmt: skip
    refused("FAILED_PRECONDITION", "is for model 'letters'", generate, client, "speller",
            state="start")  # fmt: skip


# -- presets -----------------------------------------------------------------------------------


def test_a_preset_stands_for_its_parameters(start_service, tmp_path):
    path = tmp_path / "presets.toml"
    path.write_text("[careful]\ntemperature = 0.3\nrepetition_penalty = 1.3\n"
                    "[model.letters.default]\ntemperature = 0.0\n")  # fmt: skip
    service = start_service(presets=path)
    with Client(service.target, timeout=30) as client:
        careful = generate(client, prompt="abc", preset="careful")
        said = generate(client, prompt="abc", temperature=0.3, repetition_penalty=1.3)
        assert careful.reported == said.reported
        own = generate(client, prompt="abc", preset="careful", temperature=1.5)
        assert (
            own.reported
            == generate(client, prompt="abc", temperature=1.5, repetition_penalty=1.3).reported
        )
        greedy = generate(client, prompt="abc", temperature=0.0)
        assert generate(client, prompt="abc").ids == greedy.ids
        model = client.get_model("letters")
        assert model.default_sampling.temperature == 0.0
        assert model.presets["careful"].temperature == np.float32(0.3)
        assert "default" not in model.presets
        refused("INVALID_ARGUMENT", "no preset 'wild'; it has careful", generate, client,
                prompt="abc", preset="wild")  # fmt: skip
        token = generate(client, prompt="abc", resume_at_end=True).points[-1].token
        refused("INVALID_ARGUMENT", "keeps its preset", generate, client, resume_token=token,
                preset="careful", seed=None)  # fmt: skip


def test_presets_that_cannot_be_read_stop_the_start(start_service, tmp_path):
    path = tmp_path / "presets.toml"
    path.write_text("[careful]\nwarmth = 1\n")
    with pytest.raises(Exception, match=r"careful\.warmth is none of temperature"):
        start_service(presets=path)
