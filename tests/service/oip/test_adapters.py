"""Both forms of every model give what unroll.v1 gives, bit for bit where it gives numbers."""

import math
import re

import numpy as np
import pytest

from tests.service.oip.calls import ask, read
from tests.tiny import LETTER_READER, NAMES, PHONE_WRITER, SHAPES, TAGS, WORD_READER, WORDS
from unroll import Sampling

RAW = pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
VECTOR = [1.5, 0.25, 30.0]


def padded(rows):
    longest = max(map(len, rows))
    return {
        "tokens": [[*row, *[0] * (longest - len(row))] for row in rows],
        "lengths": [[len(row)] for row in rows],
    }


def state_of(outputs, row=slice(None)):
    """What a step gave, as the next one takes it."""
    return {
        name.removeprefix("next_"): array[row]
        for name, array in outputs.items()
        if name.startswith("next_")
    }


# -- classify -----------------------------------------------------------------------------------


@RAW
def test_texts_are_classified(inference, caller, raw):
    texts = ["the food is good", "bad", "not bad was great"]
    outputs = inference.infer("mood", {"text": [[text] for text in texts]}, raw)
    for row, answer in enumerate(caller.classify("mood", texts)):
        known = dict(answer.labels)
        assert outputs["probabilities"][row].tolist() == [known["sad"], known["glad"]]
        assert (outputs["label"][row, 0], outputs["probability"][row, 0]) == answer.best


@RAW
def test_ids_are_classified_as_their_text_is(inference, raw):
    texts = ["the food is good", "bad"]
    rows = [WORD_READER.encode(text).ids for text in texts]
    by_ids = inference.infer("mood.tensors", padded(rows), raw)
    by_text = inference.infer("mood", {"text": texts}, raw)
    assert by_ids["probabilities"].tolist() == by_text["probabilities"].tolist()
    assert np.exp(by_ids["logits"]) == pytest.approx(by_ids["probabilities"], abs=1e-6)


STROKES = np.random.default_rng(5).normal(0, 3, (2, 6, 3)).astype(np.float32)


@RAW
def test_frames_are_classified(inference, caller, raw):
    answers = caller.classify("strokes", frames=[STROKES[0], STROKES[1, :4]])
    inputs = {"frames": STROKES, "lengths": [[6], [4]]}
    outputs = inference.infer("strokes", inputs, raw)
    tensors = inference.infer("strokes.tensors", inputs, raw)
    for row, answer in enumerate(answers):
        known = dict(answer.labels)
        assert outputs["probabilities"][row].tolist() == [known[label] for label in SHAPES]
        assert (outputs["label"][row, 0], outputs["probability"][row, 0]) == answer.best
    assert tensors["probabilities"].tolist() == outputs["probabilities"].tolist()
    assert np.exp(tensors["logits"]) == pytest.approx(tensors["probabilities"], abs=1e-6)
    whole = inference.infer("strokes", {"frames": STROKES[:1]}, raw)
    assert whole["probabilities"].tolist() == outputs["probabilities"][:1].tolist()


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"frames": STROKES, "lengths": [[6], [7]]}, "row 1 is 7; 'frames' has 6 a row"),
        ({"frames": STROKES, "lengths": [[6], [0]]}, "row 1 is 0"),
        ({"frames": STROKES, "lengths": [[6]]}, "input 'lengths' has 1 rows"),
        ({"frames": STROKES[:, :, :2]}, "has the shape [2, 6, 2], the model takes [-1, -1, 3]"),
        ({"frames": STROKES * np.nan}, "frames[0] is nan in frame 0, channel 0"),
        ({"frames": np.zeros((1, 41, 3))}, "frames[0] has 41 frames, model 'strokes' accepts 1"),
    ],
)
def test_frames_that_do_not_fit_are_refused(inference, inputs, says):
    with pytest.raises(Exception, match=re.escape(says)):
        inference.infer("strokes", inputs)


@RAW
def test_the_likeliest_classes_come_as_texts(inference, raw):
    """Triton's classification extension."""
    request = ask("mood", {"text": [["bad"]]}, raw, outputs=["probabilities"])
    request.outputs[0].parameters["classification"].int64_param = 1
    answer = inference.stub.ModelInfer(request, timeout=20)
    (output,) = answer.outputs
    assert (output.datatype, list(output.shape)) == ("BYTES", [1, 1])
    value, place, label = read(answer)["probabilities"][0, 0].split(":")
    whole = inference.infer("mood", {"text": [["bad"]]})
    assert label == whole["label"][0, 0] == ("sad", "glad")[int(place)]
    assert float(value) == pytest.approx(whole["probability"][0, 0], abs=1e-6)


