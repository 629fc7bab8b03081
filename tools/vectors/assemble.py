"""Archives from hand-made parts (spec/container.md): a writer that can also be told to break rules."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import blake3
import xxhash

__all__ = [
    "MAGIC",
    "Entry",
    "Leaf",
    "Object",
    "branch",
    "build",
    "file",
    "leaf",
    "manifest",
    "one",
    "swap",
    "tensor",
]

Object: TypeAlias = dict[str, Any]

MAGIC = b"\x89CMPK\r\n\x1a"


class Leaf(dict[str, Any]):
    """What the manifest says of a stream, and the stream, which need not be what it says."""

    stream: bytes = b""


class Entry(dict[str, Any]):
    """What the manifest says of a tensor or file, and its bytes."""

    data: bytes = b""


def leaf(codec: str, stream: bytes, **said: Any) -> Leaf:
    """A leaf.

    Parameters
    ----------
    codec : str
    stream : bytes
    **said
        Members that differ from what is right.
    """
    members = {"codec": codec, "nbytes": len(stream), "xxh3": xxhash.xxh3_64_hexdigest(stream)} | said
    node = Leaf({name: value for name, value in members.items() if value not in (0, "")})
    node.stream = stream
    return node


def branch(encoding: str, params: Object | None = None, /, **parts: Object) -> Object:
    """A branch; the parts in the order given."""
    members: Object = {"encoding": encoding, "params": params or {}, "parts": parts}
    return {name: value for name, value in members.items() if value}


def tensor(name: str, dtype: str, shape: list[int], data: bytes, node: Object, **said: Any) -> Entry:
    """A tensor of the bytes ``data``, stored as ``node`` says."""
    is_alias = node.get("encoding") == "alias"
    members: Object = {
        "name": name,
        "dtype": dtype,
        "shape": shape,
        "blake3": "" if is_alias else blake3.blake3(data).hexdigest(),
        "quality": None,
        "input": None,
        "data": node,
    } | said
    entry = Entry(_without_defaults(members, {"blake3": "", "quality": None, "input": None}))
    entry.data = data
    return entry


def file(path: str, data: bytes, segments: list[Object], literal: Object | None = None, **said: Any) -> Entry:
    """A packed file of the bytes ``data``."""
    members: Object = {
        "path": path,
        "nbytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "segments": segments,
        "literal": literal,
    } | said
    entry = Entry(_without_defaults(members, {"sha256": "", "segments": [], "literal": None}))
    entry.data = data
    return entry


def _without_defaults(members: Object, defaults: Object) -> Object:
    return {name: value for name, value in members.items() if name not in defaults or value != defaults[name]}


def manifest(tensors: Sequence[Object] = (), files: Sequence[Object] = (), **said: Any) -> Object:
    """A manifest."""
    members: Object = {
        "producer": "make_vectors",
        "recipe": "",
        "calibration": "",
        "metadata": {},
        "providers": {},
        "tensors": list(tensors),
        "files": list(files),
    } | said
    return {name: value for name, value in members.items() if value or name == "producer"}


def one(dtype: str, shape: list[int], data: bytes, node: Object, **said: Any) -> Object:
    """A manifest of the one tensor ``a``."""
    return manifest([tensor("a", dtype, shape, data, node, **said)])


def swap(old: str, new: str) -> Callable[[bytes], bytes]:
    """A change of the one place in the JSON that reads ``old``; lone surrogates stand for raw bytes."""

    def change(text: bytes) -> bytes:
        found = old.encode("utf-8", "surrogateescape")
        if text.count(found) != 1:
            raise ValueError(f"{old!r} occurs {text.count(found)} times in {text!r}")
        return text.replace(found, new.encode("utf-8", "surrogateescape"))

    return change


def leaves(node: object) -> Iterator[Leaf]:
    """All leaves below, in the order in which they stand in the manifest."""
    if isinstance(node, Leaf):
        yield node
    elif isinstance(node, dict):
        for value in node.values():
            yield from leaves(value)
    elif isinstance(node, list):
        for value in node:
            yield from leaves(value)


def build(
    content: Object,
    *,
    change: Callable[[bytes], bytes] = bytes,
    store: Callable[[bytes], bytes] = bytes,
    padding: bytes = b"\0",
    aligned_from: int = 4096,
    before_manifest: bytes = b"",
    **footer: Any,
) -> bytes:
    """A whole file.

    Parameters
    ----------
    content : dict
        The manifest.
    change : function
        Makes of its canonical JSON the JSON that is stored.
    store : function
        Makes of the JSON the bytes that are stored.
    padding : bytes
        One byte: what alignment fills gaps with.
    aligned_from : int
        Smallest raw stream that is aligned.
    before_manifest : bytes
        Put between the last stream and the manifest.
    **footer
        Fields that differ from what is right: offset, stored_nbytes, nbytes, sha256, reserved, magic.
    """
    out = bytearray(MAGIC + struct.pack("<HHI", 0, 3, 0))
    for stored in leaves(content):
        if stored.get("codec") == "raw" and len(stored.stream) >= aligned_from:
            out += padding * (-len(out) % 64)
        out += stored.stream
    out += before_manifest
    text = change(json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode())
    packed = store(text)
    fields = {
        "offset": len(out),
        "stored_nbytes": len(packed),
        "nbytes": len(text),
        "sha256": hashlib.sha256(text).digest(),
        "reserved": 0,
        "magic": MAGIC,
    } | footer
    return bytes(out + packed + struct.pack("<QQQ32sQ8s", *fields.values()))
