"""What every kernel backend must do: the same as ``reference``, bit for bit, on any input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cmpk.encodings.narrow import NARROWER
from cmpk.errors import CorruptStreamError
from cmpk.kernels import reference
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, KernelBackend
from cmpk.offers import flaw_of
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
from cmpk.testing.limits import Hang, active_settings, fail, filled, outcome_of
from cmpk.testing.strategies import byte_arrays, damaged, sized_bytes, tensor_parts

__all__ = ["check_kernels"]

_BOUNDARIES: Final = (1024, 1 << CHUNK_LOG2)
_THREADS: Final = st.sampled_from([1, 3])

_ELEMENTS: Final = st.sampled_from([1, 2, 4, 8]).flatmap(lambda n: st.binary(min_size=n, max_size=n))
_UNITS: Final = st.sampled_from([1, 2, 4, 8, 16, 32, 64, 3, 40])
_OFF: Final = st.sampled_from([0, 1, -1])


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
        _same(backend, "byte_histogram", lambda kernels: kernels.byte_histogram(data))
        huge = st.integers(0, 1 << 40) | st.integers(0, 3)
        counts = np.array(drawn.draw(st.lists(huge, min_size=1, max_size=256), "counts"), np.uint64)
        counts.resize(256, refcheck=False)
        _same(backend, "code_lengths", lambda kernels: kernels.code_lengths(counts, MAX_CODE_LENGTH))

    histograms_and_lengths()


def _check_codecs(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def streams_and_ranges(drawn: st.DataObject) -> None:
        data = drawn.draw(byte_arrays(boundaries=_BOUNDARIES), "data")
        threads, n = drawn.draw(_THREADS, "threads"), len(data)
        for codec, encode in encoders(data, threads).items():
            stream = _same(backend, f"{codec}_encode", encode)
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
            _same_outcome(
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
        _same(backend, "float_split", lambda kernels: kernels.float_split(data, dtype, bits, base))
        _same(
            backend, "upper_bits_histogram", lambda kernels: kernels.upper_bits_histogram(data, dtype, bits)
        )
        _same(backend, "row_costs", lambda kernels: kernels.row_costs(data, dtype, rows, costs))

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
    fits = _same(backend, "narrows_to", lambda kernels: kernels.narrows_to(data, dtype, narrower, rows))
    exact = data.reshape(len(fits), -1)[fits].reshape(-1) if len(fits) else data
    values = _same(backend, "narrow", lambda kernels: kernels.narrow(exact, dtype, narrower))
    _same(backend, "widen", lambda kernels: kernels.widen(values, narrower, dtype))
    # Any bits, of which more are NaNs with payloads than among numbers that are exactly narrow.
    _same(backend, "widen", lambda kernels: kernels.widen(data, narrower, dtype))


def _check_jobs(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def jobs(drawn: st.DataObject) -> None:
        makers = [drawn.draw(st.sampled_from([float_job, code_job, lookup_job]), "kind") for _ in range(2)]
        made = [make(drawn, drawn.draw(tensor_parts(dtypes=FLOAT_LAYOUTS), "part")) for make in makers]
        threads = drawn.draw(_THREADS, "threads")

        def run(kernels: KernelBackend) -> bytes:
            outs = [np.zeros(nbytes, np.uint8) for _, nbytes in made]
            batch = [job._replace(out=out) for (job, _), out in zip(made, outs, strict=True)]
            kernels.decode_floats(batch, threads)
            return b"".join(out.tobytes() for out in outs)

        what = " and ".join(described(job) for job, _ in made)
        _same_outcome(backend, run, sum(nbytes for _, nbytes in made), f"decode_floats of {what}")

    jobs()


def _check_masks(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def masks(drawn: st.DataObject) -> None:
        mask, fill = drawn.draw(byte_arrays(), "mask"), drawn.draw(_ELEMENTS, "fill")
        start, stop = _range(drawn, 8 * len(mask))
        n_set = np.count_nonzero(np.unpackbits(mask, bitorder="little")[start:stop])
        values = sized_bytes("noise", max(0, int(n_set) + drawn.draw(_OFF, "values too many")) * len(fill))
        threads, nbytes = drawn.draw(_THREADS, "threads"), (stop - start) * len(fill)

        def run(kernels: KernelBackend) -> bytes:
            return filled(nbytes, lambda out: kernels.bitmask_expand(mask, start, values, fill, out, threads))

        _same_outcome(backend, run, len(mask) + nbytes, f"bitmask_expand of bits {start} to {stop}")

    masks()


def _check_gaps(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def gaps_of_a_tensor(drawn: st.DataObject) -> None:
        gaps, fill = drawn.draw(byte_arrays(max_nbytes=512), "gaps"), drawn.draw(_ELEMENTS, "fill")
        max_gap = drawn.draw(st.integers(1, 255), "max_gap")
        if drawn.draw(st.sampled_from([True, True, False]), "none exceeds max_gap"):
            gaps = np.minimum(gaps, max_gap)
        n_values = int(np.count_nonzero(gaps != max_gap))
        n = max(0, int(gaps.sum()) + n_values + drawn.draw(st.integers(-1, 9), "elements behind"))
        values = sized_bytes("noise", max(0, n_values + drawn.draw(_OFF, "values too many")) * len(fill))
        start, stop = _range(drawn, n)
        nbytes = (stop - start) * len(fill)

        def run(kernels: KernelBackend) -> bytes:
            return filled(nbytes, lambda out: kernels.gaps_expand(gaps, max_gap, n, start, values, fill, out))

        _same_outcome(backend, run, len(gaps) + n, f"gaps_expand of {start} to {stop} of {n} elements")

    gaps_of_a_tensor()


def _check_codebooks(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def codebooks(drawn: st.DataObject) -> None:
        code_nbytes, unit = drawn.draw(st.sampled_from([1, 2, 4]), "code_nbytes"), drawn.draw(_UNITS, "unit")
        octets = drawn.draw(byte_arrays(max_nbytes=1024), "codes")
        codes = octets[: octets.size // code_nbytes * code_nbytes]
        first, run = (
            drawn.draw(st.integers(0, 50), "first"),
            drawn.draw(st.sampled_from([0, 1, 3, 64]), "run"),
        )
        size, threads = (
            drawn.draw(st.sampled_from([1, 2, 255, 256, 700]), "size"),
            drawn.draw(_THREADS, "threads"),
        )
        if drawn.draw(st.sampled_from([True, True, False]), "all codes are below size"):
            below = codes.view(f"<u{code_nbytes}").astype(np.int64) % size
            codes = below.astype(f"<u{code_nbytes}").view(np.uint8)
        n = codes.size // code_nbytes
        centroids = sized_bytes("noise", ((first + n) // run + 1 if run else 1) * size * unit)

        def run_it(kernels: KernelBackend) -> bytes:
            return filled(
                n * unit,
                lambda out: kernels.codebook_expand(
                    codes, code_nbytes, first, centroids, size, run, out, threads
                ),
            )

        _same_outcome(backend, run_it, codes.size + centroids.size + n * unit, "codebook_expand")

    codebooks()


def _range(drawn: st.DataObject, n: int) -> tuple[int, int]:
    ends = st.integers(0, n)
    start, stop = sorted((drawn.draw(ends, "start"), drawn.draw(ends, "stop")))
    return start, stop


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


def _same(backend: KernelBackend, what: str, call: Callable[[Any], Any]) -> Any:
    """The result of an operation; of both backends, bit for bit."""
    wanted, found = call(reference), call(backend)
    pairs = zip(wanted, found, strict=True) if isinstance(wanted, tuple) else [(wanted, found)]
    for want, have in pairs:
        if (want.dtype, want.shape, want.tobytes()) != (have.dtype, have.shape, have.tobytes()):
            fail(f"{what} gives {have!r}, reference gives {want!r}")
    return wanted


def _same_outcome(backend: KernelBackend, call: Callable[[Any], bytes], nbytes: int, what: str) -> None:
    wanted = outcome_of(lambda: call(reference), nbytes, f"reference, {what}")
    found = outcome_of(lambda: call(backend), nbytes, what)
    if isinstance(wanted, CorruptStreamError) != isinstance(found, CorruptStreamError):
        fail(f"{what}: reference gives {wanted!r}, this backend {found!r}")
    if isinstance(wanted, bytes) and wanted != found:
        fail(f"{what}: decodes to other bytes than with reference")


_CHECKS: Final = (
    _check_bytes,
    _check_codecs,
    _check_damaged,
    _check_floats,
    _check_narrow,
    _check_masks,
    _check_gaps,
    _check_codebooks,
    _check_jobs,
)
