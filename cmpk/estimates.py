"""How few bytes a codec will need, told without coding all of them."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from cmpk import kernels
from cmpk.codecs.base import Codec
from cmpk.format.layout import MAX_EXPANSION
from cmpk.kernels.interface import U8, Buffer

__all__ = ["Estimate", "estimate", "expands_within", "is_noise", "may_repeat"]

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
    # One from each stretch, scattered by the mixing function of splitmix64: from regular places, some
    # distances would never be seen.
    index = np.arange(n_probes, dtype=np.uint64)
    mixed = (index + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    places = (index * np.uint64(stride) + mixed % np.uint64(stride)) * np.uint64(itemsize)
    found = np.sort(words[places.astype(np.intp)])
    return bool((found[1:] == found[:-1]).any())


def _sample(data: U8, nbytes: int) -> U8:
    """A few pieces from all over the data; the data itself where it is small."""
    if len(data) <= nbytes:
        return data
    size = nbytes // _SAMPLE_PIECES
    last = len(data) - size
    starts = [last * piece // (_SAMPLE_PIECES - 1) for piece in range(_SAMPLE_PIECES)]
    return np.concatenate([data[start : start + size] for start in starts])
