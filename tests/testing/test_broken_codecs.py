"""The kit finds what is wrong with a codec: each is right but for one thing."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from cmpk.codecs import Codec
from cmpk.testing import check_codec, limits

pytestmark = pytest.mark.usefixtures("without_shrinking")


class Inverted(Codec):
    """Stores the complement of each byte: simple, and right."""

    id = "inverted"
    max_expansion = 2  # more than need be, so that a reader lets short streams through to it

    def encode(self, data, threads=1):
        return (~data).tobytes()

    def decode_range(self, stream, n, start, out, threads=1):
        stored = np.frombuffer(stream, np.uint8)
        if len(stored) != n:
            raise self.corrupt("the stream has another size")
        out[:] = ~stored[start : start + len(out)]


class RunLength(Codec):
    """One byte and how often, as 32 bits."""

    id = "run_length"
    max_expansion = 1 << 16

    def encode(self, data, threads=1):
        if len(np.unique(data)) != 1:
            return None
        return bytes([data[0]]) + len(data).to_bytes(4, "little")

    def decode_range(self, stream, n, start, out, threads=1):
        stored = bytes(stream)
        if len(stored) != 5 or int.from_bytes(stored[1:], "little") != n:
            raise self.corrupt("the stream has another size")
        out[:] = stored[0]


class ForgetsTheStart(Inverted):
    def decode_range(self, stream, n, start, out, threads=1):
        super().decode_range(stream, n, 0, out)


class CountsThreads(RunLength):
    def encode(self, data, threads=1):
        stream = super().encode(data)
        return None if stream is None else stream + bytes(threads)


class DecodesByThreads(Inverted):
    def decode_range(self, stream, n, start, out, threads=1):
        super().decode_range(stream, n, start, out)
        out[threads - 1 :: 97] = 0 if threads > 1 else out[threads - 1 :: 97]


class IsNeverTheSame(Inverted):
    counter = itertools.count()

    def encode(self, data, threads=1):
        return super().encode(data) + next(self.counter).to_bytes(8, "little")


class Expands(RunLength):
    max_expansion = 8


class RaisesValueError(Inverted):
    def decode_range(self, stream, n, start, out, threads=1):
        out[:] = ~np.frombuffer(stream, np.uint8)[start : start + len(out)]


class TrustsTheSize(RunLength):
    def decode_range(self, stream, n, start, out, threads=1):
        stored = bytes(stream)
        if len(stored) != 5:
            raise self.corrupt("the stream has another size")
        decoded = np.full(min(int.from_bytes(stored[1:], "little"), 1 << 28), stored[0], np.uint8)
        if len(decoded) != n:
            raise self.corrupt("the stream has another size")
        out[:] = decoded[start : start + len(out)]


class NeverEnds(Inverted):
    def decode_range(self, stream, n, start, out, threads=1):
        if memoryview(stream).nbytes != n:
            time.sleep(60)
        super().decode_range(stream, n, start, out)


class LeavesBytes(Inverted):
    def decode_range(self, stream, n, start, out, threads=1):
        decoded = ~np.frombuffer(stream, np.uint8)[start : start + len(out)]
        out[: len(decoded)] = decoded


class WritesBeyond(Inverted):
    def decode_range(self, stream, n, start, out, threads=1):
        super().decode_range(stream, n, start, out)
        np.lib.stride_tricks.as_strided(out, (len(out) + 1,), (1,))[-1] = 0


class ChecksNothing(Inverted):
    def check(self, stream, n):
        pass


class EncodesNothing(Inverted):
    def encode(self, data, threads=1):
        return None


class EstimatesInText(Inverted):
    def estimate(self, data):
        return "small"


class HasNoBound(Inverted):
    max_expansion = None


class ShoutsItsId(Inverted):
    id = "INVERTED"


@pytest.mark.parametrize("codec", [Inverted(), RunLength()], ids=lambda codec: codec.id)
def test_a_codec_without_fault_passes(codec: Codec) -> None:
    check_codec(codec, boundaries=[1000])


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (ForgetsTheStart, "the range .* is not that slice"),
        (CountsThreads, "is another with 3 threads"),
        (DecodesByThreads, "come back changed, from ndarray with 3 threads"),
        (IsNeverTheSame, "or the second time"),
        (Expands, "a stream of 5 bytes holds .*; max_expansion is 8"),
        (RaisesValueError, "ValueError instead of CorruptStreamError"),
        (TrustsTheSize, "check sizes before allocating"),
        (LeavesBytes, "part of the output was not written"),
        (WritesBeyond, "bytes outside the output were changed"),
        (ChecksNothing, "check passes what can't be decoded"),
        (EncodesNothing, "there is nothing to check"),
        (EstimatesInText, "estimate gives 'small', not a number of bytes"),
        (HasNoBound, "can't be registered: its max_expansion is None"),
        (ShoutsItsId, "can't be registered: 'INVERTED' is not an id"),
    ],
)
def test_a_codec_with_a_fault_is_found_out(broken: type[Codec], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_codec(broken())


def test_a_codec_that_hangs_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TIME_LIMIT", 0.2)
    with pytest.raises(AssertionError, match=r"codec 'inverted'.*stream .*: no end after"):
        check_codec(NeverEnds())
