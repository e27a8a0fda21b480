"""The log settings that the protocol can read and change."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from service.engine.errors import WrongInput
from unroll.inference import grpc_service_pb2 as pb

# By rising level. What is less than the level in use is not logged.
_LEVELS = {
    "log_verbose_level": logging.DEBUG,
    "log_info": logging.INFO,
    "log_warning": logging.WARNING,
    "log_error": logging.ERROR,
}
_VERBOSE = "log_verbose_level"


def log_settings() -> dict[str, bool | int]:
    """What is logged now, by Triton's names."""
    level = logging.getLogger().getEffectiveLevel()
    settings: dict[str, bool | int] = {name: level <= least for name, least in _LEVELS.items()}
    settings[_VERBOSE] = int(settings[_VERBOSE])
    return settings


def change_log_settings(wanted: Mapping[str, pb.LogSettingsRequest.SettingValue]) -> None:
    """Log what ``wanted`` turns on, and what is graver. Raises WrongInput, then nothing changes."""
    if not wanted:
        return
    settings = log_settings() | {name: _value(name, wanted[name]) for name in wanted}
    if not settings["log_error"]:
        raise WrongInput("setting 'log_error' is false; errors are always logged")
    levels = list(_LEVELS)
    first = next(number for number, name in enumerate(levels) if settings[name])
    silent = [name for name in levels[first:] if not settings[name]]
    if silent:
        raise WrongInput(
            f"setting {silent[0]!r} is off while {levels[first]!r} is on; what is graver than "
            "something that is logged is logged, too"
        )
    logging.getLogger().setLevel(_LEVELS[levels[first]])


def _value(name: str, setting: pb.LogSettingsRequest.SettingValue) -> bool | int:
    if name not in _LEVELS:
        raise WrongInput(
            f"setting {name[:80]!r} does not exist; there are {', '.join(sorted(_LEVELS))}, and "
            "the log goes to standard error"
        )
    kind = "uint32_param" if name == _VERBOSE else "bool_param"
    if setting.WhichOneof("parameter_choice") != kind:
        raise WrongInput(f"setting {name!r} comes as {kind}")
    value: bool | int = getattr(setting, kind)
    return value
