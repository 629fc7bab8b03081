"""Jobs of codes: decoded, dequantized and scattered to where they belong."""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES, TensorSpec
from cmpk.encodings.base import Part
from cmpk.errors import CorruptStreamError
from cmpk.kernels import reference
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, CodeJob, KernelBackend, Source
from cmpk.values import to_float32
from tests.kernels.samples import byte_arrays, ranges_of, sources_of


def floats(n: int, seed: int = 0) -> NDArray[np.float32]:
    """Scales of all sizes, of both signs, and zero."""
    rng = np.random.default_rng(seed)
    scale = np.ldexp(rng.uniform(0.5, 1, n), rng.integers(-148, 128, n)).astype(np.float32)
    return np.where(rng.random(n) < 0.05, 0, np.where(rng.random(n) < 0.3, -scale, scale)).astype(np.float32)


def job_of(data: U8, dtype: str = "BF16", **changed: Any) -> CodeJob:
    """A job for all elements, from raw codes, with one scale."""
    n, nbytes = data.size, DTYPES[dtype].nbytes
    out, scale = np.zeros(n * nbytes, np.uint8), np.full(1, 0.01, np.float32)
    job = CodeJob(out, dtype, n, 0, n, Source("raw", data), scale, None, -100, max(1, n), max(1, n))
    return job._replace(**changed)


