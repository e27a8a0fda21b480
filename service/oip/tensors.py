"""Tensors of the inference protocol to arrays and back.

What a request claims is checked against what it holds before anything is made of it.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from service.engine.errors import NotOffered, WrongInput
from service.oip.parameters import InferParameters
from unroll.inference import grpc_service_pb2 as pb
from unroll.inference import model_config_pb2 as config_pb

Array = NDArray[Any]


@dataclass(frozen=True)
class Datatype:
    """contents: the field of typed elements; "" for a type that comes raw only.

    dtype: of the array; little-endian. BYTES are objects.
    """

    name: str
    dtype: str
    contents: str
    config: config_pb.DataType

    @property
    def size(self) -> int:
        """Bytes of an element; of BYTES, at least so many."""
        return 4 if self.name == "BYTES" else np.dtype(self.dtype).itemsize


# Open Inference Protocol, "Tensor Data Types" and InferTensorContents.
_ALL = (
    Datatype("BOOL", "?", "bool_contents", config_pb.TYPE_BOOL),
    Datatype("UINT8", "<u1", "uint_contents", config_pb.TYPE_UINT8),
    Datatype("UINT16", "<u2", "uint_contents", config_pb.TYPE_UINT16),
    Datatype("UINT32", "<u4", "uint_contents", config_pb.TYPE_UINT32),
    Datatype("UINT64", "<u8", "uint64_contents", config_pb.TYPE_UINT64),
    Datatype("INT8", "<i1", "int_contents", config_pb.TYPE_INT8),
    Datatype("INT16", "<i2", "int_contents", config_pb.TYPE_INT16),
    Datatype("INT32", "<i4", "int_contents", config_pb.TYPE_INT32),
    Datatype("INT64", "<i8", "int64_contents", config_pb.TYPE_INT64),
    Datatype("FP16", "<f2", "", config_pb.TYPE_FP16),
    Datatype("BF16", "<u2", "", config_pb.TYPE_BF16),
    Datatype("FP32", "<f4", "fp32_contents", config_pb.TYPE_FP32),
    Datatype("FP64", "<f8", "fp64_contents", config_pb.TYPE_FP64),
    Datatype("BYTES", "O", "bytes_contents", config_pb.TYPE_STRING),
)
DATATYPES = {datatype.name: datatype for datatype in _ALL}
# BF16 is nobody's: numpy has no such type.
_DATATYPE_OF_DTYPE = {np.dtype(t.dtype): t for t in _ALL if t.name != "BF16"}

# Elements of one input, whatever its model: more than any message of the largest size holds.
_MOST_ELEMENTS = 2**31

# Over HTTP, raw tensors follow the message: their clients say here too how long each is.
BINARY_SIZE = "binary_data_size"

# Before each element of BYTES.
_LENGTH = struct.Struct("<I")
_IS_LITTLE_ENDIAN = sys.byteorder == "little"


@dataclass(frozen=True)
class TensorMetadata:
    """A tensor that a model takes or gives.

    shape: -1 for what the request chooses; the batch, where there is one, is part of it.
    labels: what the last axis stands for, where that has names.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InputSpec:
    """A tensor of a request as its port takes it, without contents.

    what: it, in a refusal. count: of its elements. claimed: of raw contents the bytes that the
    request itself says they have, None where it does not.
    """

    name: str
    what: str
    datatype: Datatype
    shape: tuple[int, ...]
    count: int
    claimed: int | None


def datatype_of(dtype: str) -> str:
    """The name of numpy's ``dtype`` in the protocol."""
    return _DATATYPE_OF_DTYPE[np.dtype(dtype)].name


def input_specs(
    request: pb.ModelInferRequest, ports: Sequence[TensorMetadata]
) -> tuple[InputSpec, ...]:
    """The request's tensors, each of its port's datatype and of a shape that fits it.

    A tensor of shape [n, 1] may come as [n]. Raises WrongInput with the tensor's name, and
    NotOffered for one that lies in shared memory.
    """
    known = {port.name: port for port in ports}
    _check_names(request, known)
    _check_contents(request)
    is_raw = bool(request.raw_input_contents)
    return tuple(_spec(tensor, known[tensor.name], is_raw) for tensor in request.inputs)


def read_inputs(request: pb.ModelInferRequest, specs: Sequence[InputSpec]) -> dict[str, Array]:
    """The request's tensors by name. specs: of its inputs. Raises WrongInput as input_specs()."""
    if raw := request.raw_input_contents:
        return {
            spec.name: _from_raw(content, spec) for spec, content in zip(specs, raw, strict=True)
        }
    return {
        spec.name: _from_typed(tensor.contents, spec)
        for spec, tensor in zip(specs, request.inputs, strict=True)
    }


