"""Bytes and floats of the kinds that kernels get wrong, for hypothesis to draw from."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, KernelBackend, Source

# Around blocks of 1,024, chunks of 4,096 and the runs that these are decoded in.
SIZES = [
    1,
    2,
    3,
    7,
    8,
    9,
    511,
    1023,
    1024,
    1025,
    2047,
    4095,
    4096,
    4097,
    5121,
    8191,
    8192,
    8193,
    12287,
    20000,
]
CHUNK_LOG2 = 12


def _drawn(kind: str, n: int, seed: int) -> U8:
    rng = np.random.default_rng(seed)
    if kind == "uniform":
        values = rng.integers(0, 256, n)
    elif kind == "geometric":
        values = np.minimum(rng.geometric(0.4, n), 255)
    elif kind == "exponents":
        values = (rng.normal(0, 0.02, n).astype(np.float32).view(np.uint32) >> 23 & 255).astype(np.int64)
    elif kind == "one symbol":
        values = np.full(n, rng.integers(0, 256))
    elif kind == "rarely another":
        values = np.where(rng.random(n) < 0.002, 5, 200)
    else:  # "runs": symbols of very unequal code lengths, each in one place
        values = np.repeat(rng.integers(0, 256, n), rng.integers(1, 900, n))[:n]
    return np.asarray(values, np.uint8)


def byte_arrays(max_size: int = 20000) -> st.SearchStrategy[U8]:
    """Arrays of one byte or more, skewed in several ways."""
    kinds = ["uniform", "geometric", "exponents", "one symbol", "rarely another", "runs"]
    sizes = st.sampled_from([n for n in SIZES if n <= max_size]) | st.integers(1, max_size)
    return st.builds(_drawn, st.sampled_from(kinds), sizes, st.integers(0, 2**32 - 1))


def ranges_of(n: int) -> st.SearchStrategy[tuple[int, int]]:
    """Half-open ranges within ``n`` symbols."""
    return st.tuples(st.integers(0, n), st.integers(0, n)).map(lambda pair: (min(pair), max(pair)))


@st.composite
def splits(draw: st.DrawFn) -> tuple[str, int, int]:
    """(dtype, mantissa_bits, base) as float_split allows them."""
    dtype = draw(st.sampled_from(sorted(FLOAT_LAYOUTS)))
    exponent, mantissa = FLOAT_LAYOUTS[dtype]
    mantissa_bits = draw(st.integers(0, min(mantissa, 16 - exponent)))
    return dtype, mantissa_bits, draw(st.integers(0, max(0, (1 << (exponent + mantissa_bits)) - 256)))


def elements(dtype: str, n: int, seed: int, spread: float) -> U8:
    """The bytes of n elements: any bits, or around zero as weights are, with special values among them."""
    rng = np.random.default_rng(seed)
    nbytes = DTYPES[dtype].nbytes
    words: NDArray[Any] = rng.integers(0, 256, n * nbytes, dtype=np.uint8).view(f"<u{nbytes}")
    if spread:
        exponent, mantissa = FLOAT_LAYOUTS[dtype]
        typical = (
            (rng.normal((1 << (exponent - 1)) - 4, spread, n)).clip(0, (1 << exponent) - 1).astype(np.uint64)
        )
        keep = ~np.uint64(((1 << exponent) - 1) << mantissa)
        words = (words.astype(np.uint64) & keep | typical << np.uint64(mantissa)).astype(f"<u{nbytes}")
    return words.view(np.uint8)


def element_arrays(dtype: str, max_size: int = 20000) -> st.SearchStrategy[U8]:
    """Elements of a type, as bytes."""
    sizes = st.sampled_from([0, *(n for n in SIZES if n <= max_size)])
    spreads = st.sampled_from([0.0, 0.7, 2.0])
    return st.builds(elements, st.just(dtype), sizes, st.integers(0, 2**32 - 1), spreads)


def sources_of(backend: KernelBackend, part: U8) -> list[Source]:
    """A part in every codec that can hold it."""
    from cmpk.codecs.rans import normalized

    sources = [Source("raw", part)]
    counts = backend.byte_histogram(part)
    if part.size:
        sources.append(
            Source("huffman", backend.huffman_encode(part, backend.code_lengths(counts, 12), CHUNK_LOG2))
        )
    if np.count_nonzero(counts) > 1:
        sources.append(Source("rans", backend.rans_encode(part, normalized(counts), CHUNK_LOG2)))
    width = max(1, int(part.max(initial=0)).bit_length())
    if width < 8:
        sources.append(Source("bitpack", backend.bitpack_encode(part, width)))
    return sources
