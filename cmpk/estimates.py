"""How few bytes a codec will need, told without coding all of them."""

from __future__ import annotations

from typing import Final

import numpy as np

from cmpk import kernels
from cmpk.codecs.base import Codec
from cmpk.format.layout import MAX_EXPANSION
from cmpk.kernels.interface import U8

__all__ = ["estimate", "expands_within", "is_noise"]

_SAMPLE_NBYTES: Final = 1 << 16
_CODED_SAMPLE_NBYTES: Final = 1 << 15
_SAMPLE_PIECES: Final = 8

_MIN_NOISE_NBYTES: Final = 1 << 14
_NOISE_ENTROPY: Final = 7.99
"""Bits a byte."""


def expands_within(codec: Codec, stored: int, decoded: int) -> bool:
    """Whether a reader would believe that so small a stream holds so much."""
    return decoded <= min(codec.max_expansion * stored, MAX_EXPANSION * stored + MAX_EXPANSION)


def estimate(codec: Codec, data: U8) -> int | None:
    """Stored size by the codec's own estimate on the data or a sample of it, or by coding a sample."""
    sample = _sample(data, _SAMPLE_NBYTES)
    size = codec.estimate(sample)
    if size is None:
        # Coding takes much longer than counting does.
        sample = _sample(data, _CODED_SAMPLE_NBYTES)
        stream = codec.encode(sample)
        if stream is None:
            return None
        size = len(stream)
    return size * len(data) // max(1, len(sample))


def is_noise(data: U8) -> bool:
    """Whether bytes look as if no codec could make them fewer: all values occur equally often."""
    sample = _sample(data, _SAMPLE_NBYTES)
    counts = kernels.active().byte_histogram(sample)
    if len(sample) < _MIN_NOISE_NBYTES or not counts.all():
        return False
    shares = counts / len(sample)
    # An unbiased estimate: a sample of m bytes of true noise comes out 255 / (2 m ln 2) bits short.
    entropy = -float(shares @ np.log2(shares)) + 255 / (2 * len(sample) * float(np.log(2)))
    return entropy > _NOISE_ENTROPY


def _sample(data: U8, nbytes: int) -> U8:
    """A few pieces from all over the data; the data itself where it is small."""
    if len(data) <= nbytes:
        return data
    size = nbytes // _SAMPLE_PIECES
    starts = np.linspace(0, len(data) - size, _SAMPLE_PIECES).astype(np.int64).tolist()
    return np.concatenate([data[start : start + size] for start in starts])
