"""The page as a visitor sees it, in a browser."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from export.bundles import export_bundle
from tests import tiny
from tests.clients.conftest import Service, serving
from tests.page.conftest import ROOT, Visit
from tests.step_models import FRAME, write_step_bundle
from unroll.v1 import unroll_pb2

pytestmark = pytest.mark.page
APPEARANCES = ("light", "dark", "phone")
MARKUP = '<img src=x onerror="globalThis.ran=1"><script>globalThis.ran=1</script>'


def test_every_task_is_done_once(bundled: Service, visit: Visit) -> None:
    visit("tasks.mjs", bundled.target)


def test_the_state_is_shown_and_changed(bundled: Service, visit: Visit) -> None:
    visit("state.mjs", bundled.target)


@pytest.mark.parametrize("how", APPEARANCES)
def test_it_is_legible_light_dark_and_on_a_phone(how: str, bundled: Service, visit: Visit) -> None:
    visit("appearance.mjs", bundled.target, how)


def test_it_goes_by_keys_and_nothing_moves(bundled: Service, visit: Visit) -> None:
    visit("keys.mjs", bundled.target)


def test_it_draws_500_tokens_a_second(bundled: Service, visit: Visit) -> None:
    said = visit("frames.mjs", bundled.target)
    assert json.loads(said.splitlines()[-1])["tokens"] >= 3000


def test_where_a_model_looks_is_drawn_while_it_writes(models_copy: Path, visit: Visit) -> None:
    export_bundle(tiny.seq2seq("unaware", attention=False), models_copy / "unaware" / "1")
    with serving("--models", str(models_copy)) as running:
        visit("attention.mjs", running.target, "speller", "unaware")


def test_text_is_controlled_and_states_are_kept(models_copy: Path, visit: Visit) -> None:
    presets = models_copy.with_name("presets.toml")
    presets.write_text("[careful]\ntemperature = 0.6\ntop_p = 0.9\n")
    with serving("--models", str(models_copy), "--presets", str(presets)) as running:
        visit("control.mjs", running.target, "letters", "speller")


def test_the_state_of_words_and_frames_is_shown(bundled: Service, visit: Visit) -> None:
    visit("pushed.mjs", bundled.target)


def test_audio_is_stepped_over(tmp_path: Path, visit: Visit) -> None:
    write_step_bundle(tmp_path / "models", attributes={"sample_rate": 8000, "threshold": 0.1})
    write_step_bundle(tmp_path / "models", "sensor")
    audio = tmp_path / "tone.wav"
    with wave.open(str(audio), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        tone = 0.5 * np.sin(np.arange(8000) / 40)
        file.writeframes((32767 * tone).astype("<i2").tobytes())
    with serving("--models", str(tmp_path / "models")) as running:
        visit("step.mjs", running.target, "leaky", str(audio), f"{8000 // FRAME:,}")
        _check_calls(visit("calls.mjs", running.target, "leaky", "sensor"))
        for how in APPEARANCES:
            visit("appearance.mjs", running.target, how, "leaky", str(audio))


@pytest.fixture
def marked(models_copy: Path) -> Iterator[Service]:
    """Tiny models, of which a classifier says markup wherever a bundle can say anything."""

    def change(manifest: dict[str, object]) -> None:
        manifest["description"] = MARKUP
        manifest["labels"] = [f"{label} {MARKUP}" for label in manifest["labels"]]
        for figure in manifest["figures"]:
            figure["name"] = figure["split"] = MARKUP
        manifest["data"] = [
            {"package": MARKUP, "version": "1", "sha256": "0" * 64, "licence": MARKUP}
        ]

    tiny.edit_manifest(models_copy / "mood" / "1", change)
    with serving("--models", os.fspath(models_copy)) as running:
        yield running


def test_what_models_say_stays_text(marked: Service, visit: Visit) -> None:
    visit("safety.mjs", marked.target, "mood", "tags")


def test_a_service_with_tokens_is_used_with_one(secured: tuple[Service, str], visit: Visit) -> None:
    service, token = secured
    visit("token.mjs", service.target, token)


def test_calls_that_are_shown_can_be_copied(bundled: Service, visit: Visit) -> None:
    """Python and curl run as they stand; grpcurl's message is that of the method."""
    _check_calls(visit("calls.mjs", bundled.target))


def _check_calls(lines: str) -> None:
    for line in lines.splitlines():
        said = json.loads(line)
        for command in ([sys.executable, "-c", said["Python"]], ["bash", "-c", said["curl"]]):
            done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60)
            assert done.returncode == 0, f"{said['path']}: {command[-1]}\n{done.stderr.decode()}"
            assert done.stdout, f"{said['path']}: {command[-1]}"
            assert b'"error"' not in done.stdout, done.stdout
            assert b'"code"' not in done.stdout, done.stdout
        words = shlex.split(said["grpcurl"])
        service, _, method = words[-1].rpartition("/")
        request = unroll_pb2.DESCRIPTOR.services_by_name[service.split(".")[-1]].methods_by_name
        for message in words[words.index("-d") + 1].splitlines():
            ParseDict(json.loads(message), _message(request[method].input_type))


def _message(descriptor: Descriptor) -> Message:
    return GetMessageClass(descriptor)()
