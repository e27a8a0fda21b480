"""Why a model is not imported."""

from __future__ import annotations


class ImportRefused(Exception):
    """Nothing was written; the message says why, and what would be right."""
