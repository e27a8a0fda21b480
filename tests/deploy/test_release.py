"""What a release is built from: locks with hashes, a clean tagged tree, a base by digest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service import __version__
from tests.lock_drift import drifted

ROOT = Path(__file__).parents[2]
BASE = "registry/python@sha256:" + "5a" * 32


@pytest.fixture
def pinned(tmp_path: Path) -> Path:
    """A copy of what the drift check reads."""
    for name in ("pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "deploy" / "locks", tmp_path / "deploy" / "locks")
    return tmp_path


def change(path: Path, pattern: str, replacement: str) -> None:
    text = path.read_text()
    changed = re.sub(pattern, replacement, text, count=1, flags=re.MULTILINE)
    assert changed != text
    path.write_text(changed)


def test_the_locks_hold_every_pin_with_hashes():
    assert drifted() == []


@pytest.mark.parametrize(
    ("file", "pattern", "replacement", "found"),
    [
        ("pyproject.toml", "numpy==[^\"]+", "numpy==1.0", "numpy==1.0 is pinned"),
        ("pyproject.toml", '"protobuf==[^"]+",', '\\g<0> "new==1",', "none is locked"),
        ("pyproject.toml", "protobuf==", "protobuf>=", "is not pinned by =="),
        ("Makefile", "^PIP_VERSION := .*", "PIP_VERSION := 1.0", "pip==1.0 is pinned"),
        ("deploy/locks/serve.txt", "--hash=sha256:[0-9a-f]{63}", "", "is neither a pin"),
        ("deploy/locks/pip.txt", r"( \\\n.*)+", "", "pip has no hash"),
        ("deploy/locks/serve-gpu.txt", "^numpy==", "numpy>=", "is neither a pin"),
        ("deploy/locks/serve.txt", r"\A", "--index-url https://elsewhere\n", "is neither a pin"),
    ],
)  # fmt: skip
def test_a_lock_that_drifted_is_found(pinned, file, pattern, replacement, found):
    assert drifted(pinned) == []
    change(pinned / file, pattern, replacement)
    assert any(found in line for line in drifted(pinned)), drifted(pinned)


def test_a_missing_lock_is_found(pinned):
    (pinned / "deploy/locks/serve.txt").unlink()
    assert drifted(pinned) == ["serve.txt: is missing"]


def test_the_image_installs_nothing_without_a_hash():
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    installs = [part for line in lines for part in line.split("&&") if " pip install " in part]
    assert len(installs) == 2
    assert all("--require-hashes -r " in install for install in installs)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository with the check in it, committed and tagged."""
    for name in ("deploy/check-release.sh", "service/__init__.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for command in (
        ("init", "--quiet"), ("add", "."), ("commit", "--quiet", "-m", "first"),
        ("tag", f"v{__version__}"),
    ):  # fmt: skip
        git(tmp_path, *command)
    return tmp_path


def git(tree: Path, *arguments: str) -> None:
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    subprocess.run(["git", *who, *arguments], cwd=tree, check=True)


def refusal(tree: Path, base: str = BASE) -> str:
    """What the check says; empty where it lets the release pass."""
    done = subprocess.run(
        [tree / "deploy/check-release.sh"],
        env=os.environ | {"BASE_IMAGE": base},
        capture_output=True,
        text=True,
    )
    assert bool(done.returncode) == bool(done.stderr)
    return done.stderr


def test_a_clean_and_tagged_tree_on_a_digest_is_released(tree):
    assert refusal(tree) == ""


@pytest.mark.parametrize("base", ["", "python:3.11", "python@sha256:5a", BASE + "0"])
def test_a_base_image_without_digest_is_refused(tree, base):
    assert "give one as NAME@sha256:DIGEST" in refusal(tree, base)


@pytest.mark.parametrize("file", ["new.txt", "service/__init__.py"])
def test_a_tree_with_changes_is_refused(tree, file):
    with (tree / file).open("a") as changed:
        changed.write("# changed\n")
    assert file in refusal(tree)


def test_a_tree_without_its_versions_tag_is_refused(tree):
    git(tree, "commit", "--quiet", "--allow-empty", "-m", "second")
    assert "this commit has no tag v" in refusal(tree)
    git(tree, "tag", "v99.0")
    assert "this commit has no tag v" in refusal(tree)
