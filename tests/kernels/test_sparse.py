"""Values among many of one: where a mask or gaps tell, and only there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, KernelBackend
from tests.kernels.samples import ranges_of

SIZES = [1, 2, 4, 8]
COUNTS = [0, 1, 7, 8, 9, 63, 64, 65, 127, 129, 1000, 65535, 65536, 65537, 140000]
SHARES = [0.0, 0.01, 0.1, 0.5, 0.97, 1.0]


class Sample:
    """A tensor of random elements among many that are ``fill``."""

    def __init__(self, nbytes: int, n: int, share: float, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.n = n
        self.nbytes = nbytes
        self.is_set = rng.random(n) < share
        words = rng.integers(0, 256, n * nbytes, dtype=np.uint8).view(f"<u{nbytes}")
        self.fill = rng.bytes(nbytes)
        self.words: NDArray[Any] = np.where(self.is_set, words, np.frombuffer(self.fill, words.dtype))
        self.values: U8 = words[self.is_set].view(np.uint8)
        self.mask: U8 = np.packbits(self.is_set, bitorder="little")

    def gaps(self, max_gap: int) -> U8:
        """How many of the fill stand before each value."""
        found: list[int] = []
        gap = 0
        for is_set in self.is_set.tolist():
            if is_set:
                found += [max_gap] * (gap // max_gap) + [gap % max_gap]
            gap = 0 if is_set else gap + 1
        return np.array(found, np.uint8)


def samples(max_count: int = 140000) -> st.SearchStrategy[Sample]:
    counts = st.sampled_from([n for n in COUNTS if n <= max_count]) | st.integers(0, 700)
    return st.builds(
        Sample, st.sampled_from(SIZES), counts, st.sampled_from(SHARES), st.integers(0, 2**32 - 1)
    )


def surrounded(nbytes: int) -> tuple[U8, U8]:
    """An output, and what it stands in: at an address that suits no element."""
    around = np.full(nbytes + 3, 0xEE, np.uint8)
    return around, around[1:-2]


@given(sample=samples(), data=st.data(), threads=st.sampled_from([1, 3]))
def test_a_mask_puts_values_where_its_bits_are_set_in_any_range(
    backend: KernelBackend, sample: Sample, data: st.DataObject, threads: int
) -> None:
    start, stop = data.draw(ranges_of(sample.n) | st.just((0, sample.n)))
    values = sample.words[start:stop][sample.is_set[start:stop]].view(np.uint8)
    around, out = surrounded((stop - start) * sample.nbytes)
    backend.bitmask_expand(sample.mask, start, values, sample.fill, out, threads)
    assert around.tobytes() == b"\xee" + sample.words[start:stop].tobytes() + b"\xee\xee"


@given(sample=samples(1000), data=st.data(), max_gap=st.sampled_from([1, 2, 15, 254, 255]))
def test_gaps_put_values_behind_them_in_any_range(
    backend: KernelBackend, sample: Sample, data: st.DataObject, max_gap: int
) -> None:
    start, stop = data.draw(ranges_of(sample.n) | st.just((0, sample.n)))
    around, out = surrounded((stop - start) * sample.nbytes)
    gaps = sample.gaps(max_gap)
    backend.gaps_expand(gaps, max_gap, sample.n, start, sample.values, sample.fill, out)
    assert around.tobytes() == b"\xee" + sample.words[start:stop].tobytes() + b"\xee\xee"


@pytest.mark.parametrize("n_values", [0, 2, 4, 12])
@pytest.mark.parametrize("start", [0, 1])
def test_a_mask_of_other_than_as_many_bits_as_values_is_corrupt(
    backend: KernelBackend, n_values: int, start: int
) -> None:
    with pytest.raises(CorruptStreamError, match="bits are set for"):
        backend.bitmask_expand(b"\x0e\x80", start, bytes(2 * n_values), bytes(2), np.zeros(20, np.uint8))


def test_bits_outside_the_range_do_not_count(backend: KernelBackend) -> None:
    out = np.zeros(3, np.uint8)
    backend.bitmask_expand(b"\xe7\xff", 3, b"v", b"f", out)
    assert out.tobytes() == b"ffv"


@pytest.mark.parametrize(
    ("gaps", "n_values", "n", "problem"),
    [
        (b"\1\6", 2, 99, "exceeds"),
        (b"\1\xff", 2, 99, "exceeds"),
        (b"\4\4\4", 3, 14, "beyond"),
        (b"\5\5\5", 0, 14, "beyond"),
        (b"\5\4", 1, 9, "beyond"),
        (b"\0", 1, 0, "beyond"),
        (b"\1\1", 1, 99, "gaps"),
        (b"\1\1", 3, 99, "gaps"),
        (b"\5\5", 1, 99, "gaps"),
        (b"", 1, 99, "gaps"),
    ],
)
@pytest.mark.parametrize("is_read", [True, False])
def test_gaps_that_break_a_rule_are_corrupt_whatever_is_read(
    backend: KernelBackend, gaps: bytes, n_values: int, n: int, problem: str, is_read: bool
) -> None:
    out = np.zeros(4 * n * is_read, np.uint8)
    with pytest.raises(CorruptStreamError, match=problem):
        backend.gaps_expand(gaps, 5, n, 0, bytes(4 * n_values), bytes(4), out)


def test_fillers_may_reach_the_end_and_stand_for_no_value(backend: KernelBackend) -> None:
    out = np.zeros(11, np.uint8)
    backend.gaps_expand(b"\2\0\2\2\1\2", 2, 11, 0, b"\7\1", b"\7", out)
    assert out.tobytes() == b"\7" * 8 + b"\1\7\7"


def test_what_only_a_caller_can_get_wrong_is_a_value_error(backend: KernelBackend) -> None:
    out = np.zeros(8, np.uint8)
    for fill in (b"", bytes(3), bytes(16)):
        with pytest.raises(ValueError, match="1, 2, 4 or 8 bytes"):
            backend.bitmask_expand(b"\0", 0, b"", fill, out)
        with pytest.raises(ValueError, match="1, 2, 4 or 8 bytes"):
            backend.gaps_expand(b"", 5, 8, 0, b"", fill, out)
    with pytest.raises(ValueError, match="whole number"):
        backend.bitmask_expand(b"\0", 0, b"abc", bytes(2), out)
    with pytest.raises(ValueError, match="whole number"):
        backend.gaps_expand(b"", 5, 8, 0, b"", bytes(2), out[1:])
    for start in (-1, 1, 2**62):
        with pytest.raises(ValueError, match="range"):
            backend.bitmask_expand(b"\0", start, b"", b"\0", out)
        with pytest.raises(ValueError, match="range"):
            backend.gaps_expand(b"", 5, 8, start, b"", b"\0", out)
    for max_gap in (0, 256, -1):
        with pytest.raises(ValueError, match="max_gap"):
            backend.gaps_expand(b"", max_gap, 8, 0, b"", b"\0", out)
