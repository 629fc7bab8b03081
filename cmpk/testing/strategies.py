"""Hypothesis strategies: bytes and tensors of every shape that streams and encodings meet, and damage."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES, DType, TensorSpec
from cmpk.encodings.base import Part
from cmpk.encodings.narrow import NARROWER
from cmpk.kernels import reference
from cmpk.kernels.interface import U8

__all__ = [
    "BYTE_SHAPES",
    "byte_arrays",
    "damaged",
    "overwritten",
    "sized_bytes",
    "tensor_parts",
    "tensor_specs",
]

_SEEDS: Final = st.integers(0, 2**32 - 1)


def _noise(rng: np.random.Generator, n: int) -> NDArray[Any]:
    return rng.integers(0, 256, n)


def _one_symbol(rng: np.random.Generator, n: int) -> NDArray[Any]:
    return np.full(n, rng.integers(0, 256))


def _sparse(rng: np.random.Generator, n: int) -> NDArray[Any]:
    return np.where(rng.random(n) < 0.02, rng.integers(1, 256, n), 0)


def _geometric(rng: np.random.Generator, n: int) -> NDArray[Any]:
    # Rare symbols that call for the longest codes.
    return rng.permutation(256)[np.minimum(rng.geometric(rng.uniform(0.05, 0.9), n) - 1, 255)]


def _exponents(rng: np.random.Generator, n: int) -> NDArray[Any]:
    weights = rng.normal(0, 0.02, n).astype(np.float32)
    return weights.view(np.uint32) >> 23 & 255


def _low_bits(rng: np.random.Generator, n: int) -> NDArray[Any]:
    return rng.integers(0, 1 << rng.integers(1, 8), n)


def _runs(rng: np.random.Generator, n: int) -> NDArray[Any]:
    lengths = rng.geometric(0.03, n // 20 + 1)
    return np.resize(np.repeat(rng.integers(0, 256, len(lengths)), lengths), n)


def _phrases(rng: np.random.Generator, n: int) -> NDArray[Any]:
    return np.resize(rng.integers(0, 256, rng.integers(2, 60)), n)


BYTE_SHAPES: Final[dict[str, Callable[[np.random.Generator, int], NDArray[Any]]]] = {
    "noise": _noise,
    "one symbol": _one_symbol,
    "sparse": _sparse,
    "geometric": _geometric,
    "exponents": _exponents,
    "low bits": _low_bits,
    "runs": _runs,
    "phrases": _phrases,
}
"""Shapes of bytes by name: each makes ``n`` of them with a random generator."""


def sized_bytes(shape: str, n: int, seed: int = 0) -> U8:
    """Bytes of one of `BYTE_SHAPES`; uint8, shape (n,)."""
    return BYTE_SHAPES[shape](np.random.default_rng(seed), n).astype(np.uint8)


def byte_arrays(*, max_nbytes: int = 4096, boundaries: Sequence[int] = ()) -> SearchStrategy[U8]:
    """Bytes as codecs meet them: noise, one symbol, skewed, runs, few bits, phrases; none at all.

    Parameters
    ----------
    max_nbytes : int
        The most that are drawn, boundaries aside.
    boundaries : sequence of int
        Lengths at which something changes, as the size of a chunk: they, their doubles and their
        neighbours are drawn as well.

    Returns
    -------
    strategy of uint8 array, shape (n,)
    """
    lengths = st.integers(0, 9) | st.integers(0, max_nbytes)
    near = sorted({n + step for b in boundaries for n in (b, 2 * b) for step in (-1, 0, 1)} - {-1})
    if near:
        lengths |= st.sampled_from(near)
    literal = st.binary(max_size=min(64, max_nbytes)).map(lambda data: np.frombuffer(data, np.uint8).copy())
    return literal | st.builds(sized_bytes, st.sampled_from(sorted(BYTE_SHAPES)), lengths, _SEEDS)


def tensor_specs(
    *, dtypes: Collection[str] | None = None, max_elements: int = 4096
) -> SearchStrategy[TensorSpec]:
    """Types and shapes that a file can hold: every dtype, no dimensions, no elements, up to four dimensions.

    Parameters
    ----------
    dtypes : collection of str, optional
        Keys of `DTYPES`; all by default.
    max_elements : int

    Returns
    -------
    strategy of TensorSpec
    """
    side = math.isqrt(max_elements)
    shapes = (
        st.lists(st.integers(0, max(1, int(max_elements**0.25))), max_size=4)
        | st.lists(st.integers(0, side), min_size=2, max_size=2)
        | st.lists(st.integers(0, max_elements), min_size=1, max_size=1)
    )
    return st.builds(_whole_bytes, st.sampled_from(sorted(dtypes or DTYPES)), shapes.map(tuple))


def _whole_bytes(dtype: str, shape: tuple[int, ...]) -> TensorSpec:
    """The shape, with a last dimension that makes the elements take whole bytes."""
    step = 8 // math.gcd(DTYPES[dtype].nbits, 8)
    if math.prod(shape) % step:
        shape = (*shape[:-1], -(-shape[-1] // step) * step) if shape else (step,)
    return TensorSpec(dtype, shape)


def tensor_parts(*, dtypes: Collection[str] | None = None, max_elements: int = 4096) -> SearchStrategy[Part]:
    """Tensors and their bytes, as encodings meet them.

    Floats are weights with skewed exponents, pruned or not; NaNs with payloads, negative zeros,
    infinities and subnormal numbers; few distinct values; numbers that are exactly those of a
    narrower type, in some rows or in all, NaNs included; or any bits at all.

    Parameters
    ----------
    dtypes : collection of str, optional
        Keys of `DTYPES`; all by default.
    max_elements : int

    Returns
    -------
    strategy of Part
    """
    specs = tensor_specs(dtypes=dtypes, max_elements=max_elements)
    return specs.flatmap(
        lambda spec: st.builds(_part, st.just(spec), st.sampled_from(_kinds_of(spec)), _SEEDS)
    )


_FLOAT_KINDS: Final = ("weights", "pruned", "special", "few", "narrow", "narrow rows", "bits")


def _kinds_of(spec: TensorSpec) -> tuple[str, ...]:
    dtype = DTYPES[spec.dtype]
    if not dtype.is_float or not dtype.nbytes:
        return tuple(sorted(BYTE_SHAPES))
    return (*_FLOAT_KINDS, "widened") if spec.dtype in NARROWER else _FLOAT_KINDS


def _part(spec: TensorSpec, kind: str, seed: int) -> Part:
    if kind in BYTE_SHAPES:
        return Part(spec, sized_bytes(kind, spec.nbytes, seed))
    rng = np.random.default_rng(seed)
    dtype = DTYPES[spec.dtype]
    if kind == "widened":
        narrower = NARROWER[spec.dtype][rng.integers(len(NARROWER[spec.dtype]))]
        bits = rng.bytes(TensorSpec(narrower, spec.shape).nbytes)
        return Part(spec, reference.widen(bits, narrower, spec.dtype))
    words = _float_words(rng, dtype, spec, kind).astype(f"<u{dtype.nbytes}")
    return Part(spec, words.reshape(-1).view(np.uint8))


def _float_words(rng: np.random.Generator, dtype: DType, spec: TensorSpec, kind: str) -> NDArray[np.uint64]:
    """Elements of a floating-point tensor as unsigned integers."""
    n, e, m = spec.numel, dtype.exponent_nbits, dtype.mantissa_nbits
    if kind == "bits":
        return rng.integers(0, 1 << dtype.nbits, n, np.uint64, endpoint=False)
    if kind == "special":
        special = _special_words(dtype)
        return special[rng.integers(0, len(special), n)]
    if kind == "few":
        return rng.choice(rng.integers(0, 1 << dtype.nbits, rng.integers(1, 40), np.uint64), n)
    centre = (1 << (e - 1)) - 1 - min(6, 1 << (e - 2))
    exponent = np.clip(np.rint(rng.normal(centre, 1.5, n)), 0, (1 << e) - 1).astype(np.uint64)
    mantissa = rng.integers(0, 1 << m, n, np.uint64)
    if kind.startswith("narrow"):
        kept = {52: (23, 10, 7), 23: (10, 7)}.get(m, (m // 2,))
        low = np.uint64((1 << (m - rng.choice(kept))) - 1)
        is_narrow = np.ones(n, np.bool_)
        if kind == "narrow rows" and len(spec.shape) > 1 and n:
            is_narrow = np.repeat(rng.random(spec.shape[0]) < 0.5, n // spec.shape[0])
        mantissa[is_narrow] &= ~low
    sign = rng.integers(0, 1 + dtype.signed_float, n, np.uint64)
    words: NDArray[np.uint64] = sign << np.uint64(e + m) | exponent << np.uint64(m) | mantissa
    if kind == "pruned":
        words[rng.random(n) < rng.choice((0.5, 0.9, 0.99))] = 0
    return words


def _special_words(dtype: DType) -> NDArray[np.uint64]:
    """Zeros, infinities, NaNs with payloads, the smallest and the largest numbers; both signs."""
    e, m = dtype.exponent_nbits, dtype.mantissa_nbits
    top = ((1 << e) - 1) << m
    quiet = 1 << (m - 1) if m else 0
    words = [
        0,
        1,
        (1 << m) - 1,
        1 << m,
        top - 1,
        top,
        top | 1,
        top | quiet,
        top | quiet | 1,
        top | (1 << m) - 1,
    ]
    sign = 1 << (e + m) if dtype.signed_float else 0
    return np.array([word | side for word in words for side in (0, sign)], np.uint64)


def overwritten(data: bytes, at: int, new: bytes) -> bytes:
    """The bytes with those from ``at`` on replaced, as far as they reach."""
    return (data[:at] + new + data[at + len(new) :])[: len(data)]


def damaged(data: bytes, *, keep_length: bool = False) -> SearchStrategy[bytes]:
    """What damage, or malice, makes of a stream; now and then it is unharmed.

    Parameters
    ----------
    data : bytes
    keep_length : bool
        Only change bytes; neither cut nor add any.
    """
    # Heads are short and decide everything: every other time the damage is there.
    at = st.integers(0, min(24, len(data))) | st.integers(0, len(data))
    numbers = st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]).map(
        lambda n: n.to_bytes(4, "little")
    )
    content = st.binary(min_size=1, max_size=8) | numbers
    changed = st.builds(overwritten, st.just(data), at, content)
    if keep_length:
        return changed
    return (
        changed
        | st.builds(lambda i: data[:i], at)
        | st.builds(lambda i, new: data[:i] + new + data[i:], at, content)
        | st.builds(lambda i, n: data[:i] + data[i + n :], at, st.integers(1, 8))
        | st.builds(lambda i: data[i:] + data[:i], at)
        | st.binary(max_size=64)
    )
