import random
from types import SimpleNamespace

import pytest
import torch

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from training.bundled.pos import TASK, TaggedSentence, encode
from training.models.options import RecurrentOptions
from training.models.tagger import Tagger, TaggerConfig
from training.tasks.tag import (
    NO_TAG,
    NOT_SCORED,
    Encoded,
    TagTask,
    make_batches,
    previous_labels,
)

READER = Tokenizer("words", Vocabulary(("Mr", ".", "Smith", "spoke")))
NUMBERS = {"np": 0, "vbd": 1, ".": 2}
SENTENCE = (("Mr.", "np"), ("Smith", "np"), ("whispered", "vbd"), ("!", "?"))


def test_every_token_of_a_word_has_the_tag_of_the_word():
    assert encode(READER, NUMBERS, SENTENCE) == TaggedSentence(
        tokens=[1, 2, 3, 5, 5], labels=[0, 0, 0, 1, NO_TAG], words=[0, 0, 1, 2, 3]
    )


def test_the_true_last_label_stands_before_each_token():
    labels = torch.tensor([[4, 0, 2], [3, NOT_SCORED, NOT_SCORED]])
    assert previous_labels(labels).tolist() == [[0, 5, 1], [0, 4, 0]]


def test_batches_hold_what_the_tagger_reads():
    sentences = [Encoded([n] * n, [n] * n) for n in (3, 1)]
    ((tokens, lengths, labels),) = make_batches(sentences, random.Random(1))
    assert tokens.tolist() == [[1, 0, 0], [3, 3, 3]]
    assert lengths.tolist() == [1, 3]
    assert labels.tolist() == [[1, NOT_SCORED, NOT_SCORED], [3, 3, 3]]


@pytest.mark.parametrize(
    "recurrent",
    [
        RecurrentOptions("lstm", 8, bidirectional=True),
        RecurrentOptions("lstm", 8, recurrence="hidden_and_output"),
    ],
)
def test_a_tagger_learns_a_few_sentences(recurrent):
    """Both taggers learn with the one task; what is measured and validated runs free."""
    torch.manual_seed(0)
    rows = [Encoded([1, 2, 3], [0, 1, 2]), Encoded([3, 1], [2, 0])]
    task = TagTask(rows, rows, seed=1)
    fed_back = 4 if recurrent.reads_output else 0
    model = Tagger(TaggerConfig(6, 3, 8, recurrent, label_embedding_size=fed_back))
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    before = task.validate(model)
    for epoch in range(30):
        for batch in task.batches(epoch):
            optimizer.zero_grad()
            task.loss(model, batch, None)[0].backward()
            optimizer.step()
    with torch.no_grad():
        assert task.validate(model) < 0.1 < before
    trained = SimpleNamespace(tokenizers={"input": READER}, labels=("np", "vbd", "."))
    said = TASK.answers(model.eval(), trained, [["Mr", ".", "Smith"], ["Smith", "Mr"]])
    assert said == [["np", "vbd", "."], [".", "np"]]
