"""Invalid vectors: products of matrices (spec/encodings/product.md)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .assemble import branch, one
from .cases import NBITS, Invalid, raw
from .invalid_encodings import Page

__all__ = ["products"]


def products() -> Iterator[Invalid]:
    """encodings/product.md."""
    page = Page("product")

    def of(
        name: str,
        rule: str,
        whole: str = "F32",
        shape: tuple[int, ...] = (2, 3),
        left: int = 8,
        right: int = 12,
        **params: Any,
    ) -> Invalid:
        n = 1
        for side in shape:
            n *= side
        found = ("stream", "load") if name.endswith("-too-long") else ("format", "open")
        given = dict(sorted(({"dtype": "F16", "rank": 2} | params).items()))
        node = branch("product", given, left=raw(bytes(left)), right=raw(bytes(right)))
        return page.broken(name, rule, one(whole, list(shape), bytes(n * NBITS[whole] // 8), node), *found)

    rank = "rank is 1 .. MAX_RANK"
    yield of("rank-of-0", rank, left=0, right=0, rank=0)
    yield of("rank-negative", rank, rank=-1)
    yield of("rank-of-4097", rank, left=16388, right=24582, rank=4097)
    yield of("rank-of-63-bits", rank, rank=2**63 - 1)
    yield of("rank-a-string", rank, rank="2")
    dtype = "dtype is F32, F16 or BF16"
    for name in ("F64", "F8_E4M3", "U16", "f16", ""):
        yield of(f"of-factors-of-{name or 'nothing'}", dtype, left=64, right=96, dtype=name)
    yield of("another-parameter", "the parameters are dtype and rank", zzz=0)
    dtypes = "dtypes F16, BF16, F32 and F64"
    for name in ("F8_E4M3", "F8_E8M0", "U8", "I32", "C64", "F4"):
        yield of(f"of-{name}", dtypes, name, (2, 4), right=16)
    dimensions = "the tensor has two dimensions or more"
    yield of("of-one-dimension", dimensions, shape=(6,))
    yield of("of-no-dimensions", dimensions, shape=(), left=4, right=4)
    large = "no matrix takes more than MAX_TENSOR_NBYTES"
    yield of("left-too-large", large, shape=(2**47, 0), right=0)
    yield of("right-too-large", large, shape=(0, 2**47), left=0)
    parts = "left is [m, r], right is [r, n]"
    yield of("left-too-short", parts, left=7)
    yield of("right-too-short", parts, right=11)
    yield of("left-too-long", parts, left=9)
    yield of("right-too-long", parts, right=13)
    empty = branch("product", {"dtype": "F16", "rank": 2}, left=raw(bytes(1)), right=raw(bytes(12)))
    content = one("F32", [0, 3], b"", empty)
    yield page.broken("left-of-no-rows-too-long", parts, content, "stream", "validate")
    names = "the parts are left and right"
    matrix = raw(bytes(8))
    params = {"dtype": "F16", "rank": 2}
    nodes = {
        "parts-in-another-order": branch("product", params, right=matrix, left=matrix),
        "without-right": branch("product", params, left=matrix),
        "another-part": branch("product", params, left=matrix, right=matrix, zzz=matrix),
        "without-params": branch("product", {}, left=matrix, right=matrix),
    }
    for name, node in nodes.items():
        yield page.broken(name, names, one("F32", [2, 2], bytes(16), node))
