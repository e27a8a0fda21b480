"""The suite's own reading and writing of tensors, held to bytes written out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from conformance.endpoint import Model, Tensor
from conformance.requests import guess, stacked, varied
from conformance.tensors import (
    DATATYPES,
    FIELDS,
    Malformed,
    from_contents,
    from_raw,
    to_array,
    to_contents,
    to_raw,
)

RAW = {
    "BOOL": ([True, False], b"\1\0"),
    "INT16": ([1, -2], b"\1\0\xfe\xff"),
    "INT64": ([258], b"\2\1\0\0\0\0\0\0"),
    "UINT32": ([1], b"\1\0\0\0"),
    "FP16": ([1.0], b"\0\x3c"),
    "BF16": ([1.0], b"\x80\x3f"),
    "FP32": ([-2.0], b"\0\0\0\xc0"),
    "BYTES": (["ab", ""], b"\2\0\0\0ab\0\0\0\0"),
}


@pytest.mark.parametrize("datatype", RAW)
def test_raw_buffers_are_little_endian(datatype: str):
    """Elements, and the lengths before BYTES, are written as the protocol says, and read back."""
    values, raw = RAW[datatype]
    array = to_array(datatype, values)
    assert to_raw(datatype, array) == raw
    assert np.array_equal(from_raw(datatype, (len(values),), raw), array)


@pytest.mark.parametrize("raw", [b"", b"\1\0", b"\2\0\0\0a", b"\1\0\0\0ab", b"\xff\xff\xff\xff"])
def test_malformed_bytes_are_not_read(raw: bytes):
    """A buffer of BYTES that is not exactly one element is malformed."""
    with pytest.raises(Malformed):
        from_raw("BYTES", (1,), raw)


def test_overflowing_shapes_are_not_read():
    """Sizes are whole numbers: none is 0 modulo 2 ** 64."""
    for shape in ((2**32, 2**32), (2**61,), (-1,)):
        with pytest.raises(Malformed):
            from_raw("INT64", shape, b"")


@pytest.mark.parametrize("datatype", FIELDS)
def test_typed_contents_are_in_one_field(datatype: str):
    """Every datatype that has a field is written to it, and refused from another."""
    array = to_array(datatype, ["x"] if datatype == "BYTES" else [1])
    contents = to_contents(datatype, array)
    assert [field.name for field, _ in contents.ListFields()] == [FIELDS[datatype]]
    assert np.array_equal(from_contents(datatype, (1,), contents), array)
    with pytest.raises(Malformed):
        from_contents("FP64" if datatype == "FP32" else "FP32", (1,), contents)


def model(*inputs: Tensor, **how: object) -> Model:
    return Model("m", ("1",), inputs, (Tensor("out", "FP32", (-1, -1)),), **how)


def test_guess_fits_the_metadata():
    """A batch is 1, other variable dimensions 3, and lengths state the size of what they name."""
    inputs = (
        Tensor("source", "INT64", (-1, -1)),
        Tensor("source_lengths", "INT64", (-1, 1)),
        Tensor("right", "FP32", (-1, 5)),
        Tensor("LENGTH", "INT32", (-1,)),
        Tensor("text", "BYTES", (-1, 1)),
        Tensor("state", "FP32", (-1, 7)),
    )
    arrays = guess(model(*inputs, optional=frozenset({"state"}), max_batch_size=8))
    assert arrays["source"].tolist() == [[1, 1, 1]]
    assert arrays["source_lengths"].tolist() == [[3]]
    assert arrays["right"].tolist() == [[1.0] * 5]
    assert arrays["LENGTH"].tolist() == [3]
    assert arrays["text"].tolist() == [[b"bad"]]
    assert "state" not in arrays


def test_guess_without_a_batch_has_small_dimensions():
    """Where the configuration says that there is no batch, the first dimension is any other."""
    arrays = guess(model(Tensor("values", "FP64", (-1,)), max_batch_size=0))
    assert arrays["values"].shape == (3,)


def test_guess_where_all_is_optional_leaves_out_states():
    """Of inputs that are all optional, those that no state is made of are sent."""
    inputs = (Tensor("tokens", "INT64", (-1, 1)), Tensor("hidden", "FP32", (-1, 4)))
    names = frozenset({"tokens", "hidden"})
    assert set(guess(model(*inputs, optional=names, states=frozenset({"hidden"})))) == {"tokens"}


@pytest.mark.parametrize("datatype", DATATYPES)
def test_varied_arrays_differ(datatype: str):
    """Other contents differ in every element and have the same shape; lengths stay."""
    inputs = (Tensor("values", datatype, (-1, 2)), Tensor("lengths", "INT64", (-1, 1)))
    arrays = guess(model(*inputs))
    other = varied(arrays)
    assert other["values"].shape == arrays["values"].shape
    assert not (other["values"] == arrays["values"]).any()
    assert np.array_equal(other["lengths"], arrays["lengths"])
    assert stacked(arrays, other)["values"].shape == (2, 2)