# -- tag, fill ----------------------------------------------------------------------------------


@RAW
@pytest.mark.parametrize("model", ["tags", "tags-online"])
def test_texts_are_tagged(inference, caller, model, raw):
    texts = ["the food is not good", "bad"]
    outputs = inference.infer(model, {"text": texts}, raw)
    assert outputs["lengths"].tolist() == [[5], [1]]
    for row, tagged in enumerate(caller.tag(model, texts)):
        count = len(tagged.tokens)
        assert outputs["tokens"][row, :count].tolist() == [t.text for t in tagged.tokens]
        assert outputs["labels"][row, :count].tolist() == [t.label for t in tagged.tokens]
        assert outputs["probabilities"][row, :count].tolist() == [
            t.probability for t in tagged.tokens
        ]
        assert not any(outputs["tokens"][row, count:])


@RAW
@pytest.mark.parametrize("model", ["tags", "tags-online"])
def test_ids_are_tagged_as_their_text_is(inference, model, raw):
    texts = ["the food is not good", "bad"]
    by_ids = inference.infer(
        f"{model}.tensors", padded([WORD_READER.encode(t).ids for t in texts]), raw
    )
    by_text = inference.infer(model, {"text": texts}, raw)
    assert by_ids["probabilities"].shape == (2, 5, len(TAGS))
    assert (by_ids["probabilities"].max(2) == by_text["probabilities"]).all()
    assert not by_ids["probabilities"][1, 1:].any()
    assert np.isneginf(by_ids["logits"][1, 1:]).all()


@RAW
def test_blanks_are_filled(inference, caller, raw):
    texts = ["the food ___ good", "___ bad"]
    outputs = inference.infer("blank", {"text": texts}, raw, parameters={"top_words": 3})
    for row, blank in enumerate(caller.fill("blank", texts, top=3)):
        words = list(zip(outputs["words"][row], outputs["probabilities"][row], strict=True))
        assert words == blank.words


@RAW
def test_ids_around_a_blank_are_filled_as_their_text_is(inference, raw):
    begin, end = len(WORDS) + 1, len(WORDS) + 2
    before, after = WORD_READER.encode("the food").ids, WORD_READER.encode("not good").ids
    outputs = inference.infer(
        "blank.tensors",
        {
            "tokens": [[begin, *before]],
            "lengths": [[3]],
            "right": [[end, *reversed(after)]],
            "right_lengths": [[3]],
        },
        raw,
    )
    by_text = inference.infer("blank", {"text": ["the food ___ not good"]}, raw)
    best = np.sort(outputs["probabilities"][0])[::-1]
    assert best.tolist() == by_text["probabilities"][0].tolist()


# -- generate -----------------------------------------------------------------------------------


@RAW
@pytest.mark.parametrize(
    ("model", "given"),
    [
        ("letters", {"prompt": ["abc"]}),
        ("speller", {"source": ["abc"]}),
        ("foods", {"vector": VECTOR}),
    ],
)
def test_one_response_holds_the_whole_stream(inference, caller, model, given, raw):
    ((name, value),) = given.items()
    argument = value if name == "vector" else value[0]
    pieces = list(
        caller.generate(
            model,
            **{name: argument},
            max_tokens=12,
            sampling=Sampling(seed=5, temperature=0.9),
            log_probabilities=True,
        )
    )
    made = [token for piece in pieces for token in piece.tokens]
    outputs = inference.infer(
        model, given, raw, parameters={"max_tokens": 12, "seed": 5, "temperature": 0.9}
    )
    assert outputs["tokens"].tolist() == [token.id for token in made]
    assert outputs["text"].tolist() == ["".join(token.text for token in made)]
    assert outputs["log_probabilities"].tolist() == [token.log_probability for token in made]
    assert outputs["finish_reason"].tolist() == [pieces[-1].answer.reason]


