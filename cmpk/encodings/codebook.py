"""Encoding codebook: tensors of few distinct values, vectors or rows (spec/encodings/codebook.md)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

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
from cmpk.kernels.interface import U8, LookupJob

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MAX_SIZE", "MAX_VECTORS", "VECTORS", "Codebook"]

MAX_SIZE: Final = 256
MAX_VECTORS: Final = 1 << 32

VECTORS: Final = (0, 1, 2, 4, 8)
"""How many neighbours may share a code; 0 stands for a whole row."""

_MAX_GROUP_ROWS: Final = 1 << 48


class _Layout(NamedTuple):
    """What the parameters say.

    Attributes
    ----------
    size : int
        Centroids in a codebook.
    unit : int
        Elements of a centroid.
    run : int
        Codes in a row that share a codebook; 0: all do.
    codes, centroids : TensorSpec
    """

    size: int
    unit: int
    run: int
    codes: TensorSpec
    centroids: TensorSpec


class Codebook(Encoding):
    """A list of values, vectors or rows, and which of them stand where."""

    id: ClassVar[str] = "codebook"

    def part_specs(self, spec: TensorSpec, params: Params) -> dict[str, TensorSpec]:
        """See `Encoding.part_specs`."""
        layout = _layout(spec, params)
        return {"codes": layout.codes, "centroids": layout.centroids}

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

    def encode_codes(
        self,
        codes: NDArray[Any],
        centroids: U8,
        spec: TensorSpec,
        size: int,
        *,
        vector: int = 1,
        group_rows: int = 0,
    ) -> Encoded:
        """Store codes and centroids that were found before.

        Parameters
        ----------
        codes : integer array
            One for each element, vector or row of the tensor, in its order.
        centroids : uint8 array
            The bytes of all centroids of all codebooks.
        spec : TensorSpec
            Of the tensor that they decode to.
        size : int
            Centroids in a codebook.
        vector : int
            One of `VECTORS`.
        group_rows : int
            How many rows share a codebook; 0: all do.

        Raises
        ------
        PassError
            If they do not fit each other.
        """
        import numpy as np

        params: Params = {"group_rows": group_rows} if group_rows else {}
        params["size"] = size
        if vector != 1:
            params["vector"] = vector
        try:
            layout = _layout(spec, params)
        except FormatError as error:
            raise PassError(f"encoding 'codebook': {error}") from None
        if codes.size != layout.codes.numel or len(centroids) != layout.centroids.nbytes:
            raise PassError(
                f"encoding 'codebook': {codes.size} codes and {len(centroids)} bytes of centroids, "
                f"not {layout.codes} and {layout.centroids}"
            )
        if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < size:
            raise PassError(f"encoding 'codebook': a code is not below {size}")
        stored = np.ascontiguousarray(codes, f"<u{DTYPES[layout.codes.dtype].nbytes}")
        return Encoded(
            params,
            {
                "codes": Part(layout.codes, stored.reshape(-1).view(np.uint8)),
                "centroids": Part(layout.centroids, centroids),
            },
        )

    def decode_range(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> None:
        """See `Encoding.decode_range`."""
        spec = stored.spec
        assert spec is not None
        layout = _layout(spec, stored.node.params)
        if not layout.unit:
            self._check_codes_of_empty_rows(stored, layout, decoder)
            return
        job = self.float_job(stored, start, stop, out, decoder)
        if job is not None:
            decoder.submit(job)
            return
        first, last = start // layout.unit, -(-stop // layout.unit)
        unit_nbytes = layout.unit * DTYPES[spec.dtype].nbytes
        target = out
        if (start, stop) != (first * layout.unit, last * layout.unit):
            target = allocate((last - first) * unit_nbytes)
        kernels.active().codebook_expand(
            decoder.decode(stored.parts["codes"], first, last),
            DTYPES[layout.codes.dtype].nbytes,
            first,
            decoder.decode(stored.parts["centroids"]),
            layout.size,
            layout.run,
            target,
            decoder.threads,
        )
        if target is not out:
            skipped = (start - first * layout.unit) * DTYPES[spec.dtype].nbytes
            out[:] = target[skipped : skipped + len(out)]

    def float_job(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> LookupJob | None:
        """See `Encoding.float_job`: a job where every element has a code."""
        spec = stored.spec
        assert spec is not None
        layout = _layout(spec, stored.node.params)
        # Not by the unit: a vector of one element is a row of one, and may have codes of several bytes.
        if stored.node.params.get("vector", 1) != 1:
            return None
        return LookupJob(
            out=out,
            element_nbytes=DTYPES[spec.dtype].nbytes,
            n=spec.numel,
            start=start,
            count=stop - start,
            codes=decoder.source(stored.parts["codes"], start, stop),
            table=decoder.decode(stored.parts["centroids"]),
            size=layout.size,
            run=layout.run,
        )

    def _check_codes_of_empty_rows(self, stored: Branch, layout: _Layout, decoder: Decoder) -> None:
        decoder.decode(stored.parts["centroids"])
        codes = decoder.decode(stored.parts["codes"]).view(f"<u{DTYPES[layout.codes.dtype].nbytes}")
        if len(codes) and int(codes.max()) >= layout.size:
            raise self.corrupt(f"code {int(codes.max())} is not in a codebook of {layout.size}")


def _layout(spec: TensorSpec, params: Params) -> _Layout:
    """The sizes that the parameters promise.

    Raises
    ------
    FormatError
        If they break a rule of the page.
    """
    given = tuple(name for name in ("group_rows", "size", "vector") if name in params or name == "size")
    check_params(params, given)
    vector = int_param(params, "vector", 0, VECTORS[-1]) if "vector" in params else 1
    group_rows = int_param(params, "group_rows", 1, _MAX_GROUP_ROWS) if "group_rows" in params else 0
    size = int_param(params, "size", 1, MAX_SIZE if vector == 1 else MAX_VECTORS)
    shape = spec.shape
    if not DTYPES[spec.dtype].nbytes:
        raise FormatError(f"{spec.dtype} elements are not whole bytes")
    if vector not in VECTORS or ("vector" in params and vector == 1):
        raise FormatError(f"the parameter 'vector' is {vector}, not one of {VECTORS} other than 1")
    if not shape and (vector != 1 or group_rows):
        raise FormatError("a tensor without dimensions has neither vectors nor rows")
    if vector > 1 and shape[-1] % vector:
        raise FormatError(f"a last dimension of {shape[-1]} is no whole number of vectors of {vector}")
    if group_rows and not vector:
        raise FormatError("codebooks of whole rows have no groups of rows")
    of_codes, of_one = (shape, ()) if vector else (shape[:1], shape[1:])
    if vector > 1:
        of_codes, of_one = (*shape[:-1], shape[-1] // vector), (vector,)
    books = (-(-shape[0] // group_rows),) if group_rows else ()
    code = "U8" if size <= 1 << 8 else "U16" if size <= 1 << 16 else "U32"
    centroids = TensorSpec(spec.dtype, (*books, size, *of_one))
    if centroids.nbytes > MAX_TENSOR_NBYTES:
        raise FormatError(f"centroids of {centroids.nbytes} bytes exceed {MAX_TENSOR_NBYTES}")
    # Rows that hold no codes share whatever codebook: no code asks which.
    run = group_rows * math.prod(of_codes[1:])
    return _Layout(size, math.prod(of_one), run, TensorSpec(code, of_codes), centroids)
