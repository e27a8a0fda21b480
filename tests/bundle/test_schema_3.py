"""Manifests of schema 3: what they say in English becomes fields as they are read."""

import json
from pathlib import Path

import pytest

from bundle import schema_3
from bundle.errors import ManifestInvalid
from bundle.manifest import FULL, QUICK, SCHEMA_VERSION, Manifest
from bundle.store import read_bundle
from export.bundles import export_bundle, trained_from_bundle
from tests.tiny import edit_manifest

NEWER = ("beam", "precision", "profile")


@pytest.fixture
def folder(models_copy):
    return models_copy / "letters" / "1"


def to_schema_3(content):
    """As an earlier release would have written it."""
    content["schema_version"] = 3
    content["training"].pop("profile", None)
    for spec in (content, *content["precisions"].values()):
        for figure in spec["figures"]:
            for field in NEWER:
                figure.pop(field, None)


@pytest.mark.parametrize(
    ("name", "split", "command", "expected"),
    [
        ("BLEU", "every tenth verse, beam of 5", "training.translate", (5, "fp32", FULL)),
        ("errors", "a tenth, token by token", "training.g2p", (1, "fp32", FULL)),
        ("accuracy", "every tenth", "training.pos --quick --seed 1", (None, "fp32", QUICK)),
        ("loss, int8", "a text, step by step", "export prose --int8", (None, "int8", FULL)),
        ("loss, fp32", "a text", "training.x --recipe my--quick.toml", (None, "fp32", FULL)),
    ],
)
def test_a_figures_text_becomes_its_fields(folder, name, split, command, expected):
    command = f"python -m {command}"
    figure = {"name": name, "value": 1.0, "unit": "%", "split": split, "examples": 2,
              "command": command}  # fmt: skip

    def older(content):
        content["figures"] = [dict(figure)]
        content["training"]["command"] = command
        to_schema_3(content)

    edit_manifest(folder, older)
    manifest = read_bundle(folder).manifest
    (found,) = manifest.figures
    assert (found.beam, found.precision, found.profile) == expected
    assert (found.name, found.split) == (name, split)
    assert manifest.training["profile"] == expected[-1]
    assert manifest.schema_version == SCHEMA_VERSION


def test_an_older_bundle_is_exported_anew_with_the_fields(folder, tmp_path):
    """Its figures, those of int8 too, stay what they were."""
    before = read_bundle(folder).manifest
    edit_manifest(folder, to_schema_3)
    again = export_bundle(trained_from_bundle(read_bundle(folder)), tmp_path / "letters" / "1")
    content = json.loads((again.folder / "manifest.json").read_text())
    assert content["schema_version"] == SCHEMA_VERSION
    assert content["figures"][0].keys() >= set(NEWER)
    assert again.manifest.precisions["int8"].figures[0].precision == "int8"
    assert again.manifest.sampling == before.sampling
    assert again.manifest.files["weights.bin"] == before.files["weights.bin"]


@pytest.mark.parametrize("field", NEWER)
def test_a_manifest_of_today_has_every_field(folder, field):
    edit_manifest(folder, lambda content: content["figures"][0].pop(field))
    with pytest.raises(ManifestInvalid, match=rf"missing fields \['{field}'\]"):
        read_bundle(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"figures": 3}, {"figures": [3]}, {"figures": [{"name": 3}]}, {"precisions": []},
        {"precisions": {"int8": 3}}, {"precisions": {"int8": {"figures": 3}}}, {"training": []},
        {"training": {"command": 3}, "limits": 3},
    ],
)  # fmt: skip
def test_an_older_manifest_of_another_shape_is_refused_by_name(folder, change):
    edit_manifest(folder, lambda content: (to_schema_3(content), content.update(change)))
    with pytest.raises(ManifestInvalid, match=r"manifest\.(figures|precisions|training|limits)"):
        read_bundle(folder)


def test_the_bundled_manifests_say_the_same_in_either_schema():
    """A manifest that has the fields keeps them."""
    for path in sorted((Path(__file__).parents[2] / "models").glob("*/1/manifest.json")):
        content = json.loads(path.read_text())
        read = json.loads(json.dumps(Manifest.from_json(content).to_json()))
        assert read == schema_3.upgraded(content, SCHEMA_VERSION)
