"""Invalid vectors: tensors, nodes and files of the manifest (spec/container.md, sections 3.1 to 3.3)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .assemble import Object, branch, build, file, leaf, manifest, one, swap, tensor
from .cases import Invalid, raw
from .streams import frame, huffman, rle_block, zstd
from .valid_container import copied, repeated

__all__ = [
    "expansion",
    "file_entries",
    "file_paths",
    "inputs",
    "lossy_files",
    "nodes",
    "qualities",
    "tensor_entries",
    "unknown_ids",
]

ABC = b"abc"


def tensor_entries() -> Iterator[Invalid]:
    """Section 3.1."""

    def of(name: str, rule: str, content: Object, old: str = "", new: str = "") -> Invalid:
        data = build(content, change=swap(old, new)) if old else build(content)
        return Invalid(f"tensor-{name}", f"container.md, section 3.1: {rule}", "format", "open", data)

    def shaped(name: str, rule: str, dtype: str, shape: Any, node: Object | None = None) -> Invalid:
        return of(name, rule, one(dtype, shape, b"", node or raw(b"")))

    good = one("U8", [3], ABC, raw(ABC))
    twice = tensor("a", "U8", [3], ABC, raw(ABC))
    yield of("name-twice", "name is unique", manifest([twice, twice]))
    too_long = tensor("é" * 2048 + "x", "U8", [3], ABC, raw(ABC))
    yield of("name-too-long", "a name has at most MAX_NAME_NBYTES bytes", manifest([too_long]))
    yield of("without-a-name", "name is required", good, '"name":"a",', "")
    yield of("name-no-string", "name is a string", good, '"name":"a"', '"name":7')
    yield of("without-data", "data is required", one("U8", [0], b"", {}), ',"data":{}', "")
    yield of("data-null", "data is a node", one("U8", [0], b"", {}), '"data":{}', '"data":null')
    for name, dtype in (("unknown", "F12"), ("lower-case", "u8"), ("empty", "")):
        yield of(f"dtype-{name}", "dtype is one of section 4", one(dtype, [3], ABC, raw(ABC)))
    dimensions = "each dimension is within 0 .. 2^48"
    yield shaped("dimension-negative", dimensions, "U8", [-1])
    yield shaped("dimensions-negative", dimensions, "U8", [-1, 0])
    yield shaped("dimension-too-large", dimensions, "U8", [0, (1 << 48) + 1])
    yield shaped("dimension-of-64-bits", dimensions, "U8", [0, 1 << 64])
    yield shaped("dimension-no-integer", dimensions, "U8", [True])
    yield shaped("dimension-a-string", dimensions, "U8", ["3"])
    yield shaped("dimension-null", dimensions, "U8", [None])
    yield shaped("shape-no-list", "shape is an array of integers", "U8", 3)
    yield shaped("rank-65", "a shape has at most MAX_RANK dimensions", "U8", [0] * 65)
    size = "the size is at most MAX_TENSOR_NBYTES, taken without overflow"
    yield shaped("size-too-large", size, "U16", [1 << 48])
    yield shaped("size-that-overflows-64-bits", size, "U8", [1 << 32, 1 << 32])
    # Their product is 3 modulo 2^64.
    wrapping = [0xB05F08975BD3, 0x4BF4B7013021, 0x703010840EF1]
    yield shaped("size-that-overflows-to-3", size, "U8", wrapping, raw(ABC))
    yield shaped("size-of-64-dimensions", size, "C64", [1 << 48] * 64)
    whole = "the size is a multiple of eight bits"
    yield shaped("size-of-12-bits", whole, "F4", [3], raw(b"ab"))
    yield shaped("size-of-18-bits", whole, "F6_E3M2", [3, 1], raw(ABC))
    digits = "blake3 is 64 lower-case hexadecimal digits"
    yield of("without-blake3", digits, one("U8", [3], ABC, raw(ABC), blake3=""))
    for name, digest in (
        ("short", "0" * 63),
        ("long", "0" * 65),
        ("upper-case", "A" * 64),
        ("no-hex", "g" * 64),
    ):
        yield of(f"blake3-{name}", digits, one("U8", [3], ABC, raw(ABC), blake3=digest))
    yield of("blake3-newline", digits, one("U8", [3], ABC, raw(ABC), blake3="0" * 64 + "\n"))


def qualities() -> Iterator[Invalid]:
    """Section 3.1.1, and the manifest's ``calibration``."""

    def of(name: str, rule: str, quality: object, old: str = "", new: str = "") -> Invalid:
        content = manifest([tensor("a", "U8", [3], ABC, raw(ABC), quality=quality)])
        data = build(content, change=swap(old, new)) if old else build(content)
        return Invalid(f"quality-{name}", f"container.md, section 3.1.1: {rule}", "format", "open", data)

    numbers = "all are integers within 0 .. 2^63 - 1"
    yield of("negative", numbers, {"error_ppb": -1})
    yield of("of-63-bits", numbers, {"zeros": 1 << 63})
    yield of("of-64-bits", numbers, {"coded_millibits": 1 << 64})
    yield of("fraction", numbers, {"error_ppb": 1.5})
    yield of("true", numbers, {"zeros": True})
    yield of("a-string", numbers, {"zeros": "1"})
    yield of("null", "canonical JSON", {"zeros": 1}, '"quality":{"zeros":1}', '"quality":null')
    yield of("no-object", "section 3.1: quality is an object or null", [1])
    yield of("unknown-member", "canonical JSON", {"zeros": 1, "zzz": 1})
    yield of("members-in-another-order", "canonical JSON", {"zeros": 1, "error_ppb": 1})
    yield of("member-of-0", "canonical JSON", {"zeros": 0})
    alias = tensor("b", "U8", [3], ABC, branch("alias", {"target": "a", "tied": 1}), quality={"zeros": 1})
    data = build(manifest([tensor("a", "U8", [3], ABC, raw(ABC)), alias]))
    rule = "encodings/alias.md: a tensor that is tied has no quality of its own"
    yield Invalid("quality-of-a-tied-tensor", rule, "format", "open", data)
    alias = tensor("b", "U8", [3], ABC, branch("alias", {"target": "a", "tied": 0}), quality={"zeros": 1})
    both = file("f", ABC + ABC, [{"count": 2}])
    data = build(manifest([tensor("a", "U8", [3], ABC, raw(ABC)), alias], [both]))
    rule = "container.md, section 3.3: a file with a lossy alias has no sha256"
    yield Invalid("quality-of-an-alias-in-a-file-with-a-digest", rule, "format", "open", data)
    rule = "container.md, section 3: calibration is empty or 64 lower-case hexadecimal digits"
    for name, digest in (("short", "0" * 63), ("upper-case", "A" * 64)):
        yield Invalid(f"calibration-{name}", rule, "format", "open", build(manifest(calibration=digest)))
    data = build(manifest(calibration="0" * 64), change=swap(f'"{"0" * 64}"', "null"))
    yield Invalid("calibration-null", rule, "format", "open", data)


