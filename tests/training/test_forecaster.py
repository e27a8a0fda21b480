"""The forecaster: heads against torch's distributions, steps against whole sequences."""

import pytest
import torch
from torch.distributions import NegativeBinomial, Normal, StudentT

from bundle.series import GAUSSIAN, NEGATIVE_BINOMIAL, STUDENT_T
from training.models import config_from_json, config_to_json
from training.models.forecaster import Forecaster, ForecasterConfig
from training.models.heads import MOST_COUNT, make_head
from training.models.options import DesignInvalid, RecurrentOptions

QUANTILES = torch.tensor([0.001, 0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 0.999])


def config(**others):
    options = {
        "features": 3,
        "distribution": STUDENT_T,
        "recurrent": RecurrentOptions("lstm", 7, layers=2),
        "lags": (2, 5),
    }
    return ForecasterConfig(**{**options, **others})


def make(**others):
    torch.manual_seed(3)
    return Forecaster(config(**others)).eval()


def squareplus(x):
    return 0.5 * (x + (x * x + 4) ** 0.5)


def drawn(distribution, parameters, uniforms, log_scale=0.0):
    rows = torch.tensor(parameters).expand(len(uniforms), -1)
    return make_head(distribution).draw(rows, uniforms, torch.full((len(uniforms),), log_scale))


def test_gaussian_draws_are_its_quantiles():
    wanted = Normal(1.5, squareplus(-0.5) + 1e-3).icdf(QUANTILES)
    assert torch.allclose(drawn(GAUSSIAN, [1.5, -0.5], QUANTILES), wanted, atol=5e-3)


@pytest.mark.parametrize("freedom", [-4.0, 0.0, 30.0])
def test_student_t_draws_have_its_distribution(freedom):
    """By the shares of many draws below the quantiles of as many samples of torch's."""
    torch.manual_seed(0)
    degrees = squareplus(freedom) + 2
    samples = StudentT(torch.tensor(degrees), 1.0, squareplus(0.0) + 1e-3).sample((200_000,))
    below = [
        (samples <= value).float().mean()
        for value in drawn(STUDENT_T, [1.0, 0.0, freedom], QUANTILES)
    ]
    assert torch.allclose(torch.stack(below), QUANTILES, atol=4e-3)


def test_counts_are_drawn_by_their_probabilities():
    head, log_scale = make_head(NEGATIVE_BINOMIAL), torch.tensor([2.0])
    weights = head.weights(torch.tensor([[0.3, 0.2]]), log_scale)[0]
    wanted = NegativeBinomial(torch.tensor(0.2).exp(), logits=torch.tensor(2.3 - 0.2))
    assert torch.allclose(weights[:300], wanted.log_prob(torch.arange(300.0)).exp(), atol=1e-6)
    counts = drawn(NEGATIVE_BINOMIAL, [0.3, 0.2], QUANTILES, 2.0) * torch.tensor(2.0).exp()
    assert torch.allclose(counts, counts.round(), atol=1e-3)
    edges = weights.cumsum(0)
    for count, uniform in zip(counts.round().long().tolist(), QUANTILES, strict=True):
        assert edges[count] > uniform
        assert count == 0 or edges[count - 1] <= uniform


@pytest.mark.parametrize("distribution", [GAUSSIAN, STUDENT_T, NEGATIVE_BINOMIAL])
def test_the_ends_of_the_unit_interval_draw_numbers(distribution):
    size = make_head(distribution).parameters_size
    ends = torch.tensor([0.0, 1 - 2.0**-24])
    for parameters in ([30.0] * size, [-30.0] * size, [0.0] * size):
        found = drawn(distribution, parameters, ends)
        assert torch.isfinite(found).all()
        assert found[0] <= found[1]


def test_a_count_is_never_above_what_cells_there_are():
    (most,) = drawn(NEGATIVE_BINOMIAL, [12.0, 5.0], torch.tensor([1 - 2.0**-24]))
    assert most == MOST_COUNT


def test_the_likelihood_of_counts_is_that_of_the_values_in_their_unit():
    head, log_scale = make_head(NEGATIVE_BINOMIAL), torch.tensor([1.5])
    parameters = torch.tensor([[0.1, 0.4]])
    wanted = NegativeBinomial(torch.tensor(0.4).exp(), logits=torch.tensor(0.1 + 1.5 - 0.4))
    counts = torch.tensor([7.0])
    found = head.log_likelihood(parameters, counts / log_scale.exp(), log_scale)
    assert torch.allclose(found, wanted.log_prob(counts), atol=1e-4)


def sequence(batch=3, time=11):
    torch.manual_seed(1)
    series = torch.rand(batch, time, 2)
    series[:, :, 1] = (series[:, :, 1] > 0.3).float()
    return series * series[:, :, 1:], torch.randn(batch, time, 3), torch.randn(batch)


@pytest.mark.parametrize("lags", [(), (2,), (2, 5, 9)])
def test_steps_give_what_the_whole_sequence_does(lags):
    model = make(lags=lags)
    series, features, log_scale = sequence()
    whole, after = model(series, features, None, model.first_state(log_scale))
    state, stepped = model.first_state(log_scale), []
    for t in range(series.shape[1]):
        parameters, state = model.step(series[:, t, 0], series[:, t, 1], features[:, t], state)
        stepped.append(parameters)
    assert torch.allclose(torch.stack(stepped, dim=1), whole, atol=1e-5)
    for one, other in zip(state, after, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_ragged_rows_end_in_the_state_at_their_own_end():
    """Padding behind a row's length changes neither its parameters nor its history."""
    model = make()
    series, features, log_scale = sequence()
    lengths = torch.tensor([11, 2, 7])
    _, after = model(series, features, lengths, model.first_state(log_scale))
    for row, length in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        _, alone = model(
            series[one, :length], features[one, :length], None, model.first_state(log_scale[one])
        )
        for together, by_itself in zip(after, alone, strict=True):
            assert torch.allclose(together[one], by_itself, atol=1e-5)


def test_a_lag_is_the_value_so_many_steps_before():
    model = make(lags=(3,))
    series, _, log_scale = sequence(batch=1)
    columns, moved = model._read(series, model.first_state(log_scale)[1:3], None)
    assert columns[2][0].tolist() == [0, 0, *series[0, :-2, 0].tolist()]
    assert moved[0][0].tolist() == series[0, -2:, 0].tolist()


def test_a_configuration_survives_json():
    """TOML and JSON give lists."""
    one = config()
    content = config_to_json(one)
    content["lags"] = list(content["lags"])
    assert config_from_json(content) == one


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"distribution": "cauchy"}, "'cauchy' is not one of gaussian, student-t"),
        ({"features": 0}, "features are at least 1"),
        ({"lags": (1, 2)}, "lags ascend from 2"),
        ({"lags": (5, 2)}, "lags ascend from 2"),
        ({"recurrent": RecurrentOptions(bidirectional=True)}, "one direction only"),
        (
            {"recurrent": RecurrentOptions("rnn", recurrence="output")},
            "recurrence 'hidden' only",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(others, message):
    with pytest.raises(DesignInvalid, match=message):
        config(**others)
