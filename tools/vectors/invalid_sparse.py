"""Invalid vectors: masks and gaps that an encoding does not allow (spec/encodings)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .assemble import Object, branch, one
from .cases import NBITS, Invalid, raw
from .invalid_encodings import Page

__all__ = ["bitmasks", "bitmasks_values", "gap_indices"]

STREAM = ("stream", "load")


BITMASK = Page("bitmask")


def masked(
    name: str, rule: str, mask: bytes, n_values: int, dtype: str = "U8", n: int = 12, **said: Any
) -> Invalid:
    """A tensor of a mask and as many values as said."""
    found = said.pop("found", ("format", "open"))
    params = {"count": n_values, "fill": 0, "stride": 1} | said
    parts = {"mask": raw(mask), "values": raw(b"\1" * (n_values * NBITS[dtype] // 8))}
    node = branch("bitmask", dict(sorted(params.items())), **parts)
    return BITMASK.broken(name, rule, one(dtype, [n], bytes(n * NBITS[dtype] // 8), node), *found)


def bitmasks() -> Iterator[Invalid]:
    """encodings/bitmask.md: parameters and parts."""
    mask = b"\7\0"
    exact = "the parameters are count, fill and stride, integers"
    yield masked("another-parameter", exact, mask, 3, zzz=0)
    yield masked("count-a-string", exact, mask, 3, count="3")
    yield masked("fill-a-list", exact, mask, 3, fill=[0])
    content = one("U8", [8], bytes(8), branch("bitmask", {}, mask=raw(b"\0"), values=raw(b"")))
    yield BITMASK.broken("without-params", exact, content)
    count = "count is 0 .. number of elements"
    yield masked("count-negative", count, mask, 3, count=-1)
    yield masked("count-too-large", count, b"\xff\xff", 13)
    yield masked("count-of-63-bits", count, mask, 3, count=2**63 - 1)
    fill = "fill is the bits of an element, below 2^63"
    yield masked("fill-negative", fill, mask, 3, fill=-1)
    yield masked("fill-of-nine-bits", fill, mask, 3, fill=256)
    yield masked("fill-of-17-bits", fill, mask, 3, "BF16", fill=65536)
    yield masked("fill-of-33-bits", fill, mask, 3, "F32", fill=2**32)
    stride = "stride is 1 .. 2^48"
    yield masked("stride-of-0", stride, mask, 3, stride=0)
    yield masked("stride-negative", stride, mask, 3, stride=-1)
    yield masked("stride-too-large", stride, mask, 3, stride=2**48 + 1)
    dtypes = "dtypes of 8, 16, 32 or 64 bits"
    yield masked("of-F4", dtypes, mask, 0, "F4")
    yield masked("of-F6", dtypes, mask, 0, "F6_E3M2")
    yield masked("mask-too-short", "mask has a bit for each element", b"\7", 3)
    yield masked("mask-too-long", "mask has a bit for each element", b"\7\0\0", 3, found=STREAM)
    parts = "the parts are mask and values"
    params: Object = {"count": 3, "fill": 0, "stride": 1}
    three = raw(b"\1\1\1")
    nodes = {
        "parts-in-another-order": branch("bitmask", params, values=three, mask=raw(b"\7")),
        "without-values": branch("bitmask", params, mask=raw(b"\7")),
        "without-mask": branch("bitmask", params, values=three),
        "another-part": branch("bitmask", params, mask=raw(b"\7"), values=three, zzz=raw(b"")),
    }
    for name, node in nodes.items():
        yield BITMASK.broken(name, parts, one("U8", [8], bytes(8), node))
    short = branch("bitmask", params, mask=raw(b"\7"), values=raw(b"\1\1"))
    yield BITMASK.broken("values-too-short", "values has count elements", one("U8", [8], bytes(8), short))
    long = branch("bitmask", params, mask=raw(b"\7"), values=raw(b"\1\1\1\1"))
    content = one("U8", [8], bytes(8), long)
    yield BITMASK.broken("values-too-long", "values has count elements", content, *STREAM)


def bitmasks_values() -> Iterator[Invalid]:
    """encodings/bitmask.md: decoding."""
    bits = "exactly count bits are set"
    yield masked("fewer-bits-than-values", bits, b"\3\0", 3, found=STREAM)
    yield masked("more-bits-than-values", bits, b"\7\1", 3, found=STREAM)
    yield masked("no-bits-for-values", bits, b"\0\0", 1, found=STREAM)
    yield masked("all-bits-for-no-values", bits, b"\xff\x0f", 0, found=STREAM)
    yield masked("more-bits-than-values-by-columns", bits, b"\7\1", 3, stride=1, n=16, found=STREAM)
    yield masked("fewer-bits-than-values-by-columns", bits, b"\1\1\1", 4, stride=2, n=20, found=STREAM)
    behind = "no bit stands for no element"
    yield masked("bit-behind-the-last-element", behind, b"\7\x10", 4, found=STREAM)
    yield masked("bit-behind-the-last-element-in-place-of-one", behind, b"\7\x80", 3, found=STREAM)
    yield masked("bit-behind-the-last-by-columns", behind, b"\7\0\x80", 4, stride=2, n=20, found=STREAM)
    yield masked("bit-behind-the-only-element", behind, b"\2", 1, n=1, found=STREAM)


def gap_indices() -> Iterator[Invalid]:
    """encodings/gap_index.md."""
    page = Page("gap_index")

    def of(
        name: str, rule: str, stored: bytes, n_values: int, dtype: str = "U8", n: int = 12, **said: Any
    ) -> Invalid:
        found = said.pop("found", ("format", "open"))
        params = {"count": n_values, "fill": 0, "gaps": len(stored), "max_gap": 5} | said
        parts = {"gaps": raw(stored), "values": raw(b"\1" * (n_values * NBITS[dtype] // 8))}
        node = branch("gap_index", dict(sorted(params.items())), **parts)
        return page.broken(name, rule, one(dtype, [n], bytes(n * NBITS[dtype] // 8), node), *found)

    gaps = b"\1\2"
    exact = "the parameters are count, fill, gaps and max_gap, integers"
    yield of("another-parameter", exact, gaps, 2, zzz=0)
    yield of("max_gap-a-string", exact, gaps, 2, max_gap="5")
    content = one("U8", [8], bytes(8), branch("gap_index", {}, gaps=raw(b""), values=raw(b"")))
    yield page.broken("without-params", exact, content)
    count = "count is 0 .. number of elements"
    yield of("count-negative", count, gaps, 2, count=-1)
    yield of("count-too-large", count, bytes(13), 13)
    fill = "fill is the bits of an element, below 2^63"
    yield of("fill-negative", fill, gaps, 2, fill=-1)
    yield of("fill-of-nine-bits", fill, gaps, 2, fill=256)
    number = "gaps is count .. number of elements"
    yield of("fewer-gaps-than-values-promised", number, b"\1", 2)
    yield of("more-gaps-than-elements-promised", number, bytes(13), 2)
    yield of("gaps-of-63-bits", number, gaps, 2, gaps=2**63 - 1)
    most = "max_gap is 1 .. MAX_GAP"
    yield of("max_gap-of-0", most, gaps, 2, max_gap=0)
    yield of("max_gap-of-256", most, gaps, 2, max_gap=256)
    yield of("max_gap-negative", most, gaps, 2, max_gap=-1)
    dtypes = "dtypes of 8, 16, 32 or 64 bits"
    yield of("of-F4", dtypes, gaps, 2, "F4")
    yield of("of-F6", dtypes, gaps, 0, "F6_E2M3")
    parts = "the parts are gaps and values"
    params: Object = {"count": 2, "fill": 0, "gaps": 2, "max_gap": 5}
    two = raw(b"\1\1")
    nodes = {
        "parts-in-another-order": branch("gap_index", params, values=two, gaps=raw(gaps)),
        "without-gaps": branch("gap_index", params, values=two),
        "another-part": branch("gap_index", params, gaps=raw(gaps), values=two, zzz=raw(b"")),
        "gaps-too-short": branch("gap_index", params, gaps=raw(b"\1"), values=two),
        "values-too-short": branch("gap_index", params, gaps=raw(gaps), values=raw(b"\1")),
    }
    for name, node in nodes.items():
        yield page.broken(name, parts, one("U8", [8], bytes(8), node))
    long = branch("gap_index", params, gaps=raw(b"\1\2\3"), values=two)
    yield page.broken("gaps-too-long", parts, one("U8", [8], bytes(8), long), *STREAM)
    exceeds = "no gap exceeds max_gap"
    yield of("gap-of-more-than-max_gap", exceeds, b"\1\6", 2, found=STREAM)
    yield of("gap-of-more-than-max_gap-of-1", exceeds, b"\1\2", 1, max_gap=1, found=STREAM)
    below = "exactly count gaps are below max_gap"
    yield of("fewer-gaps-than-values", below, b"\1\5", 2, found=STREAM)
    yield of("more-gaps-than-values", below, b"\1\2", 1, found=STREAM)
    yield of("fillers-alone-for-values", below, b"\5\5", 1, found=STREAM)
    beyond = "the gaps and their values are no more elements than the tensor has"
    yield of("value-behind-the-last-element", beyond, b"\4\4\4", 3, n=12, found=STREAM)
    yield of("value-right-behind-the-last-element", beyond, b"\5\5\2", 1, n=12, found=STREAM)
    yield of("filler-behind-the-last-element", beyond, b"\4\5\5", 1, n=12, found=STREAM)
    yield of("filler-behind-a-value-at-the-end", beyond, b"\5\5\1\5", 1, n=12, found=STREAM)
