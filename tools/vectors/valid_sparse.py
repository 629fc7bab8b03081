"""Valid vectors: encodings of tensors in which one value is frequent (spec/encodings)."""

from __future__ import annotations

from collections.abc import Iterator

from .assemble import Entry, Object, branch, leaf, manifest, one, tensor
from .cases import NBITS, Valid, raw
from .streams import bitpack, huffman, noise

__all__ = ["bitmask", "bitmask_page", "gap_index", "gap_index_page", "mask_bits", "sparse_bytes"]


def sparse_bytes(dtype: str, n: int, fill: int = 0, one_in: int = 4) -> bytes:
    """Elements of which about one in some is not ``fill``."""
    nbytes = NBITS[dtype] // 8
    others = noise(n * nbytes, 7)
    kept = [byte % one_in == 0 for byte in noise(n, 8)]
    left_out = fill.to_bytes(nbytes, "little")
    pieces = [others[i * nbytes : (i + 1) * nbytes] if kept[i] else left_out for i in range(n)]
    return b"".join(pieces)


def elements_of(dtype: str, data: bytes) -> list[bytes]:
    """The bytes of each element."""
    nbytes = NBITS[dtype] // 8
    return [data[at : at + nbytes] for at in range(0, len(data), nbytes)]


def mask_bits(bits: list[bool], stride: int) -> bytes:
    """A mask, in the order of the page."""
    out = bytearray(-(-len(bits) // 8))
    mixed = len(bits) // (8 * stride) * (8 * stride)
    for element, bit in enumerate(bits):
        place = element
        if element < mixed:
            block, within = divmod(element, 8 * stride)
            j, b = divmod(within, stride)
            place = 8 * (stride * block + b) + j
        out[place // 8] |= bit << place % 8
    return bytes(out)


def bitmask(dtype: str, data: bytes, fill: int = 0, stride: int = 1, **coded: Object) -> Object:
    """A branch; ``coded`` has parts that are not stored raw."""
    left_out = fill.to_bytes(NBITS[dtype] // 8, "little")
    elements = elements_of(dtype, data)
    is_set = [element != left_out for element in elements]
    values = [element for element in elements if element != left_out]
    parts = {"mask": raw(mask_bits(is_set, stride)), "values": raw(b"".join(values))} | coded
    return branch("bitmask", {"count": len(values), "fill": fill, "stride": stride}, **parts)


def bitmask_page() -> Iterator[Valid]:
    """encodings/bitmask.md."""

    def of(dtype: str, n: int, fill: int = 0, stride: int = 1) -> Entry:
        data = sparse_bytes(dtype, n, fill)
        name = f"{dtype} {n} {fill} {stride}"
        return tensor(name, dtype, [n], data, bitmask(dtype, data, fill, stride))

    dtypes = [dtype for dtype, nbits in NBITS.items() if nbits % 8 == 0]
    yield Valid("bitmask-dtypes", manifest([of(dtype, 21) for dtype in dtypes]))
    sizes = [0, 1, 7, 8, 9, 63, 64, 65, 200]
    yield Valid("bitmask-sizes", manifest([of("BF16", n) for n in sizes]))
    fills = [("U8", 255), ("I8", 1), ("F16", 0x3C00), ("F32", 0x80000000), ("F32", 2**32 - 1)]
    fills += [("F64", 2**63 - 1), ("U64", 1)]
    yield Valid("bitmask-fills", manifest([of(dtype, 30, fill) for dtype, fill in fills]))
    strides = [(64, 2), (64, 8), (63, 3), (200, 9), (200, 24), (200, 25), (200, 26), (40, 2**48), (7, 3)]
    yield Valid("bitmask-strides", manifest([of("F16", n, 0, stride) for n, stride in strides]))
    full, empty = noise(64, 3).replace(b"\0", b"\1"), bytes(64)
    whole = [tensor("all", "U8", [8, 8], full, bitmask("U8", full))]
    whole.append(tensor("none", "F32", [16], empty, bitmask("F32", empty)))
    yield Valid("bitmask-of-all-and-of-none", manifest(whole))
    kept = branch("bitmask", {"count": 3, "fill": 7, "stride": 1}, mask=raw(b"\x2a"), values=raw(b"\7\1\7"))
    yield Valid("bitmask-of-values-that-are-the-fill", one("U8", [6], b"\7\7\7\1\7\7", kept))
    zeros = b"\0\0\0\x80" + bytes(4) + b"\0\0\xc0\x7f"
    yield Valid("bitmask-of-both-zeros", one("F32", [3], zeros, bitmask("F32", zeros)))
    data = sparse_bytes("U8", 3000, 0, 10)
    bits = mask_bits([byte != 0 for byte in data], 1)
    values = bytes(byte % 16 | 1 for byte in data if byte)
    data = bytes(values[sum(b != 0 for b in data[:i])] if byte else 0 for i, byte in enumerate(data))
    lengths = dict.fromkeys(range(256), 8)
    coded = bitmask(
        "U8", data, mask=leaf("huffman", huffman(bits, lengths)), values=leaf("bitpack", bitpack(values, 4))
    )
    yield Valid("bitmask-of-coded-parts", one("U8", [30, 100], data, coded))


def gaps_of(is_set: list[bool], max_gap: int) -> bytes:
    """The gaps of a tensor, with no filler behind the last value."""
    out = bytearray()
    gap = 0
    for bit in is_set:
        if bit:
            out += bytes([max_gap]) * (gap // max_gap) + bytes([gap % max_gap])
            gap = 0
        else:
            gap += 1
    return bytes(out)


def gap_index(dtype: str, data: bytes, fill: int = 0, max_gap: int = 255) -> Object:
    """A branch."""
    left_out = fill.to_bytes(NBITS[dtype] // 8, "little")
    elements = elements_of(dtype, data)
    gaps = gaps_of([element != left_out for element in elements], max_gap)
    values = [element for element in elements if element != left_out]
    params = {"count": len(values), "fill": fill, "gaps": len(gaps), "max_gap": max_gap}
    return branch("gap_index", params, gaps=raw(gaps), values=raw(b"".join(values)))


def gap_index_page() -> Iterator[Valid]:
    """encodings/gap_index.md."""

    def of(dtype: str, n: int, fill: int = 0, max_gap: int = 255, one_in: int = 9) -> Entry:
        data = sparse_bytes(dtype, n, fill, one_in)
        name = f"{dtype} {n} {fill} {max_gap}"
        return tensor(name, dtype, [n], data, gap_index(dtype, data, fill, max_gap))

    dtypes = [dtype for dtype, nbits in NBITS.items() if nbits % 8 == 0]
    yield Valid("gap_index-dtypes", manifest([of(dtype, 21) for dtype in dtypes]))
    gaps = [1, 2, 3, 15, 254]
    yield Valid("gap_index-fillers", manifest([of("BF16", 300, 0, max_gap) for max_gap in gaps]))
    fills = [("U8", 255), ("F32", 0x80000000), ("F64", 2**63 - 1)]
    yield Valid("gap_index-fills", manifest([of(dtype, 30, fill) for dtype, fill in fills]))
    far = bytes(2000) + b"\1" + bytes(510) + b"\2"
    full, empty = noise(64, 3).replace(b"\0", b"\1"), bytes(64)
    entries = [tensor("far", "U8", [len(far)], far, gap_index("U8", far))]
    entries.append(tensor("all", "F32", [4, 4], full, gap_index("F32", full)))
    entries.append(tensor("none", "F32", [16], empty, gap_index("F32", empty)))
    entries.append(tensor("empty", "F32", [0, 3], b"", gap_index("F32", b"")))
    yield Valid("gap_index-far-all-and-none", manifest(entries))
    params = {"count": 2, "fill": 7, "gaps": 6, "max_gap": 2}
    node = branch("gap_index", params, gaps=raw(b"\2\0\2\2\1\2"), values=raw(b"\7\1"))
    # Fillers behind the last value, up to the end; a value that could have been left out.
    data = b"\7" * 8 + b"\1" + b"\7" * 2
    yield Valid("gap_index-fillers-to-the-end", one("U8", [11], data, node))
