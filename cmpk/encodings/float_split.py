"""Encoding float_split: exponents apart from sign and mantissa (spec/encodings/float_split.md)."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, ClassVar

from cmpk import kernels
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings.base import Branch, Decoder, Encoded, Encoding, Part, check_params, int_param
from cmpk.errors import FormatError
from cmpk.format.manifest import Params
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, FloatJob

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_UPPER_NBITS", "FloatSplit"]

MAX_UPPER_NBITS = 16


class FloatSplit(Encoding):
    """The skewed upper bits of a float, and the rest of it in planes of bytes."""

    id: ClassVar[str] = "float_split"

    def part_specs(self, spec: TensorSpec, params: Params) -> dict[str, TensorSpec]:
        """See `Encoding.part_specs`."""
        if spec.dtype not in FLOAT_LAYOUTS:
            raise FormatError(f"{spec.dtype} tensors can't be split")
        check_params(params, ("base", "exceptions", "mantissa_bits"))
        mantissa_bits = int_param(params, "mantissa_bits", 0, FLOAT_LAYOUTS[spec.dtype][1])
        planes, max_base = _layout(spec.dtype, mantissa_bits)
        int_param(params, "base", 0, max_base)
        n_exceptions = int_param(params, "exceptions", 0, spec.numel)
        specs = dict.fromkeys(planes, TensorSpec("U8", (spec.numel,)))
        if n_exceptions:
            specs["exception_index"] = TensorSpec("U64", (n_exceptions,))
            specs["exception_high"] = TensorSpec("U16", (n_exceptions,))
        return specs

    def encode(
        self,
        data: U8,
        spec: TensorSpec,
        mantissa_bits: int,
        base: int,
        rows: NDArray[np.uint32] | None = None,
    ) -> Encoded:
        """Split.

        Parameters
        ----------
        data : uint8 array, shape (spec.nbytes,)
            With ``rows``, those of a whole tensor that has these rows.
        spec : TensorSpec
            What is split.
        mantissa_bits : int
            How many mantissa bits go with the exponent.
        base : int
            Subtracted from the upper bits.
        rows : uint32 array, shape (spec.shape[0],), optional
            Which rows of the data these are.
        """
        row_elements = spec.numel // len(rows) if rows is not None else 0
        high, rest, index, upper = kernels.active().float_split(
            data, spec.dtype, mantissa_bits, base, rows, row_elements
        )
        params: Params = {"base": base, "exceptions": len(index), "mantissa_bits": mantissa_bits}
        specs = self.part_specs(spec, params)
        parts = [high, *rest]
        if len(index):
            parts += [index.view("u1"), upper.view("u1")]
        planes = dict(zip(specs, parts, strict=True))
        return Encoded(
            params,
            {name: Part(specs[name], plane, specs[name].dtype == "U8") for name, plane in planes.items()},
        )

    def decode_range(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> None:
        """See `Encoding.decode_range`."""
        decoder.submit(self.float_job(stored, start, stop, out, decoder))

    def float_job(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> FloatJob:
        """See `Encoding.float_job`."""
        parts, params, spec = stored.parts, stored.node.params, stored.spec
        assert spec is not None  # an installed encoding's branch has one
        planes = [part for name, part in parts.items() if not name.startswith("exception")]
        sources = [decoder.source(plane, start, stop) for plane in planes]
        index = upper = None
        if params["exceptions"]:
            index = decoder.decode(parts["exception_index"])
            upper = decoder.decode(parts["exception_high"])
        return FloatJob(
            out=out,
            dtype=spec.dtype,
            n=spec.numel,
            start=start,
            count=stop - start,
            mantissa_bits=int_param(params, "mantissa_bits", 0, 52),
            base=int_param(params, "base", 0, 1 << MAX_UPPER_NBITS),
            sources=sources,
            exception_index=index,
            exception_high=upper,
            out_dtype=spec.dtype,
        )


@functools.cache
def _layout(dtype: str, mantissa_bits: int) -> tuple[tuple[str, ...], int]:
    """Names of the planes, and the largest base.

    Raises
    ------
    FormatError
        If there would be too many upper bits.
    """
    upper_nbits = FLOAT_LAYOUTS[dtype][0] + mantissa_bits
    if upper_nbits > MAX_UPPER_NBITS:
        raise FormatError(f"{upper_nbits} upper bits exceed {MAX_UPPER_NBITS}")
    n_rest = (DTYPES[dtype].nbits - upper_nbits + 7) // 8
    return ("high", *(f"rest{index}" for index in range(n_rest))), max(0, (1 << upper_nbits) - 256)
