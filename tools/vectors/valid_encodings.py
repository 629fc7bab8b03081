"""Valid vectors: the encodings, alone and within each other (spec/encodings)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

from . import floats
from .assemble import Entry, Object, branch, leaf, manifest, one, tensor
from .cases import NBITS, Valid, raw
from .streams import balanced, bitpack, frame, huffman, noise, raw_block, zstd

__all__ = [
    "alias_page",
    "codebook_page",
    "float_split_page",
    "narrow_page",
    "nested",
    "row_groups",
    "row_groups_page",
]


def float_split_page() -> Iterator[Valid]:
    """encodings/float_split.md."""
    for dtype, (exponent, mantissa) in floats.LAYOUTS.items():
        bits = list(range(256)) if dtype.startswith("F8") else floats.special(dtype)
        entries = []
        for k in sorted({0, 1, min(mantissa, 16 - exponent)}):
            room = max(0, (1 << exponent + k) - 256)
            for base in sorted({0, room // 2, room}):
                node = floats.float_split(dtype, bits, k, base)
                entries.append(tensor(f"{k} {base}", dtype, [len(bits)], floats.pack(dtype, bits), node))
        yield Valid(f"float_split-{dtype}", manifest(entries))
    yield Valid("float_split-empty", one("F32", [0, 4], b"", floats.float_split("F32", [])))
    yield Valid("float_split-one", one("F64", [], bytes(8), floats.float_split("F64", [0])))
    bits = floats.numbers("BF16", 5000)
    _, parts = floats.split("BF16", bits, 1, 128)
    lengths = balanced(set(parts["high"]))
    node = floats.float_split(
        "BF16",
        bits,
        1,
        128,
        high=leaf("huffman", huffman(parts["high"], lengths, 12)),
        rest0=leaf("zstd", zstd([frame(5000, raw_block(parts["rest0"]))])),
    )
    yield Valid("float_split-of-coded-parts", one("BF16", [50, 100], floats.pack("BF16", bits), node))


def narrow_page() -> Iterator[Valid]:
    """encodings/narrow.md."""
    for wide, narrow in (("F32", "F16"), ("F32", "BF16"), ("F64", "F16"), ("F64", "BF16"), ("F64", "F32")):
        bits = floats.special(narrow) + floats.numbers(narrow, 8)
        # Every subnormal whose leading one stands at another place.
        bits += [1 << place for place in range(floats.LAYOUTS[narrow][1])]
        data = floats.pack(wide, [floats.widen(narrow, wide, element) for element in bits])
        node = branch("narrow", {"dtype": narrow}, values=raw(floats.pack(narrow, bits)))
        yield Valid(f"narrow-{wide}-{narrow}", one(wide, [len(bits)], data, node))
    empty = branch("narrow", {"dtype": "F16"}, values=raw(b""))
    yield Valid("narrow-empty", one("F32", [2, 0], b"", empty))
    twice = branch(
        "narrow", {"dtype": "F32"}, values=branch("narrow", {"dtype": "BF16"}, values=raw(b"\x80\x3f"))
    )
    yield Valid("narrow-twice", one("F64", [], struct.pack("<d", 1.0), twice))


def row_groups(rows: Sequence[bytes], groups: bytes, store: Callable[[int, bytes], Object]) -> Object:
    """A branch whose parts are stored as ``store`` says for each group."""
    parts = [
        b"".join(row for row, g in zip(rows, groups, strict=True) if g == i) for i in range(max(groups) + 1)
    ]
    nodes = {str(i): store(i, part) for i, part in enumerate(parts)}
    return branch(
        "row_groups", {"rows": [groups.count(i) for i in range(len(parts))]}, group=raw(groups), **nodes
    )


def row_groups_page() -> Iterator[Valid]:
    """encodings/row_groups.md."""

    def of(name: str, dtype: str, shape: list[int], data: bytes, groups: bytes) -> Valid:
        row = len(data) // shape[0]
        rows = [data[at * row : (at + 1) * row] for at in range(shape[0])]
        node = row_groups(rows, groups, lambda _, part: raw(part))
        return Valid(f"row_groups-{name}", one(dtype, shape, data, node))

    yield of("two", "F16", [5, 3, 2], noise(60), bytes([0, 1, 1, 0, 1]))
    yield of("one", "U8", [2, 2], noise(4), bytes(2))
    yield of("most", "I16", [40], noise(80), bytes(i % 32 for i in range(40)))
    yield of("of-one-dimension", "C64", [3], noise(24), bytes([1, 0, 2]))
    yield of("of-empty-rows", "F32", [4, 0], b"", bytes([0, 1, 0, 1]))
    yield of("under-eight-bits", "F4", [3, 2], noise(3), bytes([1, 0, 1]))


def codebook_page() -> Iterator[Valid]:
    """encodings/codebook.md."""

    def of(dtype: str, n: int, size: int) -> Entry:
        nbytes = NBITS[dtype] // 8
        centroids = b"".join(noise(nbytes, seed) for seed in range(size))
        codes = bytes(code % size for code in noise(n))
        data = b"".join(centroids[code * nbytes : (code + 1) * nbytes] for code in codes)
        node = branch("codebook", {"size": size}, codes=raw(codes), centroids=raw(centroids))
        return tensor(f"{dtype} {n} {size}", dtype, [n], data, node)

    dtypes = [dtype for dtype, nbits in NBITS.items() if nbits % 8 == 0]
    yield Valid("codebook-dtypes", manifest([of(dtype, 5, 3) for dtype in dtypes]))
    yield Valid("codebook-largest", manifest([of("F32", 300, 256)]))
    yield Valid("codebook-one-value", manifest([of("BF16", 9, 1), of("F64", 0, 1)]))
    codes = leaf("huffman", huffman(bytes([0, 0, 1, 0]), {0: 1, 1: 1}))
    zeros = branch("codebook", {"size": 2}, codes=codes, centroids=raw(b"\0\0\0\x80" + bytes(4)))
    data = b"\0\0\0\x80" * 2 + bytes(4) + b"\0\0\0\x80"
    yield Valid("codebook-of-both-zeros", one("F32", [2, 2], data, zeros))


def alias_page() -> Iterator[Valid]:
    """encodings/alias.md."""
    data = noise(12)
    entries = [tensor("wte", "F32", [1, 3], data, raw(data)), tensor("between", "U8", [], b"\1", raw(b"\1"))]
    entries.append(tensor("lm_head", "F32", [1, 3], data, branch("alias", {"target": "wte", "tied": 1})))
    entries.append(tensor("copy", "F32", [1, 3], data, branch("alias", {"target": "wte", "tied": 0})))
    yield Valid("alias", manifest(entries))
    merged = branch("alias", {"target": "wte", "tied": 0})
    own = tensor("near", "F32", [1, 3], data, merged, quality={"error_ppb": 999_999, "cosine_ppb": 1})
    lossy = tensor("wte", "F32", [1, 3], data, raw(data), quality={"error_ppb": 5, "coded_millibits": 32000})
    yield Valid("alias-of-a-merged-tensor", manifest([entries[0], own]))
    yield Valid("alias-of-a-lossy-tensor-merged", manifest([lossy, own, entries[1], entries[2]]))


def nested() -> Iterator[Valid]:
    """Encodings within encodings, to the greatest depth."""
    bits = floats.numbers("BF16", 120)
    wide = [floats.widen("BF16", "F32", element) for element in bits]
    rows = [floats.pack("F32", wide[at : at + 20]) for at in range(0, 120, 20)]

    def store(group: int, part: bytes) -> Object:
        if group == 1:
            return leaf("zstd", zstd([frame(len(part), raw_block(part))]))
        elements = [int.from_bytes(part[at + 2 : at + 4], "little") for at in range(0, len(part), 4)]
        _, parts = floats.split("BF16", elements, 0, 0)
        high = leaf("huffman", huffman(parts["high"], balanced(set(parts["high"]))))
        rest = branch(
            "row_groups",
            {"rows": [len(elements)]},
            group=leaf("bitpack", bitpack(bytes(len(elements)), 1)),
            **{"0": raw(parts["rest0"])},
        )
        return branch(
            "narrow", {"dtype": "BF16"}, values=floats.float_split("BF16", elements, high=high, rest0=rest)
        )

    node = row_groups(rows, bytes([0, 0, 1, 0, 1, 1]), store)
    yield Valid("nested-rows-narrow-split", one("F32", [6, 4, 5], b"".join(rows), node))
    split = floats.numbers("F16", 40)
    _, parts = floats.split("F16", split)
    sevenths = bytes(byte & 7 for byte in parts["rest1"])
    coded = floats.float_split("F16", split, rest1=leaf("bitpack", bitpack(sevenths, 3)))
    table = sorted(set(parts["high"]))
    codes = bytes(table.index(h) for h in parts["high"])
    packed = leaf("bitpack", bitpack(codes, 6))
    coded["parts"]["high"] = branch(
        "codebook", {"size": len(table)}, codes=packed, centroids=raw(bytes(table))
    )
    yield Valid("nested-split-of-codebook", one("F16", [40], floats.pack("F16", split), coded))
    deepest: Object = raw(b"\5\6")
    for _ in range(7):
        deepest = branch("row_groups", {"rows": [2]}, group=raw(b"\0\0"), **{"0": deepest})
    yield Valid("nested-eight-deep", one("U8", [2], b"\5\6", deepest))
