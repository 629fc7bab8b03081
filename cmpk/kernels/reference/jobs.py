"""Ranges of ``float_split`` tensors, decoded to where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES
from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, FloatJob, Source
from cmpk.kernels.reference.bitpack import bitpack_decode
from cmpk.kernels.reference.buffers import bytes_of, check_range, writable_bytes_of
from cmpk.kernels.reference.float_split import float_merge, layout_of
from cmpk.kernels.reference.huffman import huffman_decode
from cmpk.kernels.reference.narrow import NARROWER, widen_words
from cmpk.kernels.reference.rans import rans_decode

__all__ = ["decode_floats"]


def decode_floats(jobs: Sequence[FloatJob], threads: int = 1) -> None:
    """Run jobs: decode the sources, merge, widen, scatter. ``threads`` changes nothing here.

    Raises
    ------
    CorruptStreamError
        If a source or the elements break a rule; the outputs are then in an undefined state.
    ValueError
        If sizes of a job contradict each other.
    """
    for job in jobs:
        _decode_job(job)


def _decode_job(job: FloatJob) -> None:
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
    index, high = _exceptions_of(job)
    parts = [_decode_source(source, job) for source in job.sources]
    words = float_merge(layout, parts[0], parts[1:], index, high)
    elements = widen_words(words, job.dtype, out_dtype)
    if rows is None:
        out[:] = elements.view(np.uint8)
    elif job.row_elements:
        row_nbytes = job.row_elements * DTYPES[out_dtype].nbytes
        out.reshape(-1, row_nbytes)[rows] = elements.view(np.uint8).reshape(-1, row_nbytes)


def _rows_of(job: FloatJob, out_nbytes: int, element_nbytes: int) -> NDArray[Any] | None:
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


def _exceptions_of(job: FloatJob) -> tuple[NDArray[np.int64], NDArray[np.uint16]]:
    """The exceptions within the range of a job, counted from its start."""
    if (job.exception_index is None) != (job.exception_high is None):
        raise ValueError("exception_index and exception_high come together")
    if job.exception_index is None or job.exception_high is None:
        return np.empty(0, np.int64), np.empty(0, np.uint16)
    index_octets, high_octets = bytes_of(job.exception_index), bytes_of(job.exception_high)
    if index_octets.size % 8 or index_octets.size != 4 * high_octets.size:
        raise ValueError(
            f"{index_octets.size} bytes of indices do not go with {high_octets.size} of upper bits"
        )
    index, high = index_octets.view("<u8"), high_octets.view("<u2")
    if index.size and (int(index[-1]) >= job.n or (index[1:] <= index[:-1]).any()):
        raise CorruptStreamError(
            f"encoding 'float_split': exception_index is not strictly ascending below {job.n}"
        )
    layout = layout_of(job.dtype, job.mantissa_bits, job.base)
    if (high >> layout.upper_nbits).any():
        raise CorruptStreamError(f"encoding 'float_split': exception_high exceeds {layout.upper_nbits} bits")
    first, stop = np.searchsorted(index, np.array([job.start, job.start + job.count], np.uint64))
    return (index[first:stop] - np.uint64(job.start)).astype(np.int64), high[first:stop]


def _decode_source(source: Source, job: FloatJob) -> U8:
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
