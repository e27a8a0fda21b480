import pytest
import torch

from training.models import DesignInvalid, build
from training.models.dropout import make_dropout
from training.models.embedding import token_embedding
from training.models.generator import Generator, GeneratorConfig
from training.models.layers import FusedLayer
from training.models.options import RecurrentOptions
from training.models.seq2seq import Seq2SeqConfig


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_one_mask_drops_a_feature_at_every_step_or_at_none():
    dropped = make_dropout(0.5, one_mask=True)(torch.ones(3, 7, 20))
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(dropped[0], dropped[1])


def test_masks_of_their_own_differ_from_step_to_step():
    dropped = make_dropout(0.5, one_mask=False)(torch.ones(1, 2, 100))
    assert not torch.equal(dropped[:, 0], dropped[:, 1])


@pytest.mark.parametrize("one_mask", [False, True])
def test_at_evaluation_nothing_is_dropped(one_mask):
    x = torch.randn(2, 3, 4)
    assert torch.equal(make_dropout(0.9, one_mask).eval()(x), x)


def test_embedding_dropout_takes_a_symbol_away_wherever_it_stands():
    embedding = token_embedding(50, 4, dropped=0.5)
    tokens = torch.arange(1, 50).repeat(2, 1)
    rows = embedding(tokens)
    assert torch.equal(rows[0], rows[1])
    gone = (rows[0] == 0).all(dim=1)
    assert 10 < gone.sum() < 40
    assert torch.equal(rows[0][~gone], 2 * embedding.weight[1:][~gone])
    assert torch.equal(embedding.eval()(tokens), embedding.weight[tokens])


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("how", ["full", "ragged", "read"])
def test_weight_drop_leaves_the_weights_and_the_evaluation_alone(cell, bidirectional, how):
    """While training each call drops other weights; their gradient is that of those it kept."""
    options = RecurrentOptions(cell, 6, bidirectional=bidirectional, weight_drop=0.5)
    layer = FusedLayer(options, 4)
    plain = FusedLayer(RecurrentOptions(cell, 6, bidirectional=bidirectional), 4).eval()
    plain.load_state_dict(layer.state_dict())
    x, lengths = torch.randn(3, 5, 4), torch.tensor([5, 2, 4])
    state = tuple(torch.zeros(3, options.output_size) for _ in range(options.tensors_per_layer))

    def run(layer):
        if how == "read":
            return layer.read(x, state, lengths)
        return layer(x, state, lengths if how == "ragged" else None)[0]

    first = run(layer)
    assert not torch.allclose(first, run(layer))
    first.sum().backward()
    recurrent = layer.network.weight_hh_l0.grad
    assert 0.3 < (recurrent == 0).float().mean() < 0.7
    assert (layer.network.weight_ih_l0.grad != 0).all()
    torch.testing.assert_close(run(layer.eval()), run(plain))


def test_weight_drop_needs_a_fused_layer():
    with pytest.raises(DesignInvalid, match="weight_drop"):
        RecurrentOptions("rnn", weight_drop=0.5)
    with pytest.raises(DesignInvalid, match="weight_drop"):
        RecurrentOptions("lstm", transition_mlp=1, weight_drop=0.5)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_read_is_what_forward_puts_out(cell, bidirectional):
    """Turned rows in place of packed ones: the same outputs, zero after a row's end."""
    options = RecurrentOptions(cell, 6, bidirectional=bidirectional)
    layer = FusedLayer(options, 4)
    x, lengths = torch.randn(4, 5, 4), torch.tensor([5, 2, 4, 1])
    state = tuple(torch.randn(4, options.output_size) for _ in range(options.tensors_per_layer))
    torch.testing.assert_close(layer.read(x, state, lengths), layer(x, state, lengths)[0])


def test_a_tied_generator_has_one_matrix_and_learns_it_from_both_ends():
    recurrent = RecurrentOptions("lstm", 6)
    model = build(GeneratorConfig(9, 6, recurrent, tied=True))
    assert isinstance(model, Generator)
    untied = build(GeneratorConfig(9, 6, recurrent))
    count, more = (sum(p.numel() for p in m.parameters()) for m in (model, untied))
    assert more - count == 9 * 6
    model(torch.tensor([[1, 2]]))[0].sum().backward()
    assert model.output.weight is model.embedding.weight
    # What is never read gets its gradient from what is said.
    assert (model.embedding.weight.grad[5] != 0).any()


def test_tied_sizes_must_agree():
    with pytest.raises(DesignInvalid, match="tied needs an embedding_size"):
        GeneratorConfig(9, 5, RecurrentOptions("lstm", 6), tied=True)
    with pytest.raises(DesignInvalid, match="tied needs an embedding_size"):
        Seq2SeqConfig(9, 9, 5, RecurrentOptions("lstm", 6), 8, tied=True)
