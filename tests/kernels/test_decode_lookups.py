"""Jobs of codes that are looked up: decoded and scattered to where they belong, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, KernelBackend, LookupJob, Source
from tests.kernels.samples import byte_arrays, ranges_of, sources_of


def job_of(data: U8, element_nbytes: int = 2, size: int = 256, run: int = 0, **changed: Any) -> LookupJob:
    """A job for all elements, from raw codes, with lists of any bytes."""
    n = data.size
    n_lists = -(-n // run) if run else 1
    table = np.random.default_rng(n).integers(0, 256, n_lists * size * element_nbytes, np.uint8)
    out = np.zeros(n * element_nbytes, np.uint8)
    job = LookupJob(out, element_nbytes, n, 0, n, Source("raw", data), table, size, run)
    return job._replace(**changed)


def looked_up(job: LookupJob, data: U8) -> np.ndarray[Any, Any]:
    """The elements of a job, one at a time; uint8, shape (n, element_nbytes)."""
    lists = np.asarray(job.table).reshape(-1, job.size, job.element_nbytes)
    book = np.arange(data.size) // job.run if job.run else np.zeros(data.size, np.int64)
    return lists[book, data]


@given(data=byte_arrays(5000), element_nbytes=st.sampled_from([1, 2, 4, 8]), sample=st.data())
def test_any_range_from_any_codec_is_what_the_lists_say(
    backend: KernelBackend, data: U8, element_nbytes: int, sample: st.DataObject
) -> None:
    data = data >> np.uint8(sample.draw(st.integers(0, 7)))
    size = sample.draw(st.integers(int(data.max()) + 1, 256))
    job = job_of(data, element_nbytes, size, sample.draw(st.integers(0, data.size)))
    expected = looked_up(job, data)
    start, stop = sample.draw(ranges_of(data.size))
    codes = sample.draw(st.sampled_from(sources_of(backend, data)))
    for low, high in ((0, data.size), (start, stop)):
        out = np.full((high - low) * element_nbytes + 2, 0xEE, np.uint8)
        part = job._replace(out=out[1:-1], start=low, count=high - low, codes=codes)
        backend.decode_floats([part], sample.draw(st.integers(1, 3)))
        assert out.tobytes() == b"\xee" + expected[low:high].tobytes() + b"\xee"


@given(row_elements=st.sampled_from([1, 7, 63, 64, 1000, 2048, 3000]), run=st.sampled_from([0, 1, 500, 4096]))
def test_rows_go_where_they_are_told_and_no_other_row_is_touched(
    backend: KernelBackend, row_elements: int, run: int
) -> None:
    rng = np.random.default_rng(row_elements)
    data = rng.integers(0, 9, 5 * row_elements, np.uint8)
    rows = rng.permutation(9)[:5].astype(np.uint32)
    job = job_of(data, 4, 9, run, rows=rows, row_elements=row_elements)
    expected = np.full((9, row_elements, 4), 0xEE, np.uint8)
    expected[rows] = looked_up(job, data).reshape(5, row_elements, 4)
    out = np.full(expected.size, 0xEE, np.uint8)
    backend.decode_floats([job._replace(out=out)], 2)
    assert out.tobytes() == expected.tobytes()


def test_jobs_longer_than_a_piece_are_decoded_whole(backend: KernelBackend) -> None:
    data = np.random.default_rng(0).geometric(0.1, 300_001).clip(0, 200).astype(np.uint8)
    job = job_of(data, 2, 201, 1000, codes=sources_of(backend, data)[1])
    for threads in (1, 3):
        out = np.zeros(2 * data.size, np.uint8)
        backend.decode_floats([job._replace(out=out)], threads)
        assert out.tobytes() == looked_up(job, data).tobytes()


@pytest.mark.parametrize("size", [1, 2, 255])
def test_a_code_that_is_in_no_list_is_corrupt_where_it_is_wanted(backend: KernelBackend, size: int) -> None:
    data = np.zeros(5000, np.uint8)
    data[4000] = size
    job = job_of(data, size=size)
    with pytest.raises(CorruptStreamError, match=f"code {size} is not in a codebook of {size}"):
        backend.decode_floats([job])
    backend.decode_floats([job._replace(count=4000, out=np.zeros(8000, np.uint8))])


@pytest.mark.parametrize(
    "changed",
    [
        {"out": np.zeros(19, np.uint8)},
        {"out": bytes(20)},
        {"count": 9},
        {"start": 1},
        {"n": -1},
        {"element_nbytes": 0},
        {"element_nbytes": 3},
        {"element_nbytes": -1},
        {"size": 0},
        {"size": 257},
        {"size": -1},
        {"run": -1},
        {"run": 5},
        {"table": bytes(2 * 256 - 1)},
        {"table": b""},
        {"codes": Source("lzma", bytes(10))},
        {"row_elements": 2},
        {"rows": np.arange(5, dtype=np.uint32) + 1, "row_elements": 2},
    ],
)
def test_sizes_that_contradict_each_other_are_errors_of_the_caller(
    backend: KernelBackend, changed: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        backend.decode_floats([job_of(np.arange(10, dtype=np.uint8))._replace(**changed)])


def test_empty_jobs_need_no_lists(backend: KernelBackend) -> None:
    nothing = np.zeros(0, np.uint8)
    backend.decode_floats([job_of(nothing), job_of(nothing, table=b""), job_of(nothing, table=b"", run=3)])
