"""Kernels of a device read the same elements as the reference ones, and judge damage the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cmpk.dtypes import DTYPES
from cmpk.kernels import reference
from cmpk.kernels.interface import FLOAT_LAYOUTS, U8, FloatJob, Source
from cmpk.kernels.reference.narrow import NARROWER
from cmpk.testing.strategies import damaged
from tests.device.running import on_device, on_reference
from tests.kernels.samples import CHUNK_LOG2, elements, sources_of, splits

# Triton's interpreter takes seconds for a thousand symbols in a row, so that most samples are small.
FEW = settings(max_examples=12)
SIZES = st.sampled_from([0, 1, 7, 8, 9, 63, 130]) | st.integers(1, 130)


@st.composite
def jobs(draw: st.DrawFn, sizes: st.SearchStrategy[int] = SIZES) -> FloatJob:
    """A job over a whole tensor, of any codecs, some by rows, some to a wider type."""
    dtype, mantissa_bits, base = draw(splits())
    n = draw(sizes)
    data = elements(dtype, n, draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 0.7, 2.0])))
    high, rest, index, upper = reference.float_split(data, dtype, mantissa_bits, base)
    wider = [dtype, *(name for name, narrower in NARROWER.items() if dtype in narrower)]
    row_elements, rows = 0, None
    if n and draw(st.booleans()):
        row_elements = draw(st.sampled_from([size for size in range(1, n + 1) if n % size == 0]))
        # The rows in reverse, the first one of the output left out.
        rows = np.arange(n // row_elements, 0, -1, dtype=np.uint32)
    return FloatJob(
        out=b"",
        dtype=dtype,
        n=n,
        start=0,
        count=n,
        mantissa_bits=mantissa_bits,
        base=base,
        sources=[draw(st.sampled_from(sources_of(reference, plane))) for plane in (high, *rest)],
        exception_index=index if len(index) else None,
        exception_high=upper if len(index) else None,
        out_dtype=draw(st.sampled_from(wider)),
        rows=rows,
        row_elements=row_elements,
    )


def huffman(plane: U8) -> Source:
    lengths = reference.code_lengths(reference.byte_histogram(plane), 12)
    return Source("huffman", reference.huffman_encode(plane, lengths, CHUNK_LOG2))


def bf16_job(n: int, seed: int = 0) -> FloatJob:
    """Weights as they are, with Huffman-coded exponents."""
    data = elements("BF16", n, seed, 0.7)
    high, rest, _, _ = reference.float_split(data, "BF16", 0, 0)
    return FloatJob(b"", "BF16", n, 0, n, 0, 0, [huffman(high), Source("raw", rest[0])])


@FEW
@given(batch=st.lists(jobs(), min_size=1, max_size=2))
def test_sound_jobs_give_the_same_elements(device: torch.device, batch: list[FloatJob]) -> None:
    expected = on_reference(batch)
    assert isinstance(expected, list)
    assert on_device(batch, device) == expected


@settings(max_examples=40)  # most of them are refused before anything is launched
@given(sample=st.data())
def test_damaged_jobs_are_judged_the_same(device: torch.device, sample: st.DataObject) -> None:
    job = sample.draw(jobs(st.integers(1, 100)))
    victim = sample.draw(st.integers(0, len(job.sources) - 1))
    sources = list(job.sources)
    stream = sample.draw(damaged(np.asarray(sources[victim].stream).tobytes()))
    sources[victim] = Source(sources[victim].codec, stream)
    job = job._replace(sources=sources)
    assert on_device([job], device) == on_reference([job])


def test_runs_end_at_sync_points_and_at_the_ends_of_chunks(device: torch.device) -> None:
    """More such streams are among the vectors, `tests.device.test_loading`."""
    job = bf16_job(4097)
    assert on_device([job], device) == on_reference([job])


@pytest.mark.parametrize("at", ["first sync point", "last chunk", "bits of a chunk"])
def test_a_lie_about_where_runs_begin_is_noticed(device: torch.device, at: str) -> None:
    job = bf16_job(4600)
    stream = np.array(job.sources[0].stream)
    parsed = reference.huffman_stream.parse_stream(stream, job.n)
    place = {
        "first sync point": int(parsed.offsets[0]) - len(parsed.sync_points),
        "last chunk": int(parsed.offsets[-2]) + 40,
        "bits of a chunk": int(parsed.offsets[0]) + 700,
    }[at]
    stream[place] ^= 0x15
    broken = job._replace(sources=[Source("huffman", stream), job.sources[1]])
    assert on_reference([broken]) is on_device([broken], device)


@pytest.mark.parametrize("symbols", [1, 2, 256])
def test_streams_of_one_of_few_and_of_all_symbols(device: torch.device, symbols: int) -> None:
    plane = (np.arange(700) ** 2 % symbols).astype(np.uint8)
    rest = np.zeros(700, np.uint8)
    job = FloatJob(b"", "BF16", 700, 0, 700, 0, 0, [huffman(plane), Source("raw", rest)])
    assert on_device([job], device) == on_reference([job])


def test_codes_of_twelve_bits_take_the_second_look_up(device: torch.device) -> None:
    from cmpk.device.batch import GPU, INTERPRETER

    shape = INTERPRETER._replace(window_nbits=GPU.window_nbits)
    counts = np.zeros(256, np.uint64)
    counts[:14] = 2 ** np.arange(14)
    plane = np.random.default_rng(0).permutation(np.repeat(np.arange(14), 20)).astype(np.uint8)
    lengths = reference.code_lengths(counts, 12)
    assert int(lengths.max()) == 12
    source = Source("huffman", reference.huffman_encode(plane, lengths, CHUNK_LOG2))
    job = FloatJob(b"", "BF16", plane.size, 0, plane.size, 0, 0, [source, Source("raw", plane)])
    assert GPU.window_nbits < 12
    assert on_device([job], device, shape=shape) == on_reference([job])


@pytest.mark.parametrize("width", range(1, 8))
@pytest.mark.parametrize("n", [1, 8, 1023, 1024, 2060])
def test_packed_planes_of_every_width(device: torch.device, width: int, n: int) -> None:
    plane = np.random.default_rng(width).integers(0, 1 << width, n).astype(np.uint8)
    packed = Source("bitpack", reference.bitpack_encode(plane, width))
    job = FloatJob(b"", "BF16", n, 0, n, 0, 0, [packed, packed])
    assert on_device([job], device) == on_reference([job])


@pytest.mark.parametrize(("narrower", "dtype"), [(n, d) for d, names in NARROWER.items() for n in names])
def test_any_bits_widen_the_same(device: torch.device, narrower: str, dtype: str) -> None:
    exponent_nbits, mantissa_nbits = FLOAT_LAYOUTS[narrower]
    words = np.random.default_rng(0).integers(0, 2**32, 3000, dtype=np.uint64)
    # A third of them subnormal or zero, a third infinite or not a number.
    words[:1000] &= np.uint64((1 << mantissa_nbits) - 1 | 1 << (exponent_nbits + mantissa_nbits))
    words[1000:2000] |= np.uint64(((1 << exponent_nbits) - 1) << mantissa_nbits)
    data = words.astype(f"<u{DTYPES[narrower].nbytes}").view(np.uint8)
    high, rest, _, _ = reference.float_split(data, narrower, 0, 0)
    sources = [Source("raw", plane) for plane in (high, *rest)]
    job = FloatJob(b"", narrower, 3000, 0, 3000, 0, 0, sources, out_dtype=dtype)
    assert on_device([job], device) == on_reference([job])


@pytest.mark.parametrize("part", ["upper bits", "the rest"])
def test_bits_beyond_the_type_are_noticed(device: torch.device, part: str) -> None:
    planes = [np.full(50, 3, np.uint8), np.full(50, 3, np.uint8)]
    planes[part == "the rest"][40] = 0xFF
    job = FloatJob(b"", "F8_E5M2", 50, 0, 50, 0, 0, [Source("raw", plane) for plane in planes])
    assert on_device([job], device) == on_reference([job])


def test_where_an_exception_stands_the_upper_bits_have_no_meaning(device: torch.device) -> None:
    high, rest = np.full(50, 3, np.uint8), np.full(50, 3, np.uint8)
    high[[7, 49]] = 0xFF
    job = FloatJob(
        b"",
        "F8_E5M2",
        50,
        0,
        50,
        0,
        0,
        [Source("raw", high), Source("raw", rest)],
        exception_index=np.array([7, 49], np.uint64),
        exception_high=np.array([30, 1], np.uint16),
    )
    assert isinstance(on_reference([job]), list)
    assert on_device([job], device) == on_reference([job])


@pytest.mark.parametrize(
    ("index", "high"), [([3, 3], [1, 1]), ([4, 2], [1, 1]), ([2, 50], [1, 1]), ([2, 4], [1, 32])]
)
def test_exceptions_out_of_order_or_range_are_refused(
    device: torch.device, index: list[int], high: list[int]
) -> None:
    planes = [Source("raw", np.zeros(50, np.uint8))] * 2
    job = FloatJob(
        b"",
        "F8_E5M2",
        50,
        0,
        50,
        0,
        0,
        planes,
        exception_index=np.array(index, np.uint64),
        exception_high=np.array(high, np.uint16),
    )
    assert on_device([job], device) == on_reference([job])


@pytest.mark.parametrize("slot_nbytes", [20_000, 50_000])
def test_a_tensor_larger_than_a_slot_is_cut(device: torch.device, slot_nbytes: int) -> None:
    """The smallest slot does not even hold a chunk, which is then decoded on the CPU."""
    data = elements("F32", 5000, 3, 0.0)
    high, rest, index, upper = reference.float_split(data, "F32", 1, 40)
    job = FloatJob(
        b"",
        "F32",
        5000,
        0,
        5000,
        1,
        40,
        [Source("raw", high), huffman(rest[2] >> 4), *(Source("raw", plane) for plane in rest[1:])],
        index if len(index) else None,
        upper if len(index) else None,
        rows=np.arange(1000, 0, -1, dtype=np.uint32),
        row_elements=5,
    )
    assert len(index)
    assert on_device([job], device, slot_nbytes=slot_nbytes, scratch_nbytes=1 << 16) == on_reference([job])
