"""Designs are compared at equal size, or not at all."""

import pytest

from study.characters import options_of
from study.sizing import SizeUnreachable, count_parameters, of_equal_size
from training.models import build
from training.models.generator import GeneratorConfig

DESIGNS = ("output", "rnn", "gru", "lstm", "stacked", "mlps", "mlps-skip")


def design(name, hidden):
    return GeneratorConfig(50, 16, options_of(name, hidden))


def test_a_model_is_counted_without_being_made():
    config = design("mlps-skip", 23)
    assert count_parameters(config) == sum(p.numel() for p in build(config).parameters())


@pytest.mark.parametrize("name", DESIGNS)
def test_every_design_comes_within_a_hundredth_and_no_width_is_nearer(name):
    config = of_equal_size(lambda hidden: design(name, hidden), 50_000)
    found = count_parameters(config)
    assert abs(found - 50_000) <= 500
    for other in (config.recurrent.hidden_size - 1, config.recurrent.hidden_size + 1):
        assert abs(count_parameters(design(name, other)) - 50_000) >= abs(found - 50_000)


@pytest.mark.parametrize("parameters", [10, 1_990])
def test_a_size_that_no_width_comes_near_is_refused(parameters):
    with pytest.raises(SizeUnreachable, match=f"nearest to {parameters:,} parameters"):
        of_equal_size(lambda hidden: design("lstm", hidden), parameters)
