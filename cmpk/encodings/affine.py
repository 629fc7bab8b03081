"""Encoding affine: integer codes on an evenly spaced grid (spec/encodings/affine.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Branch, Decoder, Encoded, Encoding, Part, check_params, int_param
from cmpk.encodings.scales import scale_bytes, scale_layout, scale_spec, widened_scale
from cmpk.errors import FormatError, PassError
from cmpk.format.manifest import Params
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, CodeJob

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_CODE", "Affine"]

MAX_CODE: Final = 1 << 24
"""Codes less their zero points up to this magnitude are exact in float32."""

_PARAMS: Final = ("axis", "exceptions", "group_size", "offset", "scale_dtype", "zero_point")
_WINDOW: Final = 256
_SEARCHED: Final = 1 << 15


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
        scale = scale_spec(spec, params)
        specs = {"qdata": TensorSpec("U8", (spec.numel,))}
        if n_exceptions:
            specs["exception_index"] = TensorSpec("U64", (n_exceptions,))
            specs["exception_code"] = TensorSpec("I32", (n_exceptions,))
        specs["scale"] = scale
        if int_param(params, "zero_point", 0, 1):
            specs["zero_point"] = TensorSpec("I32", scale.shape)
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
        stored = {"qdata": qdata, "scale": scale_bytes(self.id, scale, scale_dtype)}
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
        layout = scale_layout(spec, params)
        has_exceptions, has_zero_points = params["exceptions"], params["zero_point"]
        return CodeJob(
            out=out,
            dtype=spec.dtype,
            n=spec.numel,
            start=start,
            count=stop - start,
            codes=decoder.source(parts["qdata"], start, stop),
            scale=widened_scale(decoder.decode(parts["scale"]), str(params["scale_dtype"])),
            zero_point=decoder.decode(parts["zero_point"]) if has_zero_points else None,
            offset=int_param(params, "offset", -MAX_CODE, MAX_CODE),
            line=layout.line,
            run=layout.run,
            exception_index=decoder.decode(parts["exception_index"]) if has_exceptions else None,
            exception_code=decoder.decode(parts["exception_code"]) if has_exceptions else None,
        )


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

    if codes.size and int(codes.max()) - offset < _WINDOW and int(codes.min()) >= offset:
        # All fit, so what wraps around on the way comes out right.
        return codes.astype(np.uint8) - np.uint8(offset % _WINDOW), np.empty(0, np.int64), codes[:0]
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
