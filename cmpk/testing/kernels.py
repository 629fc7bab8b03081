"""What every kernel backend must do: the same as ``reference``, bit for bit, on any input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cmpk.encodings.narrow import NARROWER
from cmpk.kernels import reference
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, KernelBackend
from cmpk.offers import flaw_of
from cmpk.testing.comparison import THREADS, same, same_outcome
from cmpk.testing.expansions import EXPANSIONS
from cmpk.testing.jobs import (
    CHUNK_LOG2,
    MAX_CODE_LENGTH,
    code_job,
    described,
    divisors,
    encoders,
    float_job,
    lookup_job,
    split_params,
)
from cmpk.testing.limits import Hang, active_settings, fail, filled
from cmpk.testing.strategies import byte_arrays, damaged, tensor_parts

__all__ = ["check_kernels"]

_BOUNDARIES: Final = (1024, 1 << CHUNK_LOG2)


def check_kernels(backend: KernelBackend) -> None:
    """Check a kernel backend; call it from a test of your plugin.

    Every operation of `cmpk.kernels.interface.KernelBackend` gives what ``reference`` gives, whatever
    the number of threads: on bytes of every shape, tensors of every float, ranges, rows and damaged
    streams, where the one error is CorruptStreamError and both raise it or neither. Nothing is
    written outside the outputs.

    Hypothesis settings are those of the active profile.

    Raises
    ------
    AssertionError
        If it does something else. The message tells what, on which input.
    """
    flaw = flaw_of("kernels", "checked", backend)
    if flaw:
        fail(f"{backend!r} can't be registered: {flaw}")
    try:
        for check in _CHECKS:
            check(backend)
    except Hang as hang:
        raise AssertionError(str(hang)) from None


def _check_bytes(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def histograms_and_lengths(drawn: st.DataObject) -> None:
        data = drawn.draw(byte_arrays(boundaries=_BOUNDARIES), "data")
        same(backend, "byte_histogram", lambda kernels: kernels.byte_histogram(data))
        huge = st.integers(0, 1 << 40) | st.integers(0, 3)
        counts = np.array(drawn.draw(st.lists(huge, min_size=1, max_size=256), "counts"), np.uint64)
        counts.resize(256, refcheck=False)
        same(backend, "code_lengths", lambda kernels: kernels.code_lengths(counts, MAX_CODE_LENGTH))

    histograms_and_lengths()


def _check_codecs(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def streams_and_ranges(drawn: st.DataObject) -> None:
        data = drawn.draw(byte_arrays(boundaries=_BOUNDARIES), "data")
        threads, n = drawn.draw(THREADS, "threads"), len(data)
        for codec, encode in encoders(data, threads).items():
            stream = same(backend, f"{codec}_encode", encode)
            start, stop = sorted(drawn.draw(st.tuples(st.integers(0, n), st.integers(0, n)), "range"))
            for low, high in ((0, n), (start, stop)):
                found = _decode(backend, codec, stream, n, low, high, threads)
                if found != data[low:high].tobytes():
                    fail(f"{codec}_decode of {low} to {high} of {n} bytes is not that slice")
        if n:
            backend.huffman_check(encoders(data, 1)["huffman"](reference), n)

    streams_and_ranges()


def _check_damaged(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def damaged_streams(drawn: st.DataObject) -> None:
        data = drawn.draw(byte_arrays(boundaries=_BOUNDARIES), "data")
        codec = drawn.draw(st.sampled_from(sorted(encoders(data, 1)) or ["huffman"]), "codec")
        encode = encoders(data, 1).get(codec)
        stream = drawn.draw(damaged(encode(reference).tobytes() if encode else b""), "stream")
        # More than eight times the stream is beyond what a reader believes of huffman and bitpack.
        sizes = [len(data)] * 4 + [1, len(data) + 1, 8 * len(stream)]
        n = drawn.draw(
            st.sampled_from([size for size in sizes if 0 < size <= max(1, 8 * len(stream))] or [1]), "n"
        )
        start, stop = sorted(drawn.draw(st.tuples(st.integers(0, n), st.integers(0, n)), "range"))
        calls: list[Callable[[KernelBackend], bytes]] = [
            lambda kernels: _decode(kernels, codec, stream, n, 0, n, runs=2),
            lambda kernels: _decode(kernels, codec, stream, n, start, stop, runs=2),
        ]
        if codec == "huffman":
            calls.append(lambda kernels: _checked(kernels, stream, n))
        for call in calls:
            same_outcome(
                backend, call, len(stream) + n, f"{codec}, n={n}, {start} to {stop}, {stream[:512].hex()}"
            )

    damaged_streams()


def _check_floats(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def splitting(drawn: st.DataObject) -> None:
        part = drawn.draw(tensor_parts(dtypes=FLOAT_LAYOUTS), "part")
        data, dtype = part.data, part.spec.dtype
        bits, base = drawn.draw(split_params(dtype), "mantissa_bits, base")
        rows = drawn.draw(st.sampled_from(divisors(part.spec.numel)), "row_elements")
        n_tables = drawn.draw(st.integers(1, 3), "tables")
        costs = np.arange(n_tables << FLOAT_LAYOUTS[dtype][0]).astype(np.uint8).reshape(n_tables, -1)
        last = part.spec.numel // rows - 1
        some = st.lists(st.integers(0, max(0, last)), max_size=8 if last >= 0 else 0)
        picked = np.array(drawn.draw(some, "rows"), np.uint32)
        same(backend, "float_split", lambda kernels: kernels.float_split(data, dtype, bits, base))
        same(
            backend,
            "float_split",
            lambda kernels: kernels.float_split(data, dtype, bits, base, picked, rows),
        )
        same(backend, "upper_bits_histogram", lambda kernels: kernels.upper_bits_histogram(data, dtype, bits))
        limit = drawn.draw(st.integers(0, rows + 1), "limit")
        same(
            backend,
            "exponent_histograms",
            lambda kernels: kernels.exponent_histograms(data, dtype, rows, picked, limit),
        )
        same(backend, "row_costs", lambda kernels: kernels.row_costs(data, dtype, rows, costs))

    splitting()


def _check_narrow(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def narrowing(drawn: st.DataObject) -> None:
        part = drawn.draw(tensor_parts(dtypes=NARROWER), "part")
        data, dtype = part.data, part.spec.dtype
        rows = drawn.draw(st.sampled_from(divisors(part.spec.numel)), "row_elements")
        for to in NARROWER[dtype]:
            _check_narrow_to(backend, data, dtype, to, rows)

    narrowing()


def _check_narrow_to(backend: KernelBackend, data: U8, dtype: str, narrower: str, rows: int) -> None:
    fits = same(backend, "narrows_to", lambda kernels: kernels.narrows_to(data, dtype, narrower, rows))
    exact = data.reshape(len(fits), -1)[fits].reshape(-1) if len(fits) else data
    values = same(backend, "narrow", lambda kernels: kernels.narrow(exact, dtype, narrower))
    same(backend, "widen", lambda kernels: kernels.widen(values, narrower, dtype))
    # Any bits, of which more are NaNs with payloads than among numbers that are exactly narrow.
    same(backend, "widen", lambda kernels: kernels.widen(data, narrower, dtype))


def _check_choices(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def codes_and_intervals(drawn: st.DataObject) -> None:
        rows, columns = (drawn.draw(st.integers(0, 70), what) for what in ("rows", "columns"))
        rng = np.random.default_rng(drawn.draw(st.integers(0, 1 << 32), "seed"))
        threads = drawn.draw(THREADS, "threads")
        values, factor = (rng.standard_normal((rows, n)).astype(np.float32) for n in (columns, rows))
        steps = np.exp(rng.standard_normal((rows, columns))).astype(np.float32)
        what = f"feed_errors of {rows} rows and {columns} columns"
        same(backend, what, lambda kernels: kernels.feed_errors(values, steps, factor, threads))
        points, weights = np.sort(rng.integers(-20, 20, rows + 1)), rng.integers(1, 5, rows + 1)
        sums = [np.concatenate(([0.0], np.cumsum(weights * points**power))) for power in range(3)]
        n = drawn.draw(st.integers(1, rows + 1), "n_intervals")
        what = f"best_intervals, {n} of {rows + 2} places,"
        same(backend, what, lambda kernels: kernels.best_intervals(*sums, n))

    codes_and_intervals()


def _check_jobs(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def jobs(drawn: st.DataObject) -> None:
        makers = [drawn.draw(st.sampled_from([float_job, code_job, lookup_job]), "kind") for _ in range(2)]
        made = [make(drawn, drawn.draw(tensor_parts(dtypes=FLOAT_LAYOUTS), "part")) for make in makers]
        threads = drawn.draw(THREADS, "threads")

        def run(kernels: KernelBackend) -> bytes:
            outs = [np.zeros(nbytes, np.uint8) for _, nbytes in made]
            batch = [job._replace(out=out) for (job, _), out in zip(made, outs, strict=True)]
            kernels.decode_floats(batch, threads)
            return b"".join(out.tobytes() for out in outs)

        what = " and ".join(described(job) for job, _ in made)
        same_outcome(backend, run, sum(nbytes for _, nbytes in made), f"decode_floats of {what}")

    jobs()


def _decode(
    kernels: KernelBackend,
    codec: str,
    stream: Any,
    n: int,
    start: int,
    stop: int,
    threads: int = 1,
    runs: int = 1,
) -> bytes:
    if codec == "bitpack":
        return filled(stop - start, lambda out: kernels.bitpack_decode(stream, n, start, out), runs)
    decode = kernels.huffman_decode if codec == "huffman" else kernels.rans_decode
    return filled(stop - start, lambda out: decode(stream, n, start, out, threads), runs)


def _checked(kernels: KernelBackend, stream: bytes, n: int) -> bytes:
    kernels.huffman_check(stream, n)
    return b""


_CHECKS: Final = (
    _check_bytes,
    _check_codecs,
    _check_damaged,
    _check_floats,
    _check_narrow,
    *EXPANSIONS,
    _check_choices,
    _check_jobs,
)
