"""Invalid vectors: preamble, footer, manifest as a whole, places of streams (spec/container.md)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from .assemble import MAGIC, build, leaf, manifest, one, swap, tensor
from .cases import Invalid, container_example, raw
from .streams import checksum, frame, frame_of_runs, noise, raw_block, rle_block

__all__ = ["file_layout", "json_form", "json_values", "manifest_frame", "stream_places"]

CONTENT = container_example().content
EXAMPLE = container_example().to_bytes()
MANIFEST_AT = 19


def file_layout() -> Iterator[Invalid]:
    """Sections 2 to 2.2."""

    def of(name: str, rule: str, data: bytes, error: str = "format") -> Invalid:
        return Invalid(name, f"container.md, section {rule}", error, "open", data)

    size = len(EXAMPLE)
    cuts = {
        "everything": 0,
        "within-the-magic": 7,
        "behind-the-magic": 8,
        "behind-the-preamble": 16,
        "within-the-stream": 17,
        "behind-the-stream": 19,
        "within-the-manifest": 100,
        "behind-the-manifest": size - 72,
        "within-the-footer": size - 40,
        "before-the-last-magic": size - 8,
        "the-last-byte": size - 1,
    }
    for name, cut in cuts.items():
        yield of(f"cut-off-{name}", "2: a file that is cut off has no footer", EXAMPLE[:cut])
    yield of("file-with-a-byte-more", "2: the file holds nothing else", EXAMPLE + b"\0")
    yield of("file-twice", "2: the file holds nothing else", EXAMPLE * 2)
    yield of("file-of-two-magics", "2: preamble and footer do not overlap", MAGIC * 2)
    yield of("preamble-magic", "2.1: magic", b"\x88" + EXAMPLE[1:])
    yield of("preamble-magic-as-text", "2.1: magic", EXAMPLE.replace(b"\r\n", b"\n", 1) + b"\n")
    for name, major, minor in (("minor", 0, 4), ("older", 0, 2), ("major", 1, 0), ("both", 65535, 65535)):
        data = EXAMPLE[:8] + struct.pack("<HH", major, minor) + EXAMPLE[12:]
        yield of(f"version-{name}", "2.1: a reader must refuse a version it does not know", data, "version")
    yield of("preamble-reserved", "2.1: reserved is 0", EXAMPLE[:15] + b"\1" + EXAMPLE[16:])

    def footer(name: str, rule: str, **fields: Any) -> Invalid:
        return of(f"footer-{name}", f"2.2: {rule}", build(CONTENT, **fields))

    stored = size - MANIFEST_AT - 72
    yield footer("magic", "magic", magic=MAGIC[::-1])
    yield footer("reserved", "reserved is 0", reserved=1 << 63)
    sizes = "offset, stored size and 72 add up to the size of the file"
    yield footer("offset-too-large", sizes, offset=MANIFEST_AT + 1)
    yield footer("offset-too-small", sizes, offset=MANIFEST_AT - 1)
    yield footer("offset-beyond-the-file", sizes, offset=2**64 - 1)
    yield footer("sizes-that-overflow", sizes, offset=2**64 - 72, stored_nbytes=size)
    yield footer("manifest-within-the-preamble", sizes, offset=0, stored_nbytes=MANIFEST_AT + stored)
    yield footer("stored-size-too-large", sizes, stored_nbytes=stored + 1)
    yield footer("stored-size-of-zero", sizes, stored_nbytes=0)
    yield footer("manifest-too-large", "manifest_nbytes is at most MAX_MANIFEST_NBYTES", nbytes=268435457)
    yield footer(
        "manifest-size-of-a-bomb", "manifest_nbytes is at most MAX_MANIFEST_NBYTES", nbytes=2**64 - 1
    )
    yield footer("manifest-size-without-a-frame", "a manifest of another size is a frame", nbytes=stored + 1)
    yield footer("manifest-sha256", "the SHA-256 matches", sha256=bytes(32))


def manifest_frame() -> Iterator[Invalid]:
    """Section 2.2, a compressed manifest."""

    def of(name: str, store: Callable[[bytes], bytes]) -> Invalid:
        rule = "container.md, section 2.2: one zstd frame that states its size and needs no dictionary"
        return Invalid(f"manifest-frame-{name}", rule, "format", "open", build(CONTENT, store=store))

    def whole(text: bytes) -> bytes:
        return frame(len(text), raw_block(text))

    yield of("without-a-size", lambda text: frame(0, raw_block(text), head=b"\x00\x50"))
    yield of("of-another-size", lambda text: frame(len(text) + 1, raw_block(text)))
    yield of("of-no-size", lambda text: frame(0, raw_block(text)))
    yield of("of-more-than-it-states", lambda text: frame(len(text), raw_block(text + b" ")))
    dictionary = b"\xa1\x07"
    yield of(
        "with-a-dictionary",
        lambda text: frame(0, raw_block(text), head=dictionary + len(text).to_bytes(4, "little")),
    )
    yield of("twice", lambda text: whole(text) * 2)
    yield of("behind-another", lambda text: frame(0, raw_block(b"")) + whole(text))
    yield of("behind-a-skippable-one", lambda text: b"\x50\x2a\x4d\x18\0\0\0\0" + whole(text))
    yield of("with-a-byte-more", lambda text: whole(text) + b"\0")
    yield of("cut-off", lambda text: whole(text)[:-1])
    yield of("of-nothing", lambda _: b"")
    yield of("of-another-format", lambda text: b"\x1f\x8b\x08\0" + text)
    yield of("with-a-reserved-block", lambda text: frame(len(text), raw_block(text), (3, 1, b"\0")))

    def checked(text: bytes) -> bytes:
        head = b"\xa4" + struct.pack("<I", len(text))
        return frame(0, raw_block(text), head=head) + checksum(text + b"?")

    yield of("with-a-wrong-checksum", checked)

    # An object takes many times the memory of its JSON, and the run of them hardly any room in the file.
    segments = (b'{"producer":"","files":[{"segments":[', 1), (b"{},", (1 << 20) // 3), (b"{}]}]}", 1)
    text = b"".join(pattern * count for pattern, count in segments)
    data = build(manifest(), change=lambda _: text, store=lambda _: frame_of_runs(*segments))
    rule = "container.md, section 2.2: a large manifest expands to MAX_MANIFEST_EXPANSION times"
    yield Invalid("manifest-frame-that-expands-too-far", rule, "format", "open", data)


def json_form() -> Iterator[Invalid]:
    """Section 3: canonical JSON."""

    def of(name: str, old: str, new: str) -> Invalid:
        rule = "container.md, section 3: canonical JSON"
        return Invalid(f"json-{name}", rule, "format", "open", build(content, change=swap(old, new)))

    noted = "\u0008\u001f/é😀"
    content = manifest(CONTENT["tensors"], metadata={"m": noted})
    told = '"m":"\\b\\u001f/é😀"'
    yield of("space", '"shape":[3]', '"shape": [3]')
    yield of("space-in-front", '{"producer"', ' {"producer"')
    yield of("newline-behind", "}}]}", "}}]}\n")
    yield of("byte-order-mark", '{"producer"', '\ufeff{"producer"')
    yield of("not-closed", "}}]}", "}}]")
    yield of("something-behind", "}}]}", "}}]}{}")
    yield of("comma-behind", '"shape":[3]', '"shape":[3,]')
    yield of("single-quotes", '"name":"a"', "\"name\":'a'")
    yield of("comment", '"name":"a"', '/**/"name":"a"')
    yield of("members-in-another-order", '"name":"a","dtype":"U8"', '"dtype":"U8","name":"a"')
    yield of("default-written", '"metadata"', '"recipe":"","metadata"')
    yield of("null-for-a-default", '"metadata"', '"recipe":null,"metadata"')
    yield of("empty-list-written", "}}]}", '}}],"files":[]}')
    yield of("unknown-member", "}}]}", '}}],"zzz":1}')
    yield of("unknown-member-of-a-tensor", "}}]}", '},"zzz":1}]}')
    yield of("unknown-member-of-a-node", "}}]}", ',"zzz":1}}]}')
    yield of("repeated-member", '"metadata"', '"producer":"make_vectors","metadata"')
    yield of("repeated-member-of-a-tensor", '"name":"a"', '"name":"a","name":"a"')
    yield of("repeated-key", told, f"{told},{told}")
    yield of("escape-without-need", '"name":"a"', '"name":"\\u0061"')
    yield of("escaped-slash", told, '"m":"\\b\\u001f\\/é😀"')
    yield of("escaped-letter", told, '"m":"\\b\\u001f/\\u00e9😀"')
    yield of("escaped-pair", told, '"m":"\\b\\u001f/é\\ud83d\\ude00"')
    yield of("upper-case-escape", told, '"m":"\\b\\u001F/é😀"')
    yield of("long-escape", told, '"m":"\\u0008\\u001f/é😀"')
    yield of("control-character", told, '"m":"\\b\u001f/é😀"')
    yield of("escaped-surrogate", told, '"m":"\\ud800"')
    # Bytes that are no UTF-8 stand here as the surrogates that swap makes bytes of.
    yield of("utf8-surrogate", told, '"m":"\udced\udca0\udc80"')
    yield of("utf8-overlong", told, '"m":"\udcc0\udcaf"')
    yield of("utf8-cut-off", told, '"m":"\udce2\udc82"')
    yield of("utf8-beyond-unicode", told, '"m":"\udcf4\udc90\udc80\udc80"')
    yield of("utf8-stray-byte", '"name":"a"', '"name":"\udcff"')
    yield of("latin-1", told, '"m":"\udce9"')
    for name, number in (("fraction", "3.0"), ("exponent", "3e0"), ("leading-zero", "03"), ("plus", "+3")):
        yield of(f"number-with-{name}", '"shape":[3]', f'"shape":[{number}]')
    yield of("number-minus-zero", '"shape":[3]', '"shape":[-0]')
    yield of("number-not-a-number", '"shape":[3]', '"shape":[NaN]')
    yield of("number-of-5000-digits", '"shape":[3]', f'"shape":[{"9" * 5000}]')


def json_values() -> Iterator[Invalid]:
    """Section 3: what is not a manifest at all, or holds another type."""

    def of(name: str, text: str) -> Invalid:
        return of_runs(name, (text.encode(), 1))

    def of_runs(name: str, *runs: tuple[bytes, int]) -> Invalid:
        rule = "container.md, section 3: the members of the manifest and their types"
        text = b"".join(pattern * count for pattern, count in runs)
        store = (lambda _: frame_of_runs(*runs)) if len(runs) > 1 else bytes
        data = build(manifest(), change=lambda _: text, store=store)
        return Invalid(f"manifest-{name}", rule, "format", "open", data)

    yield of("of-nothing", "")
    yield of("of-null", "null")
    yield of("of-a-list", "[]")
    yield of("without-members", "{}")
    yield of("without-producer", '{"recipe":"x"}')
    yield of("producer-no-string", '{"producer":1}')
    yield of("metadata-no-object", '{"producer":"","metadata":[1]}')
    yield of("metadata-no-string", '{"producer":"","metadata":{"a":1}}')
    yield of("metadata-null", '{"producer":"","metadata":{"a":null}}')
    yield of("metadata-nested", '{"producer":"","metadata":{"a":{"b":"c"}}}')
    yield of("providers-no-string", '{"producer":"","providers":{"a":1}}')
    yield of("providers-not-ascending", '{"producer":"","providers":{"b":"x 1","a":"x 1"}}')
    yield of("tensors-no-list", '{"producer":"","tensors":{"a":{}}}')
    yield of("tensor-no-object", '{"producer":"","tensors":[1]}')
    yield of("tensor-null", '{"producer":"","tensors":[null]}')
    yield of("tensor-without-members", '{"producer":"","tensors":[{}]}')
    yield of("file-no-object", '{"producer":"","files":["a"]}')
    yield of_runs("of-100000-brackets", (b"[", 100000), (b" ", 1))
    yield of_runs("of-100000-closed-brackets", (b"[", 100000), (b"]", 100000))
    yield of_runs("of-80000-objects", (b'{"producer":', 80000), (b"1", 1), (b"}", 80000))
    node = b'{"encoding":"x","parts":{"x":'
    head = b'{"producer":"","tensors":[{"name":"","dtype":"U8","shape":[],"data":'
    yield of_runs("of-5000-nodes", (head, 1), (node, 5000), (b"{}", 1), (b"}}", 5000), (b"}]}", 1))


def stream_places() -> Iterator[Invalid]:
    """Section 5, and the digests of streams and tensors."""

    def of(name: str, rule: str, data: bytes, error: str = "format", found_by: str = "open") -> Invalid:
        return Invalid(f"streams-{name}", f"container.md, section {rule}", error, found_by, data)

    placed = "5: the manifest starts where the last stream ends"
    yield of("one-too-long", placed, build(one("U8", [3], b"abc", leaf("raw", b"abc", nbytes=4))))
    yield of("one-too-short", placed, build(one("U8", [2], b"ab", leaf("raw", b"abc", nbytes=2))))
    yield of("hole-before-the-manifest", placed, build(CONTENT, before_manifest=b"\0"))
    yield of("none-but-a-hole", placed, build(manifest(), before_manifest=b"\0" * 8))
    yield of(
        "one-of-the-largest-size", placed, build(one("U8", [3], b"abc", leaf("raw", b"abc", nbytes=1 << 48)))
    )
    content = manifest(
        [tensor("a", "U8", [1], b"x", raw(b"x")), tensor("b", "U8", [4096], noise(4096), raw(noise(4096)))]
    )
    yield of("alignment-left-out", placed, build(content, aligned_from=1 << 48))
    yield of("alignment-without-need", placed, build(CONTENT, aligned_from=1))
    yield of("padding-not-zero", "5: the padding is 0", build(content, padding=b"\1"), found_by="validate")
    shifted = manifest(
        [
            tensor("a", "U8", [3], b"abc", leaf("raw", b"ab", nbytes=3)),
            tensor("b", "U8", [1], b"d", leaf("raw", b"cd", nbytes=1)),
        ]
    )
    digest = "3.2: xxh3 is the digest of the stream"
    yield of("that-overlap", digest, build(shifted), "stream", "load")
    wrong = leaf("raw", b"abc", xxh3="0" * 16)
    yield of("xxh3-wrong", digest, build(one("U8", [3], b"abc", wrong)), "stream", "load")
    turned = leaf("raw", b"abc")
    turned["xxh3"] = bytes.fromhex(turned["xxh3"])[::-1].hex()
    yield of("xxh3-least-significant-first", digest, build(one("U8", [3], b"abc", turned)), "stream", "load")
    blake3 = "3.1: blake3 is the digest of the bytes of the tensor"
    another = one("U8", [3], b"abd", raw(b"abc"))
    yield of("blake3-wrong", blake3, build(another), "stream", "validate")
    zeros = leaf("zstd", b"\x16\x0d\0\0\0" + frame(1 << 20, *[rle_block(0, 1 << 17)] * 2))
    yield of(
        "frame-shorter-than-it-states",
        "3.2 and codecs/zstd.md",
        build(one("U8", [1 << 20], b"", zeros)),
        "stream",
        "load",
    )
