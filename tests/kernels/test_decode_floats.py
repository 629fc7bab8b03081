"""Jobs: parts decoded, merged, widened and scattered to where they belong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.dtypes import DTYPES
from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, FloatJob, KernelBackend, Source
from tests.kernels.samples import element_arrays, elements, ranges_of, sources_of, splits

WIDER = {"F16": ["F32", "F64"], "BF16": ["F32", "F64"], "F32": ["F64"]}


def job_of(backend: KernelBackend, data: U8, split: tuple[str, int, int], **changed: Any) -> FloatJob:
    """A job for all elements, from raw parts."""
    dtype, mantissa_bits, base = split
    n = data.size // DTYPES[dtype].nbytes
    high, rest, index, upper = backend.float_split(data, dtype, mantissa_bits, base)
    sources = [Source("raw", high), *(Source("raw", plane) for plane in rest)]
    job = FloatJob(np.zeros(data.size, np.uint8), dtype, n, 0, n, mantissa_bits, base, sources, index, upper)
    return job._replace(**changed)


def bf16(n: int, seed: int = 0) -> U8:
    return elements("BF16", n, seed, 2.0)


@given(split=splits(), sample=st.data())
def test_any_range_from_any_codecs_is_what_was_split(
    backend: KernelBackend, split: tuple[str, int, int], sample: st.DataObject
) -> None:
    dtype = split[0]
    nbytes = DTYPES[dtype].nbytes
    data = sample.draw(element_arrays(dtype, 5000))
    job = job_of(backend, data, split)
    sources = [
        sample.draw(st.sampled_from(sources_of(backend, np.asarray(source.stream, np.uint8))))
        for source in job.sources
    ]
    start, stop = sample.draw(ranges_of(job.n))
    out = np.full((stop - start) * nbytes + 2, 0xEE, np.uint8)
    backend.decode_floats(
        [job._replace(out=out[1:-1], start=start, count=stop - start, sources=sources)],
        threads=sample.draw(st.integers(1, 3)),
    )
    assert out.tobytes() == b"\xee" + data[start * nbytes : stop * nbytes].tobytes() + b"\xee"


@given(dtype=st.sampled_from(sorted(WIDER)), sample=st.data())
def test_widening_on_the_way_is_widening_afterwards(
    backend: KernelBackend, dtype: str, sample: st.DataObject
) -> None:
    wide = sample.draw(st.sampled_from(WIDER[dtype]))
    data = sample.draw(element_arrays(dtype, 5000))
    expected = backend.widen(data, dtype, wide)
    job = job_of(backend, data, (dtype, 0, 0), out=np.zeros(expected.size, np.uint8), out_dtype=wide)
    backend.decode_floats([job])
    assert bytes(job.out) == expected.tobytes()


@given(
    row_elements=st.sampled_from([1, 2, 7, 64, 1000, 1024, 1500]),
    seed=st.integers(0, 2**32 - 1),
    wide=st.sampled_from(["", "F32", "F64"]),
)
def test_rows_go_where_they_are_told_and_no_other_row_is_touched(
    backend: KernelBackend, row_elements: int, seed: int, wide: str
) -> None:
    rng = np.random.default_rng(seed)
    n_rows, n_out_rows = 6, 11
    data = bf16(n_rows * row_elements, seed)
    rows = rng.permutation(n_out_rows)[:n_rows].astype(np.uint32)
    stored = backend.widen(data, "BF16", wide) if wide else data
    expected = np.full((n_out_rows, stored.size // n_rows), 0xEE, np.uint8)
    expected[rows] = stored.reshape(n_rows, -1)
    out = np.full(expected.size, 0xEE, np.uint8)
    job = job_of(backend, data, ("BF16", 0, 0), out=out, out_dtype=wide, rows=rows, row_elements=row_elements)
    backend.decode_floats([job], threads=2)
    assert out.tobytes() == expected.tobytes()
    # The second half of the rows alone.
    half = (n_rows // 2) * row_elements
    out[:] = 0xEE
    expected[rows[: n_rows // 2]] = 0xEE
    backend.decode_floats([job._replace(start=half, count=half, rows=rows[n_rows // 2 :])])
    assert out.tobytes() == expected.tobytes()


def test_jobs_longer_than_a_piece_are_decoded_whole(backend: KernelBackend) -> None:
    n = 300_001
    data = bf16(n)
    job = job_of(backend, data, ("BF16", 0, 0))
    high = np.asarray(job.sources[0].stream)
    lengths = backend.code_lengths(backend.byte_histogram(high), 12)
    coded = Source("huffman", backend.huffman_encode(high, lengths, 18))
    for threads in (1, 2):
        out = np.zeros((n - 1000) * 2, np.uint8)
        backend.decode_floats(
            [job._replace(out=out, start=999, count=n - 1000, sources=[coded, job.sources[1]])], threads
        )
        assert out.tobytes() == data[2 * 999 : -2].tobytes()


def test_no_jobs_and_empty_jobs_do_nothing(backend: KernelBackend) -> None:
    backend.decode_floats([])
    backend.decode_floats((job_of(backend, bf16(0), ("BF16", 0, 0)),))
    job = job_of(backend, bf16(9), ("BF16", 0, 0), count=0, out=bytearray())
    backend.decode_floats([job])
    # Rows of nothing.
    rows = np.arange(3, dtype=np.uint32)
    backend.decode_floats([job_of(backend, bf16(0), ("BF16", 0, 0), rows=rows)])


def test_one_damaged_job_of_many_is_reported(backend: KernelBackend) -> None:
    jobs = [job_of(backend, bf16(5000, seed), ("BF16", 0, 0)) for seed in range(8)]
    coded = sources_of(backend, np.asarray(jobs[5].sources[0].stream, np.uint8))[1]
    # The head is sound: the damage is found while other jobs are decoded.
    damaged = np.array(coded.stream, np.uint8)
    damaged[-200:-100] = 0
    jobs[5] = jobs[5]._replace(sources=[Source("huffman", damaged), jobs[5].sources[1]])
    for threads in (1, 3):
        with pytest.raises(CorruptStreamError):
            backend.decode_floats(jobs, threads)


@pytest.mark.parametrize("codec", ["raw", "huffman", "rans", "bitpack"])
def test_a_part_of_the_wrong_size_is_corrupt(backend: KernelBackend, codec: str) -> None:
    part = np.full(100, 3, np.uint8)
    part[0] = 2
    stream = next(source.stream for source in sources_of(backend, part) if source.codec == codec)
    job = job_of(backend, bf16(109), ("BF16", 0, 0))
    for damaged in (stream, b""):
        with pytest.raises(CorruptStreamError, match=codec):
            backend.decode_floats([job._replace(sources=[Source(codec, damaged), job.sources[1]])])


def test_upper_bits_that_do_not_fit_are_corrupt_unless_an_exception_replaces_them(
    backend: KernelBackend,
) -> None:
    data = elements("F16", 2000, 0, 2.0)
    job = job_of(backend, data, ("F16", 0, 0))
    high = np.array(job.sources[0].stream, np.uint8)
    upper = high[1234]
    high[1234] = 32
    damaged = job._replace(sources=[Source("raw", high), *job.sources[1:]])
    with pytest.raises(CorruptStreamError, match="upper bits"):
        backend.decode_floats([damaged])
    # The other ranges have nothing to do with it.
    backend.decode_floats([damaged._replace(count=1234, out=np.zeros(2468, np.uint8))])
    index = np.array([7, 1234], np.uint64)
    replaced = damaged._replace(exception_index=index, exception_high=np.array([31, upper], np.uint16))
    backend.decode_floats([replaced])
    expected = data.view("<u2").copy()
    expected[7] |= 31 << 10
    assert bytes(replaced.out) == expected.tobytes()
    high[1235] = 255
    with pytest.raises(CorruptStreamError, match="upper bits"):
        backend.decode_floats([replaced])


@pytest.mark.parametrize(
    ("dtype", "mantissa_bits"), [("BF16", 1), ("F16", 0), ("F32", 4), ("F64", 0), ("F8_E4M3", 0)]
)
def test_a_rest_with_too_many_bits_is_corrupt(backend: KernelBackend, dtype: str, mantissa_bits: int) -> None:
    job = job_of(backend, elements(dtype, 1500, 0, 0.5), (dtype, mantissa_bits, 0))
    last = np.array(job.sources[-1].stream, np.uint8)
    last[1400] |= 128
    with pytest.raises(CorruptStreamError, match="rest"):
        backend.decode_floats([job._replace(sources=[*job.sources[:-1], Source("raw", last)])])


@pytest.mark.parametrize(
    ("index", "high"),
    [([5, 5], [1, 1]), ([6, 5], [1, 1]), ([9], [1]), ([2**64 - 1], [1]), ([5], [256]), ([0, 5], [1, 65535])],
)
def test_exceptions_out_of_order_or_range_are_corrupt(
    backend: KernelBackend, index: list[int], high: list[int]
) -> None:
    job = job_of(
        backend,
        bf16(9),
        ("BF16", 0, 0),
        exception_index=np.array(index, np.uint64),
        exception_high=np.array(high, np.uint16),
    )
    with pytest.raises(CorruptStreamError, match="exception"):
        backend.decode_floats([job])


@pytest.mark.parametrize(
    "changed",
    [
        {"out": np.zeros(19, np.uint8)},
        {"out": np.zeros(22, np.uint8)},
        {"out": bytes(20)},
        {"count": 9},
        {"start": 1},
        {"n": 9},
        {"n": -1},
        {"start": -1},
        {"count": -1},
        {"start": 2**62, "count": 2**62},
        {"dtype": "I8"},
        {"mantissa_bits": 8},
        {"base": 1},
        {"out_dtype": "F16"},
        {"out_dtype": "F32"},
        {"out_dtype": "nothing"},
        {"sources": []},
        {"sources": [Source("raw", bytes(10))]},
        {"sources": [Source("raw", bytes(10))] * 3},
        {"sources": [Source("lzma", bytes(10))] * 2},
        {"row_elements": 2},
        {"rows": np.arange(5, dtype=np.uint32)},
        {"rows": np.arange(5, dtype=np.uint32), "row_elements": 3},
        {"rows": np.arange(5, dtype=np.uint32), "row_elements": -2},
        {"rows": np.array([0, 1, 2, 3, 5], np.uint32), "row_elements": 2},
        {"rows": np.array([0, 1, 2, 3, 2**32 - 1], np.uint32), "row_elements": 2},
        {"rows": bytes(19), "row_elements": 2},
        {"exception_high": None},
        {"exception_index": np.zeros(1, np.uint64)},
        {"exception_index": bytes(12), "exception_high": bytes(3)},
    ],
    ids=",".join,
)
def test_numbers_that_contradict_each_other_are_refused(
    backend: KernelBackend, changed: dict[str, Any]
) -> None:
    job = job_of(backend, bf16(10), ("BF16", 0, 0))
    with pytest.raises(ValueError, match=r"\w"):
        backend.decode_floats([job._replace(**changed)])
