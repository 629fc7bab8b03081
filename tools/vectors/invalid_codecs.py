"""Invalid vectors: streams that break a rule of their codec (spec/codecs)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from .assemble import build, leaf, one
from .cases import STEEP, Invalid
from .streams import (
    balanced,
    bitpack,
    checksum,
    frame,
    huffman,
    huffman_head,
    noise,
    pack_bits,
    rans,
    rans_chunk,
    rans_head,
    raw_block,
    rle_block,
    skewed,
    zstd,
)

__all__ = [
    "bitpack_streams",
    "huffman_bits",
    "huffman_heads",
    "huffman_sync_points",
    "rans_streams",
    "raw_streams",
    "zstd_streams",
]


def broken(codec: str, name: str, rule: str, stream: bytes, data: bytes, found_by: str = "load") -> Invalid:
    """A stream that is said to hold ``data``."""
    content = one("U8", [len(data)], data, leaf(codec, stream))
    return Invalid(f"{codec}-{name}", f"codecs/{codec}.md: {rule}", "stream", found_by, build(content))


def raw_streams() -> Iterator[Invalid]:
    """codecs/raw.md."""
    yield broken("raw", "too-long", "the decoded size is the stream's", b"abcd", b"abc")
    yield broken("raw", "of-an-empty-tensor", "the decoded size is the stream's", b"a", b"")


def zstd_streams() -> Iterator[Invalid]:
    """codecs/zstd.md."""

    def of(name: str, rule: str, stream: bytes, data: bytes = b"aaaaa") -> Invalid:
        return broken("zstd", name, rule, stream, data)

    five = frame(5, raw_block(b"aaaaa"))
    range_rule = "chunk_log2 is within 16 .. 26"
    yield of("chunk_log2-too-small", range_rule, zstd([five], 15))
    yield of("chunk_log2-too-large", range_rule, zstd([five], 27))
    yield of("chunk_log2-of-255", range_rule, zstd([five], 255))
    yield of("chunk_log2-of-an-empty-stream", range_rule, zstd([], 15), b"")
    yield of("of-nothing", "a stream begins with chunk_log2", b"", b"")
    sizes = "the sizes of the frames add up to the rest of the stream"
    yield of("sizes-cut-off", sizes, b"\x16\5\0\0")
    yield of("sizes-missing", sizes, b"\x16")
    yield of("sizes-too-small", sizes, b"\x16" + struct.pack("<I", len(five) - 1) + five)
    yield of("sizes-too-large", sizes, b"\x16" + struct.pack("<I", len(five) + 1) + five)
    yield of("sizes-of-32-bits", sizes, b"\x16" + struct.pack("<I", 2**32 - 1) + five)
    wrapping = struct.pack("<II", 2**32 - 2, len(five) + 2)
    yield of("sizes-that-overflow", sizes, b"\x10" + wrapping + five, bytes(65537))
    yield of("empty-with-a-byte-more", sizes, b"\x16\0", b"")
    yield of("frame-missing", sizes, zstd([frame(65536, rle_block(0, 65536))], 16), bytes(65537))
    yield of("frame-too-many", sizes, zstd([five, five]))
    stated = "a frame states the size of its chunk"
    yield of("frame-without-a-size", stated, zstd([frame(0, raw_block(b"aaaaa"), head=b"\0\0")]))
    yield of("frame-of-another-size", stated, zstd([frame(6, raw_block(b"aaaaaa"))]))
    whole = [frame(65537, rle_block(0, 65537))]
    yield of("frame-of-two-chunks", stated, zstd(whole, 16) + bytes(4), bytes(65537))
    uneven = [frame(1, raw_block(b"\0")), frame(65536, rle_block(0, 65536))]
    yield of("short-chunk-first", stated, zstd(uneven, 16), bytes(65537))
    fits = "a frame is followed by nothing and decodes"
    yield of("frame-of-fewer-bytes", fits, zstd([frame(5, raw_block(b"aaaa"))]))
    yield of("frame-of-more-bytes", fits, zstd([frame(5, raw_block(b"aaaaaa"))]))
    yield of("frame-with-a-byte-more", fits, zstd([five + b"\0"]))
    yield of("frame-and-another", fits, zstd([five + frame(0, raw_block(b""))]))
    yield of("frame-and-a-skippable-one", fits, zstd([five + b"\x50\x2a\x4d\x18\0\0\0\0"]))
    yield of("frame-behind-a-skippable-one", fits, zstd([b"\x50\x2a\x4d\x18\0\0\0\0" + five]))
    yield of("frame-cut-off", fits, zstd([five[:-1]]))
    yield of("frame-of-its-head-alone", fits, zstd([five[:9]]))
    yield of("frame-of-nothing", fits, zstd([b""]))
    yield of("frame-of-another-format", fits, zstd([noise(20)]))
    yield of("frame-with-a-reserved-block", fits, zstd([frame(5, (3, 5, b"aaaaa"))]))
    yield of("frame-with-a-broken-block", fits, zstd([frame(5, (2, 5, b"\xff\xff\xff\xff\xff"))]))
    yield of("frame-with-the-reserved-bit", fits, zstd([frame(5, raw_block(b"aaaaa"), head=b"\x28\5")]))
    wrong = frame(5, raw_block(b"aaaaa"), head=b"\x24\5") + checksum(b"aaaab")
    yield of("frame-with-a-wrong-checksum", fits, zstd([wrong]))
    dictionary = frame(5, raw_block(b"aaaaa"), head=b"\x21\7\5")
    yield of("frame-with-a-dictionary", "a frame needs no dictionary", zstd([dictionary]))


def bitpack_streams() -> Iterator[Invalid]:
    """codecs/bitpack.md."""

    def of(name: str, rule: str, stream: bytes, data: bytes) -> Invalid:
        return broken("bitpack", name, rule, stream, data)

    data = bytes(range(8)) + b"\1\2"
    good = bitpack(data, 3)
    yield of("width-of-0", "width is within 1 .. 7", b"\0" + good[1:], bytes(10))
    yield of("width-of-8", "width is within 1 .. 7", b"\x08" + data, data)
    yield of("width-of-255", "width is within 1 .. 7", b"\xff" + good[1:], data)
    size = "the stream has exactly 1 + the sum of the blocks' bytes"
    yield of("too-short", size, good[:-1], data)
    yield of("too-long", size, good + b"\0", data)
    yield of("of-nothing", size, b"", b"")
    yield of("empty-with-a-byte-more", size, b"\1\0", b"")
    yield of("without-blocks", size, b"\7", bytes(8))
    yield of("second-block-missing", size, bitpack(bytes(1024), 2), bytes(1025))
    last = "the bits of the symbols that extend the last block are zero"
    yield of("bits-behind-the-last-symbol", last, bitpack(data, 3, fill=4), data)
    yield of("low-bits-behind-the-last-symbol", last, bitpack(data, 3, fill=1), data)
    yield of("bits-behind-one-symbol", last, bitpack(b"\0", 1, fill=1), b"\0")
    yield of("bits-behind-the-second-block", last, bitpack(bytes(1025), 7, fill=64), bytes(1025))


THREE = {0x61: 1, 0x62: 2, 0x63: 2}
SEVEN = b"aaaabbc"


def huffman_heads() -> Iterator[Invalid]:
    """codecs/huffman.md, sections 1 and 2."""

    def of(name: str, section: str, stream: bytes, data: bytes = SEVEN) -> Invalid:
        return broken("huffman", name, f"section {section}", stream, data)

    good = huffman(SEVEN, THREE)
    yield of("without-symbols", "1: there is a symbol", good, b"")
    yield of("of-nothing", "1: there is a symbol", b"", b"")
    yield of("chunk_log2-too-small", "1: chunk_log2 is within 12 .. 20", b"\x0b" + good[1:])
    yield of("chunk_log2-too-large", "1: chunk_log2 is within 12 .. 20", b"\x15" + good[1:])
    yield of("chunk_log2-of-255", "1: chunk_log2 is within 12 .. 20", b"\xff" + good[1:])
    yield of("sync_width-too-large", "1: sync_width is at most 25", good[:1] + b"\x1a" + good[2:])
    yield of("sync_width-of-255", "1: sync_width is at most 25", good[:1] + b"\xff" + good[2:])
    yield of("first-beyond-last", "1: first does not exceed last", good[:2] + b"\x63\x61" + good[4:])
    places = {"head": 3, "code-lengths": 5, "bits-of-chunks": 9, "chunks": len(good) - 1}
    for name, cut in places.items():
        yield of(f"cut-off-within-the-{name}", "1: the parts of the stream", good[:cut])
    yield of("cut-off-before-the-chunks", "3: the chunks fill the rest", good[:10])
    yield of("with-a-byte-more", "3: the chunks fill the rest", good + b"\0")

    def lengths(name: str, rule: str, given: dict[int, int], total: int = 10) -> Invalid:
        return of(f"code-lengths-{name}", f"2: {rule}", huffman_head(given, [total], 18, 0) + b"\x50\x03")

    lengths_of_thirteen = {symbol: min(symbol + 1, 13) for symbol in range(14)}
    yield lengths("of-13", "a length is at most 12", lengths_of_thirteen)
    yield lengths("of-15", "a length is at most 12", {0: 1, 1: 2, 2: 15})
    yield lengths("first-without-code", "first has a code", {0x60: 0, **THREE})
    yield lengths("last-without-code", "last has a code", {**THREE, 0x64: 0})
    yield lengths("none", "first has a code", {0x61: 0, 0x63: 0})
    kraft = "Kraft's equality"
    yield lengths("too-few", kraft, {0x61: 2, 0x62: 2, 0x63: 2})
    yield lengths("too-many", kraft, {0x61: 1, 0x62: 2, 0x63: 2, 0x64: 12})
    yield lengths("far-too-many", kraft, dict.fromkeys(range(256), 1))
    yield lengths("twice-the-space", kraft, {0x61: 1, 0x62: 1, 0x63: 1, 0x64: 1})
    yield lengths("of-two-symbols-too-few", kraft, {0x61: 1, 0x63: 2})
    yield lengths("of-256-symbols-too-few", kraft, dict.fromkeys(range(256), 12))
    one_symbol = "the only symbol's length is 1"
    yield of("one-symbol-of-length-2", f"2: {one_symbol}", huffman_head({7: 2}, [2], 18, 0) + b"\0", b"\7")
    yield of(
        "one-symbol-of-length-12", f"2: {one_symbol}", huffman_head({7: 12}, [12], 18, 0) + b"\0\0", b"\7"
    )
    yield of("one-symbol-without-length", f"2: {one_symbol}", huffman_head({7: 0}, [1], 18, 0) + b"\0", b"\7")
    half = good[:5] + bytes([good[5] | 0x10]) + good[6:]
    yield of("unused-half-not-zero", "2: the unused half of the last byte is 0", half)


def huffman_bits() -> Iterator[Invalid]:
    """codecs/huffman.md, section 3."""

    def of(name: str, rule: str, stream: bytes, data: bytes = SEVEN) -> Invalid:
        return broken("huffman", name, f"section 3: {rule}", stream, data)

    def bits(total: int, coded: str) -> bytes:
        return huffman_head(THREE, [total], 18, 0) + pack_bits(coded)

    exact = "the symbols of a chunk take exactly its bits"
    yield of("bits-one-less", exact, bits(9, "000010101"))
    yield of("bits-one-more", exact, bits(11, "00001010110"))
    yield of("bits-for-a-symbol-less", exact, bits(8, "00001010"))
    yield of("bits-for-a-symbol-more", exact, bits(12, "000010101111"))
    yield of("bits-that-end-within-a-code", exact, bits(10, "0000101001"))
    yield of("bits-of-long-codes-only", exact, bits(10, "1111111111"))
    yield of("bits-none", exact, bits(0, ""))
    fill = "the chunks fill the rest of the stream"
    yield of("bits-of-32-bits", fill, bits(2**32 - 1, "0000101011"))
    yield of("bits-in-a-byte-too-many", fill, bits(10, "0000101011" + "0" * 8))
    unused = "the unused bits of a chunk's last byte are 0"
    yield of("unused-bits-not-zero", unused, bits(10, "00001010111"))
    yield of("last-unused-bit-not-zero", unused, bits(10, "0000101011000001"))
    zero = "every bit of a one-symbol stream is 0"
    head = huffman_head({7: 1}, [9], 18, 0)
    yield of("one-symbol-with-a-bit", zero, head + b"\x10\0", b"\7" * 9)
    yield of("one-symbol-with-a-last-bit", zero, head + b"\0\1", b"\7" * 9)
    yield of("one-symbol-of-more-bits", exact, huffman_head({7: 1}, [10], 18, 0) + b"\0\0", b"\7" * 9)
    data = skewed(9000, STEEP)
    good = huffman(data, STEEP, 12)
    at = len(huffman_head(STEEP, [], 12, 0))
    totals = list(struct.unpack("<3I", good[at : at + 12]))
    moved = struct.pack("<3I", totals[0] - 8, totals[1] + 8, totals[2])
    yield of("bits-of-two-chunks-moved", exact, good[:at] + moved + good[at + 12 :], data)
    wrapping = struct.pack("<3I", totals[0], totals[1], totals[2] | 0x80000000)
    yield of("bits-of-a-chunk-too-many", fill, good[:at] + wrapping + good[at + 12 :], data)
    yield of("chunk-missing", fill, huffman(data[:4096], STEEP, 12), data[:4097])
    yield of("chunk-too-many", fill, huffman(data[:4097], STEEP, 12), data[:4096])


def huffman_sync_points() -> Iterator[Invalid]:
    """codecs/huffman.md, section 4."""

    def of(name: str, rule: str, stream: bytes, data: bytes, found_by: str = "validate") -> Invalid:
        return broken("huffman", f"sync-{name}", f"section 4: {rule}", stream, data, found_by)

    data = skewed(4096, STEEP, 3)
    at = len(huffman_head(STEEP, [0], 12, 0))
    lies = "every sync point is where its symbol begins"

    def patched(width: int, place: int, change: int) -> bytes:
        stream = bytearray(huffman(data, STEEP, 12, width))
        points = int.from_bytes(stream[at : at + (3 * width + 7) // 8], "little")
        points += change << place * width
        stream[at : at + (3 * width + 7) // 8] = points.to_bytes((3 * width + 7) // 8, "little")
        return bytes(stream)

    for place in range(3):
        yield of(f"point-{place}-a-bit-too-far", lies, patched(10, place, 1), data)
    yield of("point-a-bit-too-near", lies, patched(10, 1, -1), data)
    yield of("point-far-off", lies, patched(16, 2, 700), data)
    within = "a position is within 0 .. T"
    yield of("point-beyond-the-chunk", within, patched(25, 0, 1 << 23), data)
    yield of("point-before-the-chunk", within, patched(25, 2, -(1 << 23)), data)
    yield of("width-0-off-the-line", lies, huffman_head(STEEP, [bits_of(data)], 12, 0) + coded(data), data)
    unused = bytearray(huffman(data, STEEP, 12, 9))
    unused[at + 3] |= 0x80
    yield of("unused-bits-not-zero", "the unused bits of the last byte are 0", bytes(unused), data, "load")
    two = skewed(8192, balanced(range(3)), 5)
    stream = bytearray(huffman(two, balanced(range(3)), 12, 12))
    start = len(huffman_head(balanced(range(3)), [0, 0], 12, 0))
    stream[start + 5] ^= 0x10
    yield of("point-of-the-second-chunk", lies, bytes(stream), two)


def rans_streams() -> Iterator[Invalid]:
    """codecs/rans.md."""

    def of(name: str, section: str, stream: bytes, data: bytes = SEVEN) -> Invalid:
        return broken("rans", name, f"section {section}", stream, data)

    three = {0x61: 2048, 0x62: 1365, 0x63: 683}
    good = rans(SEVEN, three)
    head = rans_head(three, 18)
    yield of("without-symbols", "1: there is a symbol", good, b"")
    yield of("of-nothing", "1: there is a symbol", b"", b"")
    yield of("chunk_log2-too-small", "1: chunk_log2 is within 12 .. 20", b"\x0b" + good[1:])
    yield of("chunk_log2-too-large", "1: chunk_log2 is within 12 .. 20", b"\x15" + good[1:])
    yield of("first-beyond-last", "1: first does not exceed last", good[:1] + b"\x63\x61" + good[3:])
    places = {"head": 2, "sizes": 4, "frequencies": len(head) - 1, "sizes-of-chunks": len(head) + 3}
    for name, cut in (places | {"states": len(good) - 1}).items():
        yield of(f"cut-off-within-the-{name}", "1: the parts of the stream", good[:cut])
    yield of("with-a-byte-more", "3: the chunks fill the rest", good + b"\0")

    def frequencies(name: str, rule: str, given: dict[int, int]) -> Invalid:
        return of(f"frequencies-{name}", f"2: {rule}", rans_head(given, 18) + good[len(head) :])

    sums = "the frequencies add up to 4096"
    yield frequencies("too-few", sums, {0x61: 2048, 0x62: 1365, 0x63: 682})
    yield frequencies("too-many", sums, {0x61: 2048, 0x62: 1365, 0x63: 684})
    yield frequencies("far-too-many", sums, dict.fromkeys(range(256), 4095))
    yield frequencies("of-13-bits", "a size is at most 12", {0x61: 4096})
    yield frequencies("of-15-bits", "a size is at most 12", {0x61: 16384, 0x62: 1, 0x63: 1})
    yield frequencies("first-does-not-occur", "first has a size", {0x60: 0, **three})
    yield frequencies("last-does-not-occur", "last has a size", {**three, 0x64: 0})
    half = good[:4] + bytes([good[4] | 0x10]) + good[5:]
    yield of("unused-half-not-zero", "2: the unused half of the last size byte is 0", half)
    unused = good[: len(head) - 1] + bytes([good[len(head) - 1] | 0x80]) + good[len(head) :]
    yield of("unused-bit-not-zero", "2: an unused bit of the second field is 0", unused)

    def chunk(name: str, rule: str, content: bytes, data: bytes = SEVEN) -> Invalid:
        return of(name, f"3: {rule}", head + struct.pack("<I", len(content)) + content, data)

    size = "the size of a chunk is even and at least 128"
    states = rans_chunk(SEVEN, three)
    yield chunk("chunk-of-nothing", size, b"")
    yield chunk("chunk-of-126-bytes", size, states[:126])
    yield chunk("chunk-of-odd-size", size, states + b"\0")
    yield of("chunk-of-32-bits", "3: the chunks fill the rest", head + struct.pack("<I", 2**32 - 1) + states)
    least = "a state is at least 65536"
    yield chunk("state-of-0", least, bytes(4) + states[4:])
    yield chunk("state-of-65535", least, states[:124] + struct.pack("<I", 65535))
    many = skewed(2000, {0x61: 1, 0x62: 2, 0x63: 2})
    coded_many = rans_chunk(many, three)
    ends = "after the last symbol every state is 65536 and no word is left"
    yield chunk("word-missing", "a word is needed and there is none", coded_many[:-2], many)
    yield chunk("words-missing", "a word is needed and there is none", coded_many[:128], many)
    yield chunk("word-left", ends, coded_many + b"\0\0", many)
    yield chunk("word-left-where-none-is-needed", ends, states + b"\0\0")
    yield chunk("symbol-more", ends, rans_chunk(SEVEN + b"a", three))
    yield chunk("symbol-less", ends, rans_chunk(SEVEN[:-1], three))
    yield chunk("unused-state", ends, states[:124] + struct.pack("<I", 65537))
    yield chunk("state-changed", ends, struct.pack("<I", 2**32 - 1) + states[4:])
    swapped = coded_many[:128] + coded_many[130:132] + coded_many[128:130] + coded_many[132:]
    yield chunk("words-in-another-order", ends, swapped, many)


def bits_of(data: bytes) -> int:
    """Bits that symbols of the steep code take."""
    return sum(STEEP[symbol] for symbol in data)


def coded(data: bytes) -> bytes:
    """The chunk of one chunk's stream."""
    return huffman(data, STEEP, 12)[-((bits_of(data) + 7) // 8) :]