def inputs() -> Iterator[Invalid]:
    """Section 3.1.2."""
    one = [0, 0x3F800000]  # 0 and 1.0
    sound = {"minmax": one, "percentile": one, "mse": one}

    def of(name: str, rule: str, ranges: object, old: str = "", new: str = "") -> Invalid:
        content = manifest([tensor("a", "U8", [3], ABC, raw(ABC), input=ranges)])
        data = build(content, change=swap(old, new)) if old else build(content)
        return Invalid(f"input-{name}", f"container.md, section 3.1.2: {rule}", "format", "open", data)

    numbers = "integers within 0 .. 2^32 - 1, the bits of finite numbers"
    yield of("negative", numbers, sound | {"minmax": [-1, 0]})
    yield of("of-32-bits", numbers, sound | {"percentile": [0, 1 << 32]})
    yield of("fraction", numbers, sound | {"mse": [0, 1.5]})
    yield of("true", numbers, sound | {"mse": [0, True]})
    yield of("infinity", numbers, sound | {"minmax": [0, 0x7F800000]})
    yield of("minus-infinity", numbers, sound | {"minmax": [0xFF800000, 0]})
    yield of("nan", numbers, sound | {"percentile": [0x7FC00000, 0x7FC00000]})
    yield of("descending", "the first is not greater than the second", sound | {"minmax": one[::-1]})
    # As bits the first is smaller, as a number the second is.
    yield of("descending-below-0", "the first is not greater", sound | {"mse": [0x80000001, 0xBF800000]})
    yield of("of-one", "an array of two integers", sound | {"mse": [0]})
    yield of("of-three", "an array of two integers", sound | {"mse": [0, 0, 0]})
    yield of("no-array", "an array of two integers", sound | {"mse": 0})
    yield of("without-mse", "section 3.1.2: mse is required", {"minmax": one, "percentile": one})
    text = json.dumps(sound, separators=(",", ":"))
    yield of("null", "canonical JSON", sound, f'"input":{text}', '"input":null')
    yield of("no-object", "section 3.1: input is an object or null", [1])
    yield of("unknown-member", "canonical JSON", sound | {"zzz": one})
    yield of("members-in-another-order", "canonical JSON", dict(reversed(sound.items())))
    alias = tensor("b", "U8", [3], ABC, branch("alias", {"target": "a", "tied": 0}), input=sound)
    data = build(manifest([tensor("a", "U8", [3], ABC, raw(ABC)), alias]))
    rule = "container.md, section 3.1: an alias has no input"
    yield Invalid("input-of-an-alias", rule, "format", "open", data)


