"""Invalid vectors: codebooks of vectors, of rows and for groups of rows (spec/encodings/codebook.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .assemble import branch, one
from .cases import NBITS, Invalid, raw
from .invalid_encodings import Page

__all__ = ["codebooks_of_vectors", "codebooks_of_vectors_parts"]

PAGE = Page("codebook")
MEMBER = "a code is below size"


def coded(
    name: str,
    rule: str,
    codes: bytes,
    n_centroids: int,
    dtype: str = "U8",
    shape: tuple[int, ...] = (4, 6),
    **params: Any,
) -> Invalid:
    """A tensor of codes and zeros as centroids."""
    nbits = NBITS[dtype]
    n = 1
    for side in shape:
        n *= side
    centroids = raw(bytes(n_centroids * nbits // 8))
    node = branch("codebook", dict(sorted(params.items())), codes=raw(codes), centroids=centroids)
    found = ("stream", "load") if rule == MEMBER else ("format", "open")
    return PAGE.broken(name, rule, one(dtype, list(shape), bytes(n * nbits // 8), node), *found)


def codebooks_of_vectors() -> Iterator[Invalid]:
    """encodings/codebook.md: parameters that are not their defaults."""
    default = "a parameter that has its default is left out"
    yield coded("vector-of-1", default, bytes(24), 2, size=2, vector=1)
    yield coded("group_rows-of-0", default, bytes(24), 2, size=2, group_rows=0)
    vector = "vector is one of 0, 1, 2, 4 and 8"
    yield coded("vector-of-3", vector, bytes(8), 6, size=2, vector=3)
    yield coded("vector-of-16", vector, bytes(4), 32, size=2, vector=16, shape=(4, 16))
    yield coded("vector-negative", vector, bytes(24), 2, size=2, vector=-1)
    yield coded("vector-a-string", vector, bytes(12), 4, size=2, vector="2")
    yield coded("vector-of-63-bits", vector, bytes(24), 2, size=2, vector=2**63 - 1)
    size = "size is within 1 .. MAX_SIZE, or MAX_VECTORS"
    yield coded("of-pairs-size-of-0", size, bytes(12), 0, size=0, vector=2)
    yield coded("of-pairs-size-of-33-bits", size, bytes(48), 2, size=2**32 + 1, vector=2)
    yield coded("of-groups-size-of-257", size, bytes(48), 514, size=257, group_rows=2)
    yield coded("without-size", size, bytes(12), 4, vector=2)
    groups = "group_rows is within 0 .. 2^48, and 0 for whole rows"
    yield coded("group_rows-negative", groups, bytes(24), 2, size=2, group_rows=-1)
    yield coded("group_rows-too-large", groups, bytes(24), 2, size=2, group_rows=2**48 + 1)
    yield coded("group_rows-of-whole-rows", groups, bytes(4), 24, size=2, group_rows=2, vector=0)
    rank = "a tensor without dimensions has neither vectors nor rows"
    yield coded("of-no-dimensions-pairs", rank, bytes(1), 2, shape=(), size=1, vector=2)
    yield coded("of-no-dimensions-rows", rank, bytes(1), 1, shape=(), size=1, vector=0)
    yield coded("of-no-dimensions-groups", rank, bytes(1), 1, shape=(), size=1, group_rows=1)
    whole = "the last dimension is a multiple of vector"
    yield coded("of-fours-in-a-row-of-six", whole, bytes(6), 8, size=2, vector=4)
    yield coded("of-eights-in-rows-of-four", whole, bytes(2), 16, shape=(4, 4), size=2, vector=8)
    dtypes = "dtypes of 8, 16, 32 or 64 bits"
    yield coded("of-F4-pairs", dtypes, bytes(12), 4, "F4", size=2, vector=2)
    large = "the centroids take at most MAX_TENSOR_NBYTES"
    yield coded(
        "centroids-of-50-bits", large, bytes(16), 1, shape=(2**20, 4), size=2**32, vector=4, group_rows=8
    )


def codebooks_of_vectors_parts() -> Iterator[Invalid]:
    """encodings/codebook.md: the parts that they prescribe."""
    part = "the dtypes and shapes of the parts"
    yield coded("codes-of-pairs-too-short", part, bytes(11), 4, size=2, vector=2)
    yield coded("codes-of-one-byte-for-257", part, bytes(12), 514, size=257, vector=2)
    yield coded("codes-of-two-bytes-for-65537", part, bytes(24), 131074, size=65537, vector=2)
    yield coded("codes-of-rows-too-short", part, bytes(3), 12, size=2, vector=0)
    yield coded("centroids-of-pairs-too-short", part, bytes(12), 3, size=2, vector=2)
    yield coded("centroids-of-rows-too-short", part, bytes(4), 11, size=2, vector=0)
    yield coded("centroids-of-groups-too-short", part, bytes(24), 3, size=2, group_rows=3)
    yield coded(
        "another-parameter-of-vectors", "the parameters of the table", bytes(12), 4, size=2, vector=2, zzz=0
    )
    yield coded("code-of-pairs", MEMBER, bytes(11) + b"\2", 4, size=2, vector=2)
    yield coded("code-of-two-bytes", MEMBER, bytes(22) + b"\1\1", 514, size=257, vector=2)
    yield coded("code-of-rows", MEMBER, b"\0\1\0\2", 12, size=2, vector=0)
    yield coded("code-of-groups", MEMBER, b"\0\2" + bytes(22), 4, size=2, group_rows=2)
    empty = branch("codebook", {"size": 2, "vector": 0}, codes=raw(b"\1\2"), centroids=raw(b""))
    content = one("F32", [2, 0], b"", empty)
    yield PAGE.broken("code-of-empty-rows", MEMBER, content, "stream", "validate")
    empty = branch("codebook", {"size": 2, "vector": 0}, codes=raw(b"\1\0"), centroids=raw(b"\0"))
    content = one("F32", [2, 0], b"", empty)
    yield PAGE.broken(
        "centroids-of-empty-rows-too-long", "centroids has the shape", content, "stream", "validate"
    )
