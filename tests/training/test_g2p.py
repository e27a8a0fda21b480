from types import SimpleNamespace

import pytest
import torch

from bundle.tokenizer import Tokenizer, count_symbols
from bundle.vocabulary import Vocabulary
from training.bundled.g2p import TASK, pairs_of

SOURCE = count_symbols("characters", ["abc"])
PHONES = Vocabulary(("A", "B", "C"), has_markers=True)


class Speaks:
    """Says the phone of each letter, one after the other; its state is the source and a count."""

    def encode(self, source, lengths):
        return source, torch.zeros(len(source), dtype=torch.int64)

    def __call__(self, tokens, state):
        source, count = state
        ends = torch.full((len(source), 1), PHONES.end_id)
        phones = [PHONES.id_of(s.upper()) for s in SOURCE.vocabulary.symbols]
        phone_of = torch.tensor([PHONES.end_id, *phones])  # padding is after a word's end
        said = torch.cat((phone_of[source], ends), dim=1).gather(1, count.unsqueeze(1))
        logits = torch.full((len(source), 1, len(PHONES)), -20.0).scatter(2, said.unsqueeze(2), 5.0)
        return logits, (source, (count + 1).clamp(max=source.shape[1]))


TRAINED = SimpleNamespace(
    tokenizers={"input": SOURCE, "output": Tokenizer("symbols", PHONES)},
    limits={"input_tokens": 32, "output_tokens": 40},
    length_penalty=None,
)


@pytest.mark.parametrize("beam", TASK.beams)
def test_a_word_is_judged_by_its_nearest_variant(beam):
    """ "ab" is right in its second variant; "cc" has one of two phones wrong, "b" is right."""
    words = {"ab": [("B", "A"), ("A", "B")], "cc": [("C", "B"), ("A", "A", "A")], "b": [("B",)]}
    held_out = TASK.held_out(pairs_of(words), TRAINED)
    answers = TASK.answers(Speaks(), TRAINED, held_out.questions, beam)
    word_errors, phone_errors = held_out.measure(answers)
    assert word_errors.value == pytest.approx(100 / 3)
    assert phone_errors.value == pytest.approx(100 / 5)
