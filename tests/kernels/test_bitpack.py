"""Codec bitpack, as spec/codecs/bitpack.md says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, KernelBackend
from tests.kernels.samples import byte_arrays, ranges_of

EXAMPLE_SYMBOLS = bytes.fromhex("01 02 03 04 05 06 07 00")
EXAMPLE_STREAM = bytes.fromhex("03 e4 39 55")


def test_the_example_of_the_page_is_what_is_written_and_read(backend: KernelBackend) -> None:
    assert backend.bitpack_encode(EXAMPLE_SYMBOLS, 3).tobytes() == EXAMPLE_STREAM
    out = np.zeros(8, np.uint8)
    backend.bitpack_decode(EXAMPLE_STREAM, 8, 0, out)
    assert out.tobytes() == EXAMPLE_SYMBOLS


@given(data=byte_arrays(5000), width=st.integers(1, 7), sample=st.data())
def test_any_range_decodes_to_the_bytes_that_were_given(
    backend: KernelBackend, data: U8, width: int, sample: st.DataObject
) -> None:
    data &= (1 << width) - 1
    stream = backend.bitpack_encode(data, width)
    whole, rest = divmod(data.size, 1024)
    assert stream.size == 1 + 128 * width * whole + width * -(-rest // 8)
    start, stop = sample.draw(ranges_of(data.size))
    surroundings = np.full(stop - start + 2, 0xEE, np.uint8)
    backend.bitpack_decode(stream, data.size, start, surroundings[1:-1])
    assert surroundings.tobytes() == b"\xee" + data[start:stop].tobytes() + b"\xee"


def test_no_symbols_take_the_width_alone(backend: KernelBackend) -> None:
    assert backend.bitpack_encode(b"", 5).tobytes() == b"\x05"
    backend.bitpack_decode(b"\x05", 0, 0, np.zeros(0, np.uint8))


@pytest.mark.parametrize(
    ("stream", "n"),
    [
        (b"", 8),
        (b"\x00", 0),
        (b"\x08" + bytes(8), 8),
        (EXAMPLE_STREAM[:-1], 8),
        (EXAMPLE_STREAM + b"\0", 8),
        (EXAMPLE_STREAM, 9),
        (EXAMPLE_STREAM, 0),
        (EXAMPLE_STREAM, 2**62),
        # Seven symbols; the eighth has its field of one bit set, then its field of two.
        (bytes.fromhex("03 e4 39 d5"), 7),
        (bytes.fromhex("03 e4 f9 55"), 7),
    ],
)
def test_a_stream_that_breaks_a_rule_is_corrupt(backend: KernelBackend, stream: bytes, n: int) -> None:
    with pytest.raises(CorruptStreamError, match="bitpack"):
        backend.bitpack_decode(stream, n, 0, np.zeros(0, np.uint8))


def test_what_only_a_caller_can_get_wrong_is_a_value_error(backend: KernelBackend) -> None:
    with pytest.raises(ValueError, match="fit"):
        backend.bitpack_encode(b"\x08", 3)
    for width in (-1, 0, 8):
        with pytest.raises(ValueError, match="width"):
            backend.bitpack_encode(b"\x00", width)
    with pytest.raises(ValueError, match="range"):
        backend.bitpack_decode(EXAMPLE_STREAM, 8, 1, np.zeros(8, np.uint8))
