"""A row of the output layer for what has no label."""

import pytest
import torch

from training.models.classifier import Classifier, ClassifierConfig
from training.models.options import RecurrentOptions
from training.other_label import BIASES, DECAYS, Read, fit_other, keep_labels

KNOWN, SIZE = 6, 8  # labels that stay, and features


@pytest.fixture
def model():
    torch.manual_seed(0)
    made = Classifier(ClassifierConfig(9, KNOWN + 3, 4, RecurrentOptions("lstm", SIZE))).eval()
    torch.nn.init.uniform_(made.output.weight, -1, 1)
    return made


def drawn(examples, seed):
    """Label n is where feature n is large; what lies at the last feature has none."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, KNOWN + 1, (examples,), generator=generator)
    features = 0.7 * torch.randn(examples, SIZE, generator=generator)
    features[torch.arange(examples), torch.where(labels == KNOWN, SIZE - 1, labels)] += 2.0
    return Read(features, labels, KNOWN)


def test_the_labels_that_stay_keep_their_logits(model):
    tokens, lengths = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    kept = [7, 0, 2, 3, 5, 8]
    with torch.no_grad():
        before = model(tokens, lengths)[0]
        keep_labels(model, kept)
        after = model(tokens, lengths)[0]
    torch.testing.assert_close(after[:-1], before[kept])
    assert after.argmax() < KNOWN
    assert after[-1] < -1000
    assert model.config.labels == KNOWN + 1


def other_found(model, validation):
    with torch.no_grad():
        said = model.output(validation.features).argmax(dim=1)
    is_right = said == validation.labels
    return (said[validation.is_other] == KNOWN).float().mean(), 100 * is_right.float().mean()


def learnt(model, cost):
    keep_labels(model, range(KNOWN))
    with torch.no_grad():
        model.output.weight[:-1] = 3 * torch.eye(SIZE)[:KNOWN]
        model.output.bias[:-1] = 0.0
    validation = drawn(4_000, seed=2)
    never = other_found(model, validation)
    facts = fit_other(model, drawn(4_000, seed=1), 1.0, validation, cost)
    assert facts["other_decay"] in DECAYS
    assert facts["other_bias"] in BIASES
    return facts, never, other_found(model, validation)


def test_what_has_no_label_is_found(model):
    _, never, (found, right) = learnt(model, cost=0.5)
    assert never[0] == 0
    assert found > 0.8
    assert right > never[1]


def test_a_label_that_may_cost_more_is_said_more_often(model):
    facts, _, (found, right) = learnt(model, cost=0.0)
    more, _, (often, fewer_right) = learnt(model, cost=3.0)
    assert more["other_bias"] > facts["other_bias"]
    assert often > found
    assert fewer_right < right
