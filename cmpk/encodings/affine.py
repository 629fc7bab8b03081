"""Encoding affine: integer codes on an evenly spaced grid (spec/encodings/affine.md)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from cmpk import kernels
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Branch, Decoder, Encoded, Encoding, Part, check_params, int_param
from cmpk.errors import FormatError, PassError
from cmpk.format.manifest import Params
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, CodeJob

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_CODE", "SCALE_DTYPES", "Affine"]

MAX_CODE: Final = 1 << 24
"""Codes less their zero points up to this magnitude are exact in float32."""

SCALE_DTYPES: Final = ("F32", "F16", "BF16", "F8_E8M0")

_MAX_GROUP_SIZE: Final = 1 << 48
_PARAMS: Final = ("axis", "exceptions", "group_size", "offset", "scale_dtype", "zero_point")
_WINDOW: Final = 256
_SEARCHED: Final = 1 << 15


class ScaleLayout(NamedTuple):
    """Which scale each element has: ``(i // line * ceil(line / run) + i % line // run) % n_scales``."""

    n_scales: int
    line: int
    run: int


class Affine(Encoding):
    """``value = (code - zero_point) * scale``, with a scale per tensor, slice or group."""

    id: ClassVar[str] = "affine"

    def part_specs(self, spec: TensorSpec, params: Params) -> dict[str, TensorSpec]:
        """See `Encoding.part_specs`."""
        if spec.dtype not in FLOAT_LAYOUTS:
            raise FormatError(f"{spec.dtype} tensors have no scales")
        check_params(params, _PARAMS)
        n_exceptions = int_param(params, "exceptions", 0, spec.numel)
        int_param(params, "offset", -MAX_CODE, MAX_CODE)
        scale_dtype = params["scale_dtype"]
        if not isinstance(scale_dtype, str) or scale_dtype not in SCALE_DTYPES:
            raise FormatError(f"the parameter 'scale_dtype' is {scale_dtype!r}, not one of {SCALE_DTYPES}")
        n_scales = _scale_layout(spec, params).n_scales
        specs = {"qdata": TensorSpec("U8", (spec.numel,))}
        if n_exceptions:
            specs["exception_index"] = TensorSpec("U64", (n_exceptions,))
            specs["exception_code"] = TensorSpec("I32", (n_exceptions,))
        specs["scale"] = TensorSpec(scale_dtype, (n_scales,))
        if int_param(params, "zero_point", 0, 1):
            specs["zero_point"] = TensorSpec("I32", (n_scales,))
        return specs

    def encode(
        self,
        codes: NDArray[Any],
        spec: TensorSpec,
        scale: NDArray[np.float32],
        zero_point: NDArray[np.int32] | None = None,
        *,
        axis: int = -1,
        group_size: int = 0,
        scale_dtype: str = "F32",
    ) -> Encoded:
        """Store codes and scales.

        Parameters
        ----------
        codes : integer array of at most 32 bits, ``spec.numel`` elements
        spec : TensorSpec
            Of the tensor that they decode to.
        scale : float32 array, shape (n_scales,)
            In row-major order; each finite and exactly a ``scale_dtype``.
        zero_point : int32 array, shape (n_scales,), optional
        axis, group_size : int
            What has a scale of its own; see spec/encodings/affine.md.
        scale_dtype : str
            One of `SCALE_DTYPES`.

        Returns
        -------
        Encoded
            Its bytes hold the 256 codes in a row that leave the fewest exceptions.

        Raises
        ------
        PassError
            If a code or scale can't be stored exactly, or their numbers do not fit the tensor.
        """
        import numpy as np

        if codes.size != spec.numel:
            raise PassError(f"encoding 'affine': {codes.size} codes for {spec.numel} elements")
        offset = _best_offset(codes)
        qdata, index, apart = _bytes_and_exceptions(codes.reshape(-1), offset)
        params: Params = {
            "axis": axis,
            "exceptions": len(index),
            "group_size": group_size,
            "offset": offset,
            "scale_dtype": scale_dtype,
            "zero_point": int(zero_point is not None),
        }
        try:
            specs = self.part_specs(spec, params)
        except FormatError as error:
            raise PassError(f"encoding 'affine': {error}") from None
        stored = {"qdata": qdata, "scale": _scale_bytes(scale, scale_dtype)}
        if len(index):
            stored["exception_index"] = index.astype("<u8").view(np.uint8)
            stored["exception_code"] = apart.astype("<i4").view(np.uint8)
        if zero_point is not None:
            stored["zero_point"] = np.ascontiguousarray(zero_point, "<i4").reshape(-1).view(np.uint8)
        for name, part in specs.items():
            if len(stored[name]) != part.nbytes:
                raise PassError(f"encoding 'affine': {name!r} takes {part}, not {len(stored[name])} bytes")
        _check_codes(codes, spec, params, zero_point)
        return Encoded(
            params, {name: Part(part, stored[name], name == "qdata") for name, part in specs.items()}
        )

    def decode_range(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> None:
        """See `Encoding.decode_range`."""
        decoder.submit(self.float_job(stored, start, stop, out, decoder))

    def float_job(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> CodeJob:
        """See `Encoding.float_job`."""
        parts, params, spec = stored.parts, stored.node.params, stored.spec
        assert spec is not None  # an installed encoding's branch has one
        layout = _scale_layout(spec, params)
        has_exceptions, has_zero_points = params["exceptions"], params["zero_point"]
        return CodeJob(
            out=out,
            dtype=spec.dtype,
            n=spec.numel,
            start=start,
            count=stop - start,
            codes=decoder.source(parts["qdata"], start, stop),
            scale=_widened(decoder.decode(parts["scale"]), str(params["scale_dtype"])),
            zero_point=decoder.decode(parts["zero_point"]) if has_zero_points else None,
            offset=int_param(params, "offset", -MAX_CODE, MAX_CODE),
            line=layout.line,
            run=layout.run,
            exception_index=decoder.decode(parts["exception_index"]) if has_exceptions else None,
            exception_code=decoder.decode(parts["exception_code"]) if has_exceptions else None,
        )


def _scale_layout(spec: TensorSpec, params: Params) -> ScaleLayout:
    """The scales that the parameters promise.

    Raises
    ------
    FormatError
        If the tensor has no such slices or groups.
    """
    shape = spec.shape
    axis = int_param(params, "axis", -1, len(shape) - 1)
    group_size = int_param(params, "group_size", 0, _MAX_GROUP_SIZE)
    if group_size:
        if axis != -1 or not shape:
            raise FormatError(f"groups go with axis -1 and a dimension, not with {axis} of {len(shape)}")
        if not shape[-1]:
            return ScaleLayout(0, 1, 1)
        run = min(group_size, shape[-1])
        return ScaleLayout(math.prod(shape[:-1]) * -(-shape[-1] // run), shape[-1], run)
    if axis == -1:
        return ScaleLayout(1, max(1, spec.numel), max(1, spec.numel))
    run = max(1, math.prod(shape[axis + 1 :]))
    return ScaleLayout(shape[axis], run, run)


def _widened(scale: U8, dtype: str) -> NDArray[Any]:
    """Scales as float32; one that is not finite stays so, for the kernels to refuse."""
    import numpy as np

    if dtype == "F8_E8M0":
        # The exponent of 2^-127 is that of subnormal numbers, and its mantissa has the leading bit.
        bits = np.where(scale == 0, 1 << 22, scale.astype(np.uint32) << 23)
        return bits.astype("<u4").view("<f4")
    octets = scale if dtype == "F32" else kernels.active().widen(scale, dtype, "F32")
    return octets.view("<f4")


def _scale_bytes(scale: NDArray[np.float32], dtype: str) -> U8:
    """The scales in a dtype that holds them exactly.

    Raises
    ------
    PassError
        If it does not, or one is not finite.
    """
    import numpy as np

    exact = np.ascontiguousarray(scale, "<f4").reshape(-1)
    if not np.isfinite(exact).all():
        raise PassError("encoding 'affine': a scale is not finite")
    if dtype == "F32":
        return exact.view(np.uint8)
    if dtype == "F8_E8M0":
        stored = (exact.view("<u4") >> 23).astype(np.uint8)
        is_exact = np.array_equal(_widened(stored, dtype).view(np.uint8), exact.view(np.uint8))
        if not is_exact:
            raise PassError("encoding 'affine': a scale is not a power of two")
        return stored
    try:
        return kernels.active().narrow(exact.view(np.uint8), "F32", dtype)
    except ValueError:
        raise PassError(f"encoding 'affine': a scale is not exactly a {dtype}") from None


def _best_offset(codes: NDArray[Any]) -> int:
    """The lowest of 256 codes in a row such that as many as can be are among them.

    Where not all are, looks only at codes of 16 bits: others are rare wherever this pays.
    """
    import numpy as np

    if not codes.size:
        return 0
    low, high = int(codes.min()), int(codes.max())
    if high - low < _WINDOW:
        return low
    clipped = np.clip(codes.reshape(-1), -_SEARCHED, _SEARCHED - 1).astype(np.int32)
    counts = np.bincount(clipped + _SEARCHED, minlength=2 * _SEARCHED)
    below = np.concatenate(([0], np.cumsum(counts)))
    return int(np.argmax(below[_WINDOW:] - below[:-_WINDOW])) - _SEARCHED


def _bytes_and_exceptions(codes: NDArray[Any], offset: int) -> tuple[U8, NDArray[Any], NDArray[Any]]:
    """``qdata``, and the places and values of the codes that it can't hold."""
    import numpy as np

    distance = np.subtract(codes, offset, dtype=np.int64 if codes.itemsize > 2 else np.int32)
    qdata = distance.astype(np.uint8)
    index = np.flatnonzero(distance != qdata)
    # Bytes without a meaning cost least where they are like the others.
    qdata[index] = np.clip(-offset, 0, _WINDOW - 1)
    return qdata, index, codes[index]


def _check_codes(
    codes: NDArray[Any], spec: TensorSpec, params: Params, zero_point: NDArray[np.int32] | None
) -> None:
    """See that every code less its zero point is exact in float32, as the page asks."""
    import numpy as np

    zero = np.zeros(1, np.int64) if zero_point is None else zero_point.astype(np.int64)
    offset = int_param(params, "offset", -MAX_CODE, MAX_CODE)
    bounds = [int(codes.min()), int(codes.max())] if codes.size else []
    for code in (offset, offset + _WINDOW - 1, *bounds):
        if zero.size and (code - int(zero.min()) > MAX_CODE or code - int(zero.max()) < -MAX_CODE):
            raise PassError(f"encoding 'affine': the code {code} is too far from a zero point")
