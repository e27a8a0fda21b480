"""What the sentiment model's teacher labels, and what it has not read."""

import pytest
import torch

from tests.training.tiny_minilm import READER, weights_of
from training.bundled import sentiment_teacher
from training.bundled.sentiment_teacher import (
    Teacher,
    Unlabelled,
    encoder_logits,
    fragments_of,
    review_sentences,
)
from training.data.sentiment import Example
from training.sentence_encoder import SentenceClassifier, SentenceClassifierConfig

REVIEWS = [
    Example("A film of three acts. No! The second act is far too long... It ends well?", 0),
    Example("Loved every minute of it. " + "word " * 50 + ". See it with your friends.", 1),
]
SENTENCES = [
    Example("a warm and clever film", 1), Example("a cold film", 0), Example("clever and warm", 1),
    Example("it is cold and dull", 0),
]  # fmt: skip


@pytest.fixture
def teacher(tmp_path):
    weights = {name: torch.tensor(w) for name, w in weights_of(size=24).items()}
    encoder = SentenceClassifier(weights, SentenceClassifierConfig(2))
    torch.nn.init.normal_(encoder.output.weight)
    return Teacher(encoder, READER, SENTENCES, REVIEWS, tmp_path)


def test_a_reviews_sentences_are_those_of_some_words():
    """Not "No!", nor the one of fifty words."""
    found = review_sentences(REVIEWS, 99, seed=1)
    assert [unlabelled.text for unlabelled in found] == [
        "A film of three acts.", "The second act is far too long...", "It ends well?",
        "Loved every minute of it.", "See it with your friends.",
    ]  # fmt: skip
    assert [unlabelled.sources for unlabelled in found] == [(REVIEWS[0],)] * 3 + [(REVIEWS[1],)] * 2
    few = review_sentences(REVIEWS, 2, seed=1)
    assert len(few) == 2
    assert set(few) < set(found)


def test_fragments_know_the_sentences_that_they_are_of():
    for fragment in fragments_of(SENTENCES, 50, seed=1):
        assert all(source in SENTENCES for source in fragment.sources)
        assert fragment.text.split()[0] in fragment.sources[0].text.split()


def test_a_members_logits_are_as_if_it_had_not_read_the_source(teacher):
    """Alone "dull" is known from one sentence, of which nothing is left without it."""
    text = "it is dull"
    _, read, _ = teacher.members([Unlabelled(text)])[0]
    _, unread, _ = teacher.members([Unlabelled(text, (SENTENCES[3],))])[0]
    assert read[0] > read[1]
    assert (unread[0] - unread[1]) < (read[0] - read[1])
    # A source that this member never read changes nothing.
    _, other, _ = teacher.members([Unlabelled(text, (REVIEWS[0],))])[0]
    assert torch.equal(read, other)


def test_texts_read_together_are_read_as_alone(teacher, monkeypatch):
    monkeypatch.setattr(sentiment_teacher, "_BATCH", 2)
    texts = ["not", "unrolled not , cafes", "cafe", "cafes not"]
    together = encoder_logits(teacher.encoder, READER, texts)
    alone = [encoder_logits(teacher.encoder, READER, [text])[0] for text in texts]
    torch.testing.assert_close(together, torch.stack(alone), atol=0.05, rtol=0.05)


def test_the_sum_is_said_beside_its_members(teacher):
    validation = [*SENTENCES, Example("not", 1), Example("cafe", 0)]
    stacking, lines = teacher.stacked_on(validation)
    assert stacking.weights.shape == (3,)
    assert [line.split(":")[0] for line in lines] == [*Teacher.names, "all"]
    assert all("of validation" in line for line in lines)
