"""A classifier of a user's frames: what is read, what is refused with its place, what is said."""

import json
import math

import numpy as np
import pytest

from training.__main__ import main
from training.checkpoint import TrainedModel
from training.readers import DataInvalid
from training.task_run import kept_held_out
from training.tasks import TASKS, default_recipe

TASK = TASKS["classify-frames"]
SMALL = ["--set", "fit.epochs=2", "--set", "model.recurrent.hidden_size=6"]


def wave(number, frames=None):
    """A sequence: slow or fast, by its number."""
    speed = (0.3, 1.5)[number % 2]
    return [
        [round(math.sin(speed * t + number), 3), number % 5]
        for t in range(frames or 6 + number % 4)
    ]


def rows(count=40, header="gesture,label,x,y"):
    """A row a frame."""
    lines = [header]
    for number in range(count):
        label = ("slow", "fast")[number % 2]
        lines += [f"g{number},{label},{x},{y}" for x, y in wave(number)]
    return "\n".join(lines) + "\n"


def lines(count=40, **changed):
    """A row a sequence."""
    found = [
        {"frames": wave(number), "label": ("slow", "fast")[number % 2]} for number in range(count)
    ]
    for number, frames in changed.items():
        found[int(number[1:])]["frames"] = frames
    return "".join(json.dumps(line) + "\n" for line in found)


@pytest.fixture
def read(tmp_path):
    def examples(text, name="gestures.csv", **data):
        path = tmp_path / name
        path.write_text(text)
        recipe = default_recipe("classify-frames").with_value("data.files", str(path))
        if name.endswith(".csv"):
            recipe = recipe.with_value("data.sequence_column", "gesture")
        for key, value in data.items():
            recipe = recipe.with_value(f"data.{key}", value)
        splits, facts = TASK.read(recipe)
        return recipe, splits, dict(facts)

    return examples


def test_rows_become_sequences_of_frames(read):
    _, splits, facts = read(rows())
    assert len(splits.every) == 40
    first = next(e for e in splits.every if e.frames.tolist() == np.float32(wave(0)).tolist())
    assert (first.label, first.channels) == ("slow", ("x", "y"))
    assert first.frames.dtype == np.float32
    assert facts["channels"] == "'x', 'y'"


def test_a_row_of_json_is_a_whole_sequence(read):
    _, splits, _ = read(lines(), "gestures.jsonl")
    assert len(splits.every) == 40
    assert splits.train[0].channels == ("channel 1", "channel 2")
    _, splits, _ = read(lines(), "gestures.jsonl", channels="x, y")
    assert splits.train[0].channels == ("x", "y")


def test_a_time_orders_the_frames(read):
    header, *body = rows(header="gesture,label,x,y,t").split()
    body = [f"{line},{number}" for number, line in enumerate(body)]
    text = "\n".join([header, *reversed(body)])
    _, splits, _ = read(text, time_column="t")
    assert sorted(e.frames.tolist() for e in splits.every) == sorted(
        np.float32(wave(number)).tolist() for number in range(40)
    )
    assert splits.train[0].channels == ("x", "y")


def test_channels_may_be_chosen(read):
    _, splits, _ = read(rows(), channels="y")
    assert splits.train[0].channels == ("y",)
    assert splits.train[0].frames.shape[1] == 1


