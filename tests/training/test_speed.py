import torch

from training import speed
from training.models.options import RecurrentOptions
from training.models.tagger import TaggerConfig
from training.tasks.tag import Encoded, TagTask

ROWS = [Encoded([1 + n % 3] * n, [n % 2] * n) for n in range(1, 9)]
CONFIG = TaggerConfig(5, 2, 8, RecurrentOptions("lstm", 6, bidirectional=True))


def make_task():
    return TagTask(ROWS, ROWS, seed=1, batch=4)


def test_operations_are_those_of_the_matrix_products():
    """Two directions of four gates over 8 + 6 numbers, and 12 to 2: forward and twice backward."""
    assert speed.operations_a_token(CONFIG) == 3 * 2 * (2 * 24 * 14 + 12 * 2)


def test_every_way_to_train_reads_and_learns():
    torch.manual_seed(0)
    for way in speed.contenders(make_task(), CONFIG):
        before = [parameter.clone() for parameter in way.model.parameters()]
        assert way.tokens_a_second(0.01) > 0
        assert not all(map(torch.equal, before, way.model.parameters()))


def test_padded_and_packed_give_the_same_logits_inside_a_row():
    torch.manual_seed(0)
    padded, packed = (speed.PlainTagger(CONFIG, how).eval() for how in (False, True))
    packed.load_state_dict(padded.state_dict())
    tokens, lengths = torch.tensor([[1, 2, 3], [2, 2, 1]]), torch.tensor([3, 3])
    torch.testing.assert_close(padded(tokens, lengths), packed(tokens, lengths))


def test_the_table_says_what_was_found():
    found = {
        "tokens_a_second": {"here": 3000.0, "plain loop, padded": 1500.0},
        "times_as_fast": 2.0, "share_of_product_rate": 0.25, "machine_gflops": 80.0, "threads": 2,
    }  # fmt: skip
    assert "| here | 3,000 |" in speed.table(found)
    assert "2.00 times the faster plain loop" in speed.table(found)
