"""Files that hand certificates to Envoy: private, whole, together, and gone at the end."""

import asyncio
import json
import stat

import pytest

from service.access.tls import Credentials, TlsFiles
from service.envoy import secrets
from service.envoy.secrets import SecretFiles
from tests.attacks.harness import wait_until
from tests.authority import Authority


@pytest.fixture
def authority():
    return Authority()


@pytest.fixture
def credentials(tmp_path, authority, monkeypatch):
    monkeypatch.setattr("service.access.file_reload.LOOK_SECONDS", 0.0)
    certificate, key = authority.issue().write(tmp_path)
    ca = tmp_path / "ca.crt"
    ca.write_bytes(authority.pem)
    return Credentials(TlsFiles(certificate, key, ca), lambda: None)


@pytest.fixture
def files(credentials):
    files = SecretFiles(credentials)
    yield files
    files.remove()


def content(files, name):
    document = json.loads((files.folder / "current" / f"{name}.json").read_text())
    (resource,) = document["resources"]
    assert resource["name"] == name
    return resource


def handed(files):
    pair = content(files, "certificate")["tls_certificate"]
    trusted = content(files, "authorities")["validation_context"]["trusted_ca"]
    parts = (pair["certificate_chain"], pair["private_key"], trusted)
    return tuple(part["inline_string"].encode() for part in parts)


def test_nobody_else_can_read_them(files):
    modes = {stat.S_IMODE(p.stat().st_mode) for p in files.folder.rglob("*.json")}
    folders = [files.folder, *(p for p in files.folder.iterdir() if not p.is_symlink())]
    assert modes == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in folders} == {0o700}


def test_they_hold_what_was_validated_not_what_lies_there_now(files, credentials, tmp_path):
    before = credentials.get()
    (tmp_path / "tls.crt").write_bytes(b"spoiled")
    files.write()
    assert handed(files) == (before.chain, before.key, before.authorities)


def test_a_new_certificate_comes_with_its_authorities_and_the_old_one_is_removed(
    files, credentials, tmp_path
):
    old, other = files.folder / "current", Authority("other")
    first = old.resolve()

    async def run():
        task = asyncio.create_task(files.keep())
        other.issue().write(tmp_path)
        (tmp_path / "ca.crt").write_bytes(other.pem)
        assert await asyncio.to_thread(wait_until, lambda: handed(files)[2] == other.pem, 10)
        task.cancel()

    asyncio.run(run())
    new = credentials.get()
    assert handed(files) == (new.chain, new.key, other.pem)
    assert not first.exists()
    assert len(list(files.folder.iterdir())) == 2  # the newest, and the link to it


def test_the_folder_is_removed_with_all_in_it(credentials):
    files = SecretFiles(credentials)
    files.remove()
    assert not files.folder.exists()


def test_without_a_folder_in_memory_another_one_is_taken(credentials, monkeypatch, tmp_path):
    monkeypatch.setattr(secrets, "_MEMORY", tmp_path / "none")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    files = SecretFiles(credentials)
    assert files.folder.parent == tmp_path
    files.remove()