def nodes() -> Iterator[Invalid]:
    """Section 3.2."""

    def of(name: str, rule: str, node: Object) -> Invalid:
        content = one("U8", [3], ABC, node)
        return Invalid(f"node-{name}", f"container.md, section 3.2: {rule}", "format", "open", build(content))

    either = "a node is a leaf or a branch"
    yield of("without-members", either, {})
    yield of("of-both-kinds", either, leaf("raw", ABC) | {"encoding": "codebook"})
    yield of("leaf-with-params", either, leaf("raw", ABC) | {"params": {"a": 1}})
    yield of("leaf-with-parts", either, leaf("raw", ABC) | {"parts": {"a": raw(b"")}})
    yield of("branch-with-nbytes", either, {"nbytes": 3, "encoding": "x"})
    yield of("branch-with-xxh3", either, {"xxh3": "0" * 16, "encoding": "x"})
    yield of("without-codec", either, {"nbytes": 3, "xxh3": "0" * 16})
    for name, wrong in (
        ("upper-case", "Raw"),
        ("slash", "raw/x"),
        ("65-characters", "x" * 65),
        ("dot", "x.y"),
    ):
        yield of(f"codec-{name}", "ids", leaf(wrong, ABC))
        yield of(f"encoding-{name}", "ids", branch(wrong, x=raw(ABC)))
    yield of("codec-newline", "ids", leaf("raw\n", ABC))
    yield of("codec-letter-beyond-ascii", "ids", leaf("räw", ABC))
    size = "nbytes is within 0 .. 2^48"
    yield of("nbytes-negative", size, leaf("raw", ABC, nbytes=-3))
    yield of("nbytes-too-large", size, leaf("raw", ABC, nbytes=(1 << 48) + 1))
    yield of("nbytes-of-65-bits", size, leaf("raw", ABC, nbytes=(1 << 64) + 3))
    yield of("nbytes-a-string", size, leaf("raw", ABC, nbytes="3"))
    yield of("nbytes-true", size, leaf("raw", ABC, nbytes=True))
    digits = "xxh3 is 16 lower-case hexadecimal digits"
    yield of("without-xxh3", digits, leaf("raw", ABC, xxh3=""))
    for name, digest in (("short", "0" * 15), ("long", "0" * 17), ("upper-case", "A" * 16)):
        yield of(f"xxh3-{name}", digits, leaf("raw", ABC, xxh3=digest))
    params = "params are integers, strings or arrays of integers, in ascending order"
    for name, value in (
        ("true", True),
        ("fraction", 0.5),
        ("null", None),
        ("object", {"a": 1}),
        ("list-of-lists", [[1]]),
        ("list-of-strings", ["1"]),
        ("of-64-bits", 1 << 63),
        ("below-64-bits", -(1 << 63) - 1),
        ("list-of-64-bits", [1 << 63]),
    ):
        yield of(f"param-{name}", params, branch("x", {"a": value}, x=raw(ABC)))
    yield of("params-not-ascending", params, branch("x", {"b": 1, "a": 1}, x=raw(ABC)))
    parts = {f"{i}": raw(b"") for i in range(65)}
    yield of("of-65-parts", "a branch has at most MAX_PARTS", branch("x", **parts))
    deep = raw(ABC)
    for _ in range(8):
        deep = branch("row_groups", {"rows": [3]}, group=raw(bytes(3)), **{"0": deep})
    yield of("nine-deep", "nodes are at most MAX_DEPTH deep", deep)
    deep = raw(ABC)
    for _ in range(8):
        deep = branch("x", x=deep)
    yield of("nine-deep-and-unknown", "nodes are at most MAX_DEPTH deep", deep)
    yield of("part-no-object", "parts are nodes", {"encoding": "x", "parts": {"a": 1}})
    yield of("parts-no-object", "parts are an object", {"encoding": "x", "parts": [raw(ABC)]})
    yield of("plain", "plain is never an encoding (encodings/plain.md)", branch("plain", x=raw(ABC)))
    yield of(
        "plain-below-unknown",
        "plain is never an encoding (encodings/plain.md)",
        branch("x", x=branch("plain")),
    )


