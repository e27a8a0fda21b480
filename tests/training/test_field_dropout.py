import torch

from training.field_dropout import FieldDropout


def drawn(fields, rows=20_000):
    return fields.shown(rows, torch.Generator().manual_seed(3))


def test_as_many_vectors_as_said_hide_something_and_any_number_of_values():
    shown = drawn(FieldDropout(5, 0.4))
    hides = ~shown.all(dim=1)
    assert abs(hides.float().mean() - 0.4) < 0.02
    counts = shown[hides].sum(dim=1).bincount(minlength=5)[1:].float()
    assert len(counts) == 4  # one to four: something is known, something hidden
    assert (counts / counts.sum() - 0.25).abs().max() < 0.03
    assert (shown[hides].float().mean(dim=0) - 0.5).abs().max() < 0.03  # each field alike


def test_half_of_those_show_a_given_set_alone():
    shown = drawn(FieldDropout(6, 1.0, (1, 4)))
    is_set = (shown == torch.tensor([False, True, False, False, True, False])).all(dim=1)
    assert 0.5 < is_set.float().mean() < 0.55  # by chance some others do


def test_nothing_is_hidden_of_none_and_of_one_field():
    assert drawn(FieldDropout(3, 0.0)).all()
    assert drawn(FieldDropout(1, 1.0)).all()


def test_draws_differ_and_a_seed_repeats_them():
    fields = FieldDropout(5, 0.9)
    assert torch.equal(drawn(fields), drawn(fields))
    assert not torch.equal(fields.shown(50), fields.shown(50))