def _check_names(request: pb.ModelInferRequest, known: Mapping[str, TensorMetadata]) -> None:
    names = [tensor.name for tensor in request.inputs]
    for name in names:
        if name not in known:
            raise WrongInput(
                f"input {name!r} is unknown; model {request.model_name!r} takes "
                f"{', '.join(map(repr, known))}"
            )
        if names.count(name) > 1:
            raise WrongInput(f"input {name!r} comes twice; send it once")
    for port in known.values():
        if port.name not in names and not port.optional:
            raise WrongInput(
                f"input {port.name!r} is missing; send it as {port.datatype} of shape "
                f"{list(port.shape)}"
            )


def _check_contents(request: pb.ModelInferRequest) -> None:
    """Raw contents are for every input or for none."""
    raw = request.raw_input_contents
    for tensor in request.inputs:
        for name in tensor.parameters:
            if name != BINARY_SIZE:
                refuse_parameter(f"input {tensor.name!r}", name)
        if raw and tensor.HasField("contents"):
            raise WrongInput(
                f"input {tensor.name!r} has contents, and the request has raw_input_contents; "
                "send all inputs in one of the two ways"
            )
    if raw and len(raw) != len(request.inputs):
        place = min(len(raw), len(request.inputs))
        where = f"; input {request.inputs[place].name!r} has none" if place == len(raw) else ""
        raise WrongInput(
            f"raw_input_contents holds {len(raw)} entries for {len(request.inputs)} inputs"
            f"{where}; send one for each, in their order"
        )


def refuse_parameter(what: str, name: str) -> NoReturn:
    """Of a tensor, which ``what`` says. Raises NotOffered or WrongInput."""
    if name.startswith("shared_memory"):
        raise NotOffered(
            f"{what} is to lie in shared memory, which this server does not use; send and read "
            "raw contents instead"
        )
    raise WrongInput(f"{what} has the unknown parameter {name!r}; leave it out")


def _spec(
    tensor: pb.ModelInferRequest.InferInputTensor, port: TensorMetadata, is_raw: bool
) -> InputSpec:
    what = f"input {tensor.name!r}"
    datatype = _checked_datatype(tensor.datatype, port, what)
    shape = _checked_shape(tuple(tensor.shape), port, what)
    claimed: int | None = None
    if is_raw:
        claimed = InferParameters(tensor.parameters).whole(BINARY_SIZE, _MOST_ELEMENTS)
    return InputSpec(tensor.name, what, datatype, shape, math.prod(shape), claimed)


def _from_raw(raw: bytes, spec: InputSpec) -> Array:
    if spec.claimed is not None and spec.claimed != len(raw):
        raise WrongInput(
            f"{spec.what} has {len(raw)} raw bytes, and its {BINARY_SIZE} says {spec.claimed}"
        )
    return read_raw(raw, spec.datatype, spec.count, spec.what).reshape(spec.shape)


def _checked_datatype(name: str, port: TensorMetadata, what: str) -> Datatype:
    if name not in DATATYPES:
        raise WrongInput(f"{what} has the unknown datatype {name!r}; send {port.datatype}")
    if name != port.datatype:
        raise WrongInput(f"{what} is {name}, the model takes {port.datatype}")
    return DATATYPES[name]


def _checked_shape(shape: tuple[int, ...], port: TensorMetadata, what: str) -> tuple[int, ...]:
    """The port's own rank, so that [n] stands for [n, 1]."""
    if min(shape, default=1) < 1:
        raise WrongInput(f"{what} has the shape {list(shape)}; every dimension is at least 1")
    if port.shape[1:] == (1,) and len(shape) == 1:
        shape = (*shape, 1)
    fits = len(shape) == len(port.shape) and all(
        wanted in (-1, given) for wanted, given in zip(port.shape, shape, strict=True)
    )
    if not fits:
        raise WrongInput(
            f"{what} has the shape {list(shape)}, the model takes {list(port.shape)} (-1: any)"
        )
    if math.prod(shape) > _MOST_ELEMENTS:
        raise WrongInput(f"{what} has the shape {list(shape)}, which no request can hold")
    return shape


def read_raw(raw: bytes, datatype: Datatype, count: int, what: str) -> Array:
    if datatype.name == "BYTES":
        return _read_bytes(raw, count, what)
    if len(raw) != count * datatype.size:
        raise WrongInput(
            f"{what} has {len(raw)} raw bytes; {count} elements of {datatype.name} take "
            f"{count * datatype.size}"
        )
    if datatype.name == "BOOL":
        return np.frombuffer(raw, np.uint8).astype(np.bool_)
    return np.frombuffer(raw, datatype.dtype)