REFUSED = {
    "no such column": (rows(), {"sequence_column": "id"}, "no column 'id'; choose --sequence-col"),
    "no channel left": ("gesture,label\na,slow\nb,fast\n", {}, "no column is left for numbers"),
    "no number": (rows().replace("g1,fast,", "g1,fast,high", 1), {}, "column 'x': 'high"),
    "too large a number": (rows() + "g9,fast,1e12,0\n", {}, "1e+12 is not from -1e+09 to"),
    "two labels": (rows() + "g0,fast,1,1\n", {}, "line 2 of the same sequence has 'slow'; give"),
    "an empty label": (rows() + "h,,1,1\n", {}, "column 'label': an empty text"),
    "one label": (rows().replace("fast", "slow"), {}, "every row has the label 'slow'"),
    "too few": (rows(4), {}, "different rows to train on; give at least 10"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_learnt_is_refused_with_its_place(read, case):
    text, data, says = REFUSED[case]

    def prepared():
        recipe, splits, _ = read(text, **data)
        return TASK.prepare(recipe, splits, seed=1)

    with pytest.raises(DataInvalid) as caught:
        prepared()
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ("1, 2", "line 4, column 'frames': no list of frames"),
        ([[1, 2], [3]], "no list of frames of one size"),
        ([[1, "2"]], "no list of frames"),
        ([[1, True]], "no list of frames"),
        ([], "no frame, or frames without numbers"),
        ([[], []], "no frame, or frames without numbers"),
        ([[1, 2, 3]], "3 numbers a frame; give 2 in every frame"),
        ([[1, 1e300]], "above a billion"),
    ],
)
def test_a_list_that_is_no_sequence_is_refused(read, frames, says):
    with pytest.raises(DataInvalid) as caught:
        read(lines(n3=frames), "gestures.jsonl")
    assert says in str(caught.value)
    # Left out, where that is allowed.
    _, splits, facts = read(lines(n3=frames), "gestures.jsonl", skip_bad=1)
    assert len(splits.every) == 39
    assert facts["bad rows"].startswith("1 left out")


def test_frames_beyond_the_limit_are_left(read):
    recipe, splits, _ = read(rows())
    prepared = TASK.prepare(recipe.with_value("task.input_limit", 5), splits, seed=1)
    assert {len(frames) for frames, _ in prepared.training.rows} == {5}
    assert prepared.limits == {"input_frames": 5, "message_steps": 1024}
    whole = TASK.prepare(recipe.with_value("model.recurrent.bidirectional", True), splits, seed=1)
    assert whole.limits == {"input_frames": 32}


def test_a_model_is_standardised_by_what_it_learns(read):
    recipe, splits, _ = read(rows())
    prepared = TASK.prepare(recipe, splits, seed=1)
    learnt = np.concatenate([frames for frames, _ in prepared.training.rows])
    model = prepared.build(prepared.config)
    assert model.mean.numpy() == pytest.approx(learnt.mean(axis=0), abs=1e-5)


def test_a_run_is_kept_and_measured_after_each_share(tmp_path, monkeypatch, capsys):
    """Training by the command, the figures of a model that answers after each frame."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gestures.csv").write_text(rows(60))
    command = ["classify-frames", "--name", "gestures", "--data", "gestures.csv"]
    options = ["--sequence-column", "gesture", "--frame-seconds", "0.02"]
    assert main([*command, *options, *SMALL]) == 0
    trained = TrainedModel.load(tmp_path / "runs" / "gestures")
    assert (trained.task, trained.labels) == ("classify", ("fast", "slow"))
    assert (trained.frames.channels, trained.frames.frame_seconds) == (("x", "y"), 0.02)
    assert [(figure.name, figure.split) for figure in trained.figures] == [
        ("accuracy", "whole sequences"),
        ("macro F1", "whole sequences"),
        ("accuracy", "the first quarter of the frames"),
        ("accuracy", "the first half of the frames"),
        ("accuracy", "the first three quarters of the frames"),
        ("expected calibration error", "whole sequences"),
    ]
    assert trained.training["calibration_temperature"] > 0
    kept = kept_held_out(tmp_path / "runs" / "gestures")
    assert kept.task is TASK
    questions = kept.questions(trained).questions
    count = len(kept.examples)
    assert len(questions) == 4 * count
    assert [len(q) for q in questions[2 * count : 3 * count]] == [
        round(0.5 * len(example.frames)) for example in kept.examples
    ]
    assert "the sequence nearest in mean and spread" in capsys.readouterr().out