def expansion() -> Iterator[Invalid]:
    """Section 3.2: what a leaf may decode to."""

    def of(name: str, node: Object, n: int) -> Invalid:
        rule = "container.md, section 3.2: a leaf decodes to no more than MAX_EXPANSION allows"
        return Invalid(f"expansion-{name}", rule, "format", "open", build(one("U8", [n], b"", node)))

    yield of("raw", leaf("raw", ABC), 4)
    yield of("raw-of-nothing", leaf("raw", b""), 1)
    yield of("huffman", leaf("huffman", huffman(b"\0" * 64, {0: 1})), 8 * 17 + 1)
    yield of("bitpack", leaf("bitpack", b"\1\0"), 17)
    yield of("zstd", leaf("zstd", b"\x1a"), 65537)
    yield of("zstd-bomb", leaf("zstd", zstd([frame(1 << 17, rle_block(0, 1 << 17))])), 1 << 48)
    yield of("unknown-codec", leaf("x", b"x"), 65536 * 2 + 1)
    yield of("unknown-codec-of-nothing", leaf("x", b""), 65537)
    rows = branch("row_groups", {"rows": [1 << 48]}, group=raw(b""), **{"0": raw(b"")})
    content = one("U8", [1 << 48, 0], b"", rows)
    rule = "container.md, section 3.2: a leaf decodes to no more than MAX_EXPANSION allows"
    yield Invalid("expansion-of-a-part", rule, "format", "open", build(content))
    rule = "container.md, section 3.2: a tree decodes to no more than MAX_EXPANSION allows"
    n = 65536 * (30 + 1) // 8 + 1
    yield Invalid("expansion-of-a-tree", rule, "format", "open", build(one("F64", [n], b"", repeated(n))))
    k = 1 << 18
    codes = leaf("zstd", zstd([frame(k, rle_block(0, 1 << 17), rle_block(0, 1 << 17))]))
    inner = branch("codebook", {"size": 1, "vector": 8}, codes=codes, centroids=raw(bytes(8)))
    outer = branch("codebook", {"size": k, "vector": 8}, codes=raw(bytes(4)), centroids=inner)
    content = one("U8", [8], bytes(8), outer)
    yield Invalid("expansion-of-a-branch", rule, "format", "open", build(content))
    unknown = branch("no-such-encoding", x=raw(ABC))
    content = one("U8", [65536 * 4 + 1], b"", unknown)
    yield Invalid("expansion-of-an-unknown-encoding", rule, "format", "open", build(content))
    rule = "container.md, section 3.2: all tensors together, copies among them, expand no further"
    yield Invalid("expansion-of-copies", rule, "format", "open", build(copied(4)))


