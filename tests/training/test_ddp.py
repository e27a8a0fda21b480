"""Two processes that train together, started as torchrun starts them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.test_end_to_end import write_dictionary
from training.ddp import ProcessGroup

ROOT = Path(__file__).parents[2]
# What a process of the team runs: g2p on a hand-made dictionary, which is not the pinned package.
SCRIPT = """
import sys
from training.__main__ import main
from training.data.packages import DataPackage
DataPackage._verify = lambda self, path: None
sys.exit(main(["g2p", *sys.argv[1:]]))
"""


def test_every_row_of_a_batch_is_taken_once():
    rows = torch.arange(5)
    batch = (rows, (rows * 10,))
    parts = [ProcessGroup(rank, 2).part_of(batch) for rank in range(2)]
    assert [part[0].tolist() for part in parts] == [[0, 2, 4], [1, 3]]
    assert [part[1][0].tolist() for part in parts] == [[0, 20, 40], [10, 30]]


def test_a_batch_too_small_to_share_is_everybodys():
    assert ProcessGroup(1, 2).part_of((torch.arange(1),))[0].tolist() == [0]


def test_one_process_trains_alone():
    batch = (torch.arange(3),)
    assert ProcessGroup().part_of(batch) is batch
    assert ProcessGroup().share_gradients(torch.nn.Linear(1, 1), stop=True)


RECIPE = """
[data]
module = "training.bundled.g2p"
description = "Speaks."
[task]
batch = 512
source_tokens = "characters"
target_tokens = "symbols"
source_vocabulary = 100
target_vocabulary = 100
source_limit = 32
target_limit = 40
lowercase_source = true
random_cuts = 0.0
label_smoothing = 0.0
[model]
embedding_size = 16
recurrent = {cell = "lstm", hidden_size = 32}
[fit]
epochs = 2
learning_rate = 0.02
"""


def test_two_processes_train_one_model(tmp_path):
    """torchrun starts both; one of them writes the run, whose loss has fallen."""
    write_dictionary(tmp_path / "data")
    script, recipe, out = (tmp_path / name for name in ("train.py", "small.toml", "run"))
    script.write_text(SCRIPT)
    recipe.write_text(RECIPE)
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2",
            "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1",
            str(script), "--quick", "--recipe", str(recipe), "--out", str(out),
            "--data", str(tmp_path / "data"),
        ],
        capture_output=True, text=True, timeout=240, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((out / "report.json").read_text())
    assert report["training"]["processes"] == 2
    assert report["history"]["train_loss"][1] < 0.5 * report["history"]["train_loss"][0]
    # By the leader alone: token by token, and by a beam.
    assert done.stdout.count("g2p: word error rate") == 2
