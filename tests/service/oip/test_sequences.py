"""sequence_id, sequence_start, sequence_end: requests that go on from each other's state."""

import grpc
import numpy as np
import pytest

from tests.service.grpc.test_service import wait_until
from tests.service.oip.calls import Inference, ask, read
from tests.service.oip.test_adapters import padded
from tests.tiny import LETTER_READER, WORD_READER, WORDS
from unroll.inference import grpc_service_pb2 as pb

IDS = LETTER_READER.encode("abcdefg").ids


def flags(number, place, count):
    said = {"sequence_id": number}
    if place == 0:
        said["sequence_start"] = True
    if place == count - 1:
        said["sequence_end"] = True
    return said


def pieces_of(number, pieces, request_of):
    return [
        request_of(piece, flags(number, place, len(pieces))) for place, piece in enumerate(pieces)
    ]


def tag(words, parameters):
    return ask("tags-online", {"text": [[" ".join(words)]]}, parameters=parameters)


def step(ids, parameters, model="letters.tensors"):
    return ask(model, padded([ids]), True, parameters=parameters)


def code_of(inference, request):
    with pytest.raises(grpc.RpcError) as caught:
        inference.stub.ModelInfer(request, timeout=20)
    return caught.value.code(), caught.value.details()


@pytest.fixture(params=["unary", "stream"])
def answer(request, inference):
    """The answers to requests, one after the other, in calls of their own or in one."""

    def unary(*requests):
        return [read(inference.stub.ModelInfer(each, timeout=20)) for each in requests]

    def stream(*requests):
        responses = inference.stream(*requests)
        assert not any(response.error_message for response in responses), responses
        return [read(response.infer_response) for response in responses]

    return unary if request.param == "unary" else stream


@pytest.mark.parametrize("number", [41, "a name"])
def test_words_are_tagged_after_the_words_before_them(inference, answer, number):
    pieces = [["the", "food"], ["is"], ["not", "good", "the"], ["bad"]]
    whole = inference.infer(
        "tags-online", {"text": [" ".join(word for piece in pieces for word in piece)]}
    )
    parts = answer(*pieces_of(number, pieces, tag))
    joined = {
        name: np.concatenate([part[name] for part in parts], 1)
        for name in ("tokens", "labels", "probabilities")
    }
    for name in ("tokens", "labels"):
        assert joined[name].tolist() == whole[name].tolist()
    # A stream gives exp(log(p)) of the step graph, which rounds once more than the whole text's p.
    assert joined["probabilities"] == pytest.approx(whole["probabilities"], abs=1e-6)


def test_ids_are_tagged_after_the_ids_before_them(inference, answer):
    ids = WORD_READER.encode(" ".join(WORDS)).ids
    whole = inference.infer("tags-online.tensors", padded([ids]), True)
    requests = pieces_of(
        7, [ids[:3], ids[3:]], lambda piece, said: step(piece, said, "tags-online.tensors")
    )
    parts = answer(*requests)
    found = np.concatenate([part["probabilities"] for part in parts], 1)
    assert found == pytest.approx(whole["probabilities"], abs=1e-6)


def test_a_kept_state_is_the_one_that_a_caller_would_carry(inference, answer):
    whole = inference.infer("letters.tensors", padded([IDS]), True)
    last = answer(*pieces_of(3, [IDS[:3], IDS[3:4], IDS[4:]], step))[-1]
    for name, array in whole.items():
        assert (last[name] == array).all()


@pytest.mark.parametrize(
    ("model", "first"),
    [
        ("speller.tensors", {"source": [[1, 2, 3]], "source_lengths": [[3]]}),
        ("foods.tensors", {"vector": [[1.0, 2.0, 3.0]]}),
    ],
)
def test_a_decoder_keeps_its_source_and_its_state(inference, answer, model, first):
    begun, second = answer(
        ask(model, first, True, parameters=flags(5, 0, 2)),
        ask(model, {"token": [[2]]}, True, parameters=flags(5, 1, 2)),
    )
    carried = {n.removeprefix("next_"): a for n, a in begun.items() if n.startswith("next_")}
    by_hand = inference.infer(model, {"token": [[2]]} | carried, True)
    assert (second["logits"] == by_hand["logits"]).all()


def test_sequences_do_not_mix(inference):
    """Interleaved, each gives what it gives alone."""
    alone = {n: inference.infer("letters.tensors", padded([IDS[n:]]), True) for n in range(4)}
    for place in range(3):
        for n in range(4):
            ids = IDS[n:]
            piece = [ids[:1], ids[1:2], ids[2:]][place]
            last = read(
                inference.stub.ModelInfer(step(piece, flags(100 + n, place, 3)), timeout=20)
            )
            if place == 2:
                assert (last["logits"] == alone[n]["logits"]).all()


