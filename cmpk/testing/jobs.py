"""Jobs for kernels (`cmpk.kernels.interface`), of every kind, over parts of tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from hypothesis import strategies as st

from cmpk.codecs.rans import normalized
from cmpk.dtypes import DTYPES
from cmpk.encodings.base import Part
from cmpk.encodings.narrow import NARROWER
from cmpk.kernels import reference
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, CodeJob, FloatJob, Job, LookupJob, Source
from cmpk.testing.strategies import damaged

__all__ = [
    "CHUNK_LOG2",
    "MAX_CODE_LENGTH",
    "code_job",
    "described",
    "divisors",
    "encoders",
    "float_job",
    "lookup_job",
    "split_params",
]

CHUNK_LOG2: Final = 12
MAX_CODE_LENGTH: Final = 12
"""Of the streams that are made here."""


def float_job(drawn: st.DataObject, part: Part) -> tuple[Job, int]:
    """A job over part of a tensor, now and then with a damaged source; and the size of its output."""
    spec, data, _ = part
    mantissa_bits, base = drawn.draw(split_params(spec.dtype), "mantissa_bits, base")
    high, rest, index, upper = reference.float_split(data, spec.dtype, mantissa_bits, base)
    sources = [_source(drawn, plane) for plane in (high, *rest)]
    if drawn.draw(st.integers(0, 3), "is damaged") == 0:
        victim = drawn.draw(st.integers(0, len(sources) - 1), "which")
        sources[victim] = _damaged_source(drawn, sources[victim])
    wider = [spec.dtype, *(name for name, narrower in NARROWER.items() if spec.dtype in narrower)]
    out_dtype = drawn.draw(st.sampled_from(wider), "out_dtype")
    place, nbytes = _place(drawn, spec.numel, DTYPES[out_dtype].nbytes)
    job = FloatJob(
        dtype=spec.dtype,
        mantissa_bits=mantissa_bits,
        base=base,
        sources=sources,
        exception_index=index if len(index) else None,
        exception_high=upper if len(index) else None,
        out_dtype=out_dtype,
        **place,
    )
    return job, nbytes


def code_job(drawn: st.DataObject, part: Part) -> tuple[Job, int]:
    """The bytes of part of a tensor as codes, with scales of any layout; and the size of the output."""
    n, rng = part.spec.numel, np.random.default_rng(part.spec.nbytes)
    codes = _source(drawn, part.data[:n])
    if drawn.draw(st.integers(0, 3), "is damaged") == 0:
        codes = _damaged_source(drawn, codes)
    line = drawn.draw(st.integers(1, max(1, n)), "line")
    run = drawn.draw(st.integers(1, line), "run")
    n_scales = drawn.draw(st.integers(1, 1 + n // run), "n_scales")
    scale = np.ldexp(rng.uniform(-1, 1, n_scales), rng.integers(-140, 128, n_scales)).astype(np.float32)
    zero = rng.integers(-999, 999, n_scales, np.int32) if drawn.draw(st.booleans(), "zero points") else None
    index = np.flatnonzero(rng.random(n) < 0.02).astype(np.uint64)
    # Now and then one that lies too far from its zero point, or a scale that is not finite.
    far = drawn.draw(st.sampled_from([16000000] * 7 + [17000000]), "furthest code")
    scale[rng.integers(n_scales)] *= np.float32(drawn.draw(st.sampled_from([1.0] * 7 + [np.inf]), "factor"))
    place, nbytes = _place(drawn, n, DTYPES[part.spec.dtype].nbytes)
    if DTYPES[part.spec.dtype].nbits > 8 and drawn.draw(st.booleans(), "bytes stand for numbers"):
        numbers = rng.integers(0, 1 << 32, 256, np.uint32).view(np.float32)
        return CodeJob(
            dtype=part.spec.dtype,
            codes=codes,
            scale=scale,
            zero_point=None,
            offset=0,
            line=line,
            run=run,
            numbers=numbers,
            **place,
        ), nbytes
    job = CodeJob(
        dtype=part.spec.dtype,
        codes=codes,
        scale=scale,
        zero_point=zero,
        offset=drawn.draw(st.integers(-300, 300), "offset"),
        line=line,
        run=run,
        exception_index=index if len(index) else None,
        exception_code=rng.integers(-far, far, len(index), np.int32) if len(index) else None,
        **place,
    )
    return job, nbytes


def lookup_job(drawn: st.DataObject, part: Part) -> tuple[Job, int]:
    """The bytes of part of a tensor as codes into lists, now and then too short; and the output's size."""
    n, nbytes = part.spec.numel, drawn.draw(st.sampled_from([1, 2, 4, 8]), "element_nbytes")
    data = part.data[:n] >> np.uint8(drawn.draw(st.integers(0, 7), "unused bits"))
    size = int(data.max(initial=0)) + drawn.draw(st.sampled_from([1, 1, 1, 0]), "size beyond the highest")
    size, run = min(max(size, 1), 256), drawn.draw(st.integers(0, max(1, n)), "run")
    n_lists = -(-n // run) if run else 1
    codes = _source(drawn, data)
    if drawn.draw(st.integers(0, 3), "is damaged") == 0:
        codes = _damaged_source(drawn, codes)
    place, out_nbytes = _place(drawn, n, nbytes)
    table = np.random.default_rng(n).integers(0, 256, n_lists * size * nbytes, np.uint8)
    return LookupJob(element_nbytes=nbytes, codes=codes, table=table, size=size, run=run, **place), out_nbytes


def _place(drawn: st.DataObject, n: int, element_nbytes: int) -> tuple[dict[str, Any], int]:
    """The range of a job of ``n`` elements and its rows, if it has any; and the size of its output."""
    row_elements, rows = 0, None
    start, stop = sorted(drawn.draw(st.tuples(st.integers(0, n), st.integers(0, n)), "range"))
    nbytes = (stop - start) * element_nbytes
    if drawn.draw(st.booleans(), "has rows"):
        row_elements = drawn.draw(st.sampled_from(divisors(n)), "row_elements")
        first, last = start // row_elements, stop // row_elements
        start, stop = first * row_elements, last * row_elements
        # To every other row of the output, the last one first.
        rows = np.ascontiguousarray(2 * np.arange(last - first, dtype=np.uint32)[::-1])
        nbytes = 2 * (stop - start) * element_nbytes
    place = {"out": b"", "n": n, "start": start, "count": stop - start}
    return place | {"rows": rows, "row_elements": row_elements}, nbytes


def described(job: Job) -> str:
    """A job without its streams: Hypothesis tells how they were drawn."""
    rows = "" if job.rows is None else f" by rows of {job.row_elements}"
    if isinstance(job, LookupJob):
        lists = f"lists of {job.size} by {job.element_nbytes} bytes, run {job.run}"
        return f"{lists}, {job.count} from {job.start} of {job.n}{rows} ({job.codes.codec})"
    if isinstance(job, CodeJob):
        scales = f"codes from {job.offset} on, run {job.run} of {job.line}"
        return f"{scales} to {job.dtype}, {job.count} from {job.start} of {job.n}{rows} ({job.codes.codec})"
    sources = ", ".join(source.codec for source in job.sources)
    return f"{job.dtype} to {job.out_dtype}, {job.count} from {job.start} of {job.n}{rows} ({sources})"


def _damaged_source(drawn: st.DataObject, source: Source) -> Source:
    stream = np.asarray(source.stream).tobytes()
    return Source(source.codec, drawn.draw(damaged(stream), "damaged stream"))


def _source(drawn: st.DataObject, plane: U8) -> Source:
    found = encoders(plane, 1)
    codec = drawn.draw(st.sampled_from(["raw", *sorted(found)]), "codec")
    return Source(codec, plane if codec == "raw" else found[codec](reference))


def encoders(data: U8, threads: int) -> dict[str, Callable[[Any], U8]]:
    """How each codec that takes these bytes encodes them, given a backend."""
    found: dict[str, Callable[[Any], U8]] = {}
    counts = reference.byte_histogram(data)
    if len(data):
        lengths = reference.code_lengths(counts, MAX_CODE_LENGTH)
        found["huffman"] = lambda kernels: kernels.huffman_encode(data, lengths, CHUNK_LOG2, threads)
    if np.count_nonzero(counts) > 1:
        frequencies = normalized(counts)
        found["rans"] = lambda kernels: kernels.rans_encode(data, frequencies, CHUNK_LOG2, threads)
    width = max(1, int(data.max()).bit_length()) if len(data) else 1
    if width < 8:
        found["bitpack"] = lambda kernels: kernels.bitpack_encode(data, width)
    return found


def split_params(dtype: str) -> st.SearchStrategy[tuple[int, int]]:
    """``mantissa_bits`` and ``base`` that spec/encodings/float_split.md allows."""
    exponent_nbits, mantissa_nbits = FLOAT_LAYOUTS[dtype]
    return st.integers(0, min(mantissa_nbits, 16 - exponent_nbits)).flatmap(
        lambda bits: st.tuples(st.just(bits), st.integers(0, max(0, (1 << (exponent_nbits + bits)) - 256)))
    )


def divisors(n: int) -> list[int]:
    """Some of the sizes that rows of ``n`` elements may have."""
    return [size for size in range(1, min(n, 64) + 1) if n % size == 0] + ([n] if n > 64 else []) or [1]
