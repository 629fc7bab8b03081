"""Encodings float_split and narrow on whole arrays, as their pages say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cmpk.dtypes import DTYPES
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, FloatJob, KernelBackend, Source
from tests.kernels.samples import element_arrays, elements, splits

NARROWS = [("F32", "F16"), ("F32", "BF16"), ("F64", "F16"), ("F64", "BF16"), ("F64", "F32")]


def merged(backend: KernelBackend, parts: Any, n: int, split: tuple[str, int, int]) -> U8:
    high, rest, index, upper = parts
    dtype, mantissa_bits, base = split
    out = np.zeros(n * DTYPES[dtype].nbytes, np.uint8)
    sources = [Source("raw", high), *(Source("raw", plane) for plane in rest)]
    backend.decode_floats([FloatJob(out, dtype, n, 0, n, mantissa_bits, base, sources, index, upper)])
    return out


def numpy_value(dtype: str, data: U8) -> NDArray[np.float64]:
    """The numbers as doubles, which hold those of every type here."""
    if dtype == "BF16":
        return numpy_value("F32", (data.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.uint8))
    with np.errstate(invalid="ignore"):  # NaNs that are not quiet
        return data.view({"F16": np.float16, "F32": np.float32, "F64": np.float64}[dtype]).astype(np.float64)


def narrow_samples(dtype: str) -> U8:
    """All numbers of a 16-bit type; of F32 many, with every exponent and the edges of each mantissa."""
    if dtype != "F32":
        return np.arange(1 << 16, dtype=np.uint16).view(np.uint8)
    exponents = np.arange(512, dtype=np.uint32) << np.uint32(23)
    mantissas = np.concatenate([np.arange(4), 1 << np.arange(23), (1 << 23) - 1 - np.arange(4)]).astype(
        np.uint32
    )
    return (exponents[:, None] | mantissas).reshape(-1).view(np.uint8)


def test_the_example_of_the_page_is_what_is_split(backend: KernelBackend) -> None:
    high, rest, index, upper = backend.float_split(bytes.fromhex("80 3f 00 c0 20 3e"), "BF16", 1, 2)
    assert high.tobytes() == bytes.fromhex("fc fe f6")
    assert rest.tobytes() == bytes.fromhex("00 40 20")
    assert index.size == upper.size == 0


@given(split=splits(), sample=st.data())
def test_splitting_and_merging_returns_the_bits_that_were_given(
    backend: KernelBackend, split: tuple[str, int, int], sample: st.DataObject
) -> None:
    dtype, mantissa_bits, base = split
    data = sample.draw(element_arrays(dtype, 5000))
    n = data.size // DTYPES[dtype].nbytes
    exponent, mantissa = FLOAT_LAYOUTS[dtype]
    parts = backend.float_split(data, dtype, mantissa_bits, base)
    high, rest, index, _ = parts
    assert [part.dtype.name for part in parts] == ["uint8", "uint8", "uint64", "uint16"]
    assert high.shape == (n,)
    assert rest.shape == (-(-(1 + mantissa - mantissa_bits) // 8), n)
    assert not high[index.astype(np.int64)].any()
    assert merged(backend, parts, n, split).tobytes() == data.tobytes()
    if exponent + mantissa_bits <= 8:
        assert index.size == 0


@given(split=splits(), sample=st.data())
def test_rows_that_are_picked_are_split_as_a_copy_of_them(
    backend: KernelBackend, split: tuple[str, int, int], sample: st.DataObject
) -> None:
    dtype, mantissa_bits, base = split
    row_elements = sample.draw(st.sampled_from([1, 3, 700, 1024, 1500]))
    row_nbytes = row_elements * DTYPES[dtype].nbytes
    data = sample.draw(element_arrays(dtype, 5000))
    matrix = data[: data.size // row_nbytes * row_nbytes].reshape(-1, row_nbytes)
    is_picked = st.lists(st.integers(0, len(matrix) - 1), max_size=20) if len(matrix) else st.just([])
    rows = np.array(sample.draw(is_picked), np.uint32)
    picked = backend.float_split(matrix.reshape(-1), dtype, mantissa_bits, base, rows, row_elements)
    copied = backend.float_split(matrix[rows].reshape(-1), dtype, mantissa_bits, base)
    assert [(part.shape, part.tobytes()) for part in picked] == [
        (part.shape, part.tobytes()) for part in copied
    ]


@pytest.mark.parametrize(("rows", "row_elements"), [([2], 3), ([0], 0), ([0], 4), ([0], -3)])
def test_rows_that_are_not_there_are_refused(
    backend: KernelBackend, rows: list[int], row_elements: int
) -> None:
    with pytest.raises(ValueError, match="row"):
        backend.float_split(bytes(12), "BF16", 0, 0, np.array(rows, np.uint32), row_elements)


@given(dtype=st.sampled_from(sorted(FLOAT_LAYOUTS)), sample=st.data())
def test_the_histograms_of_rows_count_the_exponents_up_to_the_limit(
    backend: KernelBackend, dtype: str, sample: st.DataObject
) -> None:
    row_elements = sample.draw(st.sampled_from([1, 3, 65, 700]))
    row_nbytes = row_elements * DTYPES[dtype].nbytes
    data = sample.draw(element_arrays(dtype, 5000))
    matrix = data[: data.size // row_nbytes * row_nbytes].reshape(-1, row_nbytes)
    some = st.lists(st.integers(0, len(matrix) - 1), max_size=20) if len(matrix) else st.just([])
    rows = np.array(sample.draw(some), np.uint32)
    limit = sample.draw(st.integers(0, row_elements + 1))
    counts = backend.exponent_histograms(matrix.reshape(-1), dtype, row_elements, rows, limit)
    assert counts.dtype == np.uint32
    assert counts.shape == (len(rows), 1 << FLOAT_LAYOUTS[dtype][0])
    for row, found in zip(rows, counts, strict=True):
        counted = matrix[row, : limit * DTYPES[dtype].nbytes]
        assert found.tolist() == backend.upper_bits_histogram(counted, dtype, 0).tolist()


@given(dtype=st.sampled_from(["F16", "BF16", "F32"]), sample=st.data())
def test_rows_cost_what_their_exponents_cost(
    backend: KernelBackend, dtype: str, sample: st.DataObject
) -> None:
    row_elements = sample.draw(st.sampled_from([1, 31, 32, 77, 384]))
    exponent_nbits, mantissa_nbits = FLOAT_LAYOUTS[dtype]
    n_exponents = 1 << exponent_nbits
    random = np.random.default_rng(sample.draw(st.integers(0, 1 << 20)))
    lowest = sample.draw(st.integers(0, n_exponents - 1))
    spread = sample.draw(st.integers(1, n_exponents))
    exponents = np.minimum(lowest + random.integers(0, spread, (7, row_elements)), n_exponents - 1)
    words = (exponents << mantissa_nbits | random.integers(0, 1 << mantissa_nbits, exponents.shape)).astype(
        f"<u{DTYPES[dtype].nbytes}"
    )
    tables = random.integers(0, 256, (sample.draw(st.integers(1, 6)), n_exponents)).astype(np.uint8)
    # Few costs below 255, as of the exponents that a sample has.
    tables[:, : max(0, lowest - 2)] = tables[:, lowest + sample.draw(st.integers(1, 40)) :] = 255
    sums = backend.row_costs(words.tobytes(), dtype, row_elements, tables)
    assert sums.tolist() == tables[:, exponents].sum(axis=2).T.tolist()


@given(split=splits(), sample=st.data())
def test_the_histogram_of_upper_bits_counts_every_element_once(
    backend: KernelBackend, split: tuple[str, int, int], sample: st.DataObject
) -> None:
    dtype, mantissa_bits, _ = split
    data = sample.draw(element_arrays(dtype, 5000))
    exponent, mantissa = FLOAT_LAYOUTS[dtype]
    words = data.view(f"<u{DTYPES[dtype].nbytes}").astype(np.uint64)
    upper = words >> np.uint64(mantissa - mantissa_bits) & np.uint64((1 << (exponent + mantissa_bits)) - 1)
    counts = backend.upper_bits_histogram(data, dtype, mantissa_bits)
    assert np.array_equal(
        counts, np.bincount(upper.astype(np.int64), minlength=1 << (exponent + mantissa_bits))
    )


@pytest.mark.parametrize(
    ("dtype", "mantissa_bits", "base"),
    [
        ("BF16", 8, 0),
        ("BF16", -1, 0),
        ("BF16", 0, 1),
        ("BF16", 1, 257),
        ("BF16", 1, -1),
        ("F32", 9, 0),
        ("I8", 0, 0),
    ],
)
def test_parameters_that_the_page_does_not_allow_are_refused(
    backend: KernelBackend, dtype: str, mantissa_bits: int, base: int
) -> None:
    with pytest.raises(ValueError, match=r"mantissa_bits|base|dtype"):
        backend.float_split(b"", dtype, mantissa_bits, base)


def test_bytes_that_are_no_whole_number_of_elements_are_refused(backend: KernelBackend) -> None:
    with pytest.raises(ValueError, match="whole number"):
        backend.float_split(bytes(7), "BF16", 0, 0)
    with pytest.raises(ValueError, match="whole number"):
        backend.upper_bits_histogram(bytes(7), "F32", 0)
    with pytest.raises(ValueError, match="whole number"):
        backend.narrow(bytes(7), "F32", "F16")


def test_the_example_of_the_page_is_what_is_widened(backend: KernelBackend) -> None:
    assert backend.widen(bytes.fromhex("00 3c 01 00"), "F16", "F32").tobytes() == bytes.fromhex(
        "0000803f 00008033"
    )


@pytest.mark.parametrize(("wide", "narrower"), NARROWS)
def test_every_number_of_the_narrower_type_widens_to_itself_and_comes_back(
    backend: KernelBackend, wide: str, narrower: str
) -> None:
    data = narrow_samples(narrower)
    widened = backend.widen(data, narrower, wide)
    before, after = numpy_value(narrower, data), numpy_value(wide, widened)
    is_nan = np.isnan(before)
    assert np.array_equal(is_nan, np.isnan(after))
    assert before[~is_nan].tobytes() == after[~is_nan].tobytes()
    # A NaN keeps its mantissa, extended with zeros: it is not made quiet.
    words = data.view(f"<u{DTYPES[narrower].nbytes}").astype(np.uint64)
    wide_words = widened.view(f"<u{DTYPES[wide].nbytes}").astype(np.uint64)
    m_narrow, m_wide = FLOAT_LAYOUTS[narrower][1], FLOAT_LAYOUTS[wide][1]
    kept = wide_words << np.uint64(64 - m_wide) == words << np.uint64(64 - m_narrow)
    assert kept[is_nan].all()
    assert backend.narrow(widened, wide, narrower).tobytes() == data.tobytes()
    assert backend.narrows_to(widened, wide, narrower, words.size).tolist() == [True]


@pytest.mark.parametrize(("wide", "narrower"), NARROWS)
def test_a_number_that_differs_in_one_bit_does_not_narrow(
    backend: KernelBackend, wide: str, narrower: str
) -> None:
    nbytes = DTYPES[wide].nbytes
    widened = backend.widen(narrow_samples(narrower), narrower, wide).view(f"<u{nbytes}")
    # No number of a narrower type reaches as far down as the lowest bit of the wider mantissa.
    changed = (widened | widened.dtype.type(1)).view(np.uint8)
    assert not backend.narrows_to(changed, wide, narrower, 1).any()
    with pytest.raises(ValueError, match="exactly"):
        backend.narrow(changed[-nbytes:], wide, narrower)


@given(
    pair=st.sampled_from(NARROWS),
    seed=st.integers(0, 2**32 - 1),
    row_elements=st.sampled_from([1, 3, 64, 700]),
)
def test_a_row_narrows_if_all_of_its_elements_do(
    backend: KernelBackend, pair: tuple[str, str], seed: int, row_elements: int
) -> None:
    wide, narrower = pair
    n_rows = 12
    rng = np.random.default_rng(seed)
    narrow_data = elements(narrower, n_rows * row_elements, seed, 2.0)
    rows = (
        backend.widen(narrow_data, narrower, wide).view(f"<u{DTYPES[wide].nbytes}").reshape(n_rows, -1).copy()
    )
    spoilt = rng.random(n_rows) < 0.5
    rows[spoilt, rng.integers(0, row_elements, n_rows)[spoilt]] ^= rows.dtype.type(1)
    assert backend.narrows_to(rows, wide, narrower, row_elements).tolist() == (~spoilt).tolist()


def test_pairs_that_the_page_does_not_allow_are_refused(backend: KernelBackend) -> None:
    for wide, narrower in [
        ("F16", "F32"),
        ("F32", "F32"),
        ("F32", "F8_E4M3"),
        ("BF16", "F16"),
        ("F32", "I8"),
    ]:
        for run in (
            lambda w=wide, n=narrower: backend.narrow(b"", w, n),
            lambda w=wide, n=narrower: backend.widen(b"", n, w),
            lambda w=wide, n=narrower: backend.narrows_to(b"", w, n, 1),
        ):
            with pytest.raises(ValueError, match=r"\w"):
                run()
    with pytest.raises(ValueError, match="rows"):
        backend.narrows_to(bytes(8), "F32", "F16", 0)
    with pytest.raises(ValueError, match="rows"):
        backend.narrows_to(bytes(8), "F32", "F16", 3)
