"""What is said of the CPU beside the fingerprint."""

import pytest

from service.runtime.cpu import KERNEL_EXTENSIONS, cpu_extensions

INTEL = """processor\t: 0
flags\t\t: fpu sse2 avx2 fma avx avx512_vnni amx_int8 rdtscp
bugs\t\t: spectre_v1
processor\t: 1
flags\t\t: fpu
"""
ARM = "processor : 0\nFeatures\t: fp asimd aes asimddp i8mm\n"


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (INTEL, ("avx", "fma", "avx2", "avx512_vnni", "amx_int8")),
        (ARM, ("asimd", "asimddp", "i8mm")),
        ("processor : 0\n", ()),
    ],
)
def test_extensions_are_those_that_kernels_are_chosen_by(tmp_path, cpuinfo, expected):
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo)
    assert cpu_extensions(path) == expected


def test_where_nothing_can_be_read_nothing_is_said(tmp_path):
    assert cpu_extensions(tmp_path / "missing") == ()


def test_a_served_model_has_those_of_this_machine(standing_service, caller):
    said = cpu_extensions()
    assert set(said) <= set(KERNEL_EXTENSIONS)
    assert standing_service.app.registry.get("letters").card.cpu_extensions == said
    assert tuple(caller.get_model("letters").cpu_extensions) == said
