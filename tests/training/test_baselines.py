"""The lecture's alternatives to a recurrent network: what each can and cannot distinguish."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cross_entropy, pad

from bundle.tokenizer import count_symbols
from tests import tiny
from training.bundled.sentiment import SentimentTask, pair_accuracy
from training.data.contrast import HELD_OUT_WORDS, make_swapped_pairs
from training.data.sentiment import Example
from training.loop import FitSettings, Trainer
from training.models import DesignInvalid, build, config_from_json, config_to_json
from training.models.baselines import READERS, BaselineConfig, TextTooLong
from training.models.cells import CELLS

WIDTH = 3
VOCABULARY = 9


@pytest.fixture(params=READERS)
def reader(request):
    return request.param


@pytest.fixture(params=sorted(CELLS))
def cell(request):
    return request.param


def model_of(reader, width=WIDTH):
    return tiny.baseline(reader, width).build()


def logits(model, *words):
    """Of one text alone."""
    return model(torch.tensor([words]), torch.tensor([len(words)]))[0]


@pytest.mark.parametrize("padding", [1, 2, 40])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_padding_changes_nothing(reader, length, padding):
    """Nor does what stands in it, and to a bag or a window not by a bit."""
    model = model_of(reader)
    words = torch.randint(1, VOCABULARY, (1, length))
    alone = model(words, torch.tensor([length]))
    for filling in (0, 4):
        wide = pad(words, (0, padding), value=filling)
        padded = model(wide, torch.tensor([length]))
        torch.testing.assert_close(padded, alone)
        # A product's own rounding may depend on its number of windows: tests/export has their bits.
        assert torch.equal(padded, alone) or reader in ("convolution", "feedforward")


def test_a_row_reads_its_own_words_only(reader):
    model = model_of(reader, width=0 if reader == "bag" else 6)
    tokens, lengths = torch.randint(1, VOCABULARY, (4, 6)), torch.tensor([6, 1, 4, 2])
    together = model(tokens, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = model(tokens[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone)


@pytest.mark.parametrize("length", [1, 2, 5, 12])
def test_every_reader_but_the_feed_forward_one_reads_any_length(reader, length):
    model = model_of(reader)
    words = torch.randint(1, VOCABULARY, (length,)).tolist()
    if reader == "feedforward" and length > WIDTH:
        with pytest.raises(TextTooLong, match=rf"a text has {length} words, .* for 3 positions"):
            logits(model, *words)
    else:
        assert logits(model, *words).isfinite().all()


def test_a_bag_of_words_loses_their_order_and_no_word():
    """The same bits for any order; other bits for another word or another count."""
    model = model_of("bag")
    said = logits(model, 1, 2, 3, 3, 4)
    assert torch.equal(said, logits(model, 3, 4, 1, 3, 2))
    assert not torch.equal(said, logits(model, 1, 2, 3, 4))
    assert not torch.equal(said, logits(model, 1, 2, 3, 3, 5))


def test_a_bag_of_words_counts_words_and_no_padding():
    counts = model_of("bag").counts(
        torch.tensor([[2, 5, 2, 0], [7, 1, 1, 1]]), torch.tensor([3, 1])
    )
    assert counts.tolist() == [[0, 0, 2, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1, 0, 0]]


def test_a_bag_of_words_gets_no_swapped_pair_right():
    """Whatever its weights: "not bad, great" and "not great, bad" are one bag."""
    pairs = make_swapped_pairs(HELD_OUT_WORDS, 20, seed=1)
    tokenizer = count_symbols("words", (e.text for pair in pairs for e in pair))
    size = len(tokenizer.vocabulary)
    torch.manual_seed(0)
    for reader, width, sees_order in (("bag", 0, False), ("convolution", 3, True)):
        model = build(BaselineConfig(reader, size, 2, 6, width)).eval()
        for positive, negative in pairs:
            rows = [tokenizer.encode(example.text).ids for example in (positive, negative)]
            assert torch.equal(logits(model, *rows[0]), logits(model, *rows[1])) is not sees_order
        if reader == "bag":
            assert pair_accuracy(model, tokenizer, pairs) == 0.0


def test_a_moving_window_forgets_what_is_before_it():
    """The same bits whatever comes before the last three words, and their order counts."""
    model = model_of("window")
    said = logits(model, 1, 2, 3)
    assert torch.equal(said, logits(model, 7, 8, 1, 2, 3))
    assert not torch.equal(said, logits(model, 2, 1, 3))


def test_a_shorter_text_leaves_the_start_of_a_window_empty():
    model = model_of("window")
    embedded = model.embedding(torch.tensor([5]))
    side_by_side = torch.cat((torch.zeros(2, 6), embedded)).flatten()
    expected = model.output(torch.tanh(model.layer(side_by_side)))
    torch.testing.assert_close(logits(model, 5), expected)


def test_a_convolution_is_pytorchs():
    """The same weights in a Conv1d over the text alone, its maximum, and the linear layer."""
    model = model_of("convolution")
    network = torch.nn.Conv1d(6, 6, WIDTH)
    weight = model.layer.weight.view(6, WIDTH, 6).transpose(1, 2)
    words = torch.randint(1, VOCABULARY, (8,))
    with torch.no_grad():
        network.weight.copy_(weight)
        network.bias.copy_(model.layer.bias)
        features = torch.tanh(network(model.embedding(words).T.unsqueeze(0))).amax(dim=2)
        torch.testing.assert_close(logits(model, *words.tolist()), model.output(features)[0])


def test_a_convolution_finds_the_same_words_anywhere():
    """One set of weights at all positions: its features are the same maximum, shifted or not."""
    model = model_of("convolution")
    found = model.features(torch.tensor([[1, 2, 3, 4]]), torch.tensor([4]))
    shifted = model.features(torch.tensor([[4, 1, 2, 3, 4]]), torch.tensor([5]))
    assert (shifted >= found - 1e-6).all()
    windows = [model.features(torch.tensor([w]), torch.tensor([3])) for w in ([1, 2, 3], [2, 3, 4])]
    torch.testing.assert_close(found, torch.maximum(*windows))


def test_a_feed_forward_network_shares_nothing_between_positions():
    """What position 1 learns of a word, and what position 2 forgets, is theirs alone."""
    model = model_of("feedforward")
    logits(model, 4).sum().backward()
    assert model.layers[0].weight.grad.any()
    assert all(layer.weight.grad is None for layer in model.layers[1:])
    with torch.no_grad():
        model.layers[1].weight[:, :6] = 0.0  # of the word, not of the state before
    assert torch.equal(logits(model, 4, 5), logits(model, 4, 6))
    assert not torch.equal(logits(model, 5, 4), logits(model, 6, 4))


def test_only_the_feed_forward_network_grows_with_the_length_it_is_made_for():
    """Twice the positions, twice the weights; a recurrent network's step is one for all."""
    few, many = (
        sum(p.numel() for p in model_of("feedforward", width).layers.parameters())
        for width in (4, 8)
    )
    assert many == 2 * few


