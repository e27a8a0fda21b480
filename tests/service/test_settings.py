"""Settings from defaults, a file, the environment and flags."""

import argparse
import dataclasses
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from service.__main__ import main
from service.config import Config, ConfigInvalid
from service.settings import add_flags, read_settings
from tests.tiny import edit_manifest


def flags(*arguments):
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return vars(parser.parse_args(arguments))


def read(*arguments, **environment):
    return read_settings(flags(*arguments), environment)


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "unroll.toml"
        path.write_text(text)
        return str(path)

    return write


def test_nothing_said_is_the_default():
    settings = read(PATH="/bin", UNROLLED="no setting of ours")
    assert settings.config == Config()
    assert not settings.origins


def test_a_later_source_wins(file):
    path = file('threads = 1\nmax_streams = 8\nmax_batch = 4\nmodels = "of-file"\n')
    environment = {"UNROLL_CONFIG": path, "UNROLL_MAX_STREAMS": "16", "UNROLL_MAX_BATCH": "5"}
    settings = read("--max-batch", "6", **environment)
    config = settings.config
    assert (config.threads, config.max_streams, config.max_batch) == (1, 16, 6)
    assert config.models == Path("of-file")
    assert settings.origins == {
        "threads": f"{path}: threads",
        "max_streams": "UNROLL_MAX_STREAMS",
        "max_batch": "--max-batch",
        "models": f"{path}: models",
    }


def test_the_flag_config_wins_over_the_variable(file):
    assert read("--config", file("threads = 1"), UNROLL_CONFIG="/none").config.threads == 1


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("No", False), ("false", False)]
)
def test_switches_are_words_in_the_environment(text, value):
    assert read(UNROLL_LOG_REQUESTS=text).config.log_requests is value


def test_switches_are_two_flags():
    assert read("--log-requests").config.log_requests
    assert not read("--no-log-requests", UNROLL_LOG_REQUESTS="true").config.log_requests


def test_an_empty_path_is_none_and_whole_numbers_are_numbers(file):
    assert read(UNROLL_RESUME_KEYS="").config.resume_keys is None
    assert read("--config", file("grace_seconds = 3")).config.grace_seconds == 3.0


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"UNROLL_THREDS": "1"}, "UNROLL_THREDS in the environment is no setting; is 'threads'"),
        ({"UNROLL_threads": "1"}, "UNROLL_threads in the environment is no setting"),
        ({"UNROLL_THREADS": "1.5"}, "UNROLL_THREADS is '1.5'; threads takes a whole number"),
        ({"UNROLL_STALL_SECONDS": "soon"}, "stall_seconds takes a number"),
        ({"UNROLL_STALL_SECONDS": "nan"}, "stall_seconds is nan; choose more than 0"),
        ({"UNROLL_LOG_TEXTS": "maybe"}, "log_texts takes true or false"),
        ({"UNROLL_LOG_LEVEL": "loud"}, "log_level is 'loud'; choose debug, info, warning or error"),
        ({"UNROLL_MODELS": ""}, "models takes a path"),
        ({"UNROLL_CONFIG": "/none"}, "config: /none cannot be read"),
        ({"UNROLL_TRACE_SHARE": "1.5"}, "trace_share is 1.5; choose at most 1"),
        ({"UNROLL_LOG_TEXTS": "true"}, "log_texts is on and log_requests is not"),
        ({"UNROLL_TLS_KEY": "key.pem"}, "tls_key is given alone"),
        ({"UNROLL_TLS_CLIENT_CA": "ca.pem"}, "tls_client_ca is given without tls_certificate"),
        ({"UNROLL_ADDRESS": "0.0.0.0:1"}, "there is no TLS; give tls_certificate and tls_key"),
        ({"UNROLL_ADDRESS": "host.example:1"}, "which others can reach"),
    ],
)
def test_what_cannot_be_used_is_named(environment, message):
    with pytest.raises(ConfigInvalid) as caught:
        read(**environment)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_stream = 1", "'max_stream' is no setting; is 'max_streams' meant?"),
        ("threads = [1]", "threads is [1]; threads takes a whole number"),
        ("threads = true", "threads is True; threads takes a whole number"),
        ("log_requests = 1", "log_requests is 1; log_requests takes true or false"),
        ("models = 3", "models is 3; models takes a path"),
        ("threads =", "cannot be read"),
    ],
)
def test_what_a_file_says_wrong_is_named(file, text, message):
    with pytest.raises(ConfigInvalid) as caught:
        read("--config", file(text))
    assert message in str(caught.value)


