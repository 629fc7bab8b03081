"""Valid vectors: codebooks of vectors, of rows and for groups of rows (spec/encodings/codebook.md)."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence

from .assemble import Entry, Object, branch, leaf, manifest, one, tensor
from .cases import NBITS, Valid, raw
from .streams import bitpack, noise

__all__ = ["codebooks_of_vectors_page"]


def codes_of(n: int, size: int) -> list[int]:
    """Codes that are not in order; the last one is the highest."""
    found = [(7 * i * i + i) % size for i in range(n)]
    return [*found[:-1], size - 1] if n else []


def codebook(
    shape: Sequence[int], dtype: str, size: int, vector: int, group_rows: int
) -> tuple[bytes, Object]:
    """Bytes of a tensor, and the branch that they are stored as."""
    element = NBITS[dtype] // 8
    n_rows = shape[0] if shape else 1
    unit = element * (vector or math.prod(shape[1:]))
    n_codes = math.prod(shape) // vector if vector else n_rows
    n_books = -(-n_rows // group_rows) if group_rows else 1
    centroids = noise(n_books * size * unit, size)
    codes = codes_of(n_codes, size)
    data = bytearray()
    for i, code in enumerate(codes):
        book = i // (n_codes // n_rows) // group_rows if group_rows else 0
        at = (book * size + code) * unit
        data += centroids[at : at + unit]
    params: Object = {"group_rows": group_rows} if group_rows else {}
    params["size"] = size
    if vector != 1:
        params["vector"] = vector
    letter = "B" if size <= 256 else "H" if size <= 65536 else "I"
    packed = struct.pack(f"<{len(codes)}{letter}", *codes)
    return bytes(data), branch("codebook", params, codes=raw(packed), centroids=raw(centroids))


def codebooks_of_vectors_page() -> Iterator[Valid]:
    """encodings/codebook.md: parameters that are not their defaults."""

    def of(dtype: str, shape: list[int], size: int, vector: int = 1, group_rows: int = 0) -> Entry:
        data, node = codebook(shape, dtype, size, vector, group_rows)
        return tensor(f"{dtype} {shape} {size} {vector} {group_rows}", dtype, shape, data, node)

    dtypes = [dtype for dtype, nbits in NBITS.items() if nbits % 8 == 0]
    yield Valid("codebook-pairs", manifest([of(dtype, [3, 4], 3, 2) for dtype in dtypes]))
    eights = [of("F32", [4, 8], 2, 8), of("BF16", [2, 3, 16], 5, 8), of("F64", [8], 1, 8)]
    yield Valid("codebook-of-fours-and-eights", manifest([of("F16", [5, 8], 7, 4), *eights]))
    rows = [of("F16", [6, 5], 3, 0), of("U8", [4, 3, 2], 2, 0), of("I64", [7], 4, 0), of("F32", [3, 0], 2, 0)]
    yield Valid("codebook-rows", manifest([*rows, of("F32", [0, 4], 2, 0)]))
    groups = [of("F16", [6, 5], 3, 1, 2), of("F16", [7, 4], 3, 2, 3), of("U8", [4, 8], 2, 8, 1)]
    groups += [of("F32", [5], 2, 1, 2), of("F32", [3, 2], 2, 1, 2**48), of("F32", [0, 2], 2, 1, 4)]
    yield Valid("codebook-groups", manifest([*groups, of("F32", [3, 0], 2, 1, 2)]))
    wide = [of("U8", [300, 4], 257, 2), of("BF16", [40, 2], 256, 2), of("U8", [20, 2], 65536, 2)]
    yield Valid("codebook-codes-of-two-bytes", manifest(wide))
    yield Valid("codebook-codes-of-four-bytes", manifest([of("U8", [9, 2], 65537, 2)]))
    params = {"size": 3, "vector": 4}
    packed = leaf("bitpack", bitpack(b"\2\0\1", 2))
    node = branch("codebook", params, codes=packed, centroids=raw(bytes(range(12))))
    yield Valid("codebook-of-coded-parts", one("U8", [3, 4], bytes([8, 9, 10, 11, *range(8)]), node))
