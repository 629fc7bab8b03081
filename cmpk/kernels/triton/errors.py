"""What a kernel found wrong: bits of the error word of a tensor."""

from __future__ import annotations

from typing import Final

from cmpk.errors import CorruptStreamError

__all__ = [
    "CODE_IS_NOT_IN_ITS_CODEBOOK",
    "RANS_ENDS_WRONG",
    "RANS_STATE_TOO_LOW",
    "REST_HAS_TOO_MANY_BITS",
    "RUN_MISSES_ITS_SYNC_POINT",
    "SYNC_POINT_OUTSIDE_ITS_CHUNK",
    "UPPER_BITS_ARE_TOO_MANY",
    "corrupt",
]

RUN_MISSES_ITS_SYNC_POINT: Final = 1
SYNC_POINT_OUTSIDE_ITS_CHUNK: Final = 2
UPPER_BITS_ARE_TOO_MANY: Final = 4
REST_HAS_TOO_MANY_BITS: Final = 8
CODE_IS_NOT_IN_ITS_CODEBOOK: Final = 16
RANS_STATE_TOO_LOW: Final = 32
RANS_ENDS_WRONG: Final = 64

_MESSAGES: Final = {
    RUN_MISSES_ITS_SYNC_POINT: "codec 'huffman': a run of symbols does not end where its sync point says",
    SYNC_POINT_OUTSIDE_ITS_CHUNK: "codec 'huffman': a sync point lies outside its chunk",
    UPPER_BITS_ARE_TOO_MANY: "encoding 'float_split': an element has more upper bits than its type",
    REST_HAS_TOO_MANY_BITS: "encoding 'float_split': the rest of an element has too many bits",
    CODE_IS_NOT_IN_ITS_CODEBOOK: "encoding 'codebook': a code is not in its codebook",
    RANS_STATE_TOO_LOW: "codec 'rans': a state starts below its bound",
    RANS_ENDS_WRONG: "codec 'rans': a chunk does not end as it must",
}


def corrupt(flags: int) -> CorruptStreamError:
    """The error for an error word that is not 0."""
    return CorruptStreamError("; ".join(text for flag, text in _MESSAGES.items() if flags & flag))