def test_beyond_this_machine_without_tls_must_be_said():
    assert read("--address", "0.0.0.0:1", "--allow-insecure").config.address == "0.0.0.0:1"
    for host in ("127.0.0.1", "127.8.8.8", "[::1]", "localhost"):
        assert read("--address", f"{host}:1").config.allow_insecure is False
    secure = ("--tls-certificate", "c.pem", "--tls-key", "k.pem")
    assert read("--address", "0.0.0.0:1", *secure).config.tls_key == Path("k.pem")


def test_the_clients_own_variables_are_not_the_services():
    assert read(UNROLL_CLIENT_TOKEN="secret").config == Config()


def test_what_is_printed_gives_the_same_configuration(file, capsys, monkeypatch):
    monkeypatch.delenv("UNROLL_FRONT_END", raising=False)  # which chooses it for other tests
    arguments = ["serve", "--max-streams", "7", "--log-requests", "--models", 'a "b"', "--threads"]
    assert main([*arguments, "1", "--print-config"]) == 0
    printed = capsys.readouterr().out
    assert "max_streams = 7  # --max-streams" in printed
    assert "grace_seconds = 30.0  # default" in printed
    again = read("--config", file(printed)).config
    assert again == Config(max_streams=7, log_requests=True, models=Path('a "b"'), threads=1)
    named = {line.split(" =")[0].lstrip("# ") for line in printed.splitlines()}
    assert named == {field.name for field in dataclasses.fields(Config)}
    assert tomllib.loads(printed)


def test_every_setting_says_what_it_is_and_its_default(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--help"])
    assert ended.value.code == 0
    reported = " ".join(capsys.readouterr().out.split())
    for field in dataclasses.fields(Config):
        assert f"--{field.name.replace('_', '-')}" in reported
        assert " ".join(field.metadata["text"].split()) in reported
        default = "none" if field.default is None else str(field.default).lower() or "empty"
        assert f"(default: {default})" in reported
        if field.name.endswith("_seconds"):
            assert "seconds" in field.metadata["text"]
        if field.name.endswith("_bytes"):
            assert "bytes" in field.metadata["text"]


def test_models_lists_each_bundle_and_version_says_what_runs(tiny_models, capsys):
    assert main(["models", "--models", str(tiny_models)]) == 0
    listed = capsys.readouterr().out
    assert "letters 1: generate in fp32" in listed
    assert main(["models", "--models", "/none"]) == 1
    assert main(["version"]) == 0
    assert "onnxruntime " in capsys.readouterr().out


def test_commands_that_read_models_find_them_where_the_service_would(
    tiny_models, tmp_path, file, capsys, monkeypatch
):
    monkeypatch.setenv("UNROLL_CONFIG", file(f'models = "{tiny_models}"'))
    assert main(["models"]) == 0
    assert "letters 1: generate" in capsys.readouterr().out
    assert main(["models", "--models", str(tmp_path / "none")]) == 1
    monkeypatch.setenv("UNROLL_MODLES", "x")
    assert main(["check"]) == 2
    assert "is 'models' meant?" in capsys.readouterr().err


def test_check_verifies_the_versions_that_a_roll_back_would_need(models_copy, capsys):
    newer = models_copy / "letters" / "2"
    shutil.copytree(models_copy / "letters" / "1", newer)
    edit_manifest(newer, lambda manifest: manifest.update(version=2))
    assert main(["check", "--models", str(models_copy)]) == 0
    assert f"{newer}: generate" in capsys.readouterr().out
    (models_copy / "letters" / "1" / "weights.bin").write_bytes(b"other")
    assert main(["check", "--models", str(models_copy)]) == 1
    assert f"{models_copy / 'letters' / '1'}: REFUSED" in capsys.readouterr().out


def test_a_reader_that_leaves_early_is_no_error(tiny_models):
    """As head does: no traceback, and the exit code of a broken pipe."""
    command = [sys.executable, "-m", "service", "models", "--models", str(tiny_models)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(20) == 128 + signal.SIGPIPE
