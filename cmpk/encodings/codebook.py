"""Encoding codebook: tensors of few distinct values (spec/encodings/codebook.md)."""

from __future__ import annotations

from typing import ClassVar, Final

from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings.base import Branch, Decoder, Encoded, Encoding, Part, check_params, int_param
from cmpk.errors import FormatError
from cmpk.format.manifest import Params
from cmpk.kernels.interface import U8

__all__ = ["MAX_SIZE", "Codebook"]

MAX_SIZE: Final = 256


class Codebook(Encoding):
    """A list of values, and which of them each element is."""

    id: ClassVar[str] = "codebook"

    def part_specs(self, spec: TensorSpec, params: Params) -> dict[str, TensorSpec]:
        """See `Encoding.part_specs`."""
        check_params(params, ("size",))
        size = int_param(params, "size", 1, MAX_SIZE)
        if not DTYPES[spec.dtype].nbytes:
            raise FormatError(f"{spec.dtype} elements are not whole bytes")
        return {"codes": TensorSpec("U8", spec.shape), "centroids": TensorSpec(spec.dtype, (size,))}

    def encode(self, data: U8, spec: TensorSpec) -> Encoded | None:
        """Encode; None if there are more than `MAX_SIZE` distinct values (bits, not numbers)."""
        import numpy as np

        elements = data.view(f"u{DTYPES[spec.dtype].nbytes}")
        values = np.unique(elements)
        if not 1 <= len(values) <= MAX_SIZE:
            return None
        codes = np.searchsorted(values, elements).astype(np.uint8)
        params: Params = {"size": len(values)}
        specs = self.part_specs(spec, params)
        return Encoded(
            params,
            {
                "codes": Part(specs["codes"], codes),
                "centroids": Part(specs["centroids"], values.view(np.uint8)),
            },
        )

    def decode_range(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> None:
        """See `Encoding.decode_range`."""
        import numpy as np

        assert stored.spec is not None
        codes = decoder.decode(stored.parts["codes"], start, stop)
        centroids = decoder.decode(stored.parts["centroids"]).view(f"u{DTYPES[stored.spec.dtype].nbytes}")
        if len(codes) and int(codes.max()) >= len(centroids):
            raise self.corrupt(f"code {int(codes.max())} is not in a codebook of {len(centroids)}")
        np.take(centroids, codes, out=out.view(centroids.dtype))