@st.composite
def layouts(draw: st.DrawFn, n: int) -> dict[str, Any]:
    """Scales, zero points and an offset for ``n`` elements."""
    line = draw(st.integers(1, max(1, n)) | st.sampled_from([1, 7, 127, 128, 129, 1000]))
    run = draw(st.integers(1, line) | st.sampled_from([run for run in (1, 2, 32, 127, 128) if run <= line]))
    n_scales = draw(st.integers(1, 1 + n // run)) if draw(st.booleans()) else 1
    seed = draw(st.integers(0, 2**32 - 1))
    zero = np.random.default_rng(seed).integers(-1000, 1000, n_scales, np.int32)
    return {
        "scale": floats(n_scales, seed),
        "zero_point": zero if draw(st.booleans()) else None,
        "offset": draw(st.integers(-300, 300)),
        "line": line,
        "run": run,
    }


def numbers(seed: int) -> NDArray[np.float32]:
    """What bytes may stand for: numbers of all sizes, infinities, and NaNs of several bits."""
    found = floats(256, seed)
    found[::17] = np.inf
    found[5::31] = -np.inf
    bits = np.random.default_rng(seed).integers(0x7F800001, 0x7FFFFFFF, 16).astype(np.uint32)
    found.view(np.uint32)[3:67:4] = bits | (np.arange(16, dtype=np.uint32) % 2 << 31)
    return found


def numbers_of(dtype: str) -> NDArray[np.float32]:
    """The numbers of all codes of a float of 8 bits."""
    return to_float32(Part(TensorSpec(dtype, (256,)), np.arange(256, dtype=np.uint8))).copy()


def exceptions_of(n: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    index = np.flatnonzero(rng.random(n) < 0.01).astype(np.uint64)
    code = rng.integers(-(1 << 24) + 1000, (1 << 24) - 1000, index.size, np.int32)
    return {"exception_index": index, "exception_code": code}


def run(kernels: KernelBackend, job: CodeJob, threads: int = 1) -> bytes:
    out = np.full(np.asarray(job.out).size + 2, 0xEE, np.uint8)
    kernels.decode_floats([job._replace(out=out[1:-1])], threads)
    assert (out[0], out[-1]) == (0xEE, 0xEE)
    return out[1:-1].tobytes()


@given(codes=byte_arrays(5000), dtype=st.sampled_from(sorted(FLOAT_LAYOUTS)), sample=st.data())
def test_any_range_of_any_layout_is_what_reference_makes_of_it(
    backend: KernelBackend, codes: U8, dtype: str, sample: st.DataObject
) -> None:
    n, nbytes = codes.size, DTYPES[dtype].nbytes
    job = job_of(codes, dtype, **sample.draw(layouts(n)))
    if sample.draw(st.booleans()):
        job = job._replace(**exceptions_of(n, n))
    whole = run(reference, job)  # type: ignore[arg-type]  # a module
    job = job._replace(codes=sample.draw(st.sampled_from(sources_of(backend, codes))))
    assert run(backend, job, sample.draw(st.integers(1, 3))) == whole
    start, stop = sample.draw(ranges_of(n))
    part = job._replace(start=start, count=stop - start, out=np.zeros((stop - start) * nbytes, np.uint8))
    assert run(backend, part) == whole[start * nbytes : stop * nbytes]


@given(codes=byte_arrays(5000), dtype=st.sampled_from(["F16", "BF16", "F32", "F64"]), sample=st.data())
def test_numbers_that_bytes_stand_for_are_scaled_as_reference_does(
    backend: KernelBackend, codes: U8, dtype: str, sample: st.DataObject
) -> None:
    layout = sample.draw(layouts(codes.size)) | {"offset": 0, "zero_point": None}
    narrow = sample.draw(st.sampled_from(["", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ"]))
    table = numbers_of(narrow) if narrow else numbers(codes.size)
    if sample.draw(st.booleans()):
        table[sample.draw(st.integers(0, 255))] = 3
    job = job_of(codes, dtype, **layout, numbers=table)
    whole = run(reference, job)  # type: ignore[arg-type]  # a module
    job = job._replace(codes=sample.draw(st.sampled_from(sources_of(backend, codes))))
    assert run(backend, job, sample.draw(st.integers(1, 3))) == whole


@given(
    dtype=st.sampled_from(sorted(FLOAT_LAYOUTS)),
    row_elements=st.sampled_from([1, 7, 63, 64, 1000, 2048, 3000]),
    sample=st.data(),
)
def test_rows_go_where_they_are_told_and_no_other_row_is_touched(
    backend: KernelBackend, dtype: str, row_elements: int, sample: st.DataObject
) -> None:
    seed = sample.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, 5 * row_elements, np.uint8)
    job = job_of(codes, dtype, **sample.draw(layouts(codes.size)), **exceptions_of(codes.size, seed))
    stored = np.frombuffer(run(backend, job), np.uint8).reshape(5, -1)
    rows = rng.permutation(9)[:5].astype(np.uint32)
    expected = np.full((9, stored.shape[1]), 0xEE, np.uint8)
    expected[rows] = stored
    out = np.full(expected.size, 0xEE, np.uint8)
    backend.decode_floats([job._replace(out=out, rows=rows, row_elements=row_elements)], 2)
    assert out.tobytes() == expected.tobytes()


def test_jobs_longer_than_a_piece_and_jobs_of_both_kinds_are_decoded_together(backend: KernelBackend) -> None:
    n = 300_001
    rng = np.random.default_rng(0)
    codes = rng.geometric(0.1, n).clip(0, 255).astype(np.uint8)
    job = job_of(codes, scale=floats(100), line=1, run=1, **exceptions_of(n, 1))
    coded = Source("huffman", sources_of(backend, codes)[1].stream)
    high, rest, *_ = backend.float_split(codes[: 2 * (n // 2)], "BF16", 0, 0)
    from cmpk.kernels.interface import FloatJob

    expected = run(reference, job)  # type: ignore[arg-type]  # a module
    for threads in (1, 3):
        first, third = np.zeros(2 * n, np.uint8), np.zeros(2 * (n - 1000), np.uint8)
        second = np.zeros(2 * (n // 2), np.uint8)
        planes = [Source("raw", high), Source("raw", rest[0])]
        backend.decode_floats(
            [
                job._replace(out=first, codes=coded),
                FloatJob(second, "BF16", n // 2, 0, n // 2, 0, 0, planes),
                job._replace(out=third, codes=coded, start=999, count=n - 1000),
            ],
            threads,
        )
        assert first.tobytes() == expected
        assert second.tobytes() == codes[: second.size].tobytes()
        assert third.tobytes() == expected[2 * 999 : -2]


def test_numbers_are_those_of_exact_arithmetic_rounded_twice(backend: KernelBackend) -> None:
    """Doubles hold the product of a code and a scale exactly: 25 bits and 24."""
    scale = floats(3000, 7)
    codes = np.random.default_rng(8).integers(0, 256, 3000, np.uint8)
    found = np.frombuffer(run(backend, job_of(codes, "F32", scale=scale, line=1, run=1)), "<f4")
    exact = (codes.astype(np.float64) - 100) * scale.astype(np.float64)
    assert all(
        Fraction(e) == (int(c) - 100) * Fraction(float(s))
        for e, c, s in zip(exact, codes, scale, strict=True)
    )
    with np.errstate(over="ignore"):
        assert found.tobytes() == exact.astype(np.float32).tobytes()


@pytest.mark.parametrize("dtype", sorted(FLOAT_LAYOUTS))
def test_subnormal_numbers_stay_where_a_program_flushes_them(backend: KernelBackend, dtype: str) -> None:
    if backend is reference:
        pytest.skip("NumPy computes as the program has set it")
    torch = pytest.importorskip("torch")
    codes = np.random.default_rng(9).integers(0, 256, 5000, np.uint8)
    job = job_of(codes, dtype, scale=np.ldexp(np.float32(1), np.arange(-149, 0)), line=1, run=1)
    expected = run(reference, job)  # type: ignore[arg-type]  # a module
    found = []

    def flushed() -> None:
        torch.set_flush_denormal(True)
        found.append(run(backend, job))

    # A thread of its own, for the setting is one of the thread.
    thread = threading.Thread(target=flushed)
    thread.start()
    thread.join()
    assert found == [expected]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"scale": np.array([np.inf], np.float32)}, "not finite"),
        ({"scale": np.array([1, -np.inf], np.float32)}, "not finite"),
        ({"scale": np.array([np.nan], np.float32)}, "not finite"),
        ({"offset": (1 << 24) - 254}, "too far"),
        ({"offset": 5, "zero_point": np.array([6 + (1 << 24)], np.int32)}, "too far"),
        ({"zero_point": np.array([-(1 << 31)], np.int32)}, "too far"),
        ({"zero_point": np.array([(1 << 31) - 1], np.int32)}, "too far"),
        (
            {"exception_index": np.array([10], np.uint64), "exception_code": np.array([0], np.int32)},
            "ascending",
        ),
        (
            {"exception_index": np.array([3, 3], np.uint64), "exception_code": np.zeros(2, np.int32)},
            "ascending",
        ),
        (
            {"exception_index": np.array([3, 2], np.uint64), "exception_code": np.zeros(2, np.int32)},
            "ascending",
        ),
        (
            {
                "exception_index": np.array([9], np.uint64),
                "exception_code": np.array([1 + (1 << 24)], np.int32),
            },
            "too far",
        ),
        (
            {"exception_index": np.array([9], np.uint64), "exception_code": np.array([-(1 << 31)], np.int32)},
            "too far",
        ),
        ({"codes": Source("raw", bytes(9))}, "raw"),
        ({"codes": Source("huffman", bytes(9))}, "huffman"),
    ],
)
def test_values_that_break_a_rule_are_corrupt_in_any_range(
    backend: KernelBackend, changed: dict[str, Any], problem: str
) -> None:
    job = job_of(np.arange(10, dtype=np.uint8), **changed)
    for part in (job, job._replace(count=2, out=np.zeros(4, np.uint8))):
        with pytest.raises(CorruptStreamError, match=problem):
            backend.decode_floats([part])


@pytest.mark.parametrize(
    "changed",
    [
        {"out": np.zeros(19, np.uint8)},
        {"out": bytes(20)},
        {"count": 9},
        {"start": 1},
        {"n": -1},
        {"start": 2**62, "count": 2**62},
        {"dtype": "I8"},
        {"dtype": "F8_E8M0"},
        {"scale": b""},
        {"scale": bytes(3)},
        {"scale": bytes(5)},
        {"zero_point": bytes(8)},
        {"zero_point": bytes(3)},
        {"offset": 1 + (1 << 24)},
        {"offset": -(1 << 62)},
        {"line": 0},
        {"run": 0},
        {"run": -1},
        {"line": 3, "run": 4},
        {"codes": Source("lzma", bytes(10))},
        {"exception_index": bytes(8)},
        {"exception_code": bytes(4)},
        {"exception_index": bytes(8), "exception_code": bytes(3)},
        {"exception_index": bytes(8), "exception_code": bytes(8)},
        {"numbers": bytes(1024)},
        {"offset": 0, "numbers": bytes(1024), "dtype": "F8_E5M2", "out": np.zeros(10, np.uint8)},
        {"offset": 0, "numbers": bytes(1020)},
        {"offset": 0, "numbers": bytes(1024), "zero_point": bytes(4)},
        {"offset": 0, "numbers": bytes(1024), "exception_index": bytes(8), "exception_code": bytes(4)},
        {"row_elements": 2},
        {"rows": np.arange(5, dtype=np.uint32)},
        {"rows": np.arange(5, dtype=np.uint32) + 1, "row_elements": 2},
    ],
)
def test_sizes_that_contradict_each_other_are_errors_of_the_caller(
    backend: KernelBackend, changed: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        backend.decode_floats([job_of(np.arange(10, dtype=np.uint8), **changed)])


def test_empty_jobs_do_nothing(backend: KernelBackend) -> None:
    nothing = np.zeros(0, np.uint8)
    backend.decode_floats([job_of(nothing), job_of(nothing, scale=b"")])
    backend.decode_floats([job_of(np.zeros(3, np.uint8), count=0, out=bytearray())])
