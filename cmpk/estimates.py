"""How few bytes a codec will need, told without coding all of them."""

from __future__ import annotations

from typing import Final

import numpy as np

from cmpk.codecs.base import Codec
from cmpk.format.layout import MAX_EXPANSION
from cmpk.kernels.interface import U8

__all__ = ["estimate", "expands_within"]

_SAMPLE_NBYTES: Final = 1 << 17
_SAMPLE_PIECES: Final = 4


def expands_within(codec: Codec, stored: int, decoded: int) -> bool:
    """Whether a reader would believe that so small a stream holds so much."""
    return decoded <= min(codec.max_expansion * stored, MAX_EXPANSION * stored + MAX_EXPANSION)


def estimate(codec: Codec, data: U8) -> int | None:
    """Stored size by the codec's own estimate on the data, or by coding a sample of it."""
    sample = _sample(data)
    if len(sample) == len(data):
        known = codec.estimate(data)
        if known is not None:
            return known
        stream = codec.encode(data)
        return None if stream is None else len(stream)
    # The sample first: a stream that it shows to be noise need not be looked at as a whole.
    guess = codec.estimate(sample)
    if guess is None:
        stream = codec.encode(sample)
        return None if stream is None else len(stream) * len(data) // len(sample)
    if guess > len(sample) * 0.99:
        return None
    return codec.estimate(data)


def _sample(data: U8) -> U8:
    """A few pieces from all over the data; the data itself where it is small."""
    if len(data) <= _SAMPLE_NBYTES:
        return data
    size = _SAMPLE_NBYTES // _SAMPLE_PIECES
    starts = np.linspace(0, len(data) - size, _SAMPLE_PIECES).astype(np.int64).tolist()
    return np.concatenate([data[start : start + size] for start in starts])
