"""zstd: frames on their own, and every way in which they can be wrong."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable

import numpy as np
import pytest
import zstandard

from cmpk.codecs import Zstd
from cmpk.codecs.zstd import MAX_CHUNK_LOG2, MIN_CHUNK_LOG2
from cmpk.errors import CorruptStreamError, RecipeError

CHUNK = 1 << 22
TEXT = np.frombuffer(b"what is said twice is said once " * 4000, np.uint8)


def decoded(stream: bytes, n: int, start: int = 0, stop: int | None = None) -> bytes:
    out = np.empty((n if stop is None else stop) - start, np.uint8)
    Zstd().decode_range(stream, n, start, out)
    return out.tobytes()


def stream_of(frames: list[bytes], chunk_log2: int = 16) -> bytes:
    return bytes([chunk_log2]) + struct.pack(f"<{len(frames)}I", *map(len, frames)) + b"".join(frames)


def frame(data: bytes, **options: object) -> bytes:
    return zstandard.ZstdCompressor(**options).compress(data)  # type: ignore[arg-type]


@pytest.mark.parametrize("n", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 5])
def test_each_four_mebibytes_are_a_frame(n: int) -> None:
    data = np.resize(TEXT, n)
    stream = bytes(Zstd().encode(data))
    n_frames = -(-n // CHUNK)
    assert stream[0] == 22
    sizes = struct.unpack_from(f"<{n_frames}I", stream, 1)
    assert 1 + 4 * n_frames + sum(sizes) == len(stream)
    assert decoded(stream, n) == data.tobytes()


def test_no_bytes_are_one_byte() -> None:
    assert bytes(Zstd().encode(np.empty(0, np.uint8))) == b"\x16"
    assert decoded(b"\x16", 0) == b""


@pytest.mark.parametrize("chunk_log2", [MIN_CHUNK_LOG2, 20, MAX_CHUNK_LOG2])
def test_chunks_of_any_allowed_size_are_decoded(chunk_log2: int) -> None:
    data, chunk = TEXT.tobytes(), 1 << chunk_log2
    frames = [frame(data[at : at + chunk]) for at in range(0, len(data), chunk)]
    assert decoded(stream_of(frames, chunk_log2), len(data)) == data


def test_a_range_across_frames_is_that_slice() -> None:
    data = TEXT.tobytes()
    stream = stream_of([frame(data[at : at + 65536]) for at in range(0, len(data), 65536)])
    for start, stop in [
        (0, 0),
        (5, 5),
        (65535, 65537),
        (65536, 65536),
        (1, len(data)),
        (len(data) - 1, len(data)),
    ]:
        assert decoded(stream, len(data), start, stop) == data[start:stop]


def test_a_higher_level_is_smaller_and_decodes_alike() -> None:
    rng = np.random.default_rng(0)
    data = rng.choice(
        np.frombuffer(b"abcdefgh", np.uint8), 200_000, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.05, 0.03, 0.02]
    )
    fast, small = bytes(Zstd(1).encode(data)), bytes(Zstd(19).encode(data))
    assert len(small) < len(fast)
    assert decoded(small, len(data)) == decoded(fast, len(data)) == data.tobytes()


@pytest.mark.parametrize("level", [0, -1, 23, 100])
def test_levels_are_those_of_zstd(level: int) -> None:
    with pytest.raises(RecipeError, match=f"level {level} is not within 1 to 22"):
        Zstd(level)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda a, b: b"", "chunk size"),
        (lambda a, b: stream_of([a, b], 15), "chunk size"),
        (lambda a, b: stream_of([a, b], 27), "chunk size"),
        (lambda a, b: stream_of([a, b])[:8], "ends within its table"),
        (lambda a, b: stream_of([a, b])[:-1], "do not fill"),
        (lambda a, b: stream_of([a, b]) + b"\0", "do not fill"),
        (lambda a, b: stream_of([a + b, b""]), "can't be decoded"),
        (lambda a, b: stream_of([a + b"\0", b]), "can't be decoded"),
        (lambda a, b: stream_of([b, a]), "does not state the size"),
        (lambda a, b: stream_of([a, a]), "does not state the size"),
        (lambda a, b: stream_of([a, frame(b"x" * 10, write_content_size=False)]), "does not state the size"),
        (lambda a, b: stream_of([a, b"\x50\x2a\x4d\x18\x0a\0\0\0" + bytes(10)]), "frame"),
        (lambda a, b: stream_of([a, b"\x50\x2a\x4d\x18\x00\0\0\0" + b]), "frame"),
        (lambda a, b: stream_of([a, bytes(len(b))]), "can't be decoded"),
        (lambda a, b: stream_of([a[:-1] + bytes([a[-1] ^ 255]), b]), ""),
        (lambda a, b: b"\x10" + struct.pack("<2I", 0xFFFFFFFF, len(a + b) + 1) + a + b, "do not fill"),
    ],
)  # fmt: skip
def test_a_stream_that_breaks_a_rule_is_refused(make: Callable[[bytes, bytes], bytes], problem: str) -> None:
    data = TEXT.tobytes()[: 65536 + 10]
    a, b = (frame(piece, write_checksum=True) for piece in (data[:65536], data[65536:]))
    assert decoded(stream_of([a, b]), len(data)) == data
    with pytest.raises(CorruptStreamError, match=f"codec 'zstd': .*{problem}"):
        decoded(make(a, b), len(data))
    with pytest.raises(CorruptStreamError):
        Zstd().check(make(a, b), len(data))


def test_frames_that_need_a_dictionary_are_refused() -> None:
    samples = [b"sample %d of many" % (index * index) for index in range(2000)]
    stored = frame(b"sample 49 of many", dict_data=zstandard.train_dictionary(1024, samples))
    with pytest.raises(CorruptStreamError):
        decoded(stream_of([stored]), 17)


def test_a_stream_for_another_number_of_bytes_is_refused() -> None:
    data = TEXT.tobytes()[:1000]
    stream = stream_of([frame(data)])
    for n in (0, 999, 1001, 65537):
        with pytest.raises(CorruptStreamError):
            Zstd().check(stream, n)


def test_several_threads_may_decode_with_one_codec() -> None:
    codec, data = Zstd(), TEXT
    stream = bytes(codec.encode(data))
    wrong: list[int] = []

    def work() -> None:
        for _ in range(20):
            out = np.empty(len(data), np.uint8)
            codec.decode_range(stream, len(data), 0, out)
            wrong.extend([1] if out.tobytes() != data.tobytes() else [])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
