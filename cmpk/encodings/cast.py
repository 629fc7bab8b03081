"""Encoding cast: floats of eight bits, and scales (spec/encodings/cast.md)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, ClassVar, Final

from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Branch, Decoder, Encoded, Encoding, Part, check_params
from cmpk.encodings.scales import scale_bytes, scale_layout, scale_spec, widened_scale
from cmpk.errors import FormatError, PassError
from cmpk.format.manifest import Params
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, CodeJob

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["NARROW", "Cast"]

NARROW: Final = ("F8_E4M3", "F8_E5M2")
"""What values are stored in."""

_WIDE: Final = ("F16", "BF16", "F32", "F64")
_PARAMS: Final = ("axis", "dtype", "group_size", "scale_dtype")


class Cast(Encoding):
    """``value = narrow value * scale``, with a scale per tensor, slice or group."""

    id: ClassVar[str] = "cast"

    def part_specs(self, spec: TensorSpec, params: Params) -> dict[str, TensorSpec]:
        """See `Encoding.part_specs`."""
        check_params(params, _PARAMS)
        dtype = params["dtype"]
        if spec.dtype not in _WIDE or not isinstance(dtype, str) or dtype not in NARROW:
            raise FormatError(f"{spec.dtype} can't be cast to {dtype!r}")
        return {"values": TensorSpec(dtype, spec.shape), "scale": scale_spec(spec, params)}

    def encode(
        self,
        values: U8,
        dtype: str,
        spec: TensorSpec,
        scale: NDArray[np.float32],
        *,
        axis: int = -1,
        group_size: int = 0,
        scale_dtype: str = "F32",
    ) -> Encoded:
        """Store values and scales.

        Parameters
        ----------
        values : uint8 array, shape (spec.numel,)
            Bits of the narrow numbers.
        dtype : str
            Their type, one of `NARROW`.
        spec : TensorSpec
            Of the tensor that they decode to.
        scale : float32 array, shape (n_scales,)
            In row-major order; each finite and exactly a ``scale_dtype``.
        axis, group_size : int
            What has a scale of its own; see spec/encodings/affine.md.
        scale_dtype : str
            One of `SCALE_DTYPES`.

        Raises
        ------
        PassError
            If a scale can't be stored exactly, or their number or that of the values does not fit.
        """
        params: Params = {"axis": axis, "dtype": dtype, "group_size": group_size, "scale_dtype": scale_dtype}
        try:
            specs = self.part_specs(spec, params)
        except FormatError as error:
            raise PassError(f"encoding 'cast': {error}") from None
        stored = {"values": values.reshape(-1), "scale": scale_bytes(self.id, scale, scale_dtype)}
        for name, part in specs.items():
            if len(stored[name]) != part.nbytes:
                raise PassError(f"encoding 'cast': {name!r} takes {part}, not {len(stored[name])} bytes")
        return Encoded(params, {name: Part(part, stored[name], True) for name, part in specs.items()})

    def decode_range(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> None:
        """See `Encoding.decode_range`."""
        decoder.submit(self.float_job(stored, start, stop, out, decoder))

    def float_job(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> CodeJob:
        """See `Encoding.float_job`."""
        params, spec = stored.node.params, stored.spec
        assert spec is not None  # an installed encoding's branch has one
        layout = scale_layout(spec, params)
        return CodeJob(
            out=out,
            dtype=spec.dtype,
            n=spec.numel,
            start=start,
            count=stop - start,
            codes=decoder.source(stored.parts["values"], start, stop),
            scale=widened_scale(decoder.decode(stored.parts["scale"]), str(params["scale_dtype"])),
            zero_point=None,
            offset=0,
            line=layout.line,
            run=layout.run,
            numbers=_numbers(str(params["dtype"])),
        )


@functools.cache
def _numbers(dtype: str) -> NDArray[Any]:
    """The number of each byte; float32, shape (256,)."""
    import numpy as np

    exponent_nbits, mantissa_nbits = FLOAT_LAYOUTS[dtype]
    bits = np.arange(256)
    exponent = bits >> mantissa_nbits & ((1 << exponent_nbits) - 1)
    mantissa = bits & ((1 << mantissa_nbits) - 1)
    units = np.where(exponent > 0, mantissa + (1 << mantissa_nbits), mantissa)
    power = np.maximum(exponent, 1) - ((1 << (exponent_nbits - 1)) - 1) - mantissa_nbits
    numbers = np.ldexp(units.astype(np.float32), power.astype(np.int32))
    if dtype == "F8_E5M2":
        special = exponent == (1 << exponent_nbits) - 1
        numbers[special] = np.where(mantissa[special] > 0, np.nan, np.inf)
    else:
        numbers[bits & 127 == 127] = np.nan
    signed: NDArray[Any] = np.where(bits & 128, -numbers, numbers).astype("<f4")
    return signed
