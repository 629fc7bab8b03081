"""How few bytes a codec will need, told without coding all of them."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from cmpk import kernels
from cmpk.codecs.base import Codec
from cmpk.format.layout import MAX_EXPANSION
from cmpk.kernels.interface import U8, Buffer

__all__ = ["Estimate", "estimate", "expands_within", "is_noise"]

_SAMPLE_NBYTES: Final = 1 << 16
_CODED_SAMPLE_NBYTES: Final = 1 << 15
_SAMPLE_PIECES: Final = 8

_MIN_NOISE_NBYTES: Final = 1 << 14
_NOISE_ENTROPY: Final = 7.99
"""Bits a byte."""


def expands_within(codec: Codec, stored: int, decoded: int) -> bool:
    """Whether a reader would believe that so small a stream holds so much."""
    return decoded <= min(codec.max_expansion * stored, MAX_EXPANSION * stored + MAX_EXPANSION)


class Estimate(NamedTuple):
    """A stored size; and the stream, where finding out meant coding all of the data."""

    nbytes: int
    stream: Buffer | None = None


def estimate(codec: Codec, data: U8) -> Estimate | None:
    """Stored size by the codec's own estimate on the data or a sample of it, or by coding a sample.

    None where the codec can't hold the data, or is sure not to make them fewer.
    """
    sample = _sample(data, _SAMPLE_NBYTES)
    nbytes = codec.estimate(sample)
    if nbytes is not None:
        return Estimate(nbytes * len(data) // max(1, len(sample)))
    # Coding takes much longer than counting does.
    sample = _sample(data, _CODED_SAMPLE_NBYTES)
    stream = codec.encode(sample)
    if stream is None:
        return None
    if len(sample) == len(data):
        return Estimate(len(stream), stream)
    return Estimate(len(stream) * len(data) // len(sample))


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
    last = len(data) - size
    starts = [last * piece // (_SAMPLE_PIECES - 1) for piece in range(_SAMPLE_PIECES)]
    return np.concatenate([data[start : start + size] for start in starts])
