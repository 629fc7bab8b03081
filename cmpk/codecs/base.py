"""What a codec is: bytes to fewer bytes and back, exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, Buffer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Codec"]


class Codec(ABC):
    """Turns bytes into a stream and back.

    Attributes
    ----------
    id : str
        Its name in files; lower case, never changes meaning.
    max_expansion : int
        No stream of ``m`` bytes decodes to more than ``max_expansion * m`` bytes.
        Lets a reader refuse a decompression bomb by arithmetic.
    fused : bool
        Whether `KernelBackend.decode_floats` takes its streams as they are.
    is_order0 : bool
        Whether the size depends only on how often each byte occurs, not on their order.
    """

    id: ClassVar[str]
    max_expansion: ClassVar[int]
    fused: ClassVar[bool] = False
    is_order0: ClassVar[bool] = False

    @abstractmethod
    def encode(self, data: U8, threads: int = 1) -> Buffer | None:
        """Encode bytes.

        Parameters
        ----------
        data : uint8 array, shape (n,)
        threads : int
            How many may be used; the stream must not depend on it.

        Returns
        -------
        buffer or None
            The stream; None where this codec can't hold these bytes or is sure not to make them fewer.
        """

    @abstractmethod
    def decode_range(self, stream: Buffer, n: int, start: int, out: U8, threads: int = 1) -> None:
        """Decode bytes ``start .. start + len(out) - 1`` of ``n`` into ``out``.

        Raises
        ------
        CorruptStreamError
            If the stream breaks a rule of the codec. No other error, on any stream.
        """

    def check(self, stream: Buffer, n: int) -> None:
        """Check every rule of the codec on a whole stream, those included that decoding may skip.

        Raises
        ------
        CorruptStreamError
            If one is broken.
        """
        import numpy as np

        self.decode_range(stream, n, 0, np.empty(n, np.uint8))

    def estimate(self, data: U8) -> int | None:
        """Stored size in bytes if it can be told much faster than by encoding, else None."""
        return None

    def estimate_counted(self, counts: NDArray[np.uint64]) -> int | None:
        """The same from no more than how often each byte occurs, shape (256,); then `estimate` isn't asked.

        None where that does not tell it.
        """
        return None

    def corrupt(self, what: str) -> CorruptStreamError:
        """The error for a broken rule, in the name of this codec."""
        return CorruptStreamError(f"codec {self.id!r}: {what}")
