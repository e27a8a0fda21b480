"""The version policy of a load request."""

from __future__ import annotations

from typing import Any

from service.engine.errors import WrongInput
from service.serving.control_types import VersionPolicy

_KINDS = ("latest", "all", "specific")
# Versions are whole numbers of folders; protobuf's JSON writes 64-bit ones as texts.
_LARGEST = 2**63 - 1


def read_policy(config: Any) -> VersionPolicy | None:
    """config: an object that may hold ``version_policy`` or, as JSON has it, ``versionPolicy``.

    None where it says nothing of versions. Raises WrongInput for anything else that it holds.
    """
    if not isinstance(config, dict):
        raise WrongInput("parameter 'config' is JSON; send an object")
    for key in config:
        if key not in ("version_policy", "versionPolicy"):
            raise WrongInput(
                f"parameter 'config' holds {key!r}; a bundle says all else of itself, send only "
                "version_policy"
            )
    if not config:
        return None
    policy = next(iter(config.values())) if len(config) == 1 else None
    if not (isinstance(policy, dict) and len(policy) == 1 and next(iter(policy)) in _KINDS):
        raise WrongInput(f"version_policy holds one of {', '.join(_KINDS)}")
    ((kind, content),) = policy.items()
    if not isinstance(content, dict):
        raise WrongInput(f"version_policy.{kind} is an object")
    return _policy(kind, content)


def _policy(kind: str, content: dict[str, Any]) -> VersionPolicy:
    if kind == "all":
        return VersionPolicy(all=True)
    if kind == "latest":
        count = content.get("num_versions", content.get("numVersions", 1))
        return VersionPolicy(latest=_number(count, "latest.num_versions"))
    versions = content.get("versions")
    if not (isinstance(versions, list) and versions):
        raise WrongInput("version_policy.specific.versions is a list of at least one version")
    return VersionPolicy(specific=tuple(_number(v, "specific.versions") for v in versions))


def _number(value: Any, what: str) -> int:
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if type(value) is not int or not 1 <= value <= _LARGEST:
        raise WrongInput(
            f"version_policy.{what} holds {value!r}; send whole numbers of 1 and above"
        )
    return value
