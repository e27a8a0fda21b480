"""Sequences with tritonclient: requests that go on from each other's state, held by the server.

python triton_sequences.py HOST:PORT
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Sequence

import numpy as np
from refusals import refused
from tensors import batch_of_texts, tensor, texts_of
from tritonclient.grpc import InferenceServerClient, InferResult

SENTENCE = "The man went to the bank"
WITHIN_SECONDS = 60


def tag_word_by_word(client: InferenceServerClient, sequence: int | str) -> None:
    """A word a request, with the labels of the whole sentence in one."""
    whole = client.infer("pos-online", [batch_of_texts("text", SENTENCE)])
    labels, probabilities = texts_of(whole, "labels"), whole.as_numpy("probabilities")[0]
    words = SENTENCE.split()
    answers = [one_word(client, sequence, words, place) for place in range(len(words))]
    print(f"sequence {sequence!r}: {[texts_of(each, 'labels')[0] for each in answers]}")
    assert [texts_of(each, "labels") for each in answers] == [[label] for label in labels]
    np.testing.assert_array_equal(
        [each.as_numpy("probabilities")[0, 0] for each in answers], probabilities
    )


def one_word(
    client: InferenceServerClient, sequence: int | str, words: Sequence[str], place: int
) -> InferResult:
    return client.infer(
        "pos-online",
        [batch_of_texts("text", words[place])],
        sequence_id=sequence,
        sequence_start=place == 0,
        sequence_end=place == len(words) - 1,
    )


def keep_two_apart(client: InferenceServerClient) -> None:
    """Sequences side by side do not see each other."""
    sentences = {101: ("the", "bank", "went"), 102: ("a", "man", "saw")}
    expected = {}
    for number, words in sentences.items():
        whole = client.infer("pos-online", [batch_of_texts("text", " ".join(words))])
        expected[number] = texts_of(whole, "labels")
    labels: dict[int, list[str]] = {101: [], 102: []}
    for place in range(3):
        for number, words in sentences.items():
            labels[number] += texts_of(one_word(client, number, words, place), "labels")
    assert labels == expected


def read_prose_in_turns(client: InferenceServerClient) -> None:
    """The server keeps the state of prose.tensors too."""
    ids = [12, 7, 30]
    whole = read(client, ids)
    for place, number in enumerate(ids):
        flags = {"sequence_start": place == 0, "sequence_end": place == len(ids) - 1}
        last = read(client, [number], sequence_id=55, **flags)
    np.testing.assert_array_equal(last.as_numpy("logits"), whole.as_numpy("logits"))


def read(client: InferenceServerClient, ids: list[int], **sequence: int) -> InferResult:
    inputs = [tensor("tokens", np.array([ids])), tensor("lengths", np.array([[len(ids)]]))]
    return client.infer("prose.tensors", inputs, **sequence)


def tag_on_a_stream(client: InferenceServerClient) -> None:
    """Requests of a sequence may be sent before the answers come; its end is the stream's, too."""
    whole = client.infer("pos-online", [batch_of_texts("text", SENTENCE)])
    answers: queue.Queue[tuple] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    words = SENTENCE.split()
    for place, word in enumerate(words):
        client.async_stream_infer(
            "pos-online",
            [batch_of_texts("text", word)],
            sequence_id=7,
            sequence_start=place == 0,
            sequence_end=place == len(words) - 1,
        )
    client.stop_stream()
    labels = []
    for _ in words:
        result, error = answers.get(timeout=WITHIN_SECONDS)
        assert result is not None, error
        labels += texts_of(result, "labels")
    assert labels == texts_of(whole, "labels")


def refuse_one_that_never_began(client: InferenceServerClient) -> None:
    with refused("INVALID_ARGUMENT", "999"):
        client.infer("pos-online", [batch_of_texts("text", "bank")], sequence_id=999)


def main(target: str) -> None:
    with InferenceServerClient(target) as client:
        tag_word_by_word(client, 42)
        tag_word_by_word(client, "a name")
        keep_two_apart(client)
        read_prose_in_turns(client)
        tag_on_a_stream(client)
        refuse_one_that_never_began(client)


if __name__ == "__main__":
    main(*sys.argv[1:])
