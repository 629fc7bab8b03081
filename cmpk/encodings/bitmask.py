"""Encoding bitmask: which elements differ from one value, and these (spec/encodings/bitmask.md)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar, Final

from cmpk import kernels
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings.base import Branch, Decoder, Encoded, Encoding, Part, check_params, int_param
from cmpk.errors import FormatError
from cmpk.format.manifest import Params
from cmpk.kernels.interface import U8

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Bitmask", "fill_bytes", "fill_param", "strided_mask"]

_MAX_STRIDE: Final = 1 << 48
_MAX_FILL: Final = (1 << 63) - 1


class Bitmask(Encoding):
    """One bit for each element, and the elements whose bit is set; the others are all alike."""

    id: ClassVar[str] = "bitmask"

    def part_specs(self, spec: TensorSpec, params: Params) -> dict[str, TensorSpec]:
        """See `Encoding.part_specs`."""
        check_params(params, ("count", "fill", "stride"))
        count = int_param(params, "count", 0, spec.numel)
        fill_param(spec, params)
        int_param(params, "stride", 1, _MAX_STRIDE)
        return {
            "mask": TensorSpec("U8", (-(-spec.numel // 8),)),
            "values": TensorSpec(spec.dtype, (count,)),
        }

    def encode(self, data: U8, spec: TensorSpec, fill: int = 0, stride: int = 1) -> Encoded:
        """Leave out one value.

        Parameters
        ----------
        data : uint8 array, shape (spec.nbytes,)
        spec : TensorSpec
            Of 1, 2, 4 or 8 bytes an element.
        fill : int
            The bits of the value, as an unsigned integer below 2**63.
        stride : int
            How far apart the elements are whose bits share a byte.
        """
        import numpy as np

        elements = data.view(f"<u{DTYPES[spec.dtype].nbytes}")
        is_set = elements != fill
        values = elements[is_set]
        params: Params = {"count": len(values), "fill": fill, "stride": stride}
        specs = self.part_specs(spec, params)
        mask = strided_mask(np.packbits(is_set, bitorder="little"), spec.numel, stride)
        return Encoded(
            params,
            {"mask": Part(specs["mask"], mask), "values": Part(specs["values"], values.view(np.uint8))},
        )

    def decode_range(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> None:
        """See `Encoding.decode_range`."""
        spec, params = stored.spec, stored.node.params
        assert spec is not None
        count, stride = int_param(params, "count", 0, spec.numel), int_param(params, "stride", 1, _MAX_STRIDE)
        # Whole blocks: within them the bits can be put in the order of the elements.
        first = _block(start, spec.numel, stride)[0]
        last = _block(max(start, stop - 1), spec.numel, stride)[1]
        mask = decoder.decode(stored.parts["mask"], 0, -(-last // 8))
        if last == spec.numel and last % 8 and mask[-1] >> last % 8:
            raise self.corrupt("bits are set that stand for no element")
        before, mask = _rank(mask, first), _plain_mask(mask[first // 8 :], last - first, stride)
        low, high, end = (before + _rank(mask, element - first) for element in (start, stop, last))
        if end > count or (last == spec.numel and end < count):
            raise self.corrupt(f"{end} bits are set for {count} values")
        values = decoder.decode(stored.parts["values"], low, high)
        kernels.active().bitmask_expand(
            mask, start - first, values, fill_bytes(spec, params), out, decoder.threads
        )


def fill_param(spec: TensorSpec, params: Params) -> int:
    """The value that is left out, as an unsigned integer.

    Raises
    ------
    FormatError
        If no element has these bits, or elements are not whole bytes.
    """
    nbytes = DTYPES[spec.dtype].nbytes
    if not nbytes:
        raise FormatError(f"{spec.dtype} elements are not whole bytes")
    return int_param(params, "fill", 0, min((1 << 8 * nbytes) - 1, _MAX_FILL))


def fill_bytes(spec: TensorSpec, params: Params) -> bytes:
    """The value that is left out, as it is in the tensor."""
    return fill_param(spec, params).to_bytes(DTYPES[spec.dtype].nbytes, "little")


def strided_mask(mask: U8, n: int, stride: int) -> U8:
    """The bits of ``n`` elements, from their own order into that of the page."""
    return _reordered(mask, n, 8, stride)


def _plain_mask(mask: U8, n: int, stride: int) -> U8:
    """Undo `strided_mask`."""
    return _reordered(mask, n, stride, 8)


def _reordered(mask: U8, n: int, rows: int, columns: int) -> U8:
    """Blocks of ``rows`` times ``columns`` bits, each transposed; what is no whole block stays."""
    import numpy as np

    n_blocks = n // (rows * columns)
    if not n_blocks or min(rows, columns) == 1:
        return mask
    whole = n_blocks * rows * columns // 8
    bits = np.unpackbits(mask[:whole], bitorder="little").reshape(n_blocks, rows, columns)
    return np.concatenate([np.packbits(bits.transpose(0, 2, 1), bitorder="little"), mask[whole:]])


def _block(element: int, n: int, stride: int) -> tuple[int, int]:
    """First and last + 1 element of the block whose bits are mixed, or share a byte."""
    size = 8 * stride
    if element // size < n // size:
        return element // size * size, (element // size + 1) * size
    return element // 8 * 8, min(element // 8 * 8 + 8, n)


def _rank(mask: U8, stop: int) -> int:
    """How many of the first ``stop`` bits are set."""
    count = int(kernels.active().byte_histogram(mask[: stop // 8]).astype("i8") @ _bits_of_bytes())
    return count + (int(mask[stop // 8]) & ((1 << stop % 8) - 1)).bit_count() if stop % 8 else count


@functools.cache
def _bits_of_bytes() -> NDArray[np.int64]:
    """How many bits of each byte are set."""
    import numpy as np

    bits = np.unpackbits(np.arange(256, dtype=np.uint8)).reshape(256, 8)
    counts: NDArray[np.int64] = bits.sum(axis=1, dtype=np.int64)
    return counts
