"""Encoding alias: a tensor with the bytes of another one (spec/encodings/alias.md)."""

from __future__ import annotations

from typing import ClassVar

from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Branch, Decoder, Encoding, check_params, int_param
from cmpk.errors import FormatError
from cmpk.format.manifest import Params
from cmpk.kernels.interface import U8

__all__ = ["Alias"]


class Alias(Encoding):
    """Only the root of a tensor may be one; the archive resolves it before it decodes."""

    id: ClassVar[str] = "alias"

    def part_specs(self, spec: TensorSpec, params: Params) -> dict[str, TensorSpec]:
        """See `Encoding.part_specs`."""
        check_params(params, ("target", "tied"))
        int_param(params, "tied", 0, 1)
        if not isinstance(params["target"], str):
            raise FormatError("the parameter 'target' is not a name")
        return {}

    def decode_range(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> None:
        """Never reached from a valid archive: the root has been replaced by its target's."""
        raise self.corrupt("an alias has no bytes of its own")