def unknown_ids() -> Iterator[Invalid]:
    """Section 3.2: ids that no page defines; no corruption, but nothing to decode with."""

    def of(name: str, node: Object, **said: Any) -> Invalid:
        content = one("F32", [1], b"abcd", node)
        rule = "container.md, section 3.2: an id that the reader does not have"
        return Invalid(f"unknown-{name}", rule, "unknown_id", "load", build(content | said))

    yield of("codec", leaf("no-such-codec", b"abcd"))
    yield of("codec-of-64-characters", leaf("x" * 64, b"abcd"))
    unknown = branch(
        "no-such-encoding", {"a": [1, -1], "b": "", "c": -(1 << 63)}, x=raw(b"x"), y=leaf("zstd", b"")
    )
    yield of("encoding", unknown)
    yield of("encoding-without-parts", branch("no-such-encoding"))
    split = {"base": 0, "exceptions": 0, "mantissa_bits": 0}
    rests = {f"rest{j}": raw(b"x") for j in range(3)}
    yield of("codec-of-a-part", branch("float_split", split, high=leaf("no-such-codec", b""), **rests))
    yield of(
        "encoding-of-a-part", branch("codebook", {"size": 1}, codes=branch("no_such"), centroids=raw(b"abcd"))
    )


def files_of(*entries: Object) -> Object:
    """A manifest of files and the two tensors ``a`` and ``b``, three bytes each."""
    tensors = [tensor(name, "U8", [3], ABC, raw(ABC)) for name in ("a", "b")]
    return manifest(tensors, entries)


def file_paths() -> Iterator[Invalid]:
    """Section 3.3: paths."""

    def of(name: str, *paths: str) -> Invalid:
        entries = [file(path, b"x", [{"literal": 1}], raw(b"x")) for path in paths]
        rule = "container.md, section 3.3: a path is relative and plain"
        return Invalid(f"path-{name}", rule, "format", "open", build(manifest(files=entries)))

    yield of("empty", "")
    yield of("absolute", "/etc/passwd")
    yield of("parent", "../x")
    yield of("only-parent", "..")
    yield of("parent-inside", "a/../../x")
    yield of("here", "./x")
    yield of("only-here", ".")
    yield of("empty-part", "a//b")
    yield of("slash-behind", "a/")
    yield of("backslash", "a\\b")
    yield of("backslash-parent", "..\\x")
    yield of("drive", "C:/x")
    yield of("drive-alone", "c:")
    yield of("drive-relative", "C:x")
    yield of("nul", "a\0b")
    yield of("newline", "a\nb")
    yield of("escape", "a\x1b[2Jb")
    yield of("delete", "a\x7fb")
    yield of("too-long", "é" * 2048 + "x")
    yield of("twice", "a", "a")
    yield of("directory-of-another", "a/b", "a")
    yield of("directory-of-another-far-above", "a", "a-b", "a.b", "a/b/c/d")


