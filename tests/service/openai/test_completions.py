"""Completions are what Generate makes, in OpenAI's shape."""

import base64
import gzip
import json
import math
import re

import numpy as np
import pytest

from service.openai.choices import number
from tests.service.openai.api import Api, texts_of
from unroll import Beam

REASONS = {"end": "stop", "stop": "stop", "length": "length"}


def generated(caller, model="letters", **options):
    """(text, finish_reason) of each sample, by its number."""
    texts, reasons = {}, {}
    for chunk in caller.generate(model, **options):
        for token in chunk.tokens:
            texts[token.sample] = texts.get(token.sample, "") + token.text
        for end in chunk.ends:
            reasons[end.sample] = REASONS[end.reason]
    return [(texts.get(sample, ""), reasons[sample]) for sample in sorted(reasons)]


def choices_of(answer):
    return [(choice["text"], choice["finish_reason"]) for choice in answer.content["choices"]]


# name: (fields of the API, options of the client where they are others)
SAME = {
    "plain": ({}, {}),
    "greedy": ({"temperature": 0}, {"temperature": 0.0}),
    "cuts": ({"top_k": 5, "top_p": 0.9, "min_p": 0.05, "typical_p": 0.95, "temperature": 1.3}, {}),
    "penalties": (
        {"frequency_penalty": 1.5, "presence_penalty": -0.5, "repetition_penalty": 1.2}, {}
    ),
    "bias": ({"logit_bias": {"3": 5, "4": -100}}, {"logit_bias": {3: 5.0, 4: -100.0}}),
    "allowed": ({"allowed_tokens": [2, 3, 4]}, {}),
    "banned": ({"banned_tokens": [2, 3, 4]}, {}),
    "stop": ({"stop": "a", "max_tokens": 200}, {"stop": ["a"]}),
    "stops": ({"stop": ["ab", "k"], "max_tokens": 200, "min_tokens": 3}, {}),
    "samples": ({"n": 4}, {"samples": 4}),
    "large seed": ({"seed": 2**64 - 1}, {}),
    "messages": ({"tokens_per_message": 5}, {}),
    "version": ({"model_version": "1"}, {"version": "1"}),
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_a_seed_gives_the_text_of_generate(api, caller, name):
    fields, options = SAME[name]
    same = {"prompt": "abc", "max_tokens": 12, "seed": 7, **fields}
    ours = {"n": "samples", "model_version": "version"}
    called = {key: value for key, value in same.items() if key not in ours} | options
    answer = api.complete(**fields)
    assert choices_of(answer) == generated(caller, **called)
    assert any(answer.texts)


def test_the_answer_has_openais_shape(api):
    first, second = api.complete().content, api.complete().content
    assert first["object"] == "text_completion"
    assert first["model"] == "letters"
    assert first["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 12,
        "total_tokens": 15,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert first["choices"][0]["logprobs"] is None
    assert isinstance(first["created"], int)
    assert first["id"] != second["id"]
    assert first["system_fingerprint"] == second["system_fingerprint"]


def test_the_fingerprint_is_of_the_model(api, standing_service):
    card = standing_service.app.registry.get("letters").card
    digest, precision, kernels = api.complete().content["system_fingerprint"].split("-")
    assert (card.digest.startswith(digest), precision) == (True, card.precision)
    assert kernels
    assert card.fingerprint.startswith(kernels)
    other = api.complete(model="bigrams", prompt="a").content["system_fingerprint"]
    assert not other.startswith(digest)


def test_max_tokens_is_openais_where_it_is_left_out(api):
    assert len(api.complete(model="letters", prompt="abc", seed=1).texts[0]) == 16


def test_null_is_as_left_out(api):
    fields = ("stop", "n", "logprobs", "suffix", "user", "stream", "stream_options", "best_of")
    assert api.complete(**dict.fromkeys(fields)).texts == api.complete().texts


def test_the_user_is_ignored(api):
    assert api.complete(user="someone", suffix="").texts == api.complete().texts


@pytest.mark.parametrize(
    "constraint",
    [
        {"guided_regex": "(bad|dead)( beef){2}"},
        {"structured_outputs": {"regex": "(bad|dead)( beef){2}", "choice": None}},
        {"structured_outputs": {"choice": ["bad beef", "dead beef"]}},
        {"guided_choice": ["bad beef", "dead beef"]},
        {"response_format": {"type": "text"}, "guided_choice": ["bad beef"]},
    ],
)
def test_a_constraint_is_held_to(api, constraint):
    answer = api.complete(model="letters", prompt="ab", max_tokens=60, n=3, **constraint)
    for text, reason in choices_of(answer):
        assert re.fullmatch("(bad|dead)( beef){1,2}", text)
        assert reason == "stop"


def test_too_few_tokens_for_a_constraint_are_a_matter_of_length(api):
    answer = api.complete(model="letters", prompt="ab", max_tokens=2, guided_choice=["bad"])
    assert choices_of(answer) == [("ba", "length")]


def test_prompts_are_calls_of_their_own_and_their_choices_stand_together(api):
    prompts = ["abc", "d", "efg hij"]
    answer = api.complete(prompt=prompts, n=2)
    alone = [api.complete(prompt=prompt, n=2) for prompt in prompts]
    assert answer.texts == [text for each in alone for text in each.texts]
    usages = [each.content["usage"]["total_tokens"] for each in alone]
    assert answer.content["usage"]["total_tokens"] == sum(usages)


def test_log_probabilities_are_those_of_generate(api, caller):
    chunks = caller.generate(
        "letters", prompt="abc", max_tokens=12, seed=7,
        log_probabilities=True, top_log_probabilities=3,
    )  # fmt: skip
    tokens = [token for chunk in chunks for token in chunk.tokens]
    (choice,) = api.complete(logprobs=3).content["choices"]
    found = choice["logprobs"]
    assert found["tokens"] == [token.text for token in tokens]
    # Bit for bit, once they are what they were: numbers of 32 bits.
    assert list(np.float32(found["token_logprobs"])) == [t.log_probability for t in tokens]
    for token, top in zip(tokens, found["top_logprobs"], strict=True):
        likeliest = {text: value for _, text, value in reversed(token.top)}
        likeliest.setdefault(token.text, token.log_probability)
        assert {text: np.float32(value) for text, value in top.items()} == likeliest
        assert 3 <= len(top) <= 4
    offsets = found["text_offset"]
    for offset, token in zip(offsets, found["tokens"], strict=True):
        assert choice["text"][offset : offset + len(token)] == token


def test_no_likelier_tokens_come_where_none_are_asked_for(api):
    (choice,) = api.complete(logprobs=0).content["choices"]
    assert choice["logprobs"]["top_logprobs"] is None
    assert len(choice["logprobs"]["token_logprobs"]) == 12


def test_echo_puts_the_prompt_before_every_choice(api):
    plain = api.complete(n=2)
    answer = api.complete(n=2, echo=True, logprobs=1)
    assert answer.texts == [f"abc{text}" for text in plain.texts]
    for choice in answer.content["choices"]:
        found = choice["logprobs"]
        assert found["tokens"][:3] == ["a", "b", "c"]
        assert found["text_offset"] == list(range(15))
        assert found["token_logprobs"][0] is None
        assert found["top_logprobs"][0] is None
        assert all(value < 0 for value in found["token_logprobs"][1:])


def test_echo_reports_what_was_likeliest_in_the_prompt(api, caller):
    """A scorer takes a token for the greedy one where none beside it is likelier."""
    prompt = "abc defg"
    (choice,) = api.complete(prompt=prompt, echo=True, logprobs=3, max_tokens=2).content["choices"]
    found = {key: values[:8] for key, values in choice["logprobs"].items()}
    assert found["tokens"] == list(prompt)
    (scored,) = caller.score("letters", [prompt])
    expected = [token.log_probability for token in scored.tokens]
    assert found["token_logprobs"] == pytest.approx(expected, abs=1e-4)
    likeliest = caller.next_tokens("letters", [prompt[:n] for n in range(1, 8)], top=3)
    for place, few in enumerate(likeliest, start=1):
        top, own = found["top_logprobs"][place], found["token_logprobs"][place]
        named = {token.text: token.log_probability for token in few} | {prompt[place]: own}
        assert top == pytest.approx(named, abs=1e-4)
        assert top[prompt[place]] == own
        assert max(top.values()) == pytest.approx(few[0].log_probability, abs=1e-4)


def test_echo_of_an_unknown_symbol_names_nothing_likelier(api):
    """No stream can be made of what a model does not know, so nothing is said of its prompt."""
    (choice,) = api.complete(prompt="aéb", echo=True, logprobs=2, max_tokens=1).content["choices"]
    found = choice["logprobs"]
    assert found["top_logprobs"][:3] == [None] * 3
    assert all(value < 0 for value in found["token_logprobs"][1:])
    assert len(found["top_logprobs"][3]) >= 2


def test_nothing_is_made_where_a_prompt_is_scored_alone(api):
    made = api.complete(n=2, echo=True, logprobs=2, max_tokens=1).content["choices"]
    answer = api.complete(n=2, echo=True, logprobs=2, max_tokens=0)
    assert choices_of(answer) == [("abc", "length")] * 2
    for choice, whole in zip(answer.content["choices"], made, strict=True):
        assert choice["logprobs"] == {key: of[:3] for key, of in whole["logprobs"].items()}
    assert answer.content["usage"]["completion_tokens"] == 0
    assert answer.content["usage"]["prompt_tokens"] == 3


def test_a_prompt_alone_is_streamed_too(api):
    events = api.events(echo=True, logprobs=1, max_tokens=0)
    assert texts_of(events) == {0: "abc"}
    assert events[-1]["choices"][0]["finish_reason"] == "length"


def test_best_of_above_n_searches_for_the_n_best(api, caller):
    answer = api.complete(model="letters", prompt="abc", max_tokens=12, best_of=5, n=2)
    beam = Beam(width=5, best=2)
    assert choices_of(answer) == generated(caller, prompt="abc", max_tokens=12, beam=beam)


def test_best_of_n_draws(api):
    assert api.complete(n=3, best_of=3).texts == api.complete(n=3).texts


def test_a_source_and_a_vector_are_inputs_too(api, caller):
    source = api.complete(model="speller", source="abcab", seed=3)
    assert choices_of(source) == generated(caller, "speller", source="abcab", seed=3)
    vector = api.complete(model="foods", prompt=None, vector=[1, 2.5, 3], seed=3)
    assert choices_of(vector) == generated(caller, "foods", vector=[1, 2.5, 3], seed=3)


def test_a_resume_token_goes_on_where_the_stream_was(api):
    whole = api.complete(max_tokens=30).texts[0]
    (half,) = api.complete(max_tokens=18, resume_at_end=True).content["choices"]
    assert (half["text"], half["next_position"]) == (whole[:18], 18)
    rest = api.complete(model="letters", resume_token=half["resume_token"], max_tokens=12)
    assert rest.texts[0] == whole[18:]


def test_a_resumed_sample_keeps_its_index(api):
    third = api.complete(n=3, max_tokens=8, resume_at_end=True).content["choices"][2]
    rest = api.complete(model="letters", resume_token=third["resume_token"], max_tokens=4)
    assert [choice["index"] for choice in rest.content["choices"]] == [2]
    whole = api.complete(n=3).texts[2]
    assert third["text"] + rest.content["choices"][0]["text"] == whole


def test_a_resume_token_of_another_kind_is_refused(api):
    token = base64.b64encode(b"nothing").decode()
    error = api.refuse(model="letters", resume_token=token)
    assert "resume token" in error["message"]


def test_compressed_bodies_are_read(api):
    body = json.dumps({"model": "letters", "prompt": "abc", "seed": 7, "max_tokens": 12}).encode()
    for data, encoding in ((gzip.compress(body), "gzip"), (body, "identity")):
        answer = api.post(data, **{"content-encoding": encoding})
        assert answer.texts == api.complete().texts


def test_whole_numbers_may_be_written_with_a_point(api):
    answer = api.post(b'{"model":"letters","prompt":"abc","seed":7.0,"max_tokens":1.2e1}')
    assert answer.texts == api.complete().texts


def test_an_answer_that_does_not_fit_the_budget_is_refused(start_service):
    """What is kept until it is whole counts as what other answers take."""
    api = Api(start_service(memory_budget_bytes=400_000).target)
    error = api.refuse(429, n=64, max_tokens=400, logprobs=20)
    assert error["code"] == "rate_limit_exceeded"
    assert api.complete().texts, "what was refused holds nothing"


def test_a_log_probability_of_nothing_is_a_number_of_json():
    assert json.loads(f"[{number(-math.inf)},{number(-0.1)}]") == [-9999.0, -0.1]
