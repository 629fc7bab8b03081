"""Kernel backends against the kit: those of cmpk pass, one that differs in anything does not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from cmpk import kernels
from cmpk.errors import CorruptStreamError
from cmpk.kernels import reference
from cmpk.kernels.interface import KernelBackend
from cmpk.testing import check_kernels


def test_the_backend_in_use_conforms() -> None:
    check_kernels(kernels.active())


def backend_with(**operations: object) -> KernelBackend:
    """The reference backend with some of its operations replaced."""
    return SimpleNamespace(**{name: getattr(reference, name) for name in reference.__all__} | operations)


def miscounts(data):
    counts = reference.byte_histogram(data)
    counts[255] += len(data) > 1000
    return counts


def prefers_higher_symbols(counts, max_length):
    return reference.code_lengths(counts[::-1].copy(), max_length)[::-1].copy()


def decodes_by_threads(stream, n, start, out, threads=1):
    reference.rans_decode(stream, n, start, out)
    out[out == threads] = 0


def checks_nothing(stream, n):
    pass


def raises_value_error(stream, n, start, out):
    try:
        reference.bitpack_decode(stream, n, start, out)
    except CorruptStreamError as error:
        raise ValueError(str(error)) from error


def quiets_nans(data, narrower, dtype):
    widened = reference.widen(data, narrower, dtype).copy()
    if dtype == "F32":
        words = widened.view(np.uint32)
        words[(words & 0x7F800000 == 0x7F800000) & (words & 0x7FFFFF != 0)] |= 0x400000
    return widened


def forgets_that_groups_have_codebooks(codes, code_nbytes, first, centroids, size, run, out, threads=1):
    reference.codebook_expand(codes, code_nbytes, first, centroids, size, 0, out)


def ignores_where_the_mask_starts(mask, start, values, fill, out, threads=1):
    reference.bitmask_expand(mask, start // 8 * 8, values, fill, out)


def sums_from_the_other_end(left, right, rank, dtype, out, threads=1):
    tall, wide = left.view("<f4").reshape(-1, rank)[:, ::-1], right.view("<f4").reshape(rank, -1)[::-1]
    left, right = (np.ascontiguousarray(matrix).reshape(-1) for matrix in (tall, wide))
    reference.matrix_product(left, right, rank, dtype, out)


def feeds_on_too_early(values, steps, factor, threads=1):
    return reference.feed_errors(values, steps, factor.T.copy())


def takes_the_last_of_equals(mass, moment, square, n_intervals):
    turned = [np.ascontiguousarray(sums[-1] - sums[::-1]) for sums in (mass, moment, square)]
    begins = reference.best_intervals(*turned, n_intervals)
    return np.append(0, len(mass) - 1 - begins[:0:-1])


def takes_too_many_values(gaps, max_gap, n, start, values, fill, out):
    n_values = np.count_nonzero(np.asarray(gaps) != max_gap)
    reference.gaps_expand(gaps, max_gap, n, start, values[: n_values * len(fill)], fill, out)


def spoils_rows(jobs, threads=1):
    reference.decode_floats(jobs)
    for job in jobs:
        if job.rows is not None and len(job.out):
            np.asarray(job.out)[-1] ^= 1


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ({"byte_histogram": miscounts}, "byte_histogram gives"),
        ({"code_lengths": prefers_higher_symbols}, "code_lengths gives"),
        ({"rans_decode": decodes_by_threads}, "rans_decode of .* is not that slice"),
        ({"huffman_check": checks_nothing}, "huffman, .* reference gives CorruptStreamError"),
        ({"bitpack_decode": raises_value_error}, "ValueError instead of CorruptStreamError"),
        ({"widen": quiets_nans}, "widen gives"),
        ({"bitmask_expand": ignores_where_the_mask_starts}, "bitmask_expand of"),
        ({"codebook_expand": forgets_that_groups_have_codebooks}, "codebook_expand: decodes to other bytes"),
        ({"matrix_product": sums_from_the_other_end}, "matrix_product of .* other bytes"),
        ({"feed_errors": feeds_on_too_early}, "feed_errors of .* gives"),
        ({"best_intervals": takes_the_last_of_equals}, "best_intervals, .* gives"),
        ({"gaps_expand": takes_too_many_values}, "gaps_expand of .* reference gives CorruptStreamError"),
        ({"decode_floats": spoils_rows}, "decode_floats of .* other bytes"),
        ({"rans_encode": None, "narrow": None}, "lacks the operations rans_encode, narrow"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("without_shrinking")
def test_a_backend_that_differs_is_found_out(operations: dict[str, object], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_kernels(backend_with(**operations))