def test_settings_come_as_numbers_and_as_texts(inference):
    said = [
        {"max_tokens": 9, "seed": 5, "temperature": 0.5, "top_k": 3, "min_p": 0.01},
        {"max_tokens": "9", "seed": "5", "temperature": "0.5", "top_k": "3", "min_p": "0.01"},
        {"max_tokens": 9.0, "seed": 5.0, "temperature": 0.5, "top_k": 3.0, "min_p": 0.01},
    ]
    texts = {inference.infer("letters", {"prompt": ["abc"]}, parameters=p)["text"][0] for p in said}
    assert len(texts) == 1
    assert len(texts.pop()) == 9


def test_lists_of_settings_come_as_json(inference, caller):
    sampling = Sampling(
        seed=3, allowed_tokens=[1, 2, 3], banned_tokens=[2], logit_bias={1: 1.5}, temperature=1.0
    )
    pieces = caller.generate("letters", prompt="a", max_tokens=20, sampling=sampling)
    parameters = {
        "max_tokens": 20,
        "seed": 3,
        "temperature": 1.0,
        "allowed_tokens": "[1, 2, 3]",
        "banned_tokens": "[2]",
        "logit_bias": '{"1": 1.5}',
    }
    outputs = inference.infer("letters", {"prompt": ["a"]}, parameters=parameters)
    assert outputs["text"][0] == "".join(piece.text for piece in pieces)


@pytest.mark.parametrize("several", [False, True])
def test_stop_is_a_text_or_a_list(inference, several):
    parameters = {"max_tokens": 60, "seed": 4}
    whole = inference.infer("letters", {"prompt": ["a"]}, parameters=parameters)["text"][0]
    stop = whole[20:22]
    said = f'["{stop}", "never said"]' if several else stop
    outputs = inference.infer("letters", {"prompt": ["a"]}, parameters=parameters | {"stop": said})
    assert outputs["text"][0] == whole[: whole.index(stop)]
    assert outputs["finish_reason"][0] == "stop"


@pytest.mark.parametrize(
    ("kind", "said", "given"),
    [
        ("choices", '["cab", "a fine hen"]', ["cab", "a fine hen"]),
        ("regex", "(cab|deaf)[a-f]{6}", "(cab|deaf)[a-f]{6}"),
    ],
)
def test_a_text_is_held_to_what_a_setting_says(inference, caller, kind, said, given):
    sampling = Sampling(seed=3, temperature=1.5)
    pieces = caller.generate("letters", prompt="a", sampling=sampling, **{kind: given})
    parameters = {"seed": 3, "temperature": 1.5, kind: said}
    outputs = inference.infer("letters", {"prompt": ["a"]}, parameters=parameters)
    text = outputs["text"][0]
    assert text == "".join(piece.text for piece in pieces)
    assert text in given if kind == "choices" else re.fullmatch(given, text)
    assert outputs["finish_reason"][0] == "end"


def test_a_request_that_does_not_say_gets_a_usual_number_of_tokens(inference):
    outputs = inference.infer("letters", {"prompt": ["abc"]}, parameters={"seed": 3})
    assert outputs["tokens"].size == 256


def test_a_request_without_a_seed_gets_the_one_in_use(inference):
    request = ask("letters", {"prompt": ["abc"]}, parameters={"max_tokens": 30})
    first = inference.stub.ModelInfer(request, timeout=20)
    request.parameters["seed"].string_param = first.parameters["seed"].string_param
    again = inference.stub.ModelInfer(request, timeout=20)
    assert read(first)["text"] == read(again)["text"]
    assert first.parameters["output_tokens"].int64_param == 30
    assert first.parameters["input_tokens"].int64_param == 3


# -- one step at a time -------------------------------------------------------------------------


@RAW
def test_a_step_reports_what_the_stream_draws_from(inference, caller, raw):
    """exp(logits) of each token is the log-probability that Generate gives it."""
    pieces = caller.generate(
        "letters",
        prompt="abc",
        max_tokens=6,
        sampling=Sampling(seed=3, temperature=1.0),
        log_probabilities=True,
    )
    made = [token for piece in pieces for token in piece.tokens]
    prompt = LETTER_READER.encode("abc").ids
    outputs = inference.infer("letters.tensors", padded([prompt]), raw)
    for token in made:
        assert outputs["logits"][0, token.id] == np.float32(token.log_probability)
        assert math.isclose(np.exp(outputs["logits"][0]).sum(), 1, abs_tol=1e-5)
        given = padded([[token.id]]) | state_of(outputs)
        outputs = inference.infer("letters.tensors", given, raw)


