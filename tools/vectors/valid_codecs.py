"""Valid vectors: the codecs (spec/codecs)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .assemble import Entry, leaf, manifest, one, tensor
from .cases import STEEP, Valid
from .streams import (
    balanced,
    bitpack,
    checksum,
    frame,
    huffman,
    noise,
    rans,
    raw_block,
    repeating_block,
    rle_block,
    skewed,
    zstd,
)

__all__ = ["bitpack_page", "huffman_page", "rans_page", "zstd_page"]


def zstd_page() -> Iterator[Valid]:
    """codecs/zstd.md."""

    def of(name: str, data: bytes, *frames: bytes, chunk_log2: int = 16) -> Valid:
        return Valid(name, one("U8", [len(data)], data, leaf("zstd", zstd(list(frames), chunk_log2))))

    data = noise(300)
    yield of("zstd-one-frame", data, frame(300, raw_block(data[:100]), raw_block(data[100:])), chunk_log2=26)
    yield of("zstd-empty", b"")
    run = bytes(3 * 65536 + 1)
    yield of("zstd-chunks", run, *[frame(65536, rle_block(0, 65536))] * 3, frame(1, raw_block(b"\0")))
    full = [frame(65536, rle_block(7, 65536)), frame(65536, rle_block(8, 65536))]
    yield of("zstd-full-chunks", b"\7" * 65536 + b"\10" * 65536, *full)
    repeated = (b"cmpk" * 20000)[:70004]
    yield of(
        "zstd-compressed-block", repeated, frame(70004, repeating_block(b"cmpk", 4, 70000)), chunk_log2=17
    )
    # A window instead of a single segment, the size in two bytes; and the size in eight.
    head = b"\x40\x00" + struct.pack("<H", 300 - 256)
    yield of("zstd-window", data, frame(300, raw_block(data), head=head))
    yield of(
        "zstd-size-in-eight-bytes", data, frame(300, raw_block(data), head=b"\xe0" + struct.pack("<Q", 300))
    )
    checked = frame(5, raw_block(b"aaaaa"), head=b"\x24\x05") + checksum(b"aaaaa")
    yield of("zstd-checksum", b"aaaaa", checked)
    no_dictionary = frame(5, raw_block(b"aaaaa"), head=b"\x21\x00\x05")
    yield of("zstd-dictionary-zero", b"aaaaa", no_dictionary)


def bitpack_page() -> Iterator[Valid]:
    """codecs/bitpack.md."""

    def of(width: int, n: int) -> Entry:
        data = bytes(byte & (1 << width) - 1 for byte in noise(n, width))
        return tensor(f"{width} bits, {n}", "U8", [n], data, leaf("bitpack", bitpack(data, width)))

    yield Valid("bitpack-widths", manifest([of(width, n) for width in range(1, 8) for n in (8, 19, 128)]))
    yield Valid("bitpack-empty", manifest([of(1, 0), of(7, 0)]))
    yield Valid("bitpack-blocks", manifest([of(3, n) for n in (1, 1023, 1024, 1025, 2048, 2051)]))
    yield Valid("bitpack-wider-than-needed", one("U8", [9], bytes(9), leaf("bitpack", bitpack(bytes(9), 7))))
    words = bytes(byte & 3 for byte in noise(24))
    yield Valid("bitpack-of-F32", one("F32", [6], words, leaf("bitpack", bitpack(words, 2))))


def huffman_page() -> Iterator[Valid]:
    """codecs/huffman.md."""

    def of(name: str, data: bytes, lengths: dict[int, int], *options: int) -> Valid:
        node = leaf("huffman", huffman(data, lengths, *options))
        return Valid(f"huffman-{name}", one("U8", [len(data)], data, node))

    yield of("one-symbol", b"\x80", {0x80: 1})
    yield of("one-symbol-in-chunks", b"\xff" * 9000, {0xFF: 1}, 12)
    yield of("two-symbols", b"\0\xff\xff\0\0", {0: 1, 255: 1})
    yield of("longest-codes", bytes(range(13)) * 3, STEEP)
    yield of("all-symbols", bytes(range(256)) * 2, balanced(range(256)))
    yield of("some-symbols", bytes(range(3, 100, 3)) * 40, balanced(range(3, 100, 3)))
    yield of("codes-that-do-not-occur", bytes([5, 9]) * 5, balanced(range(5, 10)))
    yield of("one-symbol-of-a-full-code", b"\x0c" * 3000, STEEP)
    data = skewed(9000, STEEP)
    yield of("chunks", data, STEEP, 12)
    yield of("one-chunk-of-many-sync-points", data, STEEP, 20)
    yield of("widest-sync-points", data, STEEP, 12, 25)
    yield of("sync-points-on-the-line", noise(5000), balanced(range(256)), 12)
    yield of("width-without-sync-points", data[:1024], STEEP, 12, 9)
    # The steepest deviation: long codes first, short ones last.
    yield of("sync-points-far-off-the-line", b"\x0c" * 4096 + b"\0" * 5000, STEEP, 18)
    yield of("full-chunks", data[:8192], STEEP, 12)
    yield of("last-chunk-of-one-symbol", data[:4097], STEEP, 12)
    yield of("sync-interval-of-one-symbol", data[:1025], STEEP)


def rans_page() -> Iterator[Valid]:
    """codecs/rans.md."""

    def of(name: str, data: bytes, frequencies: dict[int, int], chunk_log2: int = 18) -> Valid:
        node = leaf("rans", rans(data, frequencies, chunk_log2))
        return Valid(f"rans-{name}", one("U8", [len(data)], data, node))

    steep = {symbol: 1 << 12 - length for symbol, length in STEEP.items()}
    yield of("one-byte", b"\x07", {7: 2048, 9: 2048})
    yield of("two-symbols", bytes([0, 255, 255, 0]), {0: 1365, 255: 2731})
    yield of("of-32-symbols", skewed(32, STEEP), steep)
    yield of("of-33-symbols", skewed(33, STEEP), steep)
    yield of("all-symbols", bytes(range(256)) * 2, dict.fromkeys(range(256), 16))
    yield of("one-symbol-of-a-full-table", b"\x05" * 5000, {5: 4095, 6: 1})
    yield of("the-rarest-symbol", b"\x06" * 500, {5: 4095, 6: 1})
    thirds = range(3, 99, 3)
    yield of("symbols-that-do-not-occur", bytes(thirds) * 9, dict.fromkeys(thirds, 128))
    data = skewed(9000, STEEP)
    yield of("chunks", data, steep, 12)
    yield of("one-chunk", data, steep, 20)
    yield of("full-chunks", data[:8192], steep, 12)
    yield of("last-chunk-of-one-symbol", data[:4097], steep, 12)
    yield of("badly-chosen-frequencies", data[:600], {12 - symbol: f for symbol, f in steep.items()})
