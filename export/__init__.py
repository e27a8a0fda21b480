"""From PyTorch to bundles."""

import os

# Its wheels report their use to their maker unless a variable forbids it, before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
