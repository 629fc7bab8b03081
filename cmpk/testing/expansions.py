"""Kernels that put elements where masks, gaps, codes and matrices tell."""

from __future__ import annotations

from typing import Final

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cmpk.dtypes import DTYPES
from cmpk.kernels.interface import PRODUCT_DTYPES, KernelBackend
from cmpk.testing.comparison import THREADS, same_outcome
from cmpk.testing.limits import active_settings, filled
from cmpk.testing.strategies import byte_arrays, sized_bytes

__all__ = ["EXPANSIONS"]

_ELEMENTS: Final = st.sampled_from([1, 2, 4, 8]).flatmap(lambda n: st.binary(min_size=n, max_size=n))
_UNITS: Final = st.sampled_from([1, 2, 4, 8, 16, 32, 64, 3, 40])
_OFF: Final = st.sampled_from([0, 1, -1])


def _check_masks(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def masks(drawn: st.DataObject) -> None:
        mask, fill = drawn.draw(byte_arrays(), "mask"), drawn.draw(_ELEMENTS, "fill")
        start, stop = _range(drawn, 8 * len(mask))
        n_set = np.count_nonzero(np.unpackbits(mask, bitorder="little")[start:stop])
        values = sized_bytes("noise", max(0, int(n_set) + drawn.draw(_OFF, "values too many")) * len(fill))
        threads, nbytes = drawn.draw(THREADS, "threads"), (stop - start) * len(fill)

        def run(kernels: KernelBackend) -> bytes:
            return filled(nbytes, lambda out: kernels.bitmask_expand(mask, start, values, fill, out, threads))

        same_outcome(backend, run, len(mask) + nbytes, f"bitmask_expand of bits {start} to {stop}")

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

        same_outcome(backend, run, len(gaps) + n, f"gaps_expand of {start} to {stop} of {n} elements")

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
            drawn.draw(THREADS, "threads"),
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

        same_outcome(backend, run_it, codes.size + centroids.size + n * unit, "codebook_expand")

    codebooks()


def _check_products(backend: KernelBackend) -> None:
    @active_settings()
    @given(st.data())
    def products(drawn: st.DataObject) -> None:
        sizes = st.integers(0, 40)
        rows, rank, columns = drawn.draw(sizes), drawn.draw(st.integers(1, 9)), drawn.draw(sizes)
        shape, threads = drawn.draw(st.sampled_from(["noise", "exponents"])), drawn.draw(THREADS, "threads")
        left, right = sized_bytes(shape, 4 * rows * rank, 1), sized_bytes(shape, 4 * rank * columns, 2)
        dtype = drawn.draw(st.sampled_from(PRODUCT_DTYPES), "dtype")
        nbytes = rows * columns * DTYPES[dtype].nbytes

        def run(kernels: KernelBackend) -> bytes:
            return filled(nbytes, lambda out: kernels.matrix_product(left, right, rank, dtype, out, threads))

        what = f"matrix_product of {rows} rows, {columns} columns and a rank of {rank}, {dtype}"
        same_outcome(backend, run, nbytes + left.size + right.size, what)

    products()


def _range(drawn: st.DataObject, n: int) -> tuple[int, int]:
    ends = st.integers(0, n)
    start, stop = sorted((drawn.draw(ends, "start"), drawn.draw(ends, "stop")))
    return start, stop


EXPANSIONS: Final = (_check_masks, _check_gaps, _check_codebooks, _check_products)
