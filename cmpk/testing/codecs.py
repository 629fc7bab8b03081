"""What every codec must do (`cmpk.codecs.Codec`), checked on all that it may meet."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cmpk.codecs.base import Codec
from cmpk.kernels.interface import U8, Buffer
from cmpk.offers import flaw_of
from cmpk.testing.limits import Hang, Outcome, active_settings, fail, filled, outcome_of
from cmpk.testing.strategies import BYTE_SHAPES, byte_arrays, damaged, overwritten, sized_bytes

__all__ = ["check_codec"]

_THREADS: Final = 3

_LONG: Final = 1 << 18
"""Long enough for heads to weigh nothing, so that the bound on expansion is put to the test."""

_HEAD_NBYTES: Final = 32

_MAX_DAMAGED_NBYTES: Final = 1 << 20


def check_codec(codec: Codec, *, boundaries: Sequence[int] = ()) -> None:
    """Check a codec; call it from a test of your plugin.

    - What it encodes decodes to the same bytes: empty, noise, one symbol, skewed, lengths around the
      boundaries; into any kind of buffer, without changing its input.
    - Any range of it decodes to that slice.
    - Neither streams nor bytes depend on the number of threads, or on what was there before.
    - No stream decodes to more than ``max_expansion`` times its size.
    - A damaged stream raises CorruptStreamError or decodes to some bytes, always the same; no other
      error, no hang, no write outside the output, no more memory than the sizes justify. A stream
      that ``check`` passes decodes whole and in ranges.

    Hypothesis settings are those of the active profile.

    Parameters
    ----------
    codec : Codec
    boundaries : sequence of int
        Lengths in bytes at which its streams change: the size of its chunks, blocks, tables.

    Raises
    ------
    AssertionError
        If it does something else. The message tells what, on which bytes.
    """
    flaw = flaw_of("codecs", getattr(codec, "id", None), codec)
    if flaw:
        fail(f"{codec!r} can't be registered: {flaw}")
    _check_known_shapes(codec, boundaries)
    try:
        _check_drawn(codec, boundaries)
        _check_hostile_heads(codec)
        _check_damaged(codec)
    except Hang as hang:
        raise AssertionError(str(hang)) from None


def _check_known_shapes(codec: Codec, boundaries: Sequence[int]) -> None:
    """Always the same bytes: each shape, long, and each boundary, whatever Hypothesis draws."""
    encoded = [
        _check_stream(codec, sized_bytes(shape, _LONG), [(12345, 12345 + 999)]) for shape in BYTE_SHAPES
    ]
    if not any(encoded):
        fail(f"codec {codec.id!r} encodes none of {', '.join(BYTE_SHAPES)}; there is nothing to check")
    for n in sorted({0, 1, *(n for b in boundaries for n in (b - 1, b, b + 1, 2 * b + 1))}):
        cuts = [(0, min(n, 1)), (max(0, n - 1), n), *((b - 1, b + 1) for b in boundaries if b < n)]
        for shape in ("one symbol", "geometric"):
            _check_stream(codec, sized_bytes(shape, n), cuts)


def _check_drawn(codec: Codec, boundaries: Sequence[int]) -> None:
    @active_settings()
    @given(st.data())
    def any_bytes(drawn: st.DataObject) -> None:
        data = drawn.draw(byte_arrays(boundaries=boundaries), "data")
        _check_stream(codec, data, drawn.draw(st.lists(_range_of(len(data)), max_size=4), "ranges"))

    any_bytes()


def _check_stream(codec: Codec, data: U8, ranges: Sequence[tuple[int, int]]) -> bool:
    """Check all that needs no damage; whether there is a stream at all."""
    given_bytes, n = data.tobytes(), len(data)
    data.flags.writeable = False
    estimate: object = codec.estimate(data)
    if estimate is not None and not (isinstance(estimate, int | np.integer) and estimate >= 0):
        fail(f"estimate gives {estimate!r}, not a number of bytes")
    stream = _stream_of(codec, data, 1)
    if _stream_of(codec, data, _THREADS) != stream:
        fail(f"the stream of {n} bytes is another with {_THREADS} threads, or the second time")
    if data.tobytes() != given_bytes:
        fail("encode changed its input")
    if stream is None:
        return False
    if n > codec.max_expansion * len(stream):
        fail(f"a stream of {len(stream)} bytes holds {n}; max_expansion is {codec.max_expansion}")
    for threads, buffer in ((1, memoryview(stream)), (_THREADS, np.frombuffer(stream, np.uint8))):
        if _decode(codec, buffer, n, 0, n, threads) != given_bytes:
            fail(f"{n} bytes come back changed, from {type(buffer).__name__} with {threads} threads")
    for start, stop in ranges:
        if _decode(codec, stream, n, start, stop) != given_bytes[start:stop]:
            fail(f"the range {start} to {stop} of {n} bytes is not that slice")
    codec.check(stream, n)
    return True


def _check_hostile_heads(codec: Codec) -> None:
    """Every number that may be a size, a count or an offset, made as large or as small as can be."""
    for shape in ("one symbol", "geometric", "phrases"):
        n = 600
        stream = _stream_of(codec, sized_bytes(shape, n), 1)
        for at in range(min(_HEAD_NBYTES, len(stream or b""))):
            for number in (0, 0x7FFFFFFF, 0xFFFFFFFF):
                _check_outcomes(
                    codec, overwritten(stream or b"", at, number.to_bytes(4, "little")), n, (0, n)
                )


def _check_damaged(codec: Codec) -> None:
    @active_settings()
    @given(st.data())
    def damaged_streams(drawn: st.DataObject) -> None:
        data = drawn.draw(byte_arrays(max_nbytes=2048), "data")
        whole = _stream_of(codec, data, 1)
        if whole is None:
            return
        stream = drawn.draw(damaged(whole), "stream")
        # A reader has refused what is beyond this already.
        most = min(codec.max_expansion * len(stream), max(_MAX_DAMAGED_NBYTES, len(data)))
        sizes = [len(data)] * 4 + [0, 1, len(data) - 1, len(data) + 1, 2 * len(data), most]
        n = drawn.draw(st.sampled_from([size for size in sizes if 0 <= size <= most]), "n")
        _check_outcomes(codec, stream, n, drawn.draw(_range_of(n), "range"))

    damaged_streams()


def _check_outcomes(codec: Codec, stream: bytes, n: int, part: tuple[int, int]) -> None:
    what = f"codec {codec.id!r}, n={n}, stream {stream[:512].hex()}"
    nbytes = len(stream) + n

    def decoded(start: int, stop: int) -> Outcome:
        call = functools.partial(_decode, codec, stream, n, start, stop, runs=2)
        return outcome_of(call, nbytes, f"{what}, {start} to {stop}")

    def checked() -> bytes:
        codec.check(stream, n)
        return b""

    whole, some = decoded(0, n), decoded(*part)
    if isinstance(outcome_of(checked, nbytes, f"{what}, check"), bytes):
        if not isinstance(whole, bytes):
            raise AssertionError(f"{what}: check passes what can't be decoded") from whole
        if not isinstance(some, bytes) or some != whole[part[0] : part[1]]:
            fail(f"{what}: check passes it, yet {part[0]} to {part[1]} is not that slice of the whole")


def _stream_of(codec: Codec, data: U8, threads: int) -> bytes | None:
    stream = codec.encode(data, threads)
    return None if stream is None else memoryview(stream).tobytes()  # type: ignore[arg-type]


def _decode(
    codec: Codec, stream: Buffer, n: int, start: int, stop: int, threads: int = 1, runs: int = 1
) -> bytes:
    return filled(stop - start, lambda out: codec.decode_range(stream, n, start, out, threads), runs)


def _range_of(n: int) -> st.SearchStrategy[tuple[int, int]]:
    """Ranges within ``n``, empty ones included."""
    ends = st.integers(0, n)
    return st.tuples(ends, ends).map(lambda pair: (min(pair), max(pair)))
