"""Encoding product: a tensor as the product of two matrices (spec/encodings/product.md)."""

from __future__ import annotations

import math
from typing import ClassVar, Final

from cmpk import kernels
from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings.base import (
    Branch,
    Decoder,
    Encoded,
    Encoding,
    Part,
    allocate,
    check_params,
    int_param,
)
from cmpk.errors import FormatError, PassError
from cmpk.format.layout import MAX_TENSOR_NBYTES
from cmpk.format.manifest import Params
from cmpk.kernels.interface import PRODUCT_DTYPES, U8

__all__ = ["FACTOR_DTYPES", "MAX_RANK", "Product"]

MAX_RANK: Final = 4096

FACTOR_DTYPES: Final = ("F32", "F16", "BF16")


class Product(Encoding):
    """Rows of one matrix times columns of another: low rank, or a dictionary and sparse codes."""

    id: ClassVar[str] = "product"

    def part_specs(self, spec: TensorSpec, params: Params) -> dict[str, TensorSpec]:
        """See `Encoding.part_specs`."""
        check_params(params, ("dtype", "rank"))
        dtype, rank = params["dtype"], int_param(params, "rank", 1, MAX_RANK)
        if spec.dtype not in PRODUCT_DTYPES:
            raise FormatError(f"{spec.dtype} tensors are no products")
        if not isinstance(dtype, str) or dtype not in FACTOR_DTYPES:
            raise FormatError(f"the parameter 'dtype' is {dtype!r}, not one of {FACTOR_DTYPES}")
        if len(spec.shape) < 2:
            raise FormatError(f"a tensor of {len(spec.shape)} dimensions is no matrix")
        specs = {
            "left": TensorSpec(dtype, (spec.shape[0], rank)),
            "right": TensorSpec(dtype, (rank, math.prod(spec.shape[1:]))),
        }
        if max(part.nbytes for part in specs.values()) > MAX_TENSOR_NBYTES:
            raise FormatError(f"a matrix of the product exceeds {MAX_TENSOR_NBYTES} bytes")
        return specs

    def encode(self, left: U8, right: U8, spec: TensorSpec, rank: int, dtype: str) -> Encoded:
        """Store two matrices.

        Parameters
        ----------
        left : uint8 array
            The bytes of a matrix [m, rank] for a tensor of m rows.
        right : uint8 array
            The bytes of a matrix [rank, n] for rows of n elements.
        spec : TensorSpec
            Of the tensor that they decode to.
        rank : int
        dtype : str
            Of both; one of `FACTOR_DTYPES`.

        Raises
        ------
        PassError
            If they do not fit the tensor.
        """
        params: Params = {"dtype": dtype, "rank": rank}
        try:
            specs = self.part_specs(spec, params)
        except FormatError as error:
            raise PassError(f"encoding 'product': {error}") from None
        stored = {"left": left, "right": right}
        for name, part in specs.items():
            if len(stored[name]) != part.nbytes:
                raise PassError(f"encoding 'product': {name!r} takes {part}, not {len(stored[name])} bytes")
        return Encoded(params, {name: Part(part, stored[name]) for name, part in specs.items()})

    def decode_range(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> None:
        """See `Encoding.decode_range`."""
        spec = stored.spec
        assert spec is not None
        if start == stop:
            if not spec.numel:
                for part in stored.parts.values():
                    decoder.decode(part)  # a tensor without elements has matrices all the same
            return
        columns = math.prod(spec.shape[1:])
        rank = int_param(stored.node.params, "rank", 1, MAX_RANK)
        first, last = start // columns, -(-stop // columns)
        itemsize = DTYPES[spec.dtype].nbytes
        target = out
        if (start, stop) != (first * columns, last * columns):
            target = allocate((last - first) * columns * itemsize)
        left = decoder.decode(stored.parts["left"], first * rank, last * rank)
        right = decoder.decode(stored.parts["right"])
        dtype = str(stored.node.params["dtype"])
        if dtype != "F32":
            left, right = (kernels.active().widen(factor, dtype, "F32") for factor in (left, right))
        kernels.active().matrix_product(left, right, rank, spec.dtype, target, decoder.threads)
        if target is not out:
            skipped = (start - first * columns) * itemsize
            out[:] = target[skipped : skipped + len(out)]
