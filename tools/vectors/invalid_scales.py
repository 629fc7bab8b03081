"""Invalid vectors: parameters, scales and codes that do not go together (spec/encodings/affine.md)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from .assemble import Object, branch, leaf, one
from .cases import NBITS, Invalid, raw
from .invalid_encodings import Page

__all__ = ["affines", "affines_values", "casts"]

_GOOD: Object = {
    "axis": -1,
    "exceptions": 0,
    "group_size": 0,
    "offset": 0,
    "scale_dtype": "F32",
    "zero_point": 0,
}
_ONE = struct.pack("<f", 1.0)


def affines() -> Iterator[Invalid]:
    """encodings/affine.md: parameters and parts."""
    page = Page("affine")

    def of(
        name: str,
        rule: str,
        params: Object,
        dtype: str = "F32",
        shape: list[int] | None = None,
        scale: bytes = _ONE,
        **parts: Object,
    ) -> Invalid:
        shape = [2, 3] if shape is None else shape
        n = 1
        for size in shape:
            n *= size
        given = {"qdata": raw(bytes(n))} | {"scale": raw(scale)} | parts
        node = branch("affine", {name: value for name, value in params.items() if value is not None}, **given)
        return page.broken(name, rule, one(dtype, shape, bytes(n * NBITS[dtype] // 8), node))

    for dtype in ("F4", "I8", "F8_E8M0", "C64"):
        yield of(f"of-{dtype}", "dtypes", _GOOD, dtype)
    axis = "axis is -1 or a dimension of the tensor"
    yield of("axis-beyond", axis, _GOOD | {"axis": 2})
    yield of("axis-of-no-dimensions", axis, _GOOD | {"axis": 0}, shape=[])
    yield of("axis-minus-2", axis, _GOOD | {"axis": -2})
    yield of("axis-of-63-bits", axis, _GOOD | {"axis": 2**63 - 1})
    group = "group_size is 0 .. 2^48"
    yield of("group_size-negative", group, _GOOD | {"group_size": -1})
    yield of("group_size-too-large", group, _GOOD | {"group_size": 2**48 + 1})
    both = "axis is -1 if there are groups, and a tensor with groups has dimensions"
    yield of("groups-with-an-axis", both, _GOOD | {"axis": 1, "group_size": 3}, scale=_ONE * 2)
    yield of("groups-of-no-dimensions", both, _GOOD | {"group_size": 1}, shape=[])
    offset = "offset is within -MAX_CODE .. MAX_CODE"
    yield of("offset-too-large", offset, _GOOD | {"offset": 2**24 + 1})
    yield of("offset-too-small", offset, _GOOD | {"offset": -(2**24) - 1})
    yield of("offset-of-63-bits", offset, _GOOD | {"offset": -(2**63)})
    dtypes = "scale_dtype is one of the four"
    for dtype in ("F64", "U8", "F8_E4M3", "E8M0", "f32", ""):
        yield of(f"scale_dtype-{dtype or 'empty'}", dtypes, _GOOD | {"scale_dtype": dtype})
    zero = "zero_point is 0 or 1"
    yield of("zero_point-2", zero, _GOOD | {"zero_point": 2}, zero_point=raw(bytes(4)))
    yield of("zero_point-negative", zero, _GOOD | {"zero_point": -1})
    x_rule = "exceptions is within 0 .. number of elements"
    yield of("exceptions-negative", x_rule, _GOOD | {"exceptions": -1})
    yield of("exceptions-too-many", x_rule, _GOOD | {"exceptions": 7})
    exact = "the parameters are the six of the page"
    for missing in _GOOD:
        yield of(f"without-{missing}", exact, _GOOD | {missing: None})
    yield of("another-parameter", exact, _GOOD | {"zzz": 0})
    yield of("axis-a-string", exact, _GOOD | {"axis": "0"})
    yield of("offset-a-list", exact, _GOOD | {"offset": [0]})
    yield of("scale_dtype-a-number", exact, _GOOD | {"scale_dtype": 32})
    yield from _parts(page)


def _parts(page: Page) -> Iterator[Invalid]:
    rule = "the parts are those of the table, in its order"
    exceptions = {"exception_index": raw(bytes(8)), "exception_code": raw(bytes(4))}

    def of(name: str, rule: str, params: Object, **parts: Any) -> Invalid:
        found = ("stream", "load") if name.endswith("too-long") else ("format", "open")
        return page.broken(
            name, rule, one("F32", [2, 3], bytes(24), branch("affine", params, **parts)), *found
        )

    qdata, scale = raw(bytes(6)), raw(_ONE)
    yield of("without-scale", rule, _GOOD, qdata=qdata)
    yield of("without-qdata", rule, _GOOD, scale=scale)
    yield of("parts-in-another-order", rule, _GOOD, scale=scale, qdata=qdata)
    yield of("exceptions-without-need", rule, _GOOD, qdata=qdata, **exceptions, scale=scale)
    yield of("exceptions-missing", rule, _GOOD | {"exceptions": 1}, qdata=qdata, scale=scale)
    late = {"qdata": qdata, "scale": scale} | exceptions
    yield of("exceptions-behind-the-scale", rule, _GOOD | {"exceptions": 1}, **late)
    yield of("zero_point-without-need", rule, _GOOD, qdata=qdata, scale=scale, zero_point=raw(bytes(4)))
    yield of("zero_point-missing", rule, _GOOD | {"zero_point": 1}, qdata=qdata, scale=scale)
    yield of("qdata-too-short", "qdata has n elements", _GOOD, qdata=raw(bytes(5)), scale=scale)
    yield of("qdata-too-long", "qdata has n elements", _GOOD, qdata=raw(bytes(7)), scale=scale)
    sizes = "scale has S elements"
    yield of("scale-too-short", sizes, _GOOD | {"axis": 1}, qdata=qdata, scale=raw(_ONE * 2))
    yield of("scale-too-long", sizes, _GOOD | {"axis": 1}, qdata=qdata, scale=raw(_ONE * 4))
    yield of("scale-of-groups-too-short", sizes, _GOOD | {"group_size": 2}, qdata=qdata, scale=raw(_ONE * 3))
    half = raw(b"\0\x3c")
    yield of("scale-of-another-dtype", sizes, _GOOD, qdata=qdata, scale=half)
    short = {"qdata": qdata, "scale": raw(_ONE * 2), "zero_point": raw(bytes(4))}
    yield of(
        "zero_point-too-short", "zero_point has S elements", _GOOD | {"axis": 0, "zero_point": 1}, **short
    )
    huge = {"axis": 0}
    content = one("F32", [2**48, 0], b"", branch("affine", _GOOD | huge, qdata=raw(b""), scale=raw(b"")))
    yield page.broken("scales-beyond-memory", sizes, content)


def affines_values() -> Iterator[Invalid]:
    """encodings/affine.md: decoding."""
    page = Page("affine")

    def of(
        name: str, rule: str, scale: bytes, dtype: str = "F32", shape: list[int] | None = None, **more: Any
    ) -> Invalid:
        shape = [2, 3] if shape is None else shape
        n = shape[0] * shape[1]
        params = _GOOD | {"scale_dtype": dtype, "axis": 0} | more.pop("params", {})
        node = branch(
            "affine",
            params,
            **({"qdata": raw(bytes(n))} | more.pop("before", {}) | {"scale": raw(scale)} | more),
        )
        return page.broken(name, rule, one("BF16", shape, bytes(2 * n), node), "stream", "load")

    finite = "a scale, used or not, is finite"
    infinite, nan = b"\0\0\x80\x7f", b"\1\0\x80\xff"
    yield of("scale-infinite", finite, _ONE + infinite)
    yield of("scale-minus-infinite", finite, b"\0\0\x80\xff" + _ONE)
    yield of("scale-nan", finite, _ONE + nan)
    yield of("scale-infinite-F16", finite, b"\0\x3c\0\xfc", "F16")
    yield of("scale-nan-BF16", finite, b"\x80\x3f\xc0\x7f", "BF16")
    yield of("scale-nan-F8_E8M0", finite, b"\x7f\xff", "F8_E8M0")
    yield of("unused-scale-nan", finite, _ONE + nan, shape=[2, 0])
    codes = "o - z and o + 255 - z are within -MAX_CODE .. MAX_CODE"

    def with_zero(name: str, offset: int, zero: int, **more: Any) -> Invalid:
        zeros = raw(struct.pack("<2i", 0 if abs(offset) < 2**23 else offset, zero))
        return of(name, codes, _ONE * 2, params={"offset": offset, "zero_point": 1}, zero_point=zeros, **more)

    yield of("offset-leaves-no-room", codes, _ONE * 2, params={"offset": 2**24 - 254})
    yield with_zero("zero_point-too-low", 0, 254 - 2**24)
    yield with_zero("zero_point-too-high", 0, 2**24 + 1)
    yield with_zero("zero_point-lowest", -(2**24), -(2**31))
    yield with_zero("zero_point-highest", 2**24, 2**31 - 1)
    yield with_zero("unused-zero_point-too-high", 5, 2**24 + 6, shape=[2, 0])

    def apart(name: str, rule: str, index: list[int], code: list[int], **more: Any) -> Invalid:
        given = {
            "exception_index": raw(struct.pack(f"<{len(index)}Q", *index)),
            "exception_code": raw(struct.pack(f"<{len(code)}i", *code)),
        }
        params = {"exceptions": len(index)} | more.pop("params", {})
        return of(name, rule, _ONE * 2, before=given, params=params, **more)

    ascending = "exception_index is strictly ascending and below n"
    yield apart("exception_index-of-n", ascending, [6], [0])
    yield apart("exception_index-of-64-bits", ascending, [0, 2**64 - 1], [0, 0])
    yield apart("exception_index-twice", ascending, [1, 1], [0, 0])
    yield apart("exception_index-descending", ascending, [4, 2, 5], [0, 0, 0])
    far = "c - z of an exception is within -MAX_CODE .. MAX_CODE"
    yield apart("exception-too-high", far, [5], [2**24 + 1])
    yield apart("exception-too-low", far, [0], [-(2**24) - 1])
    yield apart("exception-lowest", far, [0], [-(2**31)])
    zeros = {"params": {"zero_point": 1}, "zero_point": raw(struct.pack("<2i", 0, -9))}
    yield apart("exception-too-far-from-its-zero-point", far, [2, 3], [2**24, 2**24 - 8], **zeros)
    short = leaf("huffman", b"\x12\0\0\1\x11" + struct.pack("<I", 6))
    yield of(
        "qdata-ends-early",
        "the stream of a part keeps the rules of its codec",
        _ONE * 2,
        before={"qdata": short},
    )


def casts() -> Iterator[Invalid]:
    """encodings/cast.md."""
    page = Page("cast")
    good: Object = {"axis": -1, "dtype": "F8_E4M3", "group_size": 0, "scale_dtype": "F32"}

    def of(
        name: str, rule: str, params: Object, dtype: str = "F32", found: str = "open", **parts: Object
    ) -> Invalid:
        given = {"values": raw(bytes(6)), "scale": raw(_ONE)} | parts
        node = branch("cast", {name: value for name, value in params.items() if value is not None}, **given)
        content = one(dtype, [2, 3], bytes(6 * NBITS[dtype] // 8), node)
        return page.broken(name, rule, content, "format" if found == "open" else "stream", found)

    for dtype in ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F4", "I32", "C64"):
        yield of(f"of-{dtype}", "dtypes", good, dtype)
    narrow = "dtype is F8_E4M3 or F8_E5M2"
    for dtype in ("F16", "F8_E4M3FNUZ", "F8_E8M0", "I8", ""):
        yield of(f"to-{dtype or 'empty'}", narrow, good | {"dtype": dtype})
    same = "axis, group_size and scale_dtype as in affine.md"
    yield of("axis-beyond", same, good | {"axis": 2})
    yield of("groups-with-an-axis", same, good | {"axis": 0, "group_size": 3})
    yield of("group_size-negative", same, good | {"group_size": -1})
    yield of("scale_dtype-F64", same, good | {"scale_dtype": "F64"})
    exact = "the parameters are axis, dtype, group_size and scale_dtype"
    for missing in good:
        yield of(f"without-{missing}", exact, good | {missing: None})
    yield of("another-parameter", exact, good | {"zzz": 0})
    yield of("dtype-a-number", exact, good | {"dtype": 8})
    yield of("values-too-short", "values has the tensor's shape", good, values=raw(bytes(5)))
    yield of("values-too-long", "values has the tensor's shape", good, found="load", values=raw(bytes(7)))
    yield of("scale-too-short", "scale has S elements", good | {"axis": 0})
    parts = "the parts are values and scale"
    yield of("another-part", parts, good, zzz=raw(b""))
    content = one("F32", [2, 3], bytes(24), branch("cast", good, scale=raw(_ONE), values=raw(bytes(6))))
    yield page.broken("parts-in-another-order", parts, content)
    finite = "a scale, used or not, is finite"
    yield of("scale-infinite", finite, good, found="load", scale=raw(b"\0\0\x80\x7f"))
    of_e8m0 = good | {"scale_dtype": "F8_E8M0"}
    yield of("scale-nan-F8_E8M0", finite, of_e8m0, found="load", scale=raw(b"\xff"))
