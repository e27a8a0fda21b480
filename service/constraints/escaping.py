"""Texts that stand for themselves in a regular expression."""

from __future__ import annotations

import re

# What has a meaning of its own there, in Rust's crate ``regex``.
_SPECIAL = re.compile(r"[\\.+*?()|\[\]{}^$#&~\-]")


def escape(text: str) -> str:
    """The expression of ``text`` alone."""
    return _SPECIAL.sub(r"\\\g<0>", text)
