"""The bill of materials: what is added to the list of Python packages."""

from bundle.store import read_bundle
from deploy.sbom import complete

PACKAGE = {"bom-ref": "numpy==1", "type": "library", "name": "numpy", "version": "1"}


def test_models_are_listed_with_the_digest_that_the_service_reports(tiny_models):
    packages = {"metadata": {}, "components": [PACKAGE], "dependencies": [{"ref": "numpy==1"}]}
    document = complete(packages, tiny_models)
    first, *models = document["components"]
    assert first == PACKAGE
    bundles = [read_bundle(path.parent) for path in sorted(tiny_models.glob("*/*/manifest.json"))]
    assert [model["name"] for model in models] == [bundle.manifest.name for bundle in bundles]
    digests = [model["hashes"][0]["content"] for model in models]
    assert digests == [bundle.digest for bundle in bundles]
    assert document["metadata"]["component"]["name"] == "unroll"
    needed = {"ref": "unroll", "dependsOn": [entry["bom-ref"] for entry in (first, *models)]}
    assert document["dependencies"] == [needed, {"ref": "numpy==1"}]


def test_a_base_image_named_by_digest_is_listed(tmp_path):
    packages = {"metadata": {}, "components": [], "dependencies": []}
    digest = "5a" * 32
    (listed,) = complete(packages, tmp_path, f"registry/python@sha256:{digest}")["components"]
    assert (listed["type"], listed["name"]) == ("container", "registry/python")
    assert listed["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert not complete(packages, tmp_path, "registry/python:3.11")["components"]
