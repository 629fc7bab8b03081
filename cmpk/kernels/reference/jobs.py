"""Ranges of tensors of planes and of codes, decoded to where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES
from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, Buffer, CodeJob, FloatJob, Job, LookupJob, Source
from cmpk.kernels.reference.bitpack import bitpack_decode
from cmpk.kernels.reference.buffers import bytes_of, check_range, writable_bytes_of
from cmpk.kernels.reference.dequantize import check_apart, dequantize, scales_of
from cmpk.kernels.reference.float_split import float_merge, layout_of
from cmpk.kernels.reference.huffman import huffman_decode
from cmpk.kernels.reference.narrow import NARROWER, widen_words
from cmpk.kernels.reference.rans import rans_decode

__all__ = ["decode_floats"]


def decode_floats(jobs: Sequence[Job], threads: int = 1) -> None:
    """Run jobs: decode the sources, merge, dequantize or look up, scatter. ``threads`` changes nothing here.

    Raises
    ------
    CorruptStreamError
        If a source or the elements break a rule; the outputs are then in an undefined state.
    ValueError
        If sizes of a job contradict each other.
    """
    for job in jobs:
        if isinstance(job, CodeJob):
            _decode_codes(job)
        elif isinstance(job, LookupJob):
            _look_up(job)
        else:
            _decode_planes(job)


def _decode_codes(job: CodeJob) -> None:
    check_range(job.n, job.start, job.count)
    scales = scales_of(job)
    out = writable_bytes_of(job.out)
    rows = _rows_of(job, out.size, DTYPES[job.dtype].nbytes)
    index, apart = _exceptions_of("affine", job.n, job.exception_index, job.exception_code, "<i4")
    check_apart(scales, index, apart)
    first, stop = np.searchsorted(index, np.array([job.start, job.start + job.count], np.uint64))
    within = (index[first:stop] - np.uint64(job.start)).astype(np.int64)
    codes = _decode_source(job.codes, job)
    words = dequantize(scales, job.dtype, job.start, codes, within, apart[first:stop])
    _put(words, out, rows, job.row_elements)


def _look_up(job: LookupJob) -> None:
    check_range(job.n, job.start, job.count)
    if job.element_nbytes not in (1, 2, 4, 8) or not 1 <= job.size <= 256 or job.run < 0:
        raise ValueError(f"elements of {job.element_nbytes} bytes, lists of {job.size}, runs of {job.run}")
    out = writable_bytes_of(job.out)
    rows = _rows_of(job, out.size, job.element_nbytes)
    octets = bytes_of(job.table)
    list_nbytes = job.size * job.element_nbytes
    n_lists = -(-job.n // job.run) if job.run else min(job.n, 1)
    if octets.size % list_nbytes or octets.size // list_nbytes < n_lists:
        raise ValueError(f"{octets.size} bytes are not lists of {list_nbytes} for each of {n_lists} runs")
    codes = _decode_source(job.codes, job)
    if codes.size and int(codes.max()) >= job.size:
        raise CorruptStreamError(
            f"encoding 'codebook': code {int(codes.max())} is not in a codebook of {job.size}"
        )
    place = codes.astype(np.int64)
    if job.run:
        place += np.arange(job.start, job.start + job.count, dtype=np.int64) // job.run * job.size
    _put(octets.view(f"<u{job.element_nbytes}")[place], out, rows, job.row_elements)


def _decode_planes(job: FloatJob) -> None:
    layout = layout_of(job.dtype, job.mantissa_bits, job.base)
    check_range(job.n, job.start, job.count)
    out_dtype = job.out_dtype or job.dtype
    if out_dtype != job.dtype and job.dtype not in NARROWER.get(out_dtype, ()):
        raise ValueError(f"{job.dtype} does not widen to {out_dtype}")
    if len(job.sources) != 1 + layout.n_rest:
        raise ValueError(
            f"{len(job.sources)} sources; {job.dtype} with these parameters has {1 + layout.n_rest}"
        )
    out = writable_bytes_of(job.out)
    rows = _rows_of(job, out.size, DTYPES[out_dtype].nbytes)
    index, high = _exceptions_of("float_split", job.n, job.exception_index, job.exception_high, "<u2")
    if (high >> layout.upper_nbits).any():
        raise CorruptStreamError(f"encoding 'float_split': exception_high exceeds {layout.upper_nbits} bits")
    first, stop = np.searchsorted(index, np.array([job.start, job.start + job.count], np.uint64))
    within = (index[first:stop] - np.uint64(job.start)).astype(np.int64)
    parts = [_decode_source(source, job) for source in job.sources]
    words = float_merge(layout, parts[0], parts[1:], within, high[first:stop])
    _put(widen_words(words, job.dtype, out_dtype), out, rows, job.row_elements)


def _put(elements: NDArray[Any], out: U8, rows: NDArray[Any] | None, row_elements: int) -> None:
    """Write elements to their rows of the output, or one after another."""
    if rows is None:
        out[:] = elements.view(np.uint8)
    elif row_elements:
        row_nbytes = row_elements * elements.itemsize
        out.reshape(-1, row_nbytes)[rows] = elements.view(np.uint8).reshape(-1, row_nbytes)


def _rows_of(job: Job, out_nbytes: int, element_nbytes: int) -> NDArray[Any] | None:
    """The rows of a job, checked against the size of its output."""
    if job.rows is None:
        if job.row_elements or out_nbytes != job.count * element_nbytes:
            raise ValueError(
                f"output has {out_nbytes} bytes; {job.count} elements take {element_nbytes} each"
            )
        return None
    octets = bytes_of(job.rows)
    if octets.size % 4:
        raise ValueError(f"rows has {octets.size} bytes; each takes 4")
    rows = octets.view("<u4")
    if job.row_elements < 0 or rows.size * job.row_elements != job.count:
        raise ValueError(f"{job.count} elements are not {rows.size} rows of {job.row_elements}")
    row_nbytes = job.row_elements * element_nbytes
    if row_nbytes and (
        out_nbytes % row_nbytes or (rows.size and int(rows.max()) >= out_nbytes // row_nbytes)
    ):
        raise ValueError(f"the rows do not lie within an output of {out_nbytes} bytes, {row_nbytes} a row")
    return rows


def _exceptions_of(
    encoding: str, n: int, indices: Buffer | None, values: Buffer | None, dtype: str
) -> tuple[NDArray[np.uint64], NDArray[Any]]:
    """All exceptions of a tensor of n elements, in ascending order, and what is given for them."""
    if (indices is None) != (values is None):
        raise ValueError("the indices of exceptions and their values come together")
    if indices is None or values is None:
        return np.empty(0, np.uint64), np.empty(0, dtype)
    index_octets, value_octets = bytes_of(indices), bytes_of(values)
    itemsize = np.dtype(dtype).itemsize
    if index_octets.size % 8 or index_octets.size // 8 * itemsize != value_octets.size:
        raise ValueError(f"{index_octets.size} bytes of indices do not go with {value_octets.size} of values")
    index = index_octets.view("<u8")
    if index.size and (int(index[-1]) >= n or (index[1:] <= index[:-1]).any()):
        raise CorruptStreamError(
            f"encoding {encoding!r}: exception_index is not strictly ascending below {n}"
        )
    return index, value_octets.view(dtype)


def _decode_source(source: Source, job: Job) -> U8:
    """The bytes of a part that the range of a job covers."""
    codec, stream = source
    out = np.empty(job.count, np.uint8)
    if codec == "raw":
        octets = bytes_of(stream)
        if octets.size != job.n:
            raise CorruptStreamError(f"codec 'raw': stream has {octets.size} bytes; its tensor has {job.n}")
        return octets[job.start : job.start + job.count]
    if codec == "huffman":
        huffman_decode(stream, job.n, job.start, out)
    elif codec == "rans":
        rans_decode(stream, job.n, job.start, out)
    elif codec == "bitpack":
        bitpack_decode(stream, job.n, job.start, out)
    else:
        raise ValueError(f"decode_floats does not decode codec {codec!r}")
    return out
