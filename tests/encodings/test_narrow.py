"""narrow: every narrow number comes back as the same wide number, NaN payloads and all."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk import kernels
from cmpk.archive import Archive
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings import FloatSplit, Narrow
from cmpk.encodings.narrow import NARROWER
from cmpk.errors import FormatError
from cmpk.kernels.interface import FLOAT_LAYOUTS
from tests.builders import Node, archive, branch, branch_of, leaf, tensor

PAIRS = [(wide, narrow) for wide, narrows in NARROWER.items() for narrow in narrows]


def widened(bits: int, narrow: str, wide: str) -> int:
    """One number as spec/encodings/narrow.md says, in plain integers."""
    (e, m), (wide_e, wide_m) = FLOAT_LAYOUTS[narrow], FLOAT_LAYOUTS[wide]
    sign, exponent, mantissa = bits >> e + m, bits >> m & (1 << e) - 1, bits & (1 << m) - 1
    if exponent == (1 << e) - 1:
        exponent = (1 << wide_e) - 1
    elif exponent or mantissa:
        power = max(exponent, 1) - (1 << e - 1) + 1  # of the unit before the point
        bias = (1 << wide_e - 1) - 1
        if not exponent:
            shift = m + 1 - mantissa.bit_length()
            # Normal in the wider type where its exponents reach so far; BF16 has those of F32.
            shift = min(shift, power + bias - 1)
            power, mantissa = power - shift, mantissa << shift
            exponent = power + bias if mantissa >> m else 0
            mantissa &= (1 << m) - 1
        else:
            exponent = power + bias
    return (sign << wide_e | exponent) << wide_m | mantissa << wide_m - m


def decoded(wide: str, narrow: str, values: bytes, node: Node | None = None) -> bytes:
    n = len(values) // DTYPES[narrow].nbytes
    node = branch("narrow", {"dtype": narrow}, values=leaf(values) if node is None else node)
    return Archive(archive([tensor("a", wide, [n], node)])).read("a").tobytes()


@pytest.mark.parametrize(("wide", "narrow"), [pair for pair in PAIRS if DTYPES[pair[1]].nbits == 16])
def test_every_number_of_sixteen_bits_is_widened_as_the_page_says(wide: str, narrow: str) -> None:
    numbers = np.arange(1 << 16, dtype="<u2")
    expected = np.array([widened(bits, narrow, wide) for bits in range(1 << 16)], f"<u{DTYPES[wide].nbytes}")
    assert decoded(wide, narrow, numbers.tobytes()) == expected.tobytes()
    spec = TensorSpec(wide, (1 << 16,))
    encoded = Narrow().encode(expected.view(np.uint8), spec, narrow)
    assert encoded.parts["values"].data.tobytes() == numbers.tobytes()


def test_the_oracle_agrees_with_numpy_on_all_that_are_numbers() -> None:
    numbers = np.arange(1 << 16, dtype="<u2")
    halves = numbers.view(np.float16)
    ours = np.array([widened(bits, "F16", "F32") for bits in range(1 << 16)], "<u4")
    same = ours == halves.astype(np.float32).view(np.uint32)
    assert same[~np.isnan(halves)].all()


@given(st.lists(st.integers(0, (1 << 32) - 1), max_size=50))
def test_any_f32_is_widened_to_f64_as_the_page_says(numbers: list[int]) -> None:
    special = [
        0,
        1,
        0x7FFFFF,
        0x800000,
        0x7F7FFFFF,
        0x7F800000,
        0x7F800001,
        0x7FC00000,
        0xFFFFFFFF,
        0x80000001,
    ]
    bits = special + numbers
    expected = np.array([widened(value, "F32", "F64") for value in bits], "<u8")
    assert decoded("F64", "F32", np.array(bits, "<u4").tobytes()) == expected.tobytes()


@pytest.mark.parametrize(("wide", "narrow"), PAIRS)
def test_split_values_are_widened_on_the_way_out(wide: str, narrow: str) -> None:
    nbytes = DTYPES[narrow].nbytes
    values = np.random.default_rng(0).integers(0, 256, 5000 * nbytes, np.uint8)
    encoded = FloatSplit().encode(values, TensorSpec(narrow, (5000,)), 0, 0)
    split = branch_of("float_split", encoded)
    assert decoded(wide, narrow, values.tobytes(), split) == decoded(wide, narrow, values.tobytes())


def test_a_number_narrowed_twice_comes_back() -> None:
    numbers = np.arange(0, 1 << 16, 7, dtype="<u2").tobytes()
    inner = branch("narrow", {"dtype": "F16"}, values=leaf(numbers))
    n = len(numbers) // 2
    outer = branch("narrow", {"dtype": "F32"}, values=inner)
    found = Archive(archive([tensor("a", "F64", [n], outer)]))
    assert found.read("a").tobytes() == decoded("F64", "F16", numbers)
    assert found.read_range("a", 100, 200).tobytes() == decoded("F64", "F16", numbers)[800:1600]


@given(st.data())
def test_narrows_to_says_what_can_be_undone(data: st.DataObject) -> None:
    wide, narrow = data.draw(st.sampled_from(PAIRS))
    nbytes = DTYPES[wide].nbytes
    fits = data.draw(st.lists(st.integers(0, (1 << DTYPES[narrow].nbits) - 1), min_size=1, max_size=8))
    flips = data.draw(st.lists(st.integers(0, 8 * nbytes - 1), max_size=1))
    numbers = [widened(value, narrow, wide) for value in fits]
    for bit in flips:
        numbers[0] ^= 1 << bit
    stored = np.array(numbers, f"<u{nbytes}").view(np.uint8)
    says = kernels.active().narrows_to(stored, wide, narrow, len(numbers)).tolist() == [True]
    assert says == all(_is_wide_of_some(number, wide, narrow) for number in numbers)


@functools.cache
def _all_widened(wide: str, narrow: str) -> frozenset[int]:
    return frozenset(widened(bits, narrow, wide) for bits in range(1 << 16))


def _is_wide_of_some(number: int, wide: str, narrow: str) -> bool:
    if DTYPES[narrow].nbits == 16:
        return number in _all_widened(wide, narrow)
    with np.errstate(all="ignore"):
        rounded = int(np.array([number], "<u8").view("<f8").astype("<f4").view("<u4")[0])
    payload = number >> 63 << 31 | 0x7F800000 | number >> 29 & 0x7FFFFF
    return number in (widened(rounded, narrow, wide), widened(payload, narrow, wide))


@pytest.mark.parametrize("wide", DTYPES)
def test_only_wider_floats_can_be_narrowed(wide: str) -> None:
    for narrow in [*DTYPES, "", "F128"]:
        nbits = DTYPES[narrow].nbits if narrow in DTYPES else 8
        node = branch("narrow", {"dtype": narrow}, values=leaf(bytes(4 * nbits)))
        data = archive([tensor("a", wide, [32], node)])
        if narrow in NARROWER.get(wide, ()):
            assert Archive(data).read("a").tobytes() == bytes(32 * DTYPES[wide].nbytes)
        else:
            with pytest.raises(FormatError, match="can't be narrowed"):
                Archive(data)


@pytest.mark.parametrize("params", [{}, {"dtype": 16}, {"dtype": "F16", "x": 1}, {"dtype": [1]}])
def test_other_parameters_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(FormatError, match=r"the parameters are|can't be narrowed"):
        Archive(archive([tensor("a", "F32", [1], branch("narrow", params, values=leaf(b"\0\0")))]))
