import torch

from bundle.tokenizer import Tokenizer
from bundle.vocabulary import Vocabulary
from training.word_dropout import WordDropout

READER = Tokenizer("endings", Vocabulary(("the", "walking", "lower:ing")))
COUNTS = {"the": 999, "walking": 1}


def test_a_rare_word_is_dropped_more_often_than_a_frequent_one():
    torch.manual_seed(0)
    read = WordDropout(READER, COUNTS, strength=1.0)(torch.tensor([[1] * 4000, [2] * 4000]))
    assert set(read[0].tolist()) == {1, READER.vocabulary.unknown_id}
    assert (read[0] == 1).float().mean() > 0.99
    assert set(read[1].tolist()) == {2, 3}
    assert 0.45 < (read[1] == 3).float().mean() < 0.55


def test_endings_and_padding_stay():
    tokens = torch.tensor([[3, 0, READER.vocabulary.unknown_id] * 500])
    assert torch.equal(WordDropout(READER, COUNTS, strength=100.0)(tokens), tokens)


def test_without_strength_nothing_is_dropped():
    tokens = torch.tensor([[2] * 500])
    assert torch.equal(WordDropout(READER, COUNTS, strength=0.0)(tokens), tokens)
