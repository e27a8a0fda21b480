"""Generators that begin from named states, and presets: as Generate, by the protocol's tensors."""

import grpc
import pytest

from tests.service.oip.calls import Inference, ask, read

PROMPT, MORE = "abc def ghi jkl", "mn a"
SAID = {"max_tokens": 12, "seed": 7, "temperature": 1.0}


@pytest.fixture
def inference(service):
    with Inference(service.target) as inference:
        yield inference


def tokens_of(inference, model="letters", inputs=None, **parameters):
    """Of one answer: ids, and the bits of their log-probabilities."""
    found = inference.infer(model, inputs, parameters=SAID | parameters)
    return found["tokens"].tolist(), found["log_probabilities"].tobytes()


@pytest.fixture
def refused(inference):
    """The status and the message of a request that is refused."""

    def call(model, inputs=None, **parameters):
        with pytest.raises(grpc.RpcError) as caught:
            inference.stub.ModelInfer(ask(model, inputs, parameters=parameters), timeout=20)
        return caught.value.code().name, caught.value.details()

    return call


def test_a_text_after_a_state_is_that_of_the_whole_prompt(inference, client):
    client.create_state("start", "letters", prompt=PROMPT)
    whole = tokens_of(inference, inputs={"prompt": [PROMPT + MORE]}, no_cache=True)
    assert tokens_of(inference, inputs={"prompt": [MORE]}, state="start") == whole
    alone = tokens_of(inference, inputs={"prompt": [PROMPT]}, no_cache=True)
    assert tokens_of(inference, state="start") == alone
    assert tokens_of(inference, inputs={"prompt": [""]}, state="start") == alone


def test_a_stream_after_a_state_says_what_the_state_stood_for(inference, client):
    client.create_state("start", "letters", prompt=PROMPT)
    request = ask("letters", {"prompt": [MORE]}, parameters=SAID | {"state": "start"})
    answers = [response.infer_response for response in inference.stream(request)]
    tokens = [token for answer in answers for token in read(answer)["tokens"].tolist()]
    assert tokens == tokens_of(inference, inputs={"prompt": [PROMPT + MORE]})[0]
    last = answers[-1].parameters
    assert last["input_tokens"].int64_param == len(PROMPT + MORE)
    assert last["cached_tokens"].int64_param == len(PROMPT) - 1


def test_a_state_stands_for_a_source(inference, client):
    client.create_state("word", "speller", source="abcd")
    whole = tokens_of(inference, "speller", {"source": ["abcd"]})
    assert tokens_of(inference, "speller", state="word") == whole


def test_what_does_not_go_with_a_state_is_refused_as_by_generate(refused, client):
    client.create_state("start", "letters", prompt=PROMPT)
    client.create_state("word", "speller", source="abcd")
    for code, match, model, inputs, state in (
        ("NOT_FOUND", "no state 'other' of yours", "letters", {"prompt": ["a"]}, "other"),
        ("INVALID_ARGUMENT", "is no name of a state", "letters", {"prompt": ["a"]}, "../a"),
        ("INVALID_ARGUMENT", "'state' is 5; send a text", "letters", {"prompt": ["a"]}, 5),
        ("INVALID_ARGUMENT", "leave source, or state", "speller", {"source": ["a"]}, "word"),
        ("FAILED_PRECONDITION", "is for model 'letters'", "speller", None, "start"),
        ("INVALID_ARGUMENT", "'state' is unknown", "letters.tensors", {"tokens": [[1]]}, "start"),
        ("INVALID_ARGUMENT", "'state' is unknown", "mood", {"text": [["bad"]]}, "start"),
        ("INVALID_ARGUMENT", "input 'prompt' is missing", "letters", None, ""),
    ):
        found = refused(model, inputs, state=state)
        assert found[0] == code, found
        assert match in found[1]


def test_a_preset_stands_for_its_parameters(start_service, tmp_path):
    path = tmp_path / "presets.toml"
    path.write_text("[careful]\ntemperature = 0.3\nrepetition_penalty = 1.3\n")
    service = start_service(presets=path)
    with Inference(service.target) as inference:
        said = {"max_tokens": 12, "seed": 7}
        careful, chosen = (
            inference.infer("letters", {"prompt": ["abc"]}, parameters=said | more)
            for more in (
                {"preset": "careful"}, {"temperature": 0.3, "repetition_penalty": 1.3},
            )
        )  # fmt: skip
        assert careful["tokens"].tolist() == chosen["tokens"].tolist()
        assert careful["log_probabilities"].tobytes() == chosen["log_probabilities"].tobytes()
        with pytest.raises(grpc.RpcError, match="no preset 'wild'; it has careful"):
            inference.infer("letters", {"prompt": ["abc"]}, parameters={"preset": "wild"})
