"""Builds requests of the Open Inference Protocol and reads their answers."""

import grpc
import numpy as np

from service.oip.tensors import DATATYPES
from unroll.inference import grpc_service_pb2 as pb
from unroll.inference import grpc_service_pb2_grpc


def array_of(value):
    """Texts as BYTES; ints as INT64; floats as FP32."""
    array = np.array(value)
    if array.dtype.kind in "US":
        return np.vectorize(lambda s: s.encode() if isinstance(s, str) else s, otypes="O")(array)
    return array.astype({"i": np.int64, "f": np.float32}.get(array.dtype.kind, array.dtype))


def datatype_of(array):
    return {"O": "BYTES", "i": "INT64", "f": "FP32"}[array.dtype.kind]


def set_parameter(parameter, value):
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    setattr(parameter, kinds[type(value)], value)


def ask(model, inputs=None, raw=False, outputs=(), parameters=None, **fields):
    """inputs: by name, lists or arrays."""
    request = pb.ModelInferRequest(model_name=model, **fields)
    for name, value in (inputs or {}).items():
        array = array_of(value)
        tensor = request.inputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
        if raw:
            request.raw_input_contents.append(raw_of(array))
        else:
            field = DATATYPES[tensor.datatype].contents
            getattr(tensor.contents, field).extend(array.reshape(-1).tolist())
    for name in outputs:
        request.outputs.add(name=name)
    for name, value in (parameters or {}).items():
        set_parameter(request.parameters[name], value)
    return request


def raw_of(array):
    if array.dtype.kind != "O":
        return array.tobytes()
    return b"".join(len(e).to_bytes(4, "little") + e for e in array.reshape(-1).tolist())


def read(response):
    """The outputs by name, as arrays; BYTES as texts."""
    found = {}
    for number, output in enumerate(response.outputs):
        datatype = DATATYPES[output.datatype]
        if response.raw_output_contents:
            flat = from_raw(response.raw_output_contents[number], datatype)
        else:
            flat = list(getattr(output.contents, datatype.contents))
        array = np.array([e.decode() for e in flat]) if datatype.name == "BYTES" else flat
        dtype = None if datatype.name == "BYTES" else datatype.dtype
        found[output.name] = np.array(array, dtype).reshape(tuple(output.shape))
    return found


def from_raw(raw, datatype):
    if datatype.name != "BYTES":
        return np.frombuffer(raw, datatype.dtype)
    elements, place = [], 0
    while place < len(raw):
        length = int.from_bytes(raw[place : place + 4], "little")
        elements.append(raw[place + 4 : place + 4 + length])
        place += 4 + length
    return elements


class Inference:
    """The protocol's calls on one channel."""

    def __init__(self, target, options=()):
        self.channel = grpc.insecure_channel(target, options)
        self.stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def infer(self, *args, **kwargs):
        """The outputs of one request, read."""
        return read(self.stub.ModelInfer(ask(*args, **kwargs), timeout=30))

    def stream(self, *requests, metadata=None):
        """All responses of one call that sends these."""
        call = self.stub.ModelStreamInfer(iter(requests), timeout=30, metadata=metadata)
        return list(call)

    def metadata(self, name):
        return self.stub.ModelMetadata(pb.ModelMetadataRequest(name=name), timeout=30)

    def config(self, name):
        return self.stub.ModelConfig(pb.ModelConfigRequest(name=name), timeout=30).config

    def statistics(self, name):
        (stats,) = self.stub.ModelStatistics(
            pb.ModelStatisticsRequest(name=name), timeout=30
        ).model_stats
        return stats
