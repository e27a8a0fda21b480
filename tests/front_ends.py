"""Which front end the services of tests have: UNROLL_FRONT_END, which the service reads itself."""

from __future__ import annotations

import os
from dataclasses import replace

from service.config import Config
from service.envoy.installation import EnvoyMissing, find

CHOSEN = os.environ.get("UNROLL_FRONT_END") or Config().front_end


def with_front_end(config: Config) -> Config:
    """``config`` with that front end, where it names none of its own."""
    return config if config.front_end != "auto" else replace(config, front_end=CHOSEN)


def is_envoy() -> bool:
    """Whether Envoy is in front of services that name no front end of their own."""
    if CHOSEN != "auto":
        return CHOSEN == "envoy"
    try:
        find()
    except EnvoyMissing:
        return False
    return True
