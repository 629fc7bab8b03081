"""Archives put together by hand, and safetensors files likewise: what no packer would write."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import xxhash
import zstandard

from cmpk.codecs import Codec
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Encoded
from cmpk.importers import ModelSource, SourceTensor
from cmpk.packing import pack

MAGIC = b"\x89CMPK\r\n\x1a"
PREAMBLE = MAGIC + bytes([0, 0, 3, 0, 0, 0, 0, 0])

Node = dict[str, Any]


def leaf(stream: bytes, codec: str = "raw", **changed: object) -> Node:
    """A leaf that brings its stream along; `archive` takes it out again."""
    node = {"codec": codec, "nbytes": len(stream), "xxh3": xxhash.xxh3_64_hexdigest(stream)}
    if not stream:
        del node["nbytes"]  # its default
    return {**node, **changed, "stream": bytes(stream)}


def branch(encoding: str, params: Mapping[str, object], **parts: Node) -> Node:
    """A branch; parts whose names are numbers are given as ``**{"0": ...}``."""
    node: Node = {"encoding": encoding}
    if params:
        node["params"] = dict(sorted(params.items()))
    if parts:
        node["parts"] = parts
    return node


def branch_of(encoding: str, encoded: Encoded, codec: Codec | None = None) -> Node:
    """The branch of what an encoding made; its parts are raw, or coded where the codec takes them."""
    parts = {}
    for name, part in encoded.parts.items():
        stream = None if codec is None else codec.encode(part.data)
        if codec is None or stream is None or len(stream) * codec.max_expansion < len(part.data):
            parts[name] = leaf(part.data.tobytes())
        else:
            parts[name] = leaf(bytes(memoryview(stream)), codec.id)
    return branch(encoding, encoded.params, **parts)


def tensor(name: str, dtype: str, shape: Sequence[int], node: Node, data: bytes | None = None) -> Node:
    """A tensor's entry. ``data`` are its bytes, for the digest that only deep verification checks."""
    entry: Node = {"name": name, "dtype": dtype, "shape": list(shape)}
    if node.get("encoding") != "alias":
        entry["blake3"] = "0" * 64 if data is None else blake3.blake3(data).hexdigest()
    return {**entry, "data": node}


def file(path: str, content: bytes, segments: Sequence[Node], literal: Node | None = None) -> Node:
    """A packed file that consists of the segments; ``content`` is what they make."""
    entry: Node = {"path": path, "nbytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if segments:
        entry["segments"] = list(segments)
    if literal is not None:
        entry["literal"] = literal
    return entry


def archive(tensors: Sequence[Node] = (), files: Sequence[Node] = (), **members: object) -> bytes:
    """An archive of these tensors and files, with their streams where they belong."""
    manifest: Node = {"producer": "by hand", **members}
    if tensors:
        manifest["tensors"] = list(tensors)
    if files:
        manifest["files"] = list(files)
    nodes = [entry["data"] for entry in tensors] + [entry["literal"] for entry in files if "literal" in entry]
    streams = [found for node in nodes for found in _leaves(node)]
    body = bytearray(PREAMBLE)
    for codec, stream in streams:
        if codec == "raw" and len(stream) >= 4096:
            body += bytes(-len(body) % 64)
        body += stream
    return sealed(bytes(body), to_json(manifest))


def sealed(body: bytes, manifest: bytes, *, compressed: bool = False) -> bytes:
    """An archive from its first bytes, up to the manifest, and the manifest's JSON."""
    stored = zstandard.ZstdCompressor(level=19).compress(manifest) if compressed else manifest
    return body + stored + footer(len(body), len(stored), manifest)


def footer(offset: int, stored_nbytes: int, manifest: bytes, nbytes: int | None = None) -> bytes:
    """The footer of a manifest; ``nbytes`` where it lies about the size."""
    size = len(manifest) if nbytes is None else nbytes
    sha256 = hashlib.sha256(manifest).digest()
    return struct.pack("<QQQ32sQ8s", offset, stored_nbytes, size, sha256, 0, MAGIC)


def to_json(value: object) -> bytes:
    """Canonical JSON; streams that leaves bring along are left out."""
    return json.dumps(_without_streams(value), separators=(",", ":"), ensure_ascii=False).encode()


def safetensors_file(path: Path, header: Mapping[str, object] | bytes, data: bytes = b"") -> Path:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


class Bytes(ModelSource):
    """A model in memory of any dtypes, by name: dtype, shape and bytes."""

    def __init__(self, **tensors: tuple[str, tuple[int, ...], np.ndarray[Any, Any]]) -> None:
        self.metadata = {}
        self.notes = []
        self.nbytes = sum(len(data) for _, _, data in tensors.values())
        self._tensors = tensors

    def tensors(self) -> Iterator[SourceTensor]:
        for name, (dtype, shape, data) in self._tensors.items():
            yield SourceTensor(name, TensorSpec(dtype, shape), lambda data=data: data)

    def packed(self, recipe: str = "lossless", jobs: int = 1) -> bytes:
        """The archive's bytes."""
        sink = io.BytesIO()
        pack(self, sink, recipe=recipe, jobs=jobs)
        return sink.getvalue()


def _leaves(node: Node) -> Iterator[tuple[str, bytes]]:
    if "stream" in node:
        yield node["codec"], node["stream"]
    for part in node.get("parts", {}).values():
        yield from _leaves(part)


def _without_streams(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_streams(item) for key, item in value.items() if not isinstance(item, bytes)}
    if isinstance(value, list):
        return [_without_streams(item) for item in value]
    return value
