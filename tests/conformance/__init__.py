"""A conformance suite for the Open Inference Protocol, version 2, over gRPC; see __main__.py.

It imports grpc, numpy and the protocol's stubs, and nothing of the service that it came with.
"""
