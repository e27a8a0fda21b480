"""A small model learns from others' logits."""

import math

import pytest
import torch

from training.distillation import (
    cached_logits,
    distillation_loss,
    fit_stacking,
    sample_fragments,
    weights_digest,
)


def test_nothing_is_lost_where_the_logits_are_the_teachers_but_for_a_constant():
    teacher = torch.tensor([[2.0, -1.0], [0.3, 0.2]])
    same = distillation_loss(teacher + torch.tensor([[5.0], [-3.0]]), teacher, 2.0)
    assert same.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert (distillation_loss(-teacher, teacher, 2.0) > 0.001).all()


def test_a_gradient_is_that_of_softened_probabilities_times_the_temperature():
    """Hinton et al. 2015, equation 2, times T²."""
    logits = torch.tensor([[1.0, -1.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 2.0]])
    distillation_loss(logits, teacher, 4.0).sum().backward()
    wanted = 4.0 * ((logits / 4).softmax(1) - (teacher / 4).softmax(1))
    torch.testing.assert_close(logits.grad, wanted.detach())


def test_stacking_weighs_what_knows_and_ignores_what_does_not():
    torch.manual_seed(0)
    labels = torch.randint(2, (4_000,))
    truth = 2.0 * labels - 1
    good, noise = truth + torch.randn(4_000), 5 * torch.randn(4_000)
    members = torch.stack([torch.stack((-m, m), 1) for m in (good, noise)], 1)
    stacking = fit_stacking(members, labels)
    # Of N(±1, 1) the log-odds are 2x, half of it in each logit.
    assert stacking.weights.tolist() == pytest.approx([1.0, 0.0], abs=0.1)
    probabilities = stacking(members).softmax(dim=1)[:, 1]
    assert probabilities.mean().item() == pytest.approx(labels.float().mean().item(), abs=0.01)


def test_stacking_shifts_a_member_that_leans_to_one_label():
    labels = torch.tensor([0, 0, 0, 1] * 100)
    leaning = torch.zeros(400, 1, 2)
    bias = fit_stacking(leaning, labels).bias
    assert (bias[0] - bias[1]).item() == pytest.approx(math.log(3), abs=0.05)


def test_logits_are_computed_once_and_again_for_other_texts_or_another_model(tmp_path, monkeypatch):
    monkeypatch.setattr("training.distillation._CACHED_TOGETHER", 2)
    asked = []

    def compute(texts):
        asked.append(list(texts))
        return torch.tensor([[float(len(text)), 0.0] for text in texts])

    for _ in range(2):
        found = cached_logits(compute, ["a", "bb", "ccc"], "one", tmp_path)
        assert found[:, 0].tolist() == [1, 2, 3]
    assert asked == [["a", "bb"], ["ccc"]]
    # What was stopped goes on where it was: the first part is there.
    cached_logits(compute, ["a", "bb", "dddd"], "one", tmp_path)
    cached_logits(compute, ["ccc"], "two", tmp_path)
    assert asked[2:] == [["dddd"], ["ccc"]]


def test_a_digest_names_the_weights():
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 2)
    before = weights_digest(model)
    assert weights_digest(model) == before
    with torch.no_grad():
        model.bias[0] += 1
    assert weights_digest(model) != before


def test_fragments_are_spans_of_the_texts_they_name():
    texts = ["one two three four five", "six", "seven eight nine", "ten eleven twelve thirteen"]
    fragments = sample_fragments(texts, 200, seed=1)
    assert len(fragments) == 200
    assert sample_fragments(texts, 200, seed=1) == fragments
    assert {len(f.sources) for f in fragments} == {1, 2}
    for fragment in fragments:
        assert 1 not in fragment.sources  # one word is no span
        if len(fragment.sources) == 1:
            assert fragment.text in texts[fragment.sources[0]]
            assert len(fragment.text.split()) >= 2
        else:
            first, second = fragment.sources
            assert first != second
            assert fragment.text.split()[0] in texts[first].split()
            assert fragment.text.split()[-1] in texts[second].split()


def test_texts_without_spans_have_no_fragments():
    assert sample_fragments(["one", ""], 5, seed=1) == []