def _read_bytes(raw: bytes, count: int, what: str) -> Array:
    """Elements of BYTES, each after its length in four little-endian bytes."""
    if count * 4 > len(raw):
        raise WrongInput(
            f"{what} has {len(raw)} raw bytes, too few for the lengths of {count} elements of BYTES"
        )
    elements = np.empty(count, object)
    place = 0
    for number in range(count):
        if place + 4 > len(raw):
            raise WrongInput(f"{what}: the raw bytes end before element {number} of {count}")
        (length,) = _LENGTH.unpack_from(raw, place)
        place += 4
        if place + length > len(raw):
            raise WrongInput(
                f"{what}: element {number} has {length} bytes by its length, and "
                f"{len(raw) - place} are left"
            )
        elements[number] = raw[place : place + length]
        place += length
    if place != len(raw):
        raise WrongInput(f"{what}: {len(raw) - place} raw bytes follow its {count} elements")
    return elements


def _from_typed(contents: pb.InferTensorContents, spec: InputSpec) -> Array:
    datatype, count, what = spec.datatype, spec.count, spec.what
    if not datatype.contents:
        raise WrongInput(f"{what} is {datatype.name}, which comes in raw_input_contents only")
    for field, _ in contents.ListFields():
        if field.name != datatype.contents:
            raise WrongInput(
                f"{what} is {datatype.name} and has {field.name}; fill {datatype.contents}"
            )
    elements = getattr(contents, datatype.contents)
    if len(elements) != count:
        raise WrongInput(f"{what} has {len(elements)} {datatype.contents}; its shape takes {count}")
    if datatype.name != "BYTES":
        return np.array(elements, datatype.dtype).reshape(spec.shape)
    read = np.empty(count, object)
    read[:] = elements
    return read.reshape(spec.shape)


def add_outputs(response: pb.ModelInferResponse, arrays: Mapping[str, Array]) -> None:
    """Their names, datatypes and shapes."""
    for name, array in arrays.items():
        datatype = _DATATYPE_OF_DTYPE[array.dtype]
        response.outputs.add(name=name, datatype=datatype.name, shape=array.shape)


def come_raw_only(arrays: Iterable[Array]) -> bool:
    """Whether one of them is of a type that has no contents in the protocol."""
    return not all(_DATATYPE_OF_DTYPE[array.dtype].contents for array in arrays)


def add_typed(response: pb.ModelInferResponse, arrays: Iterable[Array]) -> None:
    """The contents of the response's outputs, in each of them."""
    for output, array in zip(response.outputs, arrays, strict=True):
        field = _DATATYPE_OF_DTYPE[array.dtype].contents
        getattr(output.contents, field).extend(array.reshape(-1).tolist())


def raw_of(array: Array) -> bytes:
    if not array.dtype.hasobject:
        return (
            array if _IS_LITTLE_ENDIAN else array.astype(array.dtype.newbyteorder("<"))
        ).tobytes()
    return b"".join(_LENGTH.pack(len(e)) + e for e in array.reshape(-1).tolist())


def raw_text(text: str) -> bytes:
    """An element of BYTES."""
    data = text.encode("utf8", "surrogatepass")
    return _LENGTH.pack(len(data)) + data


def texts_of_raw(raw: bytes, count: int) -> list[str] | None:
    """The elements of raw BYTES; None for what read_raw() or texts_of() raise at."""
    texts, place = [], 0
    try:
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(raw, place)
            place += _LENGTH.size
            texts.append(raw[place : place + length].decode("utf8"))
            place += length
    except (struct.error, UnicodeDecodeError):
        return None
    return texts if place == len(raw) else None


def bytes_array(texts: Sequence[Any], shape: tuple[int, ...] | None = None) -> Array:
    """Texts as BYTES in UTF-8, of ``shape`` or (n,)."""
    array = np.empty(len(texts), object)
    array[:] = [text.encode("utf8", "surrogatepass") for text in texts]
    return array if shape is None else array.reshape(shape)


def texts_of(array: Array, what: str) -> list[str]:
    """The elements of BYTES as texts. Raises WrongInput for one that is not UTF-8."""
    texts = []
    for number, element in enumerate(array.reshape(-1).tolist()):
        try:
            texts.append(element.decode("utf8"))
        except UnicodeDecodeError as error:
            raise WrongInput(f"input {what!r}: element {number} is not UTF-8 ({error})") from error
    return texts
