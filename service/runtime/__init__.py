"""The only place of the service that knows onnxruntime."""

import os

# Its wheels report their use to their maker unless that is turned off before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
