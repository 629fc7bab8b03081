"""Encoding row_groups: rows that are alike, stored together (spec/encodings/row_groups.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final

from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings.base import Branch, Decoder, Encoded, Encoding, Part, Stored, byte_range, check_params
from cmpk.errors import FormatError
from cmpk.format.manifest import Params
from cmpk.kernels.interface import U8

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_GROUPS", "MAX_ROWS", "RowGroups"]

MAX_GROUPS: Final = 32
MAX_ROWS: Final = (1 << 32) - 1


class RowGroups(Encoding):
    """One part for each group of rows, and the group of each row."""

    id: ClassVar[str] = "row_groups"

    def part_specs(self, spec: TensorSpec, params: Params) -> dict[str, TensorSpec]:
        """See `Encoding.part_specs`."""
        check_params(params, ("rows",))
        rows = params["rows"]
        if not spec.shape:
            raise FormatError("a tensor without dimensions has no rows")
        if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_GROUPS or min(rows) < 1:
            raise FormatError(f"the parameter 'rows' is not a list of 1 to {MAX_GROUPS} positive numbers")
        if spec.shape[0] > MAX_ROWS:
            raise FormatError(f"{spec.shape[0]} rows exceed {MAX_ROWS}")
        if sum(rows) != spec.shape[0]:
            raise FormatError(f"the groups have {sum(rows)} rows, the tensor has {spec.shape[0]}")
        if spec.numel // spec.shape[0] * DTYPES[spec.dtype].nbits % 8:
            raise FormatError(f"rows of {spec.numel // spec.shape[0]} {spec.dtype} are not whole bytes")
        specs = {"group": TensorSpec("U8", spec.shape[:1])}
        for index, n_rows in enumerate(rows):
            specs[str(index)] = TensorSpec(spec.dtype, (n_rows, *spec.shape[1:]))
        return specs

    def encode(self, data: U8, spec: TensorSpec, group: U8) -> Encoded:
        """Take the rows apart.

        Parameters
        ----------
        data : uint8 array, shape (spec.nbytes,)
        spec : TensorSpec
        group : uint8 array, shape (spec.shape[0],)
            The group of each row; every number below the largest occurs.
        """
        params, specs = self.layout(spec, group)
        rows = data.reshape(spec.shape[0], -1)
        parts = [group] + [rows[group == index].reshape(-1) for index in range(len(specs) - 1)]
        return Encoded(
            params, {name: Part(specs[name], part) for name, part in zip(specs, parts, strict=True)}
        )

    def layout(self, spec: TensorSpec, group: U8) -> tuple[Params, dict[str, TensorSpec]]:
        """What `encode` makes, without the bytes: the parameters, and each part's type and shape."""
        import numpy as np

        params: Params = {"rows": np.bincount(group).tolist()}
        return params, self.part_specs(spec, params)

    def decode_range(self, stored: Branch, start: int, stop: int, out: U8, decoder: Decoder) -> None:
        """See `Encoding.decode_range`."""
        import numpy as np

        spec = stored.spec
        assert spec is not None
        row_elements = spec.numel // spec.shape[0]
        if start == stop:
            if not row_elements:
                # Rows without elements have groups all the same, and parts that hold nothing.
                for index in range(len(self.rows_of_groups(stored, decoder))):
                    decoder.decode(stored.parts[str(index)])
            return
        first, last = start // row_elements, -(-stop // row_elements)
        if (start, stop) != (first * row_elements, last * row_elements):
            whole = decoder.decode(stored, first * row_elements, last * row_elements)
            out[:] = whole[byte_range(spec, start - first * row_elements, stop - first * row_elements)]
            return
        for index, rows in enumerate(self.rows_of_groups(stored, decoder)):
            low, high, wanted = 0, len(rows), rows
            if last - first < spec.shape[0]:
                low, high = np.searchsorted(rows, (first, last)).tolist()
                wanted = rows[low:high] - np.uint32(first)
            if low < high:
                self._scatter(stored.parts[str(index)], low, high, wanted, row_elements, out, decoder)

    def rows_of_groups(self, stored: Branch, decoder: Decoder) -> list[NDArray[np.uint32]]:
        """The rows of each group, ascending.

        Raises
        ------
        CorruptStreamError
            If the groups are not those that the parameters promise.
        """
        return decoder.once(stored, lambda: self._found_rows(stored, decoder))

    def _found_rows(self, stored: Branch, decoder: Decoder) -> list[NDArray[np.uint32]]:
        import numpy as np

        sizes = stored.node.params["rows"]
        assert isinstance(sizes, list)
        group = decoder.decode(stored.parts["group"])
        if np.bincount(group, minlength=len(sizes)).tolist() != sizes:
            raise self.corrupt("the groups of the rows are not those that the parameters promise")
        rows = np.argsort(group, kind="stable").astype(np.uint32)
        return np.split(rows, np.cumsum(sizes)[:-1])

    def _scatter(
        self,
        part: Stored,
        low: int,
        high: int,
        rows: NDArray[np.uint32],
        row_elements: int,
        out: U8,
        decoder: Decoder,
    ) -> None:
        start, stop = low * row_elements, high * row_elements
        if isinstance(part, Branch) and part.encoding is not None:
            job = part.encoding.float_job(part, start, stop, out, decoder)
            if job is not None and job.rows is None:
                decoder.submit(job._replace(rows=rows, row_elements=row_elements))
                return
        decoded = decoder.decode(part, start, stop).reshape(high - low, -1)
        out.reshape(-1, decoded.shape[1])[rows] = decoded
