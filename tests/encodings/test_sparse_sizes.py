"""What leaving a value out costs, against the entropy of where values are and of what they are."""

from __future__ import annotations

import numpy as np
import pytest

from cmpk.codecs import Huffman, Rans
from cmpk.dtypes import TensorSpec
from cmpk.encodings import Bitmask, Encoded, GapIndex

N = 1 << 20


def entropy(data: np.ndarray) -> float:  # type: ignore[type-arg]
    """Bits of all symbols, by how often each occurs."""
    counts = np.bincount(data)
    shares = counts[counts > 0] / len(data)
    return float(-len(data) * (shares @ np.log2(shares)))


def codes(share_of_zeros: float) -> np.ndarray:  # type: ignore[type-arg]
    """Codes of weights around zero, of which a share is zero."""
    rng = np.random.default_rng(4)
    found = np.clip(np.rint(rng.normal(0, 3, N)) + 128, 0, 255).astype(np.uint8)
    found[found == 128] = 127
    found[rng.random(N) < share_of_zeros] = 128
    return found


def nbits(encoded: Encoded) -> int:
    """Of all parts, each with the smaller of two codecs."""
    streams = [(Rans().encode(part.data), Huffman().encode(part.data)) for part in encoded.parts.values()]
    return 8 * sum(min(len(memoryview(s)) for s in pair if s is not None) for pair in streams)


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("encoding", [Bitmask(), GapIndex()], ids=lambda encoding: encoding.id)
def test_sparse_streams_are_within_4_percent_of_the_entropy_of_mask_and_values(
    encoding: Bitmask | GapIndex, share: float
) -> None:
    data = codes(share)
    encoded = encoding.encode(data, TensorSpec("U8", (N,)), 128)
    least = entropy((data != 128).astype(np.uint8)) + entropy(data[data != 128])
    assert least < nbits(encoded) < 1.04 * least


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_streams_of_symbols_are_within_2_percent_of_their_entropy(share: float) -> None:
    data = codes(share)
    stream = Rans().encode(data)
    assert stream is not None
    assert entropy(data) < 8 * len(memoryview(stream)) < 1.02 * entropy(data)
