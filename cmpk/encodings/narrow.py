"""Encoding narrow: floats that are exactly floats of a narrower type (spec/encodings/narrow.md)."""

from __future__ import annotations

from typing import ClassVar, Final

from cmpk import kernels
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Branch, Decoder, Encoded, Encoding, Part, check_params
from cmpk.errors import FormatError
from cmpk.format.manifest import Params
from cmpk.kernels.interface import U8, FloatJob

__all__ = ["NARROWER", "Narrow"]

NARROWER: Final[dict[str, tuple[str, ...]]] = {"F32": ("F16", "BF16"), "F64": ("F16", "BF16", "F32")}
"""For each type, the narrower types that it may really be."""


class Narrow(Encoding):
    """The same numbers in fewer bits."""

    id: ClassVar[str] = "narrow"

    def part_specs(self, spec: TensorSpec, params: Params) -> dict[str, TensorSpec]:
        """See `Encoding.part_specs`."""
        check_params(params, ("dtype",))
        narrower = params["dtype"]
        if not isinstance(narrower, str) or narrower not in NARROWER.get(spec.dtype, ()):
            raise FormatError(f"{spec.dtype} can't be narrowed to {narrower!r}")
        return {"values": TensorSpec(narrower, spec.shape)}

    def encode(self, data: U8, spec: TensorSpec, narrower: str) -> Encoded:
        """Narrow every element; each must be exact (`KernelBackend.narrows_to`)."""
        values = kernels.active().narrow(data, spec.dtype, narrower)
        return Encoded({"dtype": narrower}, {"values": Part(TensorSpec(narrower, spec.shape), values)})

    def decode_range(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> None:
        """See `Encoding.decode_range`."""
        job = self.float_job(stored, start, stop, out, decoder)
        if job is not None:
            decoder.submit(job)
            return
        values = stored.parts["values"]
        assert values.spec is not None and stored.spec is not None
        narrowed = decoder.decode(values, start, stop)
        out[:] = kernels.active().widen(narrowed, values.spec.dtype, stored.spec.dtype)

    def float_job(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> FloatJob | None:
        """See `Encoding.float_job`: the job of the values, widened on the way out."""
        values = stored.parts["values"]
        if not isinstance(values, Branch) or values.encoding is None or values.encoding.id == self.id:
            return None
        job = values.encoding.float_job(values, start, stop, out, decoder)
        assert stored.spec is not None
        return job._replace(out_dtype=stored.spec.dtype) if isinstance(job, FloatJob) else None
