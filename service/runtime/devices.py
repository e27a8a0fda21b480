"""Execution providers: the choice, and the error where the requested one is missing."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version

import onnxruntime

log = logging.getLogger(__name__)

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"

# onnxruntime's name of the device that a provider computes on.
DEVICES = {CPU_PROVIDER: "cpu", CUDA_PROVIDER: "cuda"}

_CUDA_OPTIONS = {
    "device_id": "0",
    # TF32 rounds the factors of a product to 10 bits: that is no fp32.
    "use_tf32": "0",
    # Doubling, the default, takes memory from the sessions of other graphs.
    "arena_extend_strategy": "kSameAsRequested",
}


class DeviceUnavailable(Exception):
    """The device that was asked for cannot run graphs here."""


def runtime_version() -> str:
    """Of onnxruntime."""
    return str(onnxruntime.__version__)


def choose_provider(device: str) -> str:
    """The provider for ``device``; whether it really loads shows when a session opens.

    Raises DeviceUnavailable for ``cuda`` where this onnxruntime has no CUDA provider.
    """
    _refuse_two_runtimes()
    available = onnxruntime.get_available_providers()
    if device == "cuda" and CUDA_PROVIDER not in available:
        raise DeviceUnavailable(
            f"--device cuda: this onnxruntime offers {', '.join(available)}; "
            "install the group serve-gpu on a machine with CUDA, or use --device cpu"
        )
    wants_cuda = device in ("auto", "cuda") and CUDA_PROVIDER in available
    return CUDA_PROVIDER if wants_cuda else CPU_PROVIDER


def provider_options(provider: str) -> dict[str, str]:
    """How sessions on ``provider`` compute: fp32 throughout."""
    return dict(_CUDA_OPTIONS) if provider == CUDA_PROVIDER else {}


def check_provider(device: str, wanted: str, session: onnxruntime.InferenceSession) -> str:
    """The provider a session really got: onnxruntime falls back to the CPU without an error.

    Raises DeviceUnavailable where ``cuda`` was asked for and the CPU was got.
    """
    got: str = session.get_providers()[0]
    if device == "cuda" and got != CUDA_PROVIDER:
        raise DeviceUnavailable(
            f"--device cuda: onnxruntime fell back to {got}; check the CUDA libraries and the "
            "driver, or use --device cpu"
        )
    if got != wanted:
        log.warning("device %s: wanted %s, onnxruntime gave %s", device, wanted, got)
    return got


def _refuse_two_runtimes() -> None:
    """Both packages install one module; which of the two is imported would be chance."""
    found = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(found) == 2:
        raise DeviceUnavailable(
            "onnxruntime and onnxruntime-gpu are both installed; uninstall both, then install "
            "the one you want"
        )


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
