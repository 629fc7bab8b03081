"""Codec lz4 for cmpk: LZ4 blocks, quick to decode."""

from __future__ import annotations

from collections.abc import Sequence

from cmpk.codecs import Codec
from cmpk.hookspecs import hookimpl
from cmpk_lz4.codec import Lz4

__all__ = ["Lz4", "cmpk_codecs"]


@hookimpl
def cmpk_codecs() -> Sequence[Codec]:
    """The one codec of this package."""
    return (Lz4(),)