def test_baselines_learn_in_the_same_loop(tmp_path, reader):
    """The sentiment script's own task and trainer; the loss on what is learned falls."""
    texts = [("good food", 1), ("bad food", 0), ("the food is great", 1), ("is not great", 0)] * 16
    examples = [Example(text, label) for text, label in texts]
    task = SentimentTask(tiny.WORD_READER, examples, (), examples, seed=0)
    config = replace(tiny.baseline(reader, 4).build().config, embedding_size=16)
    torch.manual_seed(0)
    model = build(config)
    history = Trainer(model, task, FitSettings(0, 30, 0.02), tmp_path).fit()
    assert history.validation_loss[-1] < 0.2 < history.validation_loss[0]


def test_a_baselines_configuration_survives_json(reader):
    config = model_of(reader).config
    assert config_from_json(config_to_json(config)) == config


@pytest.mark.parametrize(
    ("reader", "width", "message"),
    [
        ("trees", 3, "reader 'trees' is not one of bag, window, convolution, feedforward"),
        ("bag", 3, "a bag of words has no width"),
        ("window", 0, "the width of a window reader is at least 1"),
    ],
)
def test_readers_that_do_not_exist_are_refused(reader, width, message):
    with pytest.raises(DesignInvalid, match=message):
        BaselineConfig(reader, VOCABULARY, 2, 6, width)


# -- lengths that training never saw -----------------------------------------------------------


TRAINED_TIME = 5


@pytest.fixture
def taught(tmp_path):
    """Trains a model for two steps on texts of TRAINED_TIME tokens."""

    class TrainingTask:
        def __init__(self, loss):
            self.loss = loss

        def batches(self, epoch):
            return [torch.randint(1, VOCABULARY, (8, TRAINED_TIME))] * 2

        def validate(self, model):
            return 0.0

    def teach(model, loss):
        task = TrainingTask(lambda model, tokens, carry: (loss(model, tokens), None))
        Trainer(model, task, FitSettings(0, 1, 0.01), tmp_path).fit()
        return model

    return teach


def classifying(model, tokens):
    labels = tokens[:, 0] % 2
    return cross_entropy(model(tokens, torch.full((len(tokens),), tokens.shape[1])), labels)


def generating(model, tokens):
    logits, _ = model(tokens[:, :-1])
    return cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def test_a_classifier_reads_three_times_the_length_it_was_trained_on(taught, cell):
    """One update rule: every added word still reaches the answer, where feed-forward refuses."""
    long = torch.randint(1, VOCABULARY, (2, 3 * TRAINED_TIME))
    lengths = torch.tensor([3 * TRAINED_TIME, 2 * TRAINED_TIME])
    recurrent = taught(tiny.classifier(cell=cell).build(), classifying)
    together = recurrent(long, lengths)
    assert together.isfinite().all()
    torch.testing.assert_close(together[1:], recurrent(long[1:, : lengths[1]], lengths[1:]))
    feed_forward = taught(tiny.baseline("feedforward", TRAINED_TIME).build(), classifying)
    with pytest.raises(TextTooLong, match=r"a text has 15 words, .* for 5 positions"):
        feed_forward(long, lengths)


def test_a_generator_unrolls_to_three_times_the_length_it_was_trained_on(taught, cell):
    """Its step, taken 15 times from the state after each, is the whole sequence at once."""
    model = taught(tiny.generator(cell=cell).build(), generating)
    long = torch.randint(1, VOCABULARY, (2, 3 * TRAINED_TIME))
    whole, final = model(long)
    assert whole.isfinite().all()
    first, state = model(long[:, :1])
    stepped = [first[:, 0]]
    for time in range(1, 3 * TRAINED_TIME):
        logits, state = model.step(long[:, time], state)
        stepped.append(logits)
    torch.testing.assert_close(torch.stack(stepped, dim=1), whole)
    for part, expected in zip(state, final, strict=True):
        torch.testing.assert_close(part, expected)
