import pytest
import torch

from tests import tiny
from training.models import DesignInvalid, config_from_json, config_to_json
from training.models.cells import CELLS
from training.models.layers import run_in_bfloat16
from training.models.options import RecurrentOptions
from training.models.recurrent import RecurrentStack


@pytest.fixture(params=sorted(CELLS))
def cell(request):
    return request.param


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_padded_row_is_the_row_alone(cell, bidirectional):
    """Outputs and final state of a ragged batch are those of each row run by itself."""
    torch.manual_seed(0)
    stack = RecurrentStack(RecurrentOptions(cell, 5, 2, bidirectional), 4).eval()
    x, lengths = torch.randn(3, 7, 4), torch.tensor([7, 2, 5])
    y, state = stack(x, None, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone, final = stack(x[row : row + 1, :length])
        torch.testing.assert_close(y[row, :length], alone[0])
        assert not y[row, length:].any()
        for part, expected in zip(state, final, strict=True):
            torch.testing.assert_close(part[row], expected[0])


def test_steps_are_the_unrolled_sequence(cell):
    """One function: time 1 again and again, from an explicit state, is the whole sequence."""
    model = tiny.generator(cell=cell).build()
    tokens = torch.randint(1, 10, (2, 9))
    whole, final = model(tokens)
    state = None
    for time in range(9):
        logits, state = model(tokens[:, time : time + 1], state)
        torch.testing.assert_close(logits[:, 0], whole[:, time])
    for part, expected in zip(state, final, strict=True):
        torch.testing.assert_close(part, expected)


def test_seq2seq_attends_to_its_own_source_only(cell):
    """Padding a source and having longer batch-mates change nothing for a row."""
    model = tiny.seq2seq(cell=cell).build()
    source = torch.randint(1, 10, (2, 8))
    tokens = torch.randint(1, 8, (2, 4))
    together, _ = model(tokens, model.encode(source, torch.tensor([8, 3])))
    alone, _ = model(tokens[1:], model.encode(source[1:, :3], torch.tensor([3])))
    torch.testing.assert_close(together[1:], alone)
    state = model.encode(source, torch.tensor([8, 3]))
    weights = model.attend(torch.randn(2, 4, 11), state[0], state[1])
    assert not weights[1, :, 3:].any()
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(2, 4))


def test_scaled_scores_are_those_over_the_root_of_their_width():
    """Vaswani et al. 2017, section 3.2.1: softmax(q k / sqrt(d))."""
    plain, scaled = (tiny.seq2seq(scaled=is_scaled).build() for is_scaled in (False, True))
    scaled.load_state_dict(plain.state_dict())
    state = plain.encode(torch.randint(1, 10, (2, 8)), torch.tensor([8, 3]))
    features = torch.randn(2, 4, 11)
    weights = plain.attend(features, state[0], state[1])
    width = state[0].shape[2]
    expected = torch.softmax(torch.log(weights) / width**0.5, dim=2)
    torch.testing.assert_close(scaled.attend(features, state[0], state[1]), expected)


def test_an_alignment_is_what_each_next_token_looks_at(cell):
    """Its average of the source is what the step mixes into that token's logits."""
    model = tiny.seq2seq(cell=cell).build()
    state = model.encode(torch.randint(1, 10, (2, 8)), torch.tensor([8, 3]))
    tokens = torch.randint(1, 8, (2, 4))
    weights = model.align(tokens, state)
    assert weights.shape == (2, 4, tiny.SOURCE_LIMIT)
    assert not weights[1, :, 3:].any()
    features, _ = model.decoder(model.target_embedding(tokens), state[2:])
    mixed = torch.tanh(model.combine(torch.cat((features, weights @ state[0]), dim=2)))
    torch.testing.assert_close(model.output(mixed), model(tokens, state)[0])


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_bfloat16_is_for_training_alone(cell):
    torch.manual_seed(0)
    stack = RecurrentStack(RecurrentOptions(cell, 16), 8)
    x, lengths = torch.randn(3, 5, 8), torch.tensor([5, 3, 1])
    exact = stack.read(x, lengths)
    run_in_bfloat16(stack, True)
    near = stack.read(x, lengths)
    assert near.dtype == torch.float32
    assert 1e-6 < (near - exact).abs().max() < 0.05
    assert torch.equal(stack.eval().read(x, lengths), exact)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_rows_of_one_length_train_in_bfloat16(cell):
    torch.manual_seed(0)
    stack = RecurrentStack(RecurrentOptions(cell, 16, layers=2), 8)
    x = torch.randn(3, 5, 8)
    exact, final = stack(x)
    run_in_bfloat16(stack, True)
    near, near_final = stack(x)
    for part, other in zip((exact, *final), (near, *near_final), strict=True):
        assert other.dtype == torch.float32
        assert 1e-6 < (part - other).abs().max() < 0.05
    near.sum().backward()
    assert all(weight.grad.dtype == torch.float32 for weight in stack.parameters())
    assert torch.equal(stack.eval()(x)[0], exact)


def test_classifier_reads_its_own_words_only(cell):
    model = tiny.classifier(cell=cell).build()
    tokens = torch.randint(1, 8, (2, 6))
    together = model(tokens, torch.tensor([6, 2]))
    torch.testing.assert_close(together[1:], model(tokens[1:, :2], torch.tensor([2])))


@pytest.mark.parametrize("make", [tiny.generator, tiny.seq2seq, tiny.classifier])
def test_a_configuration_survives_json(make):
    config = make().build().config
    assert config_from_json(config_to_json(config)) == config


def test_options_that_do_not_exist_are_refused():
    with pytest.raises(DesignInvalid, match="'transformer' is not one of classifier"):
        config_from_json({"architecture": "transformer"})
    with pytest.raises(DesignInvalid, match="cell 'qrnn' is not one of rnn, gru, lstm"):
        RecurrentOptions(cell="qrnn")
    content = config_to_json(tiny.generator().build().config)
    with pytest.raises(DesignInvalid, match="colour"):
        config_from_json({**content, "colour": 1})