def file_entries() -> Iterator[Invalid]:
    """Section 3.3: segments, sizes and digests."""

    def of(name: str, rule: str, entry: Object, error: str = "format", found_by: str = "open") -> Invalid:
        data = build(files_of(entry))
        return Invalid(f"file-{name}", f"container.md, section 3.3: {rule}", error, found_by, data)

    def segments(name: str, rule: str, *given: Any, nbytes: int = 3) -> Invalid:
        return of(f"segment-{name}", rule, file("x", ABC, list(given), nbytes=nbytes))

    sums = "nbytes is the sum of the segments"
    yield of("nbytes-too-large", sums, file("x", ABC, [{"literal": 3}], raw(ABC), nbytes=4))
    yield of("nbytes-too-small", sums, file("x", ABC, [{"literal": 3}], raw(ABC), nbytes=2))
    yield of("nbytes-without-segments", sums, file("x", ABC, []))
    yield of("nbytes-negative", sums, file("x", b"", [], nbytes=-1))
    overflowing = [{"literal": 1 << 63}, {"literal": 1 << 63}]
    yield of("nbytes-that-overflow", sums, file("x", b"", overflowing, leaf("zstd", b"\x16"), nbytes=0))
    forms = "a segment has one of two forms"
    yield segments("without-members", forms, {}, {"count": 1})
    yield segments("of-both-forms", forms, {"literal": 3, "count": 1}, nbytes=6)
    yield segments("literal-and-first", forms, {"literal": 3, "first": 1})
    yield segments("first-without-count", forms, {"first": 1}, {"count": 1})
    yield segments("literal-negative", forms, {"literal": -3}, {"count": 2})
    yield segments("count-negative", forms, {"first": 1, "count": -1}, {"count": 2})
    yield segments("first-negative", forms, {"first": -1, "count": 1})
    yield segments("no-object", forms, 3)
    yield segments("unknown-member", forms, {"count": 1, "zzz": 1})
    yield segments("members-in-another-order", "canonical JSON", {"count": 1, "first": 1})
    there = "first + count is at most the number of tensors"
    yield segments("count-beyond-the-tensors", there, {"count": 3}, nbytes=6)
    yield segments("first-beyond-the-tensors", there, {"first": 2, "count": 1})
    yield segments("of-64-bits", there, {"first": (1 << 64) - 1, "count": 2})
    repeated = "the counts of all segments add up to at most the number of tensors"
    yield segments("of-tensors-repeated", repeated, {"count": 2}, {"count": 1}, nbytes=9)
    literal = "literal is null if and only if no segment is literal"
    yield of("literal-missing", literal, file("x", ABC, [{"literal": 3}]))
    yield of("literal-without-segments", literal, file("x", ABC, [{"count": 1}], raw(b"")))
    yield of(
        "literal-a-branch", "literal is a leaf", file("x", ABC, [{"literal": 3}], branch("x", x=raw(ABC)))
    )
    yield of("literal-too-short", "the decoded size of literal", file("x", ABC, [{"literal": 3}], raw(b"ab")))
    longer = file("x", ABC, [{"literal": 3}], raw(b"abcd"))
    yield of("literal-too-long", "the decoded size of literal", longer, "stream", "load")
    damaged = file("x", ABC, [{"literal": 3}], leaf("raw", ABC, xxh3="0" * 16))
    yield of("literal-xxh3-wrong", "section 3.2: xxh3", damaged, "stream", "load")
    for name, digest in (("short", "0" * 63), ("upper-case", "A" * 64), ("empty", "")):
        entry = file("x", ABC, [{"count": 1}], sha256=digest)
        yield of(f"sha256-{name}", "sha256 is 64 lower-case hexadecimal digits", entry)
    wrong = file("x", b"abd", [{"count": 1}])
    yield of("sha256-wrong", "the SHA-256 matches", wrong, "stream", "validate")
    swapped = file("x", b"ab" + ABC, [{"count": 1}, {"literal": 2}], raw(b"ab"))
    yield of("segments-in-another-order", "the SHA-256 matches", swapped, "stream", "validate")


def lossy_files() -> Iterator[Invalid]:
    """Section 3.3: a file is not the one that was packed if a tensor in it is not."""
    lossy = tensor("lossy", "U8", [3], ABC, raw(ABC), quality={"error_ppb": 1})
    same = tensor("same", "U8", [3], ABC, branch("alias", {"target": "lossy", "tied": 0}))
    rule = "container.md, section 3.3: a file with a lossy tensor has no sha256"
    for name, segment in (
        ("a-lossy-tensor", {"count": 1}),
        ("an-alias-of-a-lossy-tensor", {"first": 1, "count": 1}),
    ):
        data = build(manifest([lossy, same], [file("x", ABC, [segment])]))
        yield Invalid(f"file-sha256-of-{name}", rule, "format", "open", data)
