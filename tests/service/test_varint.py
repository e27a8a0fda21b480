import pytest
from google.protobuf.wrappers_pb2 import UInt64Value

from service.varint import varint


@pytest.mark.parametrize("value", [1, 0x7F, 0x80, 300, 0x3FFF, 0x4000, 1 << 32, (1 << 64) - 1])
def test_a_number_is_written_as_protobuf_writes_it(value):
    assert UInt64Value(value=value).SerializeToString() == b"\x08" + varint(value)


def test_zero_is_one_byte():
    assert varint(0) == b"\0"
