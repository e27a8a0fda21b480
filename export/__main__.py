"""Make bundles: of models trained here, and of models from elsewhere.

python -m export MODEL …                a training run, or the model inside a bundle
python -m export inspect FILE.onnx      what a graph reads and writes, and the command to try
python -m export import FILE.onnx …     a stateful ONNX graph
python -m export torch …                the weights of a PyTorch recurrent network

Each has --help.
"""

from __future__ import annotations

import sys


def main() -> int:
    """Only what is asked for is imported: a foreign graph needs no PyTorch."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    if command == "torch":
        from export.foreign import torch_cli

        return torch_cli.main()
    if command in ("import", "inspect"):
        from export.foreign import cli as foreign

        return foreign.main()
    from export import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