def test_rows_of_a_batch_are_what_they_are_alone(inference):
    rows = [LETTER_READER.encode(text).ids for text in ("abcdef", "k", "lmn ab")]
    together = inference.infer("letters.tensors", padded(rows), True)
    for number, row in enumerate(rows):
        alone = inference.infer("letters.tensors", padded([row]), True)
        for name, array in alone.items():
            assert (together[name][number] == array[0]).all()


def test_a_prompt_in_two_pieces_ends_where_the_whole_one_does(inference):
    ids = LETTER_READER.encode("abcdefgh").ids
    whole = inference.infer("letters.tensors", padded([ids]), True)
    first = inference.infer("letters.tensors", padded([ids[:5]]), True)
    second = inference.infer("letters.tensors", padded([ids[5:]]) | state_of(first), True)
    for name, array in whole.items():
        assert (second[name] == array).all()


def test_a_generator_without_a_state_reads_its_last_token(inference):
    outputs = inference.infer("bigrams.tensors", padded([[3, 4], [5, 4]]))
    assert list(outputs) == ["logits"]
    assert (outputs["logits"][0] == outputs["logits"][1]).all()


@RAW
@pytest.mark.parametrize(
    ("model", "text", "given"),
    [
        (
            "speller",
            {"source": "abc"},
            {"source": [LETTER_READER.encode("abc").ids], "source_lengths": [[3]]},
        ),
        ("foods", {"vector": VECTOR}, {"vector": [VECTOR]}),
    ],
)
def test_a_source_or_a_vector_is_decoded_token_by_token(inference, caller, model, text, given, raw):
    """Taking the likeliest of the logits each time gives what Generate gives at temperature 0."""
    pieces = caller.generate(model, **text, max_tokens=8, sampling=Sampling(temperature=0))
    ids = [token.id for piece in pieces for token in piece.tokens]
    outputs = inference.infer(f"{model}.tensors", given, raw)
    end, mute = PHONE_WRITER.vocabulary.end_id, list(PHONE_WRITER.vocabulary.never_sampled_ids)
    for wanted in ids:
        logits = outputs["logits"][0].copy()
        logits[mute] = -np.inf
        assert logits.argmax() == wanted != end
        again = {"token": [[wanted]]} | state_of(outputs)
        outputs = inference.infer(f"{model}.tensors", again, raw)


# -- for every model ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n + form for n in NAMES for form in ("", ".tensors")])
def test_metadata_and_configuration_agree(inference, name):
    metadata, config = inference.metadata(name), inference.config(name)
    assert (metadata.name, list(metadata.versions)) == (name, ["1"])
    assert config.name == name
    assert list(config.version_policy.specific.versions) == [1]
    for reported, kept in ((metadata.inputs, config.input), (metadata.outputs, config.output)):
        assert [port.name for port in reported] == [port.name for port in kept]
        for port, configured in zip(reported, kept, strict=True):
            shape = list(port.shape)
            assert (shape[1:] if config.max_batch_size else shape) == list(configured.dims)
            assert not config.max_batch_size or shape[0] == -1
    assert config.parameters["task"].string_value


@pytest.mark.parametrize("name", [n + form for n in NAMES for form in ("", ".tensors")])
def test_what_keeps_sequences_says_so(inference, name):
    config = inference.config(name)
    keeps = name in {
        "tags-online", "tags-online.tensors", "letters.tensors", "bigrams.tensors",
        "speller.tensors", "foods.tensors",
    }  # fmt: skip
    assert config.HasField("sequence_batching") == keeps
    decouples = name in {"letters", "bigrams", "speller", "foods"}
    assert config.model_transaction_policy.decoupled == decouples
    assert config.HasField("dynamic_batching") == (not keeps and not decouples)


@RAW
def test_only_what_is_asked_for_comes_and_in_that_order(inference, raw):
    wanted = ["probabilities", "label"]
    answer = inference.stub.ModelInfer(
        ask("mood", {"text": [["bad"]]}, raw, outputs=wanted, id="a b", model_version="1")
    )
    assert [output.name for output in answer.outputs] == wanted
    assert (answer.id, answer.model_name, answer.model_version) == ("a b", "mood", "1")
    assert len(answer.raw_output_contents) == (2 if raw else 0)
