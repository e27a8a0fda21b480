import pytest
import torch

from bundle.tokenizer import count_symbols
from bundle.vocabulary import Vocabulary
from training.g2p import BEAM, GREEDY, error_rates

SOURCE = count_symbols("characters", ["abc"])
PHONES = Vocabulary(("A", "B", "C"), has_markers=True)


class Speaks:
    """Says the phone of each letter, one after the other; its state is the source and a count."""

    def encode(self, source, lengths):
        return source, torch.zeros(len(source), dtype=torch.int64)

    def __call__(self, tokens, state):
        source, count = state
        ends = torch.full((len(source), 1), PHONES.end_id)
        phone_of = torch.tensor([0, *(PHONES.id_of(s.upper()) for s in SOURCE.vocabulary.symbols)])
        said = torch.cat((phone_of[source], ends), dim=1).gather(1, count.unsqueeze(1))
        logits = torch.full((len(source), 1, len(PHONES)), -20.0).scatter(2, said.unsqueeze(2), 5.0)
        return logits, (source, (count + 1).clamp(max=source.shape[1]))


@pytest.mark.parametrize("beam", [GREEDY, BEAM])
def test_a_word_is_judged_by_its_nearest_variant(beam):
    """ "ab" is right in its second variant; "cc" has one of two phones wrong, "b" is right."""
    words = {"ab": [("B", "A"), ("A", "B")], "cc": [("C", "B"), ("A", "A", "A")], "b": [("B",)]}
    word_errors, phone_errors = error_rates(Speaks(), SOURCE, PHONES, words, beam)
    assert word_errors == pytest.approx(100 / 3)
    assert phone_errors == pytest.approx(100 / 5)
