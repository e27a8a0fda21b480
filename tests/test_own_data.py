"""docs/own-data.md as a user follows it: its commands, in its order, on tiny files."""

import io
import os
import re
import shlex
from pathlib import Path

import pytest

from bundle.store import read_bundle
from evaluation import __main__ as evaluation
from export import __main__ as export
from export import quality
from tests.own_data import write_all
from training.__main__ import main as train
from unroll import Client, Sampling
from unroll.cli import main as unroll

PAGE = Path(__file__).parents[1] / "docs" / "own-data.md"
COMMANDS = [
    line.removeprefix("$ ")
    for block in re.findall(r"^```console\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    for line in block.splitlines()
    if line.startswith("$ ")
]
TRAINED = ("tickets", "gestures", "people", "people-online", "words", "chapters", "chapters-words",
           "numbers", "paints", "load")  # fmt: skip
# `make own-data` trains as a user does, on more rows; otherwise the tiny files get few steps.
IS_FULL = bool(os.environ.get("OWN_DATA_FULL"))
FEW = [] if IS_FULL else ["--quick", "--set", "fit.epochs=1"]


def run(command):
    """What a user types, in this process."""
    python, dash, module, *arguments = shlex.split(command)
    assert (python, dash) == ("python", "-m")
    if module == "training":
        is_task = "--name" in arguments
        return train([*arguments, *FEW] if is_task else arguments)
    assert module == "export"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["export", *arguments])
        return export.main()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files, runs and models, after every command of the page that trains or exports."""
    folder = write_all(tmp_path_factory.mktemp("own"), 900 if IS_FULL else 90)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(quality, "_ROUND_SECONDS", 0.001)
        done = set()
        for command in COMMANDS:
            if re.match(r"python -m (training|export) ", command):
                # The page's first lines are those of its section again.
                name = re.search(r"--name (\S+)|export (\S+)", command)
                key = name and name.group(0)
                if key is None or key not in done:
                    assert run(command) == 0, command
                    done.add(key)
    return folder


def test_every_model_of_the_page_is_trained_and_exported(folder):
    assert sorted(path.name for path in (folder / "models").iterdir()) == sorted(TRAINED)
    for name in TRAINED:
        kept = {path.name for path in (folder / "runs" / name).iterdir()}
        assert kept >= {"card.md", "recipe.toml", "held-out.jsonl", "metrics.jsonl", "model.pt"}
        card = (folder / "runs" / name / "card.md").read_text()
        assert "without a network" in card
        assert "## Examples of what was held out" in card


def test_every_call_of_the_page_is_answered(folder, start_service, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    service = start_service(models=folder / "models")
    calls = [c for c in COMMANDS if "python -m unroll " in c]
    assert len(calls) >= 10
    for call in calls:
        echoed, _, command = call.rpartition(" | ")
        if echoed:
            text = shlex.split(echoed)[1] + "\n"
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        arguments = shlex.split(command)[3:]
        assert unroll([*arguments, "--target", service.target]) == 0, call
        assert capsys.readouterr().out, call


def test_files_shown_are_those_that_are_tried(folder):
    shown = re.findall(r"^\$ head -(\d) (\S+)\n((?:[^$`].*\n)+)", PAGE.read_text(), re.M)
    assert len(shown) == 6
    for count, name, lines in shown:
        begins = (folder / name).read_text().splitlines()[: int(count)]
        assert lines.splitlines() == begins


def test_texts_are_served_as_they_were_written(folder, start_service):
    """An empty prompt begins with a marker; what is echoed is the prompt, spaces and all."""
    service = start_service(models=folder / "models")
    prompt = "Chapter 7\n\n    The  old man"
    with Client(service.target, timeout=20) as client:
        for name in ("chapters", "chapters-words"):
            first, *_ = client.generate(name, prompt=prompt, echo=True, seed=1, max_tokens=8)
            assert "".join(token.text for token in first.echo) == prompt
            begun = list(client.generate(name, prompt="", seed=1, max_tokens=8))
            assert begun[-1].answer.reason in ("end", "length")


def test_spans_are_served_without_an_illegal_transition(folder, start_service):
    service = start_service(models=folder / "models")
    with Client(service.target, timeout=20) as client:
        (text,) = client.tag("people", ["Smith Ada Paris saw Smith Rome"])
    before = ""
    for token in text.tokens:
        if token.label.startswith("I-"):
            assert before[2:] == token.label[2:]
        before = token.label


def test_a_bundle_names_its_file_its_floors_and_how_it_was_trained(folder):
    manifest = read_bundle(folder / "models" / "tickets" / "1").manifest
    (source,) = manifest.data
    assert (source.package, len(source.sha256)) == ("tickets.csv", 64)
    assert manifest.training["command"].startswith("python -m training classify --name tickets")
    floors = {(f["figure"], f["floor"]) for f in manifest.training["floors"]}
    assert ("accuracy", "naive Bayes over word pairs") in floors
    assert {figure.profile for figure in manifest.figures} == {"full" if IS_FULL else "quick"}


def test_int8_is_judged_on_what_the_run_held_out(folder):
    for name, figure in (("chapters-words", "loss"), ("numbers", "right")):
        manifest = read_bundle(folder / "models" / name / "1").manifest
        int8, fp32 = (
            next(f for f in manifest.precisions["int8"].figures if f.precision == precision)
            for precision in ("int8", "fp32")
        )
        (own,) = (f for f in manifest.figures if f.name == figure)
        assert fp32.name == f"{figure}, fp32"
        assert fp32.value == pytest.approx(own.value, rel=1e-3, abs=1e-3)
        assert int8.value == pytest.approx(fp32.value, rel=0.2, abs=10.0)
        assert int8.examples == own.examples


def test_every_figure_reproduces_through_the_service(folder, monkeypatch, capsys):
    """By the evaluation that measures the bundled models; and the card has the floors."""
    monkeypatch.chdir(folder)
    assert evaluation.main(["--only", *TRAINED, "--output", "cards"]) == 0
    said = capsys.readouterr().out
    assert "DOES NOT REPRODUCE" not in said
    assert "not measured" not in said
    card = (folder / "cards" / "models" / "tickets.md").read_text()
    assert "naive Bayes over word pairs" in card


def test_a_models_greedy_text_is_what_training_measured(folder, start_service):
    """Through the service, token by token."""
    from export.bundles import trained_from_bundle
    from training.task_run import kept_held_out
    from training.tasks import TASKS

    trained = trained_from_bundle(read_bundle(folder / "models" / "numbers" / "1"))
    questions = kept_held_out(folder / "runs" / "numbers").questions(trained).questions[:5]
    expected = TASKS["seq2seq"].answers(trained.build(), trained, questions)
    service = start_service(models=folder / "models")
    with Client(service.target, timeout=20) as client:
        for source, text in zip(questions, expected, strict=True):
            chunks = client.generate("numbers", source=source, sampling=Sampling(temperature=0))
            assert "".join(chunk.text for chunk in chunks) == text
