"""The service: engines over ONNX Runtime, behind gRPC."""

__version__ = "0.2.0"
