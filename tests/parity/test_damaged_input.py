"""On damaged input both backends raise the same error, or read the same elements.

With one exception: a sync point that a decoder does not use may lie without being noticed, and the
native one uses fewer. Checking notices all of them, in both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cmpk.dtypes import DTYPES
from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8, FloatJob, KernelBackend, Source
from tests.kernels.samples import (
    CHUNK_LOG2,
    SIZES,
    byte_arrays,
    element_arrays,
    ranges_of,
    sources_of,
    splits,
)
from tests.parity.outcomes import outcome


@st.composite
def damaged(draw: st.DrawFn, stream: U8, head: int) -> U8:
    """A stream with a few bytes changed, most often among the first ``head``, or cut or extended."""
    copy = stream.copy()
    places = st.integers(0, min(head, copy.size) - 1) | st.integers(0, copy.size - 1)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(places)
        copy[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    if draw(st.integers(0, 9)) == 0:
        copy = copy[: draw(st.integers(0, copy.size))]
    if draw(st.integers(0, 9)) == 0:
        copy = np.concatenate([copy, np.zeros(draw(st.integers(1, 9)), np.uint8)])
    return copy


def decoded(decode: Callable[..., None], stream: U8, n: int, start: int, stop: int) -> Callable[[], U8]:
    def run() -> U8:
        out = np.zeros(stop - start, np.uint8)
        decode(stream, n, start, out)
        return out

    return run


@given(data=byte_arrays(9000), sample=st.data())
def test_damaged_huffman_streams_are_judged_the_same(
    reference: KernelBackend, native: KernelBackend, data: U8, sample: st.DataObject
) -> None:
    lengths = reference.code_lengths(reference.byte_histogram(data), 12)
    stream = reference.huffman_encode(data, lengths, CHUNK_LOG2)
    changed = sample.draw(damaged(stream, 64))
    n = sample.draw(st.just(data.size) | st.sampled_from(SIZES))
    checked = outcome(lambda: reference.huffman_check(changed, n))
    assert outcome(lambda: native.huffman_check(changed, n)) == checked
    start, stop = sample.draw(ranges_of(n) | st.just((0, n)))
    expected = outcome(decoded(reference.huffman_decode, changed, n, start, stop))
    found = outcome(decoded(native.huffman_decode, changed, n, start, stop))
    if found != expected:
        assert expected is CorruptStreamError
        assert checked is CorruptStreamError
        assert "sync" in _message(decoded(reference.huffman_decode, changed, n, start, stop))


@given(data=byte_arrays(3000), width=st.integers(1, 7), sample=st.data())
def test_damaged_bitpack_streams_are_judged_the_same(
    reference: KernelBackend, native: KernelBackend, data: U8, width: int, sample: st.DataObject
) -> None:
    stream = reference.bitpack_encode(data & np.uint8((1 << width) - 1), width)
    changed = sample.draw(damaged(stream, 1))
    n = sample.draw(st.just(data.size) | st.sampled_from(SIZES))
    start, stop = sample.draw(ranges_of(n) | st.just((0, n)))
    assert outcome(decoded(native.bitpack_decode, changed, n, start, stop)) == outcome(
        decoded(reference.bitpack_decode, changed, n, start, stop)
    )


@given(split=splits(), sample=st.data())
def test_damaged_jobs_are_judged_the_same(
    reference: KernelBackend, native: KernelBackend, split: tuple[str, int, int], sample: st.DataObject
) -> None:
    dtype, mantissa_bits, base = split
    data = sample.draw(element_arrays(dtype, 3000))
    n = data.size // DTYPES[dtype].nbytes
    high, rest, index, upper = reference.float_split(data, *split)
    sources = []
    for part in (high, *rest):
        # Raw, packed or coded close to the entropy; a Huffman stream may be judged more leniently.
        kinds = [source for source in sources_of(reference, part) if source.codec != "huffman"]
        source = sample.draw(st.sampled_from(kinds))
        stream = np.asarray(source.stream, np.uint8)
        if stream.size and sample.draw(st.booleans()):
            stream = sample.draw(damaged(stream, 8))
        sources.append(Source(source.codec, stream))
    places: U8 = index.view(np.uint8)
    if places.size and sample.draw(st.booleans()):
        places = sample.draw(damaged(places, 64))
    start, stop = sample.draw(ranges_of(n) | st.just((0, n)))

    def run(backend: KernelBackend) -> U8:
        out = np.zeros((stop - start) * DTYPES[dtype].nbytes, np.uint8)
        job = FloatJob(out, dtype, n, start, stop - start, mantissa_bits, base, sources, places, upper)
        backend.decode_floats([job], 2)
        return out

    assert outcome(lambda: run(native)) == outcome(lambda: run(reference))


@given(
    seed=st.integers(0, 2**32 - 1),
    first=st.integers(0, 255),
    span=st.integers(0, 40),
    n=st.sampled_from(SIZES),
)
def test_heads_with_any_lengths_and_any_bits_after_them_are_judged_the_same(
    reference: KernelBackend, native: KernelBackend, seed: int, first: int, span: int, n: int
) -> None:
    """Streams that no encoder wrote: a sound head, then noise as sync points and as codes."""
    rng = np.random.default_rng(seed)
    last = min(first + span, 255)
    counts = np.zeros(256, np.uint64)
    counts[first : last + 1] = rng.integers(1, 1 << int(rng.integers(1, 30)), last + 1 - first)
    lengths = reference.code_lengths(counts, 12)
    width = int(rng.integers(0, 26))
    nibbles = np.append(lengths[first : last + 1], np.uint8(0))[: (last - first + 2) // 2 * 2]
    n_chunks = -(-n >> CHUNK_LOG2)
    n_symbols = np.minimum(1 << CHUNK_LOG2, n - (np.arange(n_chunks) << CHUNK_LOG2))
    totals = (n_symbols * rng.uniform(1, 1 if first == last else int(lengths.max()), n_chunks)).astype("<u4")
    n_sync_bits = width * (-(-n // 1024) - n_chunks)
    sync = rng.integers(0, 256, (n_sync_bits + 7) // 8, dtype=np.uint8)
    if n_sync_bits % 8:
        sync[-1] &= (1 << n_sync_bits % 8) - 1
    chunks = []
    for total in totals.tolist():
        bits = rng.integers(0, 2, total, dtype=np.uint8) & (first != last)
        chunks.append(np.packbits(bits.astype(np.uint8), bitorder="little"))
    stream = np.concatenate(
        [
            np.array([CHUNK_LOG2, width, first, last], np.uint8),
            nibbles[0::2] | nibbles[1::2] << np.uint8(4),
            totals.view(np.uint8),
            sync,
            *chunks,
        ]
    )
    assert outcome(lambda: native.huffman_check(stream, n)) == outcome(
        lambda: reference.huffman_check(stream, n)
    )
    expected = outcome(decoded(reference.huffman_decode, stream, n, 0, n))
    assert expected in (outcome(decoded(native.huffman_decode, stream, n, 0, n)), CorruptStreamError)


def _message(operation: Callable[[], object]) -> str:
    try:
        operation()
    except CorruptStreamError as error:
        return str(error)
    return ""
