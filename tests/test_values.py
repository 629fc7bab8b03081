"""Numbers of every float type: as torch has them, from bytes and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from cmpk.dtypes import DTYPES, TensorSpec, to_torch
from cmpk.encodings.base import Part
from cmpk.values import FLOAT_NAMES, blocks, from_float32, to_float32

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)
NARROW = sorted(name for name in FLOAT_NAMES if DTYPES[name].nbits == 8)
TWO_BYTES = ["F16", "BF16"]


def part_of(data: Array, dtype: str) -> Part:
    return Part(TensorSpec(dtype, (len(data) // DTYPES[dtype].nbytes,)), data)


def every_number(dtype: str) -> Array:
    nbytes = DTYPES[dtype].nbytes
    return np.arange(1 << 8 * nbytes, dtype=f"<u{nbytes}").view(np.uint8)


def torch_numbers(data: Array, dtype: str) -> Array:
    return torch.from_numpy(data.copy()).view(to_torch(dtype)).to(torch.float32).numpy()


def same_numbers(left: Array, right: Array) -> bool:
    """Equal but for the payloads of NaN."""
    nan = np.isnan(left)
    return bool(
        (nan == np.isnan(right)).all() and left[~nan].tobytes() == right[~nan].astype(left.dtype).tobytes()
    )


@pytest.mark.parametrize("dtype", NARROW + TWO_BYTES)
def test_every_bit_pattern_is_the_number_that_torch_reads(dtype: str) -> None:
    data = every_number(dtype)
    assert same_numbers(to_float32(part_of(data, dtype)), torch_numbers(data, dtype))


@pytest.mark.parametrize("dtype", NARROW + TWO_BYTES)
def test_every_number_comes_back_to_its_own_bits(dtype: str) -> None:
    data = every_number(dtype)
    numbers = to_float32(part_of(data, dtype))
    back = from_float32(numbers, dtype)
    kept = ~np.isnan(numbers)
    element = f"<u{DTYPES[dtype].nbytes}"
    assert (back.view(element)[kept] == data.view(element)[kept]).all()
    assert np.isnan(to_float32(part_of(back, dtype))[~kept]).all()


@pytest.mark.parametrize("dtype", NARROW + TWO_BYTES)
def test_rounding_is_that_of_torch(dtype: str) -> None:
    exact = to_float32(part_of(every_number(dtype), dtype))
    exact = np.sort(exact[np.isfinite(exact)]).astype(np.float64)
    ties = ((exact[1:] + exact[:-1]) / 2).astype(np.float32)
    numbers = np.concatenate(
        [
            ties,
            np.nextafter(ties, np.float32(np.inf)),
            np.nextafter(ties, np.float32(-np.inf)),
            RNG.integers(0, 1 << 32, 100_000, np.uint32).view(np.float32),
            RNG.standard_normal(100_000).astype(np.float32) * 100,
            np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-45, -1e-45, 1e9, 448, 464, 465]),
        ]
    )
    if dtype == "F8_E4M3":  # older versions of torch have NaN beyond the range
        numbers = numbers[~(np.abs(numbers) > 464)]
    expected = torch.from_numpy(numbers).to(to_torch(dtype)).view(torch.uint8).numpy()
    found = to_float32(part_of(from_float32(numbers, dtype), dtype))
    assert same_numbers(found, to_float32(part_of(expected, dtype)))


@pytest.mark.parametrize(
    ("dtype", "beyond"),
    [
        ("F8_E4M3", 448),
        ("F8_E5M2", np.inf),
        ("F8_E4M3FNUZ", np.nan),
        ("F16", np.inf),
        ("BF16", np.inf),
        ("F64", 3.4e38),
    ],
)
def test_numbers_beyond_the_range_become_what_the_type_has_for_them(dtype: str, beyond: float) -> None:
    number = np.float32([3.4e38, -3.4e38])
    found = to_float32(part_of(from_float32(number, dtype), dtype))
    assert same_numbers(found, np.float32([beyond, -beyond]))


def test_single_precision_is_taken_as_it_is_without_a_copy() -> None:
    data = RNG.integers(0, 256, 4000, np.uint8)
    numbers = to_float32(part_of(data, "F32"))
    assert np.shares_memory(numbers, data)
    assert not numbers.flags.writeable
    assert from_float32(numbers, "F32").tobytes() == data.tobytes()


def test_double_precision_is_rounded_once() -> None:
    numbers = np.array([1 / 3, -1e300, 1e-300, np.nan, 1 + 2**-24, 1 + 3 * 2**-24])
    found = to_float32(part_of(numbers.view(np.uint8), "F64"))
    with np.errstate(over="ignore"):
        assert same_numbers(found, numbers.astype(np.float32))
    assert from_float32(np.float32([0.1]), "F64").view("<f8")[0] == float(np.float32(0.1))


@pytest.mark.parametrize("dtype", sorted(FLOAT_NAMES))
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (7,), (2, 3, 5)])
def test_the_shape_is_the_tensors(dtype: str, shape: tuple[int, ...]) -> None:
    spec = TensorSpec(dtype, shape)
    part = Part(spec, np.zeros(spec.nbytes, np.uint8))
    assert to_float32(part).shape == shape
    assert from_float32(to_float32(part), dtype).tobytes() == part.data.tobytes()


@pytest.mark.parametrize("dtype", sorted(FLOAT_NAMES))
def test_blocks_are_the_whole_in_order(dtype: str) -> None:
    part = part_of(RNG.integers(0, 120, 1000 * DTYPES[dtype].nbytes, np.uint8), dtype)
    pieces = list(blocks(part, 333))
    assert [(piece.start, piece.stop) for piece, _ in pieces] == [
        (0, 333),
        (333, 666),
        (666, 999),
        (999, 1000),
    ]
    whole = np.concatenate([values for _, values in pieces])
    assert whole.tobytes() == to_float32(part).tobytes()
