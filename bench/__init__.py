"""What the service is measured with."""

import os

# Its wheels report their use to their maker unless this is set before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