def test_an_unknown_sequence_must_be_begun(inference):
    code, reported = code_of(inference, step(IDS, {"sequence_id": 999}))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "sequence_start" in reported


def test_a_sequence_is_over_after_its_end(inference):
    inference.infer("letters.tensors", padded([IDS]), parameters=flags(8, 0, 1))
    code, _ = code_of(inference, step(IDS, {"sequence_id": 8}))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_malformed_request_loses_nothing_of_its_sequence(inference):
    whole = inference.infer("letters.tensors", padded([IDS]), True)
    inference.infer("letters.tensors", padded([IDS[:4]]), parameters=flags(9, 0, 3))
    bad = step(IDS[4:], {"sequence_id": 9})
    bad.raw_input_contents[0] = b"\0" * 8
    assert code_of(inference, bad)[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert code_of(inference, step([99], {"sequence_id": 9, "sequence_start": True}))[0]
    last = inference.infer("letters.tensors", padded([IDS[4:]]), True, parameters=flags(9, 2, 3))
    assert (last["logits"] == whole["logits"]).all()


def test_a_sequence_has_one_row(refused):
    said = {"sequence_id": 3, "sequence_start": True}
    assert "one row" in refused("letters.tensors", padded([IDS, IDS]), parameters=said)


def test_a_sequence_has_its_own_state(inference, refused):
    first = inference.infer("letters.tensors", padded([IDS]), parameters=flags(12, 0, 9))
    carried = {n.removeprefix("next_"): a for n, a in first.items() if n.startswith("next_")}
    reported = refused("letters.tensors", padded([IDS]) | carried, parameters={"sequence_id": 12})
    assert "its own state" in reported


def test_a_sequence_of_a_stream_is_the_streams_own(standing_service, inference):
    """Two callers that both say 1 do not meet, and what a call began ends with it."""
    sequences = standing_service.app.sequences
    before = len(sequences)
    begin = {"sequence_id": 77, "sequence_start": True}
    (response,) = inference.stream(step(IDS[:3], begin))
    assert not response.error_message
    wait_until(lambda: len(sequences) == before)
    code, _ = code_of(inference, step(IDS[3:], {"sequence_id": 77}))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    inference.infer("letters.tensors", padded([IDS[:2]]), parameters=begin)
    (inner,) = inference.stream(step(IDS[3:], {"sequence_id": 77}))
    assert "not under way" in inner.error_message
    inference.infer("letters.tensors", padded([IDS[2:3]]), parameters=flags(77, 1, 2))


def test_starts_and_ends_are_pipelined(inference):
    """Two sequences of one name after each other, sent without waiting for an answer."""
    requests = []
    for number in range(6):
        ids = IDS[3:] if number % 2 else IDS[:3]
        requests.append(step(ids, flags(5, number % 2, 2)))
        requests[-1].id = str(number)
    found = {r.infer_response.id: r for r in inference.stream(*requests)}
    assert not any(response.error_message for response in found.values())
    whole = inference.infer("letters.tensors", padded([IDS]), True)
    for number in "135":
        assert (read(found[number].infer_response)["logits"] == whole["logits"]).all()


def test_an_idle_sequence_ends(start_service):
    service = start_service(sequence_idle_seconds=0.2)
    with Inference(service.target) as inference:
        inference.infer(
            "letters.tensors", padded([IDS]), parameters={"sequence_id": 1, "sequence_start": True}
        )
        assert service.metric("unroll_open_sequences") == 1
        wait_until(lambda: service.metric("unroll_open_sequences") == 0)
        code, reported = code_of(inference, step(IDS, {"sequence_id": 1}))
        assert (code, "idle" in reported) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_sequences_are_bounded_and_end_with_their_model(start_service):
    service = start_service(max_sequences=2)
    with Inference(service.target) as inference:
        for number in (1, 2):
            inference.infer(
                "letters.tensors",
                padded([IDS]),
                parameters={"sequence_id": number, "sequence_start": True},
            )
        code, _ = code_of(inference, step(IDS, {"sequence_id": 3, "sequence_start": True}))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        inference.stub.RepositoryModelUnload(
            pb.RepositoryModelUnloadRequest(model_name="letters"), timeout=30
        )
        assert len(service.app.sequences) == 0
        assert code_of(inference, step(IDS, {"sequence_id": 1}))[0] is grpc.StatusCode.NOT_FOUND
