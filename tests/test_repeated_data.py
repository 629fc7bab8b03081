"""Data in which stretches repeat, near or far: never much larger than a general-purpose compressor has it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import zstandard

import cmpk
import cmpk.numpy
from cmpk.estimates import may_repeat

RNG = np.random.default_rng(3)
ROW = RNG.standard_normal(1024).astype(np.float32)


def noise(nbytes: int) -> np.ndarray:  # type: ignore[type-arg]
    return RNG.integers(0, 256, nbytes, dtype=np.uint8)


CASES: dict[str, Callable[[], np.ndarray]] = {  # type: ignore[type-arg]
    "a row, a thousand times": lambda: np.tile(ROW, (1000, 1)),
    "a row of odd length": lambda: np.tile(ROW[:999], (300, 1)),
    "rows of doubles": lambda: np.tile(RNG.standard_normal(500), (100, 1)),
    "rows of half precision": lambda: np.tile(ROW.astype(np.float16), (200, 1)),
    "a block of bytes": lambda: np.tile(noise(1 << 16), 64),
    "a large block of bytes": lambda: np.tile(noise(1 << 19), 8),
    "a small block of bytes": lambda: np.tile(noise(1 << 10), 8),
    "half of the rows": lambda: np.concatenate(
        [RNG.standard_normal((256, 1024)).astype(np.float32), np.tile(ROW, (256, 1))]
    ),
    "integers": lambda: np.tile(RNG.integers(0, 1 << 40, 5000), 20),
}


@pytest.mark.parametrize("recipe", ["lossless", "lossless-max"])
@pytest.mark.parametrize("case", CASES)
def test_repeated_stretches_take_little(case: str, recipe: str) -> None:
    array = CASES[case]()
    stored = cmpk.numpy.save({"a": array}, recipe=recipe)
    assert len(stored) < 2 * len(zstandard.compress(array.tobytes(), 3)) + 512
    assert cmpk.numpy.load(stored)["a"].tobytes() == array.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8", "int64"])
def test_what_does_not_repeat_is_not_taken_for_it(dtype: str) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for n in (1000, 60_000, 400_000):
            if dtype.startswith("float"):
                array = rng.standard_normal(n).astype(dtype)
            else:
                array = rng.integers(0, np.iinfo(dtype).max, n, dtype=dtype)
            assert not may_repeat(array.view(np.uint8), array.itemsize)


@pytest.mark.parametrize("nbytes", [0, 1, 8, 1023, 1024, 1031, 4097])
def test_data_of_any_size_is_probed_within_its_bounds(nbytes: int) -> None:
    for itemsize in (1, 2, 4, 8):
        assert not may_repeat(noise(nbytes), itemsize)
    assert may_repeat(np.zeros(nbytes, np.uint8), 1) == (nbytes >= 1024)
