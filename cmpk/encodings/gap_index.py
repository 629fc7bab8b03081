"""Encoding gap_index: how far it is to each element that differs (spec/encodings/gap_index.md)."""

from __future__ import annotations

from typing import ClassVar, Final

from cmpk import kernels
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings.base import Branch, Decoder, Encoded, Encoding, Part, check_params, int_param
from cmpk.encodings.bitmask import fill_bytes, fill_param
from cmpk.format.manifest import Params
from cmpk.kernels.interface import U8

__all__ = ["MAX_GAP", "GapIndex"]

MAX_GAP: Final = 255


class GapIndex(Encoding):
    """Elements that are not of one value, and how many of it stand before each."""

    id: ClassVar[str] = "gap_index"

    def part_specs(self, spec: TensorSpec, params: Params) -> dict[str, TensorSpec]:
        """See `Encoding.part_specs`."""
        check_params(params, ("count", "fill", "gaps", "max_gap"))
        count = int_param(params, "count", 0, spec.numel)
        fill_param(spec, params)
        # Each gap stands for an element or more, so that what is read in vain has a bound as well.
        n_gaps = int_param(params, "gaps", count, spec.numel)
        int_param(params, "max_gap", 1, MAX_GAP)
        return {"gaps": TensorSpec("U8", (n_gaps,)), "values": TensorSpec(spec.dtype, (count,))}

    def encode(self, data: U8, spec: TensorSpec, fill: int = 0, max_gap: int = MAX_GAP) -> Encoded:
        """Leave out one value.

        Parameters
        ----------
        data : uint8 array, shape (spec.nbytes,)
        spec : TensorSpec
            Of 1, 2, 4 or 8 bytes an element.
        fill : int
            The bits of the value, as an unsigned integer below 2**63.
        max_gap : int
            1 .. 255: the gap that has no value behind it.
        """
        import numpy as np

        elements = data.view(f"<u{DTYPES[spec.dtype].nbytes}")
        places = np.flatnonzero(elements != fill)
        distances = np.diff(places, prepend=-1) - 1
        n_fillers, rest = np.divmod(distances, max_gap)
        gaps = np.full(len(places) + int(n_fillers.sum()), max_gap, np.uint8)
        gaps[np.cumsum(n_fillers + 1) - 1] = rest
        params: Params = {"count": len(places), "fill": fill, "gaps": len(gaps), "max_gap": max_gap}
        specs = self.part_specs(spec, params)
        return Encoded(
            params,
            {
                "gaps": Part(specs["gaps"], gaps),
                "values": Part(specs["values"], elements[places].view(np.uint8)),
            },
        )

    def decode_range(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> None:
        """See `Encoding.decode_range`."""
        spec, params = stored.spec, stored.node.params
        assert spec is not None
        # Where a range begins is known only from all the gaps before it.
        kernels.active().gaps_expand(
            decoder.decode(stored.parts["gaps"]),
            int_param(params, "max_gap", 1, MAX_GAP),
            spec.numel,
            start,
            decoder.decode(stored.parts["values"]),
            fill_bytes(spec, params),
            out,
        )
