"""How few bytes a codec will need, told without coding all of them."""

from __future__ import annotations

import functools
import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cmpk import kernels
from cmpk.codecs.base import Codec
from cmpk.format.layout import MAX_EXPANSION
from cmpk.kernels.interface import U8, Buffer

__all__ = ["Estimate", "Sampled", "estimate", "expands_within", "is_noise", "may_repeat", "order0_bound"]

_SAMPLE_NBYTES: Final = 1 << 16
_CODED_SAMPLE_NBYTES: Final = 1 << 15
_SAMPLE_PIECES: Final = 8

_MIN_NOISE_NBYTES: Final = 1 << 14
_NOISE_ENTROPY: Final = 7.99
"""Bits a byte."""

_PROBE_NBYTES: Final = 8
_PROBE_EVERY_NBYTES: Final = 1 << 10
_MIN_PROBES: Final = 1 << 9
_MAX_PROBES: Final = 1 << 12
_SMALL_NBYTES: Final = 1 << 10


def expands_within(codec: Codec, stored: int, decoded: int) -> bool:
    """Whether a reader would believe that so small a stream holds so much."""
    return decoded <= min(codec.max_expansion * stored, MAX_EXPANSION * stored + MAX_EXPANSION)


class Estimate(NamedTuple):
    """A stored size; and the stream, where finding out meant coding all of the data."""

    nbytes: int
    stream: Buffer | None = None


class Sampled:
    """Bytes, and a sample of them whose values are counted once for all who ask.

    Parameters
    ----------
    data : uint8 array, shape (n,)
    """

    def __init__(self, data: U8) -> None:
        self.data = data

    @functools.cached_property
    def sample(self) -> U8:
        """Pieces from all over the data; the data itself where it is small."""
        return _sample(self.data, _SAMPLE_NBYTES)

    @functools.cached_property
    def counts(self) -> NDArray[np.uint64]:
        """How often each byte occurs in the sample, shape (256,)."""
        return kernels.active().byte_histogram(self.sample)

    @functools.cached_property
    def has_all_values(self) -> bool:
        """Whether every byte occurs in the sample."""
        return bool(self.counts.all())

    @functools.cached_property
    def entropy(self) -> float:
        """Bits a byte of the sample, in which every byte occurs."""
        shares = self.counts / len(self.sample)
        return -float(shares @ np.log2(shares))


def estimate(codec: Codec, sampled: Sampled) -> Estimate | None:
    """Stored size by the codec's own estimate on the data or a sample of it, or by coding a sample.

    None where the codec can't hold the data, or is sure not to make them fewer.
    """
    data, sample = sampled.data, sampled.sample
    nbytes = codec.estimate_counted(sampled.counts)
    if nbytes is None:
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


def is_noise(sampled: Sampled) -> bool:
    """Whether bytes look as if no codec could make them fewer: all values occur equally often."""
    n = len(sampled.sample)
    if n < _MIN_NOISE_NBYTES or not sampled.has_all_values:
        return False
    # An unbiased estimate: a sample of m bytes of true noise comes out 255 / (2 m ln 2) bits short.
    return sampled.entropy + 255 / (2 * n * math.log(2)) > _NOISE_ENTROPY


def order0_bound(sampled: Sampled) -> float:
    """Bytes of which an order-0 codec that is estimated from the sample needs more.

    Looked for only where all values occur: elsewhere it costs more than it saves.
    """
    return sampled.entropy / 8 * len(sampled.data) if sampled.has_all_values else 0.0


def may_repeat(data: U8, itemsize: int) -> bool:
    """Whether stretches of data seem to occur more than once, at whatever distance.

    Eight bytes each from places all over, at multiples of the element size: of a block that is repeated
    k times, m probes are expected to meet m²/2 · itemsize/block of the same bytes twice. Of a thousand
    probes of floats that are not repeated, none do. Less than a kilobyte is not worth it.

    Parameters
    ----------
    data : uint8 array, shape (n,)
    itemsize : int
        Bytes of an element.
    """
    if len(data) < _SMALL_NBYTES:
        return False
    words = np.ndarray((len(data) - _PROBE_NBYTES + 1,), "<u8", data, strides=(1,))
    n_probes = max(len(data) // _PROBE_EVERY_NBYTES, min(_MIN_PROBES, len(data) // (2 * _PROBE_NBYTES)))
    n_probes = min(n_probes, _MAX_PROBES)
    stride = len(words) // itemsize // n_probes
    places = (np.arange(n_probes) * stride + _scattered(n_probes, stride)) * itemsize
    found = np.sort(words[places])
    return bool((found[1:] == found[:-1]).any())


@functools.lru_cache(maxsize=16)
def _scattered(n: int, below: int) -> NDArray[np.int64]:
    """Numbers below another, scattered by the mixing function of splitmix64.

    One for each stretch that is probed: from regular places, some distances would never be seen.
    """
    mixed = (np.arange(n, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    return (mixed % np.uint64(below)).astype(np.int64)


def _sample(data: U8, nbytes: int) -> U8:
    """A few pieces from all over the data; the data itself where it is small."""
    if len(data) <= nbytes:
        return data
    size = nbytes // _SAMPLE_PIECES
    last = len(data) - size
    starts = [last * piece // (_SAMPLE_PIECES - 1) for piece in range(_SAMPLE_PIECES)]
    return np.concatenate([data[start : start + size] for start in starts])
