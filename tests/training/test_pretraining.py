from collections import Counter

import pytest
import torch
from torch.nn.functional import cross_entropy

from training.models import DesignInvalid
from training.models.classifier import Classifier, ClassifierConfig
from training.models.options import RecurrentOptions
from training.pretraining import LanguageReader, LanguageTask
from training.sampled_softmax import noise_logits, sampled_cross_entropy

# After 1 comes 2, after 2 comes 3, after 3 comes 1.
TEXTS = [[1, 2, 3, 1, 2, 3], [2, 3, 1, 2], [3, 1, 2, 3, 1]] * 20


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make_classifier(**options):
    recurrent = RecurrentOptions(**{"hidden_size": 8, "bidirectional": True, **options})
    return Classifier(ClassifierConfig(6, 2, 8, recurrent))


def test_with_every_word_as_noise_it_is_the_whole_softmax():
    """Drawn evenly and each word once, the sampled softmax leaves nothing out."""
    features, words = torch.randn(7, 4), torch.randn(5, 4)
    targets = torch.randint(0, 5, (7,))
    even = noise_logits(Counter(dict.fromkeys(range(5), 3)), 5)
    sampled = sampled_cross_entropy(features, targets, words, torch.arange(5), even)
    torch.testing.assert_close(sampled, cross_entropy(features @ words.T, targets))


def test_noise_is_drawn_by_a_power_of_the_frequency():
    chances = noise_logits(Counter({1: 16, 2: 1}), 4).exp()
    assert chances.tolist() == pytest.approx([0, 8 / 9, 1 / 9, 0])


def test_the_classifiers_own_encoder_learns_what_stands_beside_what():
    classifier = make_classifier()
    before = classifier.embedding.weight.detach().clone()
    model, task = LanguageReader(classifier), LanguageTask(TEXTS, 6, seed=1, batch=8, draws=6)
    optimizer = torch.optim.Adam(model.parameters(), 0.05)
    untrained = task.validate(model)
    for epoch in range(8):
        for batch in task.batches(epoch):
            optimizer.zero_grad()
            task.loss(model, batch, None)[0].backward()
            optimizer.step()
    assert task.validate(model) < 0.2 * untrained
    assert not torch.equal(classifier.embedding.weight, before)


def test_what_is_said_does_not_depend_on_the_word_itself():
    """From the left nothing to the right is seen, and the other way round."""
    model = LanguageReader(make_classifier()).eval()
    tokens, lengths = torch.tensor([[1, 2, 3, 4]]), torch.tensor([4])
    other = torch.tensor([[1, 2, 5, 4]])
    (after, before), (after_other, before_other) = model(tokens, lengths), model(other, lengths)
    torch.testing.assert_close(after[:, :2], after_other[:, :2])
    torch.testing.assert_close(before[:, 3:], before_other[:, 3:])
    assert not torch.allclose(after[:, 2], after_other[:, 2])


@pytest.mark.parametrize("options", [{"layers": 2}, {"bidirectional": False}, {"output_mlp": 1}])
def test_an_encoder_that_would_see_the_word_is_refused(options):
    with pytest.raises(DesignInvalid, match="one bidirectional layer"):
        LanguageReader(make_classifier(**options))
