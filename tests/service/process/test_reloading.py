"""SIGHUP: what can change while the service runs is read again, what cannot is named."""

import logging
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from service.access.auth import new_token
from service.access.security import secure
from service.config import Config, ConfigInvalid
from service.process.reloading import Reloading
from tests.authority import Authority


@pytest.fixture(autouse=True)
def _level():
    root = logging.getLogger()
    before = root.level
    yield
    root.setLevel(before)


class Reader:
    """The configuration as its sources have it; ``error`` where they cannot be read."""

    def __init__(self, config):
        self.config, self.error, self.failures = config, None, 0

    def __call__(self):
        if self.error:
            raise self.error
        return self.config

    def failed(self):
        self.failures += 1


def reload(running, reader, security=None):
    security = security or secure(running, lambda _: None)
    Reloading(running, reader, security, reader.failed).reload()


def test_the_log_level_is_as_the_settings_have_it_now():
    reload(Config(), Reader(Config(log_level="warning")))
    assert logging.getLogger().level == logging.WARNING


def test_settings_that_need_a_restart_are_named_and_no_others(caplog):
    with caplog.at_level("INFO"):
        reload(Config(), Reader(Config(max_queue=1, grace_seconds=3.0, log_level="debug")))
    assert caplog.messages[-1] == "changed, and needs a restart: max_queue, grace_seconds"
    caplog.clear()
    with caplog.at_level("INFO"):
        reload(Config(), Reader(Config(log_level="info")))
    assert len(caplog.messages) == 1


def test_settings_that_cannot_be_used_change_nothing_and_are_counted(caplog):
    reader = Reader(Config())
    reader.error = ConfigInvalid("log_level is 'loud'; choose another one")
    before = logging.getLogger().level
    reload(Config(), reader)
    assert reader.failures == 1
    assert "'loud'; choose another one; the settings stay as they are" in caplog.text
    assert logging.getLogger().level == before


def test_tokens_are_read_even_where_their_file_looks_the_same(tmp_path, caplog):
    """As when a file system shows no change."""
    file = tmp_path / "tokens"
    (secret, line), (_, other) = new_token("ann", ["infer"]), new_token("bob", ["infer"])
    file.write_text(f"{other}\n")
    config = Config(auth_tokens=file)
    failures = []
    security = secure(config, failures.append)
    look = security.guard._tokens.__self__
    file.write_text(f"{line}\n")
    look._looks = look._look()
    with pytest.raises(Exception, match="not known here"):
        security.guard.caller("Classify", [("authorization", f"Bearer {secret}")])
    reload(config, Reader(config), security)
    assert security.guard.caller("Classify", [("authorization", f"Bearer {secret}")]).name == "ann"
    file.write_text("nonsense\n")
    reload(config, Reader(config), security)
    assert failures == ["tokens"]
    assert "what was read before stays in use" in caplog.text
    assert security.guard.caller("Classify", [("authorization", f"Bearer {secret}")]).name == "ann"


def test_certificates_are_read_again_and_one_without_its_key_changes_nothing(tmp_path):
    authority, other = Authority(), tmp_path / "other"
    other.mkdir()
    certificate, key = authority.issue(until=datetime(2100, 1, 1, tzinfo=UTC)).write(tmp_path)
    config = Config(tls_certificate=certificate, tls_key=key)
    failures = []
    security = secure(config, failures.append)
    authority.issue(until=datetime(2101, 1, 1, tzinfo=UTC)).write(tmp_path)
    before = security.credentials.get()
    reload(config, Reader(config), security)
    assert security.credentials.get() is not before
    assert security.certificate_expires() == datetime(2101, 1, 1, tzinfo=UTC).timestamp()
    _, wrong = authority.issue().write(other)
    wrong.rename(key)
    reload(config, Reader(config), security)
    assert failures == ["tls"]
    assert security.certificate_expires() == datetime(2101, 1, 1, tzinfo=UTC).timestamp()


def test_a_changed_path_of_tokens_needs_a_restart(caplog, tmp_path):
    running = Config()
    reload(running, Reader(replace(running, auth_tokens=tmp_path / "tokens")))
    assert "needs a restart: auth_tokens" in caplog.text
