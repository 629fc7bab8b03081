"""Invalid vectors: parameters, parts and values that an encoding does not allow (spec/encodings)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from . import floats
from .assemble import Object, branch, build, leaf, manifest, one, tensor
from .cases import Invalid, raw

__all__ = ["Page", "aliases", "codebooks", "float_splits", "float_splits_values", "narrows", "row_groupings"]


class Page:
    """Makes the vectors of one page."""

    def __init__(self, encoding: str) -> None:
        self.encoding = encoding

    def broken(
        self, name: str, rule: str, content: Object, error: str = "format", found_by: str = "open"
    ) -> Invalid:
        """A vector."""
        rule = f"encodings/{self.encoding}.md: {rule}"
        return Invalid(f"{self.encoding}-{name}", rule, error, found_by, build(content))


def aliases() -> Iterator[Invalid]:
    """encodings/alias.md."""
    page = Page("alias")
    first = tensor("a", "U8", [3], b"abc", raw(b"abc"))

    def of(name: str, rule: str, params: Object, *more: Object, **said: Any) -> Invalid:
        node = branch("alias", params) | said.pop("node", {})
        alias = tensor("b", said.pop("dtype", "U8"), said.pop("shape", [3]), b"abc", node, **said)
        return page.broken(name, rule, manifest([first, alias, *more]))

    good = {"target": "a", "tied": 0}
    earlier = "the target is an earlier tensor"
    yield of("of-nothing", earlier, {"target": "c", "tied": 0})
    yield of("of-itself", earlier, {"target": "b", "tied": 0})
    yield of("of-a-later-one", earlier, {"target": "c", "tied": 0}, first | {"name": "c"})
    of_alias = tensor("c", "U8", [3], b"abc", branch("alias", {"target": "b", "tied": 0}))
    yield of("of-an-alias", "the target is no alias", good, of_alias)
    same = "dtype and shape are the target's"
    yield of("of-another-dtype", same, good, dtype="I8")
    yield of("of-another-shape", same, good, shape=[3, 1])
    yield of("of-another-size", same, good, shape=[4])
    parameters = "the parameters are target and tied"
    yield of("tied-2", "tied is 0 or 1", good | {"tied": 2})
    yield of("tied-negative", "tied is 0 or 1", good | {"tied": -1})
    yield of("tied-a-string", "tied is 0 or 1", good | {"tied": "1"})
    yield of("without-tied", parameters, {"target": "a"})
    yield of("without-target", parameters, {"tied": 1})
    yield of("without-params", parameters, {})
    yield of("target-no-string", parameters, {"target": 0, "tied": 0})
    yield of("another-parameter", parameters, good | {"zzz": 0})
    yield of("with-parts", "there are no parts", good, node={"parts": {"x": raw(b"")}})
    yield of("with-blake3", "an alias has no blake3 (container.md, section 3.1)", good, blake3="0" * 64)
    nested = branch("row_groups", {"rows": [3]}, group=raw(bytes(3)), **{"0": branch("alias", good)})
    content = manifest([first, tensor("b", "U8", [3], b"abc", nested)])
    yield page.broken("within-a-tensor", "only the root is an alias", content)
    nested = branch("no-such-encoding", x=branch("alias", good))
    content = manifest([first, tensor("b", "U8", [3], b"abc", nested)])
    yield page.broken("within-an-unknown-encoding", "only the root is an alias", content)


def float_splits() -> Iterator[Invalid]:
    """encodings/float_split.md: parameters and parts."""
    page = Page("float_split")

    def of(
        name: str, rule: str, dtype: str, params: Object, n_rest: int = 1, more: Object | None = None
    ) -> Invalid:
        given = {"high": raw(bytes(2))} | {f"rest{j}": raw(bytes(2)) for j in range(n_rest)} | (more or {})
        nbits = {"F4": 4, "U8": 8, "F8_E8M0": 8, "C64": 64}.get(dtype) or floats.nbits_of(dtype)
        node = branch("float_split", params, **given)
        return page.broken(name, rule, one(dtype, [2], bytes(nbits // 4), node))

    def params(k: int = 0, base: Any = 0, exceptions: Any = 0) -> Object:
        return {"base": base, "exceptions": exceptions, "mantissa_bits": k}

    for dtype in ("F4", "U8", "F8_E8M0", "C64"):
        yield of(f"of-{dtype}", "dtypes", dtype, params())
    k_rule = "mantissa_bits is within 0 .. M"
    yield of("mantissa_bits-negative", k_rule, "BF16", params(-1))
    yield of("mantissa_bits-too-many", k_rule, "BF16", params(8))
    yield of("mantissa_bits-too-many-of-F8", k_rule, "F8_E5M2", params(3))
    yield of("upper-bits-17", "H is at most 16", "F32", params(9), 2)
    yield of("upper-bits-17-of-F64", "H is at most 16", "F64", params(6), 6)
    base = "base is at most max(0, 2^H - 256)"
    yield of("base-negative", base, "F16", params(4, -1))
    yield of("base-too-large", base, "F16", params(4, 257))
    yield of("base-of-eight-bits", base, "BF16", params(0, 1))
    yield of("base-of-four-bits", base, "F8_E4M3", params(0, 1))
    yield of("base-of-63-bits", base, "F32", params(0, 2**63 - 1), 3)
    x_rule = "exceptions is within 0 .. number of elements"
    exceptions = {"exception_index": raw(bytes(24)), "exception_high": raw(bytes(6))}
    yield of("exceptions-too-many", x_rule, "BF16", params(1, 0, 3), more=exceptions)
    yield of("exceptions-negative", x_rule, "BF16", params(1, 0, -1))
    exact = "the parameters are base, exceptions and mantissa_bits"
    yield of("without-base", exact, "BF16", {"exceptions": 0, "mantissa_bits": 0})
    yield of("another-parameter", exact, "BF16", params() | {"zzz": 0})
    yield of("base-a-string", exact, "BF16", params(0, "0"))
    yield of("base-a-list", exact, "BF16", params(0, [0]))
    yield of("without-params", exact, "BF16", {})
    parts = "the parts that the encoding prescribes, in its order"
    yield of("without-rest", parts, "BF16", params(), 0)
    yield of("one-rest-too-few", parts, "F32", params(), 2)
    yield of("one-rest-too-many", parts, "BF16", params(), 2)
    yield of("exceptions-without-need", parts, "BF16", params(1), more=exceptions)
    yield of("exceptions-missing", parts, "BF16", params(1, 0, 1))
    one_exception = {"exception_index": raw(bytes(8))}
    yield of("exception_high-missing", parts, "BF16", params(1, 0, 1), more=one_exception)
    turned = branch("float_split", params(), rest0=raw(bytes(2)), high=raw(bytes(2)))
    yield page.broken("parts-in-another-order", parts, one("BF16", [2], bytes(4), turned))
    short = {"high": raw(b"\0")}
    yield of("high-too-short", "high has n elements", "BF16", params(), more=short)
    long = branch("float_split", params(), high=raw(bytes(3)), rest0=raw(bytes(2)))
    content = one("BF16", [2], bytes(4), long)
    yield page.broken("high-too-long", "high has n elements", content, "stream", "load")


def float_splits_values() -> Iterator[Invalid]:
    """encodings/float_split.md: decoding."""
    page = Page("float_split")

    def of(
        name: str,
        rule: str,
        dtype: str,
        k: int,
        base: int,
        index: list[int],
        upper: list[int],
        *planes: bytes,
    ) -> Invalid:
        parts = {"high": raw(planes[0])} | {f"rest{j}": raw(plane) for j, plane in enumerate(planes[1:])}
        if index:
            parts["exception_index"] = raw(struct.pack(f"<{len(index)}Q", *index))
            parts["exception_high"] = raw(struct.pack(f"<{len(upper)}H", *upper))
        params = {"base": base, "exceptions": len(index), "mantissa_bits": k}
        n = len(planes[0])
        data = bytes(n * floats.nbits_of(dtype) // 8)
        content = one(dtype, [n], data, branch("float_split", params, **parts))
        return page.broken(name, rule, content, "stream", "load")

    h = "h is below 2^H"
    none: list[int] = []
    yield of("high-too-large", h, "F16", 0, 0, none, none, b"\0\x20", bytes(2), bytes(2))
    yield of("high-too-large-of-F8", h, "F8_E4M3", 0, 0, none, none, b"\x10\0", bytes(2))
    yield of("high-too-large-of-seven-bits", h, "F8_E5M2", 2, 0, none, none, b"\0\x80", bytes(2))
    yield of("exception_high-too-large", h, "BF16", 1, 0, [0], [0x200], bytes(2), bytes(2))
    yield of("exception_high-too-large-of-F8", h, "F8_E5M2", 0, 0, [1], [32], bytes(2), bytes(2))
    q = "q is below 2^R"
    yield of("rest-too-large", q, "F16", 0, 0, none, none, bytes(2), bytes(2), b"\0\x08")
    yield of("rest-too-large-of-F8", q, "F8_E4M3", 0, 0, none, none, bytes(2), b"\x10\0")
    yield of("rest-too-large-of-one-bit", q, "F16", 10, 0, none, none, bytes(2), b"\0\2")
    yield of("rest-too-large-of-F32", q, "F32", 1, 0, none, none, bytes(2), bytes(2), bytes(2), b"\x80\0")
    yield of("rest-too-large-of-F64", q, "F64", 0, 0, none, none, *[bytes(1)] * 7, b"\x20")
    yield of("rest-too-large-at-an-exception", q, "BF16", 1, 0, [0], [0], bytes(2), b"\x80\0")
    ascending = "exception_index is strictly ascending"
    zeros = bytes(4)
    yield of("exceptions-descending", ascending, "BF16", 1, 0, [2, 1], [0, 0], zeros, zeros)
    yield of("exception-twice", ascending, "BF16", 1, 0, [1, 1], [0, 0], zeros, zeros)
    yield of("exceptions-descending-later", ascending, "BF16", 1, 0, [0, 3, 2], [0, 0, 0], zeros, zeros)
    below = "an index is below n"
    yield of("exception-beyond-the-tensor", below, "BF16", 1, 0, [4], [0], zeros, zeros)
    yield of("exception-far-beyond-the-tensor", below, "BF16", 1, 0, [2**64 - 1], [0], zeros, zeros)
    yield of("exception-of-63-bits", below, "BF16", 1, 0, [0, 2**63], [0, 0], zeros, zeros)


def narrows() -> Iterator[Invalid]:
    """encodings/narrow.md."""
    page = Page("narrow")

    def of(name: str, rule: str, dtype: str, params: Object, **parts: Object) -> Invalid:
        node = branch("narrow", params, **parts)
        return page.broken(
            name,
            rule,
            one(dtype, [1], bytes({"F16": 2, "BF16": 2, "F32": 4, "F64": 8, "U8": 1}[dtype]), node),
        )

    allowed = "the allowed dtypes"
    pairs = [
        ("F16", "F16"),
        ("F16", "BF16"),
        ("BF16", "F16"),
        ("F32", "F32"),
        ("F32", "F64"),
        ("F32", "F8_E5M2"),
    ]
    for wide, narrow in [*pairs, ("F64", "F64"), ("U8", "F16"), ("F32", "U16"), ("F32", "f16"), ("F32", "")]:
        yield of(f"{wide}-to-{narrow or 'nothing'}", allowed, wide, {"dtype": narrow}, values=raw(bytes(8)))
    exact = "the parameter is dtype, a string"
    values = raw(bytes(2))
    yield of("without-params", exact, "F32", {}, values=values)
    yield of("dtype-no-string", exact, "F32", {"dtype": 16}, values=values)
    yield of("another-parameter", exact, "F32", {"dtype": "F16", "zzz": 1}, values=values)
    yield of("without-values", "the part is values", "F32", {"dtype": "F16"})
    yield of("with-another-part", "the part is values", "F32", {"dtype": "F16"}, values=values, zzz=values)
    yield of("part-of-another-name", "the part is values", "F32", {"dtype": "F16"}, value=values)
    yield of("values-too-short", "values has the tensor's shape", "F32", {"dtype": "F16"}, values=raw(b"\0"))
    content = one("F32", [1], bytes(4), branch("narrow", {"dtype": "F16"}, values=raw(bytes(4))))
    yield page.broken("values-too-long", "values has the tensor's shape", content, "stream", "load")


def row_groupings() -> Iterator[Invalid]:
    """encodings/row_groups.md."""
    page = Page("row_groups")

    def of(
        name: str,
        rule: str,
        rows: Any,
        *sizes: int,
        dtype: str = "U8",
        shape: list[int] | None = None,
        group: bytes = b"\0\1\0",
        **said: Any,
    ) -> Invalid:
        parts = {str(g): raw(bytes(size)) for g, size in enumerate(sizes)}
        node = branch("row_groups", {"rows": rows} | said, group=raw(group), **parts)
        open_or_load = (
            ("stream", "load") if rows == [2, 1] and not said and shape is None else ("format", "open")
        )
        return page.broken(
            name, rule, one(dtype, [3, 2] if shape is None else shape, bytes(6), node), *open_or_load
        )

    sums = "the sum of rows is the first dimension"
    yield of("rows-too-few", sums, [1, 1], 2, 2)
    yield of("rows-too-many", sums, [2, 2], 4, 4)
    yield of("rows-that-overflow", sums, [2**63 - 1, 2**63 - 1, 5], 2, 2, 2)
    yield of("of-no-rows", sums, [1], 0, shape=[0, 2], group=b"")
    least = "each group has at least 1 row"
    yield of("group-of-no-rows", least, [3, 0], 6, 0)
    yield of("group-of-negative-rows", least, [4, -1], 8, 0)
    count = "there are 1 .. MAX_GROUPS groups"
    yield of("without-groups", count, [])
    yield of("of-no-rows-without-groups", count, [], shape=[0, 2], group=b"")
    yield of("of-33-groups", count, [1] * 33, *[1] * 33, shape=[33], group=bytes(range(33)))
    many = "the first dimension is at most MAX_ROWS"
    yield of("more-rows-than-fit-32-bits", many, [2**32], 0, shape=[2**32, 0], group=b"")
    exact = "the parameter is rows, an array of integers"
    yield of("rows-no-list", exact, 3, 6)
    yield of("rows-a-string", exact, "3", 6)
    yield of("another-parameter", exact, [2, 1], 4, 2, zzz=1)
    yield of("of-no-dimensions", "the rank is at least 1", [1], 1, shape=[])
    yield of("of-half-a-byte", "a row takes whole bytes", [2], 1, dtype="F4", shape=[2, 1], group=bytes(2))
    parts = "the parts are group and one for each group"
    yield of("part-missing", parts, [2, 1], 4, shape=[3, 2], group=b"\0\1\0")
    yield of("part-too-many", parts, [2, 1], 4, 2, 0, shape=[3, 2])
    yield of("group-too-short", "group has one element a row", [2, 1], 4, 2, shape=[3, 2], group=b"\0\1")
    yield of("rows-of-a-group-too-short", "shape of a group's part", [2, 1], 3, 3, shape=[3, 2])
    member = "a value of group is below G, and each occurs as often as rows says"
    yield of("group-that-is-not-there", member, [2, 1], 4, 2, group=b"\0\2\0")
    yield of("group-of-255", member, [2, 1], 4, 2, group=b"\xff\1\0")
    yield of("group-too-often", member, [2, 1], 4, 2, group=b"\0\1\1")
    yield of("group-missing", member, [2, 1], 4, 2, group=b"\0\0\0")
    yield of("rows-of-a-group-too-long", "shape of a group's part", [2, 1], 4, 3)
    empty = branch("row_groups", {"rows": [2, 1]}, group=raw(b"\0\2\0"), **{"0": raw(b""), "1": raw(b"")})
    content = one("U8", [3, 0], b"", empty)
    yield page.broken("of-empty-rows-group-that-is-not-there", member, content, "stream", "validate")
    long = branch("row_groups", {"rows": [2, 1]}, group=raw(b"\0\1\0"), **{"0": raw(b"\0"), "1": raw(b"")})
    content = one("U8", [3, 0], b"", long)
    yield page.broken(
        "of-empty-rows-rows-of-a-group-too-long", "shape of a group's part", content, "stream", "validate"
    )


def codebooks() -> Iterator[Invalid]:
    """encodings/codebook.md."""
    page = Page("codebook")

    def of(
        name: str, rule: str, params: Object, codes: bytes, n_centroids: int, dtype: str = "F16"
    ) -> Invalid:
        nbytes = {"F16": 2, "F4": 1, "F6_E2M3": 1, "C64": 8}[dtype]
        node = branch("codebook", params, codes=raw(codes), centroids=raw(bytes(n_centroids * nbytes)))
        found = ("stream", "load") if rule == member else ("format", "open")
        return page.broken(name, rule, one(dtype, [4], bytes(4 * nbytes), node), *found)

    member = "a code is below size"
    size = "size is within 1 .. MAX_SIZE"
    zeros = bytes(4)
    yield of("size-of-0", size, {"size": 0}, zeros, 0)
    yield of("size-negative", size, {"size": -1}, zeros, 1)
    yield of("size-of-257", size, {"size": 257}, zeros, 257)
    yield of("size-of-63-bits", size, {"size": 2**63 - 1}, zeros, 1)
    exact = "the parameter is size, an integer"
    yield of("without-params", exact, {}, zeros, 1)
    yield of("size-a-string", exact, {"size": "1"}, zeros, 1)
    yield of("size-a-list", exact, {"size": [1]}, zeros, 1)
    yield of("another-parameter", exact, {"size": 1, "zzz": 0}, zeros, 1)
    yield of("of-F4", "dtypes of 8, 16, 32 or 64 bits", {"size": 1}, zeros, 1, "F4")
    yield of("of-F6", "dtypes of 8, 16, 32 or 64 bits", {"size": 1}, zeros, 3, "F6_E2M3")
    yield of("codes-too-short", "codes has the tensor's shape", {"size": 1}, bytes(3), 1)
    yield of("centroids-too-short", "centroids has size elements", {"size": 2}, zeros, 1)
    yield of("code-of-size", member, {"size": 2}, b"\0\1\2\0", 2)
    yield of("code-of-255", member, {"size": 255}, b"\0\0\0\xff", 255)
    yield of("code-of-C64", member, {"size": 1}, b"\1\0\0\0", 1, "C64")
    long = branch("codebook", {"size": 1}, codes=raw(zeros), centroids=raw(bytes(4)))
    content = one("F16", [4], bytes(8), long)
    yield page.broken("centroids-too-long", "centroids has size elements", content, "stream", "load")
    parts = "the parts are codes and centroids"
    content = one(
        "F16", [4], bytes(8), branch("codebook", {"size": 1}, centroids=raw(bytes(2)), codes=raw(zeros))
    )
    yield page.broken("parts-in-another-order", parts, content)
    content = one("F16", [4], bytes(8), branch("codebook", {"size": 1}, codes=raw(zeros)))
    yield page.broken("without-centroids", parts, content)
    unused = leaf("raw", bytes(2))
    extra = branch("codebook", {"size": 1}, codes=raw(zeros), centroids=unused, zzz=raw(b""))
    yield page.broken("another-part", parts, one("F16", [4], bytes(8), extra))
