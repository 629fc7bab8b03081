"""The codecs of cmpk against the kit that plugins use."""

from __future__ import annotations

import pytest

from cmpk.codecs import Bitpack, Codec, Huffman, Rans, Raw, Zstd
from cmpk.registry import builtin_registry
from cmpk.testing import check_codec

BOUNDARIES = {
    "raw": [],
    "zstd": [1 << 22],
    "bitpack": [1024],
    "huffman": [1024, 1 << 18],
    "rans": [1 << 12, 1 << 16],
}
"""Where streams change: blocks, sync points, chunks."""


def test_every_codec_of_cmpk_is_checked_here() -> None:
    assert set(BOUNDARIES) == set(builtin_registry().codecs)


@pytest.mark.parametrize("codec", [Raw(), Zstd(), Bitpack(), Huffman(), Rans()], ids=lambda codec: codec.id)
def test_a_codec_of_cmpk_conforms(codec: Codec) -> None:
    check_codec(codec, boundaries=BOUNDARIES[codec.id])
