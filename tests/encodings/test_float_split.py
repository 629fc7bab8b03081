"""float_split: every bit pattern comes back, and parts that break a rule are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.archive import Archive
from cmpk.codecs import Bitpack, Huffman, Rans, Raw, Zstd
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import FloatSplit
from cmpk.encodings.base import Encoded
from cmpk.errors import CorruptStreamError, FormatError
from cmpk.kernels.interface import FLOAT_LAYOUTS
from tests.builders import archive, branch, branch_of, leaf, tensor

SPLITTABLE = sorted(FLOAT_LAYOUTS)
SMALL = [dtype for dtype in SPLITTABLE if DTYPES[dtype].nbits <= 16]
CODECS = [Raw(), Bitpack(), Huffman(), Rans(), Zstd()]


def opened(dtype: str, shape: tuple[int, ...], node: dict[str, Any]) -> Archive:
    return Archive(archive([tensor("a", dtype, shape, node)]))


def split(data: bytes, dtype: str, mantissa_bits: int, base: int) -> Encoded:
    spec = TensorSpec(dtype, (8 * len(data) // DTYPES[dtype].nbits,))
    return FloatSplit().encode(np.frombuffer(data, np.uint8), spec, mantissa_bits, base)


def rejoined(encoded: Encoded, dtype: str, n: int, codec: Any = None) -> bytes:
    return opened(dtype, (n,), branch_of("float_split", encoded, codec)).read("a").tobytes()


def mantissa_choices(dtype: str) -> range:
    exponent, mantissa = FLOAT_LAYOUTS[dtype]
    return range(min(mantissa, 16 - exponent) + 1)


@pytest.mark.parametrize("dtype", SMALL)
def test_every_bit_pattern_comes_back_with_every_number_of_mantissa_bits(dtype: str) -> None:
    nbits = DTYPES[dtype].nbits
    data = np.arange(1 << nbits, dtype=f"<u{nbits // 8}").tobytes()
    for mantissa_bits in mantissa_choices(dtype):
        upper_nbits = FLOAT_LAYOUTS[dtype][0] + mantissa_bits
        largest = max(0, (1 << upper_nbits) - 256)
        for base in {0, largest // 3, largest}:
            assert rejoined(split(data, dtype, mantissa_bits, base), dtype, 1 << nbits) == data


@pytest.mark.parametrize("dtype", ["F32", "F64"])
@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.id)
def test_special_numbers_and_noise_come_back_from_every_codec(dtype: str, codec: Any) -> None:
    nbits = DTYPES[dtype].nbits
    exponent, mantissa = FLOAT_LAYOUTS[dtype]
    infinity = ((1 << exponent) - 1) << mantissa
    special = [
        0,
        1,
        (1 << mantissa) - 1,
        1 << mantissa,
        infinity - 1,
        infinity,
        infinity + 1,
        infinity | 1 << mantissa - 1,
    ]
    special += [value | 1 << nbits - 1 for value in special]
    noise = np.random.default_rng(0).integers(0, 256, 3000 * nbits // 8, np.uint8).view(f"<u{nbits // 8}")
    data = np.array(special, noise.dtype).tobytes() + noise.tobytes()
    n = len(data) // (nbits // 8)
    for mantissa_bits in (0, max(mantissa_choices(dtype))):
        assert rejoined(split(data, dtype, mantissa_bits, 0), dtype, n, codec) == data


@given(st.data())
def test_the_parts_are_those_of_the_page(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(SPLITTABLE))
    exponent, mantissa = FLOAT_LAYOUTS[dtype]
    k = data.draw(st.sampled_from(mantissa_choices(dtype)))
    upper_nbits, lower_nbits = exponent + k, mantissa - k
    base = data.draw(st.integers(0, max(0, (1 << upper_nbits) - 256)))
    nbits = DTYPES[dtype].nbits
    elements = data.draw(st.lists(st.integers(0, (1 << nbits) - 1), max_size=30))
    stored = b"".join(element.to_bytes(nbits // 8, "little") for element in elements)
    parts = split(stored, dtype, k, base).parts

    uppers = [element >> lower_nbits & (1 << upper_nbits) - 1 for element in elements]
    outside = [i for i, upper in enumerate(uppers) if not base <= upper < base + 256]
    high = parts["high"].data.tolist()
    assert all(high[i] == upper - base for i, upper in enumerate(uppers) if i not in outside)
    rests = [element >> nbits - 1 << lower_nbits | element & (1 << lower_nbits) - 1 for element in elements]
    planes = [part.data.tolist() for name, part in parts.items() if name.startswith("rest")]
    assert [sum(plane[i] << 8 * j for j, plane in enumerate(planes)) for i in range(len(elements))] == rests
    assert len(planes) == -(-(1 + lower_nbits) // 8)
    if outside:
        assert parts["exception_index"].data.view("<u8").tolist() == outside
        assert parts["exception_high"].data.view("<u2").tolist() == [uppers[i] for i in outside]
    else:
        assert not any(name.startswith("exception") for name in parts)


@given(st.data())
def test_any_range_is_that_slice_of_the_whole(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(SPLITTABLE))
    itemsize = DTYPES[dtype].nbytes
    n = data.draw(st.integers(0, 3000))
    stored = np.random.default_rng(n).integers(0, 256, n * itemsize, np.uint8).tobytes()
    encoded = split(stored, dtype, 0, 0)
    found = opened(dtype, (n,), branch_of("float_split", encoded, data.draw(st.sampled_from(CODECS))))
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    assert found.read_range("a", start, stop).tobytes() == stored[start * itemsize : stop * itemsize]


def parts_of(**changed: bytes) -> dict[str, Any]:
    """Parts of F16 [4] with one mantissa bit: upper bits below 64, two planes of the rest."""
    parts = {"high": b"\x1e\x1f\x20\x21", "rest0": b"\x00\xff\x00\x01", "rest1": b"\x00\x03\x02\x01"}
    return {name: leaf(data) for name, data in {**parts, **changed}.items()}


def f16(params: dict[str, int] | None = None, **changed: bytes) -> Archive:
    params = {"base": 0, "exceptions": 0, "mantissa_bits": 1} | (params or {})
    return opened("F16", (4,), branch("float_split", params, **parts_of(**changed)))


def u64(*values: int) -> bytes:
    return np.array(values, "<u8").tobytes()


def u16(*values: int) -> bytes:
    return np.array(values, "<u2").tobytes()


EXCEPTIONS = {"exceptions": 2}


def test_exceptions_take_the_place_of_what_stands_in_high() -> None:
    found = f16(
        EXCEPTIONS, high=b"\xff\x1f\x20\xff", exception_index=u64(0, 3), exception_high=u16(0x1E, 0x21)
    )
    assert found.read("a").tobytes() == f16().read("a").tobytes()
    assert found.read_range("a", 1, 3).tobytes() == f16().read("a").tobytes()[2:6]


@pytest.mark.parametrize(
    "make",
    [
        lambda: f16(high=b"\x1e\x40\x20\x21"),
        lambda: f16(rest1=b"\x00\x04\x00\x00"),
        lambda: f16(EXCEPTIONS, exception_index=u64(3, 0), exception_high=u16(1, 1)),
        lambda: f16(EXCEPTIONS, exception_index=u64(1, 1), exception_high=u16(1, 1)),
        lambda: f16(EXCEPTIONS, exception_index=u64(0, 4), exception_high=u16(1, 1)),
        lambda: f16(EXCEPTIONS, exception_index=u64(0, (1 << 64) - 1), exception_high=u16(1, 1)),
        lambda: f16(EXCEPTIONS, exception_index=u64(0, 1), exception_high=u16(1, 64)),
    ],
)
def test_parts_that_break_a_rule_are_refused(make: Any) -> None:
    found = make()
    with pytest.raises(CorruptStreamError, match="'a'"):
        found.read("a")


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"mantissa_bits": -1}, "mantissa_bits"),
        ({"mantissa_bits": 11}, "mantissa_bits"),
        ({"base": -1}, "base"),
        ({"base": 1}, "base"),
        ({"exceptions": -1}, "exceptions"),
        ({"exceptions": 5}, "exceptions"),
        ({"extra": 1}, "the parameters are"),
        ({"base": "0"}, "base"),
        ({"base": [0]}, "base"),
        ({"exceptions": 1}, "has the parts"),
        ({"mantissa_bits": 4}, "has the parts"),
    ],
)
def test_parameters_that_break_a_rule_are_refused(params: dict[str, Any], problem: str) -> None:
    with pytest.raises(FormatError, match=problem):
        f16(params)


@pytest.mark.parametrize(
    ("dtype", "mantissa_bits"), [("F32", 9), ("BF16", 8), ("F64", 6), ("F32", 23), ("F64", 52)]
)
def test_more_than_sixteen_upper_bits_are_refused(dtype: str, mantissa_bits: int) -> None:
    params = {"base": 0, "exceptions": 0, "mantissa_bits": mantissa_bits}
    with pytest.raises(FormatError, match=r"upper bits exceed 16|mantissa_bits"):
        opened(dtype, (1,), branch("float_split", params, high=leaf(b"\0"), rest0=leaf(b"\0")))


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - set(FLOAT_LAYOUTS)))
def test_other_types_can_not_be_split(dtype: str) -> None:
    params = {"base": 0, "exceptions": 0, "mantissa_bits": 0}
    with pytest.raises(FormatError, match="can't be split"):
        opened(dtype, (8,), branch("float_split", params, high=leaf(bytes(8)), rest0=leaf(bytes(8))))


@pytest.mark.parametrize(
    "parts",
    [
        {"high": leaf(bytes(4)), "rest1": leaf(bytes(4)), "rest0": leaf(bytes(4))},
        {"rest0": leaf(bytes(4)), "high": leaf(bytes(4)), "rest1": leaf(bytes(4))},
        {"high": leaf(bytes(4)), "rest0": leaf(bytes(4))},
        {"high": leaf(bytes(4)), "rest0": leaf(bytes(4)), "rest1": leaf(bytes(4)), "rest2": leaf(bytes(4))},
        {},
    ],
)
def test_the_parts_have_their_names_and_order(parts: dict[str, Any]) -> None:
    params = {"base": 0, "exceptions": 0, "mantissa_bits": 1}
    with pytest.raises(FormatError, match="has the parts"):
        opened("F16", (4,), branch("float_split", params, **parts))


def test_a_raw_part_of_another_size_is_refused() -> None:
    with pytest.raises(FormatError, match="can't hold"):
        f16(high=b"\0\0\0")
    with pytest.raises(CorruptStreamError, match="codec 'raw'"):
        f16(high=b"\0\0\0\0\0").read("a")
