"""Numbers below 0 in a file of one's own: read by the recipe, trained, exported and served."""

import pytest
import torch

from bundle.manifest import BELOW_ZERO
from bundle.store import read_bundle
from export import __main__ as export
from training.__main__ import main as train
from training.models.options import RecurrentOptions
from training.models.vec2seq import VectorToSequence, VectorToSequenceConfig
from unroll import Client, RequestFailed, Sampling
from unroll.cli import main as unroll

TRAIN = ["vec2seq", "--text-column", "weather", "--data", "weather.csv"]


def write_weather(path, least):
    """What the first number says; the second one says nothing."""
    rows = [
        f"{'frost' if celsius < 0 else 'thaw'},{celsius},{wind}"
        for celsius in range(least, 40)
        for wind in (0, 7, 3)
    ]
    path.write_text("\n".join(["weather,celsius,wind", *rows]) + "\n")


def export_of(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["export", name])
        return export.main()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``cold``, whose data has numbers below 0, and ``warm``, whose data has none."""
    folder = tmp_path_factory.mktemp("weather")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, least in (("cold", -40), ("warm", 0)):
            write_weather(folder / "weather.csv", least)
            few = ["--set", "fit.epochs=16", "--set", "fit.learning_rate=0.01", "--quick"]
            few += ["--set", "model.nearest=0"]
            assert train([*TRAIN, "--name", name, *few]) == 0
            assert export_of(name) == 0
    return folder


@pytest.fixture
def target(folder, start_service):
    return start_service(models=folder / "models").target


def test_what_a_number_below_zero_means_is_learnt_and_served(folder, target):
    with Client(target, timeout=20) as client:
        assert client.get_model("cold").limits[BELOW_ZERO] == 1_000_000_000
        for vector, expected in (((-9.5, 3), "frost"), ((9.5, 3), "thaw"), ((-1e9, 3), "frost")):
            chunks = client.generate("cold", vector=vector, sampling=Sampling(temperature=0))
            assert "".join(chunk.text for chunk in chunks) == expected


def test_the_command_line_takes_a_minus_for_a_number(target, capsys):
    asked = ["generate", "--model", "cold", "--vector", "-9.5,3", "--target", target]
    assert unroll(asked) == 0
    assert capsys.readouterr().out.startswith("frost")


def test_a_model_whose_data_had_none_refuses_numbers_below_zero(folder, target):
    manifest = read_bundle(folder / "models" / "warm" / "1").manifest
    assert BELOW_ZERO not in manifest.limits
    with (
        Client(target, timeout=20) as client,
        pytest.raises(RequestFailed, match=r"values\[0\] is -9.5.* from 0 to 1e\+09"),
    ):
        list(client.generate("warm", vector=(-9.5, 3)))


def test_numbers_below_zero_that_a_recipe_excludes_are_refused_before_training(
    folder, monkeypatch, capsys
):
    monkeypatch.chdir(folder)
    write_weather(folder / "weather.csv", -3)
    assert train([*TRAIN, "--name", "no", "--set", "model.signed=false"]) != 0
    assert "model.signed is false, and -3 is below 0; leave the key" in capsys.readouterr().err


def test_a_signed_model_takes_any_size_and_keeps_the_order():
    """About 0 as far from it, nearly as a line; a column of zeros alone is no division by 0."""
    config = VectorToSequenceConfig(2, 9, 4, 4, RecurrentOptions("lstm", 4), signed=True)
    model = VectorToSequence(config)
    values = torch.tensor([-1e9, -300.0, -1.0, -0.01, 0.0, 0.01, 1.0, 300.0, 1e9])
    model.standardise(torch.stack((values.clamp(-300, 300), torch.zeros(9)), dim=1))
    standard, _ = model._standard(torch.stack((values, torch.zeros(9)), dim=1))
    assert standard.isfinite().all()
    assert (standard[:, 0].diff() > 0).all()
    assert not standard[:, 1].any()
    steps = standard[3:6, 0].diff()
    torch.testing.assert_close(steps[0], steps[1])
