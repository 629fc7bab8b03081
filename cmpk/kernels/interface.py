"""What every kernel backend offers: one operation, several implementations.

``reference`` (NumPy) says what each operation means; every other backend gives the same bytes and
raises the same errors on the same input. All arrays are one-dimensional and contiguous; bytes go
in as any object with the buffer protocol and come out as uint8 arrays. No operation reads outside
its inputs or writes outside its outputs, whatever the bytes are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "FLOAT_LAYOUTS",
    "FUSED_CODECS",
    "PRODUCT_DTYPES",
    "U8",
    "Buffer",
    "CodeJob",
    "FloatJob",
    "Job",
    "KernelBackend",
    "LookupJob",
    "Source",
]

# As strings, like every annotation: reading a file's manifest must not cost the import of NumPy.
U8: TypeAlias = "NDArray[np.uint8]"
Buffer: TypeAlias = "bytes | bytearray | memoryview | NDArray[Any]"

FLOAT_LAYOUTS: dict[str, tuple[int, int]] = {
    "F8_E4M3": (4, 3),
    "F8_E5M2": (5, 2),
    "F8_E4M3FNUZ": (4, 3),
    "F8_E5M2FNUZ": (5, 2),
    "F16": (5, 10),
    "BF16": (8, 7),
    "F32": (8, 23),
    "F64": (11, 52),
}
"""Exponent and mantissa bits of the types that ``float_split`` takes (spec/encodings/float_split.md)."""

PRODUCT_DTYPES: Final = ("F16", "BF16", "F32", "F64")
"""What `KernelBackend.matrix_product` makes (spec/encodings/product.md)."""

FUSED_CODECS: Final = ("raw", "bitpack", "huffman", "rans")
"""What `KernelBackend.decode_floats` decodes on the way."""


class Source(NamedTuple):
    """A part of ``n`` bytes as it is stored.

    Attributes
    ----------
    codec : str
        One of `FUSED_CODECS`.
    stream : buffer
        The stored bytes.
    """

    codec: str
    stream: Buffer


class FloatJob(NamedTuple):
    """One range of one ``float_split`` tensor, decoded straight to where it belongs.

    Attributes
    ----------
    out : writable buffer
        Where the elements go. Without `rows`: exactly ``count`` elements of `out_dtype`. With
        `rows`: the whole tensor that the rows are part of.
    dtype : str
        The type that was split; a key of `FLOAT_LAYOUTS`.
    n : int
        Elements that the sources hold in all.
    start, count : int
        The elements wanted: ``start .. start + count - 1``.
    mantissa_bits, base : int
        Parameters of ``float_split``.
    sources : sequence of Source
        ``high``, ``rest0``, ``rest1``, ...
    exception_index : buffer of uint64, or None
    exception_high : buffer of uint16, or None
        Elements whose upper bits are given apart; the whole lists, whatever the range.
    out_dtype : str
        `dtype`, or the wider type of encoding ``narrow``.
    rows : buffer of uint32, or None
        The elements wanted are whole rows; row ``i`` of them goes to row ``rows[i]`` of `out`.
    row_elements : int
        Elements in a row; 0 without `rows`.
    """

    out: Buffer
    dtype: str
    n: int
    start: int
    count: int  # type: ignore[assignment]  # nobody counts the values of a job
    mantissa_bits: int
    base: int
    sources: Sequence[Source]
    exception_index: Buffer | None = None
    exception_high: Buffer | None = None
    out_dtype: str = ""
    rows: Buffer | None = None
    row_elements: int = 0


class CodeJob(NamedTuple):
    """One range of one tensor of byte codes, dequantized straight to where it belongs.

    The rules are those of spec/encodings/affine.md and cast.md, and the kernels check all that are about
    values.

    Attributes
    ----------
    out : writable buffer
    dtype : str
        Of `out`, a key of `FLOAT_LAYOUTS`.
    n : int
        Elements of the whole tensor.
    start, count : int
        The elements wanted.
    codes : Source
        A byte for each element.
    scale : buffer of float32, shape (n_scales,)
    zero_point : buffer of int32, shape (n_scales,), or None
        None where all are 0.
    offset : int
        Added to each byte.
    line, run : int
        Element ``i`` has scale ``(i // line * ceil(line / run) + i % line // run) % n_scales``.
    numbers : buffer of float32, shape (256,), or None
        What each byte stands for; None where that is the byte plus `offset` less the zero point. With
        them `offset` is 0, there are neither zero points nor exceptions, and `dtype` has a quiet NaN: it
        is none of eight bits.
    exception_index : buffer of uint64, or None
    exception_code : buffer of int32, or None
        Elements whose codes are given apart; the whole lists, whatever the range.
    rows : buffer of uint32, or None
    row_elements : int
        As those of `FloatJob`.
    """

    out: Buffer
    dtype: str
    n: int
    start: int
    count: int  # type: ignore[assignment]  # nobody counts the values of a job
    codes: Source
    scale: Buffer
    zero_point: Buffer | None
    offset: int
    line: int
    run: int
    numbers: Buffer | None = None
    exception_index: Buffer | None = None
    exception_code: Buffer | None = None
    rows: Buffer | None = None
    row_elements: int = 0


class LookupJob(NamedTuple):
    """One range of one tensor of byte codes, each looked up in a list of elements (``codebook``).

    Attributes
    ----------
    out : writable buffer
    element_nbytes : int
        1, 2, 4 or 8.
    n : int
        Elements of the whole tensor.
    start, count : int
        The elements wanted.
    codes : Source
        A byte for each element.
    table : buffer
        One list after another, each of `size` elements.
    size : int
        1 .. 256. A code that is wanted and is not below it is corrupt.
    run : int
        How many elements in a row share a list; 0: all.
    rows : buffer of uint32, or None
    row_elements : int
        As those of `FloatJob`.
    """

    out: Buffer
    element_nbytes: int
    n: int
    start: int
    count: int  # type: ignore[assignment]  # nobody counts the values of a job
    codes: Source
    table: Buffer
    size: int
    run: int = 0
    rows: Buffer | None = None
    row_elements: int = 0


Job: TypeAlias = FloatJob | CodeJob | LookupJob
"""What `KernelBackend.decode_floats` runs."""


class KernelBackend(Protocol):
    """The operations. Modules ``reference`` and ``native`` are of this type."""

    def byte_histogram(self, data: Buffer) -> NDArray[np.uint64]:
        """How often each byte occurs; uint64, shape (256,)."""

    def code_lengths(self, counts: NDArray[np.uint64], max_length: int) -> U8:
        """Optimal length-limited code lengths; uint8, shape (256,).

        Package-merge (Larmore and Hirschberg 1990). A symbol with count 0 gets length 0; a
        single symbol gets length 1. Ties go to the lower symbol, so that the counts alone fix
        the lengths.
        """

    def huffman_encode(self, data: Buffer, lengths: U8, chunk_log2: int, threads: int = 1) -> U8:
        """The whole stream of spec/codecs/huffman.md. Every byte of ``data`` has a code."""

    def huffman_decode(self, stream: Buffer, n: int, start: int, out: U8, threads: int = 1) -> None:
        """Decode symbols ``start .. start + len(out) - 1`` of ``n`` into ``out``.

        Raises CorruptStreamError. Decodes only from the sync points that it needs.
        """

    def huffman_check(self, stream: Buffer, n: int) -> None:
        """Check every rule of the codec, every sync point included; raises CorruptStreamError."""

    def rans_encode(
        self, data: Buffer, frequencies: NDArray[np.uint16], chunk_log2: int, threads: int = 1
    ) -> U8:
        """The whole stream of spec/codecs/rans.md.

        ``frequencies``, shape (256,), add up to 4096; that of every byte of ``data`` is positive.
        """

    def rans_decode(self, stream: Buffer, n: int, start: int, out: U8, threads: int = 1) -> None:
        """Decode symbols ``start .. start + len(out) - 1`` of ``n`` into ``out``, by whole chunks."""

    def bitpack_encode(self, data: Buffer, width: int) -> U8:
        """The whole stream of spec/codecs/bitpack.md. Every byte of ``data`` is < 2**width."""

    def bitpack_decode(self, stream: Buffer, n: int, start: int, out: U8) -> None:
        """Decode symbols ``start .. start + len(out) - 1`` of ``n`` into ``out``."""

    def matrix_product(
        self, left: Buffer, right: Buffer, rank: int, dtype: str, out: U8, threads: int = 1
    ) -> None:
        """Rows of ``left`` times columns of ``right``, as spec/encodings/product.md says.

        Both are float32, shapes (rows, rank) and (rank, columns); ``out`` gets rows * columns elements
        of ``dtype``, one of `PRODUCT_DTYPES`.
        """

    def codebook_expand(
        self,
        codes: Buffer,
        code_nbytes: int,
        first: int,
        centroids: Buffer,
        size: int,
        run: int,
        out: U8,
        threads: int = 1,
    ) -> None:
        """Look codes up (spec/encodings/codebook.md).

        ``codes``, of 1, 2 or 4 bytes, are number ``first`` and those that follow of a tensor's; every
        ``run`` of these share a codebook of ``size`` centroids, or all do for 0. ``centroids`` are those
        of all codebooks, one after another; of as many bytes each as ``out`` has for a code. Raises
        CorruptStreamError if a code is ``size`` or more; ``out`` is then undefined.
        """

    def bitmask_expand(
        self, mask: Buffer, start: int, values: Buffer, fill: Buffer, out: U8, threads: int = 1
    ) -> None:
        """Spread values over the places that a mask tells (spec/encodings/bitmask.md, `stride` 1).

        ``fill`` is one element of 1, 2, 4 or 8 bytes. Element i of ``out`` is the next of ``values``
        where bit ``start`` + i of the mask is set, else ``fill``. Raises CorruptStreamError unless
        exactly as many of these bits are set as there are values; ``out`` is then undefined.
        """

    def gaps_expand(
        self, gaps: Buffer, max_gap: int, n: int, start: int, values: Buffer, fill: Buffer, out: U8
    ) -> None:
        """Spread values over the places that gaps tell (spec/encodings/gap_index.md).

        ``out`` gets elements from ``start`` on of the ``n``; gaps and values are those of all. Raises
        CorruptStreamError if the gaps break a rule of the page, in the range or not.
        """

    def row_costs(self, data: Buffer, dtype: str, row_elements: int, costs: U8) -> NDArray[np.uint64]:
        """What each row costs under each of several tables of costs of exponents.

        Parameters: ``costs``, shape (G, 2**E), the cost of each exponent under each table.
        Returns the sums over each row, shape (rows, G).
        """

    def float_split(
        self,
        data: Buffer,
        dtype: str,
        mantissa_bits: int,
        base: int,
        rows: NDArray[np.uint32] | None = None,
        row_elements: int = 0,
    ) -> tuple[U8, U8, NDArray[np.uint64], NDArray[np.uint16]]:
        """Split as spec/encodings/float_split.md says: all elements, or those of some rows.

        ``rows``, of ``row_elements`` elements each, are taken one after another. Returns ``high`` (n,),
        ``rest`` (t, n), ``exception_index`` and ``exception_high``, both (x,). At an exception ``high``
        holds 0.
        """

    def exponent_histograms(
        self, data: Buffer, dtype: str, row_elements: int, rows: NDArray[np.uint32], limit: int
    ) -> NDArray[np.uint32]:
        """How often each exponent occurs in some rows.

        Of each row, of ``row_elements`` elements, the first ``limit`` are counted, at most all. Returns
        the counts of each row, shape (len(rows), 2**E).
        """

    def upper_bits_histogram(self, data: Buffer, dtype: str, mantissa_bits: int) -> NDArray[np.uint64]:
        """How often each value of the upper E + mantissa_bits bits (without the sign) occurs; (2**H,)."""

    def narrows_to(self, data: Buffer, dtype: str, narrower: str, row_elements: int) -> NDArray[np.bool_]:
        """For each row, whether every element is exactly one of the narrower type (bits, not values)."""

    def narrow(self, data: Buffer, dtype: str, narrower: str) -> U8:
        """The elements in the narrower type, as bytes; every one is exact."""

    def widen(self, data: Buffer, narrower: str, dtype: str) -> U8:
        """Undo `narrow`, bit by bit as spec/encodings/narrow.md says."""

    def feed_errors(
        self,
        values: NDArray[np.float32],
        steps: NDArray[np.float32],
        factor: NDArray[np.float32],
        threads: int = 1,
    ) -> NDArray[np.int32]:
        """Round rows in order, the errors of each made up for in those that are still to come.

        ``values`` and positive ``steps``, shape (rows, columns), and ``factor``, shape (rows, rows), are
        contiguous. The code in row k is the sum of the value and of ``factor[j, k]`` times the error in row
        j < k, in this order, every product and sum rounded, over the step, rounded to nearest even; within
        2^30 of zero, and 0 where there is no number. The error is the value less step times code.
        """

    def best_intervals(
        self,
        mass: NDArray[np.float64],
        moment: NDArray[np.float64],
        square: NDArray[np.float64],
        n_intervals: int,
    ) -> NDArray[np.int64]:
        """Where the intervals with the least weighted squared distance to their means begin.

        ``mass``, ``moment``, ``square``, shape (places,), contiguous: sums up to each place of the weights of
        ascending points, of them times the points, and times their squares; the last place is the end.
        Returns places, shape (n_intervals,), the first 0; there are fewer intervals than places.
        """

    def decode_floats(self, jobs: Sequence[Job], threads: int = 1) -> None:
        """Run jobs: decode the sources, merge, dequantize or look up, scatter, chunk by chunk in cache.

        Chunks of all jobs are spread over ``threads`` threads. Raises CorruptStreamError; the
        outputs are then in an undefined state.
        """
