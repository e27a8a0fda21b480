import pytest

from service import config
from service.config import Config, ConfigInvalid, default_threads, split_address, split_precision


def test_the_default_configuration_is_the_documented_one():
    default = Config()
    assert (default.address, default.http_address) == ("127.0.0.1:50051", "127.0.0.1:8002")
    assert default.threads == 0
    assert 1 <= default_threads() <= 2


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_cgroup_quota_is_read_in_both_versions(tmp_path, files, cores):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert config._cgroup_quota(tmp_path) == cores


def test_usable_cores_are_those_of_quota_and_affinity(monkeypatch):
    monkeypatch.setattr(config.os, "sched_getaffinity", lambda _: set(range(8)))
    for quota, cores in ((None, 8), (1.5, 2), (0.3, 1), (64.0, 8)):
        monkeypatch.setattr(config, "_cgroup_quota", lambda quota=quota: quota)
        assert config.usable_cores() == cores


def test_model_control_is_explicit_or_none():
    assert Config().model_control == "explicit"
    assert Config(model_control="none").model_control == "none"
    with pytest.raises(ConfigInvalid, match="model_control is 'poll'; choose explicit or none"):
        Config(model_control="poll")


@pytest.mark.parametrize("address", ["", "host", "host:", ":80", "host:-1", "host:70000", "host:x"])
def test_an_address_needs_host_and_port(address):
    with pytest.raises(ConfigInvalid, match="address"):
        split_address(address, "address")
    assert split_address("[::1]:80", "address") == ("::1", 80)


@pytest.mark.parametrize(
    ("text", "default", "named"),
    [
        ("fp32", "fp32", {}),
        ("int8", "int8", {}),
        ("prose=int8", "fp32", {"prose": "int8"}),
        ("int8, g2p=fp32", "int8", {"g2p": "fp32"}),
        ("a=int8,fp32,b=int8", "fp32", {"a": "int8", "b": "int8"}),
    ],
)
def test_precision_is_a_default_and_names(text, default, named):
    assert split_precision(text) == (default, named)


@pytest.mark.parametrize(
    "text",
    ["", "int4", "int8,", "int8,fp32", "=int8", "prose", "prose=", "prose=int4", "a=int8,a=fp32"],
)
def test_another_precision_stops_the_start(text):
    with pytest.raises(ConfigInvalid, match="precision is"):
        Config(precision=text)
