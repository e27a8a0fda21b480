import pytest

from service import config
from service.config import Config, ConfigInvalid, split_address


def test_the_default_configuration_is_the_documented_one():
    default = Config()
    assert (default.address, default.http_address) == ("127.0.0.1:50051", "127.0.0.1:8002")
    assert default.threads == 1


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


@pytest.mark.parametrize("address", ["", "host", "host:", ":80", "host:-1", "host:70000", "host:x"])
def test_an_address_needs_host_and_port(address):
    with pytest.raises(ConfigInvalid, match="address"):
        split_address(address, "address")
    assert split_address("[::1]:80", "address") == ("::1", 80)
