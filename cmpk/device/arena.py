"""Memory that is filled from its beginning, and known by addresses on a device."""

from __future__ import annotations

from typing import Final

from cmpk.errors import CmpkError
from cmpk.kernels.interface import U8

__all__ = ["ALIGNMENT", "Arena"]

ALIGNMENT: Final = 16

_SMALL_NBYTES: Final = 1 << 16


class Arena:
    """Takes piece after piece of a buffer.

    Attributes
    ----------
    used : int
        Bytes taken.
    copies : list of pairs of uint8 arrays
        Where to and what from bytes have yet to be copied.

    Parameters
    ----------
    address : int
        Of the buffer on the device, a multiple of `ALIGNMENT`.
    nbytes : int
    host : uint8 array, shape (nbytes,), optional
        What is copied to the device before kernels run; None for memory that only kernels use.
    """

    def __init__(self, address: int, nbytes: int, host: U8 | None = None) -> None:
        import numpy as np

        self._address = address
        self._nbytes = nbytes
        self._host = np.empty(0, np.uint8) if host is None else host
        self.used = 0
        self.copies: list[tuple[U8, U8]] = []

    def take(self, nbytes: int) -> tuple[U8, int]:
        """A piece, aligned: its bytes on the host, and its address on the device."""
        start = self.used
        stop = start + nbytes
        if stop > self._nbytes:
            raise CmpkError(f"{stop} bytes were planned into {self._nbytes}")
        self.used = min(-(-stop // ALIGNMENT) * ALIGNMENT, self._nbytes)
        return self._host[start:stop], self._address + start

    def put(self, data: U8, room: int = 0) -> int:
        """Have bytes copied into a piece, with ``room`` behind them; the piece's address on the device.

        Little is copied at once, much is left for `copies`.
        """
        piece, address = self.take(len(data) + room)
        if len(data) < _SMALL_NBYTES:
            piece[: len(data)] = data
            return address
        self.copies.append((piece[: len(data)], data))
        return address
