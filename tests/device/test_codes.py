"""Kernels of a device make the same elements of codes as the reference ones, and judge damage the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.kernels import reference
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, CodeJob, Job, LookupJob, Source
from cmpk.testing.jobs import code_job, lookup_job
from tests.device.running import on_device, on_reference
from tests.kernels.samples import CHUNK_LOG2

FEW = settings(max_examples=20)
SIZES = st.sampled_from([1, 7, 8, 9, 63]) | st.integers(1, 100)


def huffman(codes: U8) -> Source:
    lengths = reference.code_lengths(reference.byte_histogram(codes), 12)
    return Source("huffman", reference.huffman_encode(codes, lengths, CHUNK_LOG2))


def whole(job: Any) -> Job:
    """All elements of a job's tensor; its rows, if it has some, in reverse, the first one left out."""
    if job.rows is None:
        return job._replace(start=0, count=job.n)  # type: ignore[no-any-return]
    size = max(1, job.row_elements)
    rows = np.arange(job.n // size, 0, -1, dtype=np.uint32)
    return job._replace(start=0, count=job.n, rows=rows, row_elements=size)  # type: ignore[no-any-return]


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Codes of any source, sound or damaged, to scale or to look up."""
    n, dtype = draw(SIZES), draw(st.sampled_from(sorted(FLOAT_LAYOUTS)))
    spec = TensorSpec(dtype, (n,))
    data = np.random.default_rng(draw(st.integers(0, 99))).integers(0, 256, spec.nbytes, np.uint8)
    drawn = draw(st.data())
    make = draw(st.sampled_from([code_job, lookup_job]))
    return whole(make(drawn, Part(spec, data >> np.uint8(draw(st.integers(0, 4)))))[0])


@FEW
@given(batch=st.lists(jobs(), min_size=1, max_size=2))
def test_any_codes_give_the_same_elements_or_are_refused(device: torch.device, batch: list[Job]) -> None:
    assert on_device(batch, device) == on_reference(batch)


def affine_job(dtype: str, codes: Source, n: int, **changed: Any) -> CodeJob:
    """A scale for every 7 elements of lines of 700, with zero points."""
    rng = np.random.default_rng(0)
    n_scales = 100 * -(-n // 700)
    scale = np.ldexp(rng.uniform(-1, 1, n_scales), rng.integers(-20, 9, n_scales)).astype(np.float32)
    zero = rng.integers(-99, 99, n_scales, np.int32)
    return CodeJob(b"", dtype, n, 0, n, codes, scale, zero, -5, 700, 7)._replace(**changed)


@pytest.mark.parametrize("start", [0, 1024, 3072])
@pytest.mark.parametrize("slot_nbytes", [1 << 20, 24_000])
def test_ranges_of_groups_take_the_scales_that_are_theirs(
    device: torch.device, start: int, slot_nbytes: int
) -> None:
    codes = np.random.default_rng(1).integers(0, 256, 4200, np.uint8)
    index = np.array([5, 1023, 1024, 3500, 4199], np.uint64)
    apart = np.array([300, -300, 70000, -1, 256], np.int32)
    job = affine_job("BF16", Source("raw", codes), 4200, exception_index=index, exception_code=apart)
    job = job._replace(start=start, count=4150 - start)
    found = on_device([job], device, slot_nbytes=slot_nbytes, scratch_nbytes=1 << 16)
    assert found == on_reference([job])


@pytest.mark.parametrize("changed", [{"run": 700}, {"line": 7}, {"line": 4200, "run": 4200}])
def test_scales_of_rows_of_slices_and_repeated_ones(device: torch.device, changed: dict[str, int]) -> None:
    codes = np.random.default_rng(1).integers(0, 256, 4200, np.uint8)
    job = affine_job("F16", Source("raw", codes), 4200, **changed)._replace(start=2048, count=2100)
    job = job._replace(scale=np.asarray(job.scale)[:6], zero_point=np.asarray(job.zero_point)[:6])
    assert on_device([job], device) == on_reference([job])


@pytest.mark.parametrize("dtype", sorted(FLOAT_LAYOUTS))
def test_products_of_any_size_are_rounded_the_same(device: torch.device, dtype: str) -> None:
    rng = np.random.default_rng(2)
    codes = rng.integers(0, 256, 3072, np.uint8)
    scale = np.ldexp(rng.uniform(-1, 1, 3072), rng.integers(-149, 128, 3072)).astype(np.float32)
    job = CodeJob(b"", dtype, 3072, 0, 3072, Source("raw", codes), scale, None, -128, 3072, 1)
    assert on_device([job], device) == on_reference([job])


def test_codes_are_decoded_and_scaled_without_the_cpu(device: torch.device) -> None:
    codes = np.minimum(np.random.default_rng(1).geometric(0.4, 1100), 255).astype(np.uint8)
    job = affine_job("BF16", huffman(codes), 1100)
    assert on_device([job], device) == on_reference([job])


@pytest.mark.parametrize("wrong", ["scale", "zero point", "code of an exception", "order of exceptions"])
def test_what_breaks_a_rule_before_anything_is_decoded_is_refused(device: torch.device, wrong: str) -> None:
    job = affine_job("F32", Source("raw", np.zeros(700, np.uint8)), 700)
    scale, zero = np.array(job.scale), np.array(job.zero_point)
    index, apart = np.array([3, 9], np.uint64), np.array([0, 1], np.int32)
    if wrong == "scale":
        scale[99] = np.nan
    elif wrong == "zero point":
        zero[50] = 1 << 25
    elif wrong == "code of an exception":
        apart[1] = (1 << 24) + 500
    else:
        index = index[::-1].copy()
    job = job._replace(scale=scale, zero_point=zero, exception_index=index, exception_code=apart)
    assert not isinstance(on_reference([job]), list)
    assert on_device([job], device) == on_reference([job])


@pytest.mark.parametrize(("run", "size"), [(0, 256), (1, 3), (700, 256), (3, 256)])
@pytest.mark.parametrize("is_damaged", [False, True])
def test_ranges_of_codebooks_take_the_lists_that_are_theirs(
    device: torch.device, run: int, size: int, is_damaged: bool
) -> None:
    """Lists for every three codes are too many for a slot: these are looked up on the CPU."""
    rng = np.random.default_rng(3)
    codes = rng.integers(0, size, 4200).astype(np.uint8)
    if is_damaged and size < 256:
        codes[2100] = size
    table = rng.integers(0, 256, size * 8 * (-(-4200 // run) if run else 1), np.uint8)
    job = LookupJob(b"", 8, 4200, 2048, 2100, Source("raw", codes), table, size, run)
    assert on_device([job], device) == on_reference([job])


def test_what_kernels_are_told_is_what_they_ask_for(device: torch.device) -> None:
    from cmpk.device.codes import CodeKind, LookupKind
    from cmpk.device.floats import MergeKind
    from cmpk.kernels.triton import codes, merge

    assert MergeKind(*[0] * 7).n_fields == len(merge.ITEM_FIELDS)
    assert CodeKind(*[0] * 8).n_fields == len(codes.CODE_FIELDS)
    assert LookupKind(*[0] * 3).n_fields == len(codes.LOOKUP_FIELDS)
