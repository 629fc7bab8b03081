"""A decoder of .cmpk files that follows the pages beside it, section by section.

It shares no code with the package: NumPy, zstandard and the standard library are all it needs, so it
says what a file means when everything else is in doubt. It always reads *validating* (container.md,
section 6). The digests XXH3 and BLAKE3 are checked if the packages ``xxhash`` and ``blake3`` are there.

    python decode.py FILE                 list the tensors and files; valid or not, and why
    python decode.py FILE --extract DIR   put the packed files together again
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import math
import re
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
import zstandard
from numpy.typing import NDArray

UNCHECKED = []
try:
    from xxhash import xxh3_64_hexdigest
except ImportError:
    UNCHECKED.append("XXH3")
try:
    from blake3 import blake3
except ImportError:
    UNCHECKED.append("BLAKE3")

__all__ = ["Archive", "Corrupt", "Unsupported"]

U8: TypeAlias = NDArray[np.uint8]

MAX_IN_MEMORY = 1 << 30
MAX_FILE = 1 << 36
"""No rules of the format: the largest tensor and file, in bytes, that this plain decoder takes on."""


class Corrupt(Exception):  # noqa: N818 - the word of the specification
    """The file breaks a rule of the specification."""


class Unsupported(Exception):  # noqa: N818
    """The file is of another version, or needs a codec or encoding that has no page here."""


def need(condition: object, rule: str) -> None:
    """Take a file that breaks a rule for corrupt."""
    if not condition:
        raise Corrupt(rule)


# container.md, section 2: the file

MAGIC = bytes.fromhex("89 43 4D 50 4B 0D 0A 1A")
VERSION = (0, 3)

PREAMBLE_NBYTES = 16
FOOTER_NBYTES = 72
MAX_MANIFEST_NBYTES = 268435456
SMALL_MANIFEST_NBYTES = 1048576
MAX_MANIFEST_EXPANSION = 16
MAX_TENSORS = 1048576
MAX_FILES = 65536
MAX_SEGMENTS = 1048576
MAX_DEPTH = 8
MAX_PARTS = 64
MAX_RANK = 64
MAX_NAME_NBYTES = 4096
MAX_TENSOR_NBYTES = 281474976710656
MAX_EXPANSION = 65536
ALIGNMENT = 64
ALIGNED_FROM_NBYTES = 4096


def read_container(data: bytes) -> tuple[bytes, int]:
    """The manifest as JSON, and where it starts."""
    need(len(data) >= PREAMBLE_NBYTES + FOOTER_NBYTES, "the file has no room for preamble and footer")
    magic, major, minor, reserved = struct.unpack("<8sHHI", data[:PREAMBLE_NBYTES])
    need(magic == MAGIC, "the file does not start with the magic")
    if (major, minor) != VERSION:
        raise Unsupported(f"format version {major}.{minor}")
    need(reserved == 0, "preamble: reserved is not 0")

    footer = struct.unpack("<QQQ32sQ8s", data[-FOOTER_NBYTES:])
    offset, stored_nbytes, nbytes, sha256, reserved, magic = footer
    need(magic == MAGIC, "the file does not end with the magic")
    need(reserved == 0, "footer: reserved is not 0")
    need(offset + stored_nbytes + FOOTER_NBYTES == len(data), "footer: the sizes do not add up to the file's")
    need(nbytes <= MAX_MANIFEST_NBYTES, "footer: manifest_nbytes is beyond the limit")
    is_small = nbytes <= SMALL_MANIFEST_NBYTES
    need(is_small or nbytes <= MAX_MANIFEST_EXPANSION * stored_nbytes, "footer: the manifest expands too far")
    manifest = data[offset : offset + stored_nbytes]
    if stored_nbytes != nbytes:
        manifest = decode_frame(manifest, nbytes)
    need(hashlib.sha256(manifest).digest() == sha256, "the manifest does not match its SHA-256")
    return manifest, offset


def decode_frame(frame: bytes, nbytes: int) -> bytes:
    """Exactly one zstd frame that states its size and needs no dictionary; RFC 8878."""
    need(frame[:4] == bytes.fromhex("28 B5 2F FD"), "zstd: not a frame")
    try:
        header = zstandard.get_frame_parameters(frame)
        need(header.content_size == nbytes, "zstd: the frame states another size, or none")
        need(header.dict_id == 0, "zstd: the frame needs a dictionary")
        data = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Corrupt(f"zstd: {error}") from error
    need(len(data) == nbytes, "zstd: the frame holds another size than it states")
    return data


# container.md, section 3: the manifest

Table: TypeAlias = dict[str, tuple[type, Any]]
REQUIRED = object()

MANIFEST: Table = {
    "producer": (str, REQUIRED),
    "recipe": (str, ""),
    "calibration": (str, ""),
    "metadata": (dict, {}),
    "providers": (dict, {}),
    "tensors": (list, []),
    "files": (list, []),
}
TENSOR: Table = {
    "name": (str, REQUIRED),
    "dtype": (str, REQUIRED),
    "shape": (list, REQUIRED),
    "blake3": (str, ""),
    "quality": (dict, None),
    "input": (dict, None),
    "data": (dict, REQUIRED),
}
QUALITY: Table = {
    "error_ppb": (int, 0),
    "cosine_ppb": (int, 0),
    "zeros": (int, 0),
    "pruned_millibits": (int, 0),
    "quantized_millibits": (int, 0),
    "coded_millibits": (int, 0),
}
INPUT: Table = dict.fromkeys(("minmax", "percentile", "mse"), (list, REQUIRED))
NODE: Table = {
    "codec": (str, ""),
    "nbytes": (int, 0),
    "xxh3": (str, ""),
    "encoding": (str, ""),
    "params": (dict, {}),
    "parts": (dict, {}),
}
FILE: Table = {
    "path": (str, REQUIRED),
    "nbytes": (int, REQUIRED),
    "sha256": (str, ""),
    "segments": (list, []),
    "literal": (dict, None),
}
SEGMENT: Table = {"literal": (int, 0), "first": (int, 0), "count": (int, 0)}


class Spec(NamedTuple):
    """What a tensor is, without its bytes."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def n(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbits(self) -> int:
        """Size in bits."""
        return self.n * DTYPES[self.dtype].nbits

    @property
    def nbytes(self) -> int:
        """Size in bytes, which is whole for every tensor and part."""
        return self.nbits // 8


@dataclass
class Node:
    """Section 3.2: a leaf or a branch."""

    codec: str
    nbytes: int
    xxh3: str
    encoding: str
    params: dict[str, Any]
    parts: dict[str, Node]
    stream: U8 = field(default_factory=lambda: np.zeros(0, np.uint8))

    def leaves(self) -> Iterator[Node]:
        """The leaves of a node in the order of section 5."""
        if self.codec:
            yield self
        for part in self.parts.values():
            yield from part.leaves()


@dataclass
class Tensor:
    """Section 3.1."""

    name: str
    spec: Spec
    blake3: str
    is_lossy: bool
    data: Node


@dataclass
class File:
    """Section 3.3. A segment is (literal, first, count)."""

    path: str
    nbytes: int
    sha256: str
    segments: list[tuple[int, int, int]]
    literal: Node | None

    @property
    def literal_nbytes(self) -> int:
        """Decoded size of the literal."""
        return sum(literal for literal, _, _ in self.segments)


def read_manifest(data: bytes) -> tuple[list[Tensor], list[File]]:
    """Parse a manifest and check the rules of section 3."""
    value = members(parse_json(data), MANIFEST)
    need(all(type(text) is str for text in value["metadata"].values()), "metadata: a value is not a string")
    need(not value["calibration"] or is_hex(value["calibration"], 64), "calibration is no digest")
    providers = value["providers"]
    need(all(type(text) is str for text in providers.values()), "providers: a value is not a string")
    need(list(providers) == sorted(providers), "providers: the ids are not ascending")
    need(len(value["tensors"]) <= MAX_TENSORS, "too many tensors")
    need(len(value["files"]) <= MAX_FILES, "too many files")
    tensors = read_tensors(value["tensors"])
    return tensors, read_files(value["files"], tensors)


def parse_json(data: bytes) -> Any:
    """Canonical JSON (section 3), whose members come in the order in which they stand."""
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Corrupt(f"manifest: {error}") from error
    # The parser recurses: see first that it can't come near the bottom of the stack.
    depth = 0
    for token in re.finditer(r'"(?:[^"\\]++|\\.)*+"|([\[{])|[\]}]', text):
        depth += 1 if token[1] else -1 if token[0][0] != '"' else 0
        need(depth <= 4 * MAX_DEPTH, "manifest: nested too deep")

    def refuse(number: str) -> NoReturn:
        raise Corrupt(f"manifest: {number} is not a plain integer")

    def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        need(len(value) == len(pairs), "manifest: a member is repeated")
        return value

    try:
        value = json.loads(text, object_pairs_hook=unrepeated, parse_float=refuse, parse_constant=refuse)
    except ValueError as error:
        raise Corrupt(f"manifest: {error}") from error
    canonical = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    need(canonical == text, "manifest: not in canonical form")
    return value


def members(value: object, table: Table) -> dict[str, Any]:
    """The members of an object as one of the tables lists them, with the defaults filled in."""
    if not isinstance(value, dict):
        raise Corrupt(f"manifest: no object where one with the members {list(table)} should be")
    need(list(value) == [name for name in table if name in value], f"members are not {list(table)} in order")
    for name, (kind, default) in table.items():
        need(name in value or default is not REQUIRED, f"member {name!r} is missing")
        # Not isinstance: true and false are no integers.
        need(name not in value or type(value[name]) is kind, f"member {name!r} is no {kind.__name__}")
        need(name not in value or value[name] != default, f"member {name!r} has its default and stands there")
    return {name: value.get(name, default) for name, (_, default) in table.items()}


def integers(values: list[Any], low: int, high: int) -> bool:
    """Whether all values are integers within ``low .. high``."""
    return all(type(value) is int and low <= value <= high for value in values)


def is_range(pair: list[Any]) -> bool:
    """Whether two integers are the bits of finite single precision numbers in order (section 3.1.2)."""
    if len(pair) != 2 or not integers(pair, 0, (1 << 32) - 1):
        return False
    low, high = np.array(pair, "<u4").view("<f4").tolist()
    return bool(np.isfinite([low, high]).all() and low <= high)


def is_hex(text: str, digits: int) -> bool:
    """Whether a digest is written as the tables say."""
    return re.fullmatch(f"[0-9a-f]{{{digits}}}", text) is not None


def read_tensors(values: list[Any]) -> list[Tensor]:
    """Section 3.1, and the rules of all encodings about parameters and parts."""
    tensors: dict[str, Tensor] = {}
    for value in values:
        name, dtype, shape, digest, quality, ranges, data = members(value, TENSOR).values()
        need(name not in tensors, f"two tensors are named {name!r}")
        need(len(name.encode()) <= MAX_NAME_NBYTES, "a tensor name is too long")
        need(dtype in DTYPES, f"tensor {name!r}: unknown dtype {dtype!r}")
        need(len(shape) <= MAX_RANK, f"tensor {name!r}: too many dimensions")
        need(integers(shape, 0, 1 << 48), f"tensor {name!r}: a dimension is out of range")
        spec = Spec(dtype, tuple(shape))
        need(spec.nbits % 8 == 0, f"tensor {name!r}: not a whole number of bytes")
        need(spec.nbits <= 8 * MAX_TENSOR_NBYTES, f"tensor {name!r}: the size is beyond the limit")
        node = read_node(data, 1)
        is_lossy = quality is not None
        if is_lossy:
            figures = list(members(quality, QUALITY).values())
            need(integers(figures, 0, (1 << 63) - 1), f"tensor {name!r}: a figure of quality is out of range")
        if ranges is not None:
            pairs = members(ranges, INPUT).values()
            need(all(map(is_range, pairs)), f"tensor {name!r}: input is not of ranges of finite numbers")
        if node.encoding == "alias":
            check_alias(node, spec, tensors)
            need(digest == "" and ranges is None, f"tensor {name!r}: an alias with a blake3 or input")
            need(not is_lossy or not node.params["tied"], f"tensor {name!r}: tied, with a quality of its own")
            is_lossy = is_lossy or tensors[node.params["target"]].is_lossy
        else:
            need(is_hex(digest, 64), f"tensor {name!r}: blake3 is not 64 hexadecimal digits")
            check_node(node, spec)
        tensors[name] = Tensor(name, spec, digest, is_lossy, node)
    own = [tensor for tensor in tensors.values() if not is_tied(tensor.data)]
    bound = MAX_EXPANSION * (sum(stored_nbytes(tensor.data) for tensor in own) + len(own))
    need(sum(tensor.spec.nbytes for tensor in own) <= bound, "the tensors, copies among them, expand too far")
    return list(tensors.values())


def read_node(value: object, depth: int) -> Node:
    """Section 3.2, as far as it needs no encoding."""
    need(depth <= MAX_DEPTH, "nodes are nested too deep")
    codec, nbytes, xxh3, encoding, params, parts = members(value, NODE).values()
    need(bool(codec) != bool(encoding), "a node has either a codec or an encoding")
    need(re.fullmatch("[a-z0-9_-]{1,64}", codec or encoding), f"{codec or encoding!r} is not an id")
    if codec:
        need(not params and not parts, "a leaf with the members of a branch")
        need(0 <= nbytes <= 1 << 48, "nbytes is beyond the limits")
        need(is_hex(xxh3, 16), "xxh3 is not 16 hexadecimal digits")
        return Node(codec, nbytes, xxh3, "", {}, {})
    need(not nbytes and not xxh3, "a branch with the members of a leaf")
    need(encoding != "plain", "plain is never written as an encoding")
    need(encoding != "alias" or depth == 1, "only the root of a tensor may be an alias")
    need(list(params) == sorted(params), "params are not in ascending order")
    for param in params.values():
        numbers = param if type(param) is list else [] if type(param) is str else [param]
        need(integers(numbers, -(1 << 63), (1 << 63) - 1), "a parameter is no integer, string or integers")
    need(len(parts) <= MAX_PARTS, "too many parts")
    nodes = {name: read_node(part, depth + 1) for name, part in parts.items()}
    return Node("", 0, "", encoding, params, nodes)


def check_node(node: Node, spec: Spec) -> None:
    """Section 3.2: sizes of the leaves, parameters and parts of the branches."""
    if node.codec:
        bound = min(MAX_TENSOR_NBYTES, MAX_EXPANSION * node.nbytes + MAX_EXPANSION)
        if node.codec in CODECS:
            bound = min(bound, CODECS[node.codec].max_expansion * node.nbytes)
        need(spec.nbytes <= bound, f"{node.codec}: {node.nbytes} bytes can't decode to {spec.nbytes}")
        return
    bound = MAX_EXPANSION * stored_nbytes(node) + MAX_EXPANSION
    need(spec.nbytes <= bound, f"{node.encoding}: its streams can't decode to {spec.nbytes} bytes")
    if node.encoding in ENCODINGS:
        parts = ENCODINGS[node.encoding].parts(node.params, spec)
        need(list(node.parts) == list(parts), f"{node.encoding}: the parts are not {list(parts)}")
        for name, part in node.parts.items():
            check_node(part, parts[name])


def is_tied(node: Node) -> bool:
    """Whether the tensor is another name of an earlier one."""
    return node.encoding == "alias" and node.params["tied"] == 1


def stored_nbytes(node: Node) -> int:
    """Bytes of all streams of a tree."""
    return node.nbytes + sum(map(stored_nbytes, node.parts.values()))


def read_files(values: list[Any], tensors: list[Tensor]) -> list[File]:
    """Section 3.3."""
    starts = [0]
    for tensor in tensors:
        starts.append(starts[-1] + tensor.spec.nbytes)
    files = []
    n_used = 0
    for value in values:
        path, nbytes, sha256, segments, literal = members(value, FILE).values()
        check_path(path)
        need(len(segments) <= MAX_SEGMENTS, f"file {path!r}: too many segments")
        total = 0
        triples = []
        for segment in segments:
            run, first, count = members(segment, SEGMENT).values()
            need(
                (run >= 1 and first == 0 and count == 0) or (run == 0 and first >= 0 and count >= 1),
                f"file {path!r}: a segment is neither literal bytes nor tensors",
            )
            need(first + count <= len(tensors), f"file {path!r}: a segment names tensors that are not there")
            total += run + starts[first + count] - starts[first]
            triples.append((run, first, count))
            n_used += count
        need(n_used <= len(tensors), "the files take more tensors than there are")
        need(total == nbytes, f"file {path!r}: the segments do not add up to its size")
        is_lossy = any(
            tensor.is_lossy for _, first, count in triples for tensor in tensors[first : first + count]
        )
        need(
            sha256 == "" if is_lossy else is_hex(sha256, 64),
            f"file {path!r}: sha256 is no digest, or one too many",
        )
        file = File(path, nbytes, sha256, triples, None if literal is None else read_node(literal, 1))
        need(
            (literal is not None) == (file.literal_nbytes > 0),
            f"file {path!r}: the literal and its segments disagree",
        )
        if file.literal is not None:
            need(file.literal.codec, f"file {path!r}: the literal is not a leaf")
            check_node(file.literal, Spec("U8", (file.literal_nbytes,)))
        files.append(file)
    check_tree([file.path for file in files])
    return files


def check_path(path: str) -> None:
    """Section 3.3: what a path may be."""
    need(1 <= len(path.encode()) <= MAX_NAME_NBYTES, "a path is empty or too long")
    for part in path.split("/"):
        need(part not in ("", ".", ".."), f"{path!r} has a part that is empty, . or ..")
        need(not re.search(r"[\\\x00-\x1f\x7f]", part), f"{path!r} holds a character that no path may hold")
    need(not re.match("[A-Za-z]:", path), f"{path!r} begins with a drive")


def check_tree(paths: list[str]) -> None:
    """Section 3.3: paths are unique, and none is a directory of another."""
    # No path holds U+0000, so that what lies within a directory sorts right behind its name.
    ordered = sorted(path.replace("/", "\0") for path in paths)
    for path, following in itertools.pairwise(ordered):
        need(path != following, f"two files have the path {path!r}")
        need(not following.startswith(path + "\0"), f"the file {path!r} is also a directory")


# container.md, section 4: element types


class DType(NamedTuple):
    """A row of the table."""

    nbits: int
    exponent: int = 0
    mantissa: int = 0


DTYPES = {
    "BOOL": DType(8),
    "U8": DType(8),
    "I8": DType(8),
    "U16": DType(16),
    "I16": DType(16),
    "U32": DType(32),
    "I32": DType(32),
    "U64": DType(64),
    "I64": DType(64),
    "F4": DType(4, 2, 1),
    "F6_E2M3": DType(6, 2, 3),
    "F6_E3M2": DType(6, 3, 2),
    "F8_E4M3": DType(8, 4, 3),
    "F8_E5M2": DType(8, 5, 2),
    "F8_E4M3FNUZ": DType(8, 4, 3),
    "F8_E5M2FNUZ": DType(8, 5, 2),
    "F8_E8M0": DType(8, 8, 0),
    "F16": DType(16, 5, 10),
    "BF16": DType(16, 8, 7),
    "F32": DType(32, 8, 23),
    "F64": DType(64, 11, 52),
    "C64": DType(64),
}


# container.md, section 5: where the streams are


def place_streams(data: bytes, tensors: list[Tensor], files: list[File], manifest_offset: int) -> list[Node]:
    """Give every leaf its stream; all leaves in order."""
    stored = np.frombuffer(data, np.uint8)
    leaves = [leaf for tensor in tensors for leaf in tensor.data.leaves()]
    leaves += [file.literal for file in files if file.literal is not None]
    end = PREAMBLE_NBYTES
    padding = []
    for leaf in leaves:
        start = end
        if leaf.codec == "raw" and leaf.nbytes >= ALIGNED_FROM_NBYTES:
            start = -(-end // ALIGNMENT) * ALIGNMENT
        padding.append(stored[end:start])
        end = start + leaf.nbytes
        leaf.stream = stored[start:end]
    need(end == manifest_offset, f"the streams end at {end}, the manifest starts at {manifest_offset}")
    need(not any(skipped.any() for skipped in padding), "the padding is not 0")
    return leaves


# codecs/raw.md


def decode_raw(stream: U8, n: int) -> U8:
    """The stream is the bytes."""
    need(len(stream) == n, "raw: the stream has another size than its bytes")
    return stream


# codecs/zstd.md


def decode_zstd(stream: U8, n: int) -> U8:
    """Frames of one chunk each."""
    need(len(stream) >= 1 and 16 <= stream[0] <= 26, "zstd: chunk_log2 is out of range")
    chunk = 1 << int(stream[0])
    c = -(-n // chunk)
    end = 1 + 4 * c
    need(end <= len(stream), "zstd: the stream ends within the sizes of the frames")
    out = []
    for i, nbytes in enumerate(stream[1:end].view("<u4").tolist()):
        frame = stream[end : end + nbytes].tobytes()
        end += nbytes
        out.append(decode_frame(frame, min(chunk, n - i * chunk)))
    need(end == len(stream), "zstd: the frames do not fill the stream")
    return np.frombuffer(b"".join(out), np.uint8)


# codecs/bitpack.md


def decode_bitpack(stream: U8, n: int) -> U8:
    """Blocks of bit planes."""
    need(len(stream) >= 1 and 1 <= stream[0] <= 7, "bitpack: width is out of range")
    width = int(stream[0])
    sizes = [min(1024, n - start) for start in range(0, n, 1024)]
    lengths = [8 * -(-m // 8) for m in sizes]
    need(len(stream) == 1 + sum(width * length // 8 for length in lengths), "bitpack: the size is wrong")
    at = 1
    out = np.empty(n, np.uint8)
    for block, (m, length) in enumerate(zip(sizes, lengths, strict=True)):
        i = np.arange(length)
        symbols = np.zeros(length, np.uint8)
        for f in (4, 2, 1):
            if width & f:
                s = length * f // 8
                plane = stream[at : at + s]
                at += s
                fields = plane[i % s] >> (f * (i // s)).astype(np.uint8)
                symbols = symbols << np.uint8(f) | fields & np.uint8((1 << f) - 1)
        need(not symbols[m:].any(), "bitpack: the bits after the last symbol are not 0")
        out[1024 * block : 1024 * block + m] = symbols[:m]
    return out


# codecs/huffman.md


def decode_huffman(stream: U8, n: int) -> U8:
    """Section 1 of the page; every sync point is checked."""
    need(n >= 1, "huffman: no symbols")
    need(len(stream) >= 4, "huffman: the stream has no room for its head")
    chunk_log2, w, first, last = stream[:4].tolist()
    need(12 <= chunk_log2 <= 20, "huffman: chunk_log2 is out of range")
    need(w <= 25, "huffman: sync_width is out of range")
    need(first <= last, "huffman: first exceeds last")
    chunk = 1 << chunk_log2
    sizes = [min(chunk, n - start) for start in range(0, n, chunk)]
    n_points = [-(-m // 1024) - 1 for m in sizes]
    bits_at = 4 + -(-(last - first + 1) // 2)
    sync_at = bits_at + 4 * len(sizes)
    chunk_at = sync_at + -(-w * sum(n_points) // 8)
    need(chunk_at <= len(stream), "huffman: the stream ends before its first chunk")
    table = huffman_table(stream[4:bits_at], first, last)
    nbits = stream[bits_at:sync_at].view("<u4").tolist()
    deviations = sync_deviations(stream[sync_at:chunk_at], w, sum(n_points))
    end = chunk_at + sum(-(-t // 8) for t in nbits)
    need(end == len(stream), "huffman: the chunks do not fill the stream")
    out = []
    for m, p, t in zip(sizes, n_points, nbits, strict=True):
        end = chunk_at + -(-t // 8)
        out.append(decode_chunk(stream[chunk_at:end], m, t, table, deviations[:p]))
        chunk_at, deviations = end, deviations[p:]
    return np.concatenate(out)


def huffman_table(packed: U8, first: int, last: int) -> tuple[U8, U8]:
    """Section 2: the symbol whose code the next twelve bits begin with, and its length."""
    halves = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)
    lengths = halves[: last - first + 1]
    need(not halves[len(lengths) :].any(), "huffman: the unused half of the last code length is not 0")
    need(lengths.max() <= 12, "huffman: a code length exceeds the limit")
    need(lengths[0] and lengths[-1], "huffman: first or last has no code")
    if first == last:
        need(lengths[0] == 1, "huffman: the only symbol's code length is not 1")
    else:
        kraft = sum(1 << 12 - length for length in lengths.tolist() if length)
        need(kraft == 4096, "huffman: the code lengths break Kraft's equality")
    symbol_of, length_of = np.zeros(4096, np.uint8), np.zeros(4096, np.uint8)
    at = 0
    for length, symbol in sorted((length, first + i) for i, length in enumerate(lengths.tolist()) if length):
        span = 1 << 12 - length
        symbol_of[at : at + span] = symbol
        length_of[at : at + span] = length
        at += span
    return symbol_of, length_of


def decode_chunk(chunk: U8, m: int, t: int, table: tuple[U8, U8], deviations: list[int]) -> U8:
    """Sections 3 and 4: m symbols in t bits."""
    bits = np.unpackbits(chunk, bitorder="little")
    need(not bits[t:].any(), "huffman: the unused bits of a chunk are not 0")
    # For each bit of the chunk, the twelve bits from it on; zeros follow the last.
    bits = np.concatenate([bits[:t], np.zeros(12, np.uint8)]).astype(np.uint16)
    windows = np.zeros(t, np.uint16)
    for k in range(12):
        windows |= bits[k : k + t] << 11 - k
    symbol_of, length_of = table
    # Past the last bit a step is 0: what runs on too long stays where it is, and is found below.
    step = length_of[windows].tobytes() + bytes(12)
    position = 0
    positions = []
    for _ in range(m):
        positions.append(position)
        position += step[position]
    need(position == t and positions[-1] < t, "huffman: the symbols of a chunk do not take its bits exactly")
    for j, d in enumerate(deviations, 1):
        point = 1024 * j * t // m + d
        need(0 <= point <= t, "huffman: a sync point lies outside its chunk")
        need(point == positions[1024 * j], "huffman: a sync point lies")
    return symbol_of[windows[positions]]


def sync_deviations(packed: U8, w: int, p: int) -> list[int]:
    """Section 4: d - 2^(w - 1) of each sync point."""
    if w == 0:
        return [0] * p
    bits = np.unpackbits(packed, bitorder="little")
    need(not bits[w * p :].any(), "huffman: the unused bits of the sync points are not 0")
    d = bits[: w * p].reshape(p, w) @ (1 << np.arange(w))
    return [value - (1 << w - 1) for value in d.tolist()]


# codecs/rans.md


def decode_rans(stream: U8, n: int) -> U8:
    """Section 1 of the page."""
    need(n >= 1, "rans: no symbols")
    need(len(stream) >= 3, "rans: the stream has no room for its head")
    chunk_log2, first, last = stream[:3].tolist()
    need(12 <= chunk_log2 <= 20, "rans: chunk_log2 is out of range")
    need(first <= last, "rans: first exceeds last")
    chunk = 1 << chunk_log2
    sizes = [min(chunk, n - start) for start in range(0, n, chunk)]
    frequencies, at = rans_frequencies(stream, last - first + 1)
    chunk_at = at + 4 * len(sizes)
    need(chunk_at <= len(stream), "rans: the stream ends before its first chunk")
    nbytes = stream[at:chunk_at].view("<u4").tolist()
    need(chunk_at + sum(nbytes) == len(stream), "rans: the chunks do not fill the stream")
    out = []
    for m, size in zip(sizes, nbytes, strict=True):
        out.append(decode_rans_chunk(stream[chunk_at : chunk_at + size], m, first, frequencies))
        chunk_at += size
    return np.concatenate(out)


def rans_frequencies(stream: U8, k: int) -> tuple[list[int], int]:
    """Section 2: the frequencies of k symbols, and where they end."""
    lower_at = 3 + -(-k // 2)
    need(lower_at <= len(stream), "rans: the stream ends within the sizes of the frequencies")
    packed = stream[3:lower_at]
    z = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1).tolist()
    need(not any(z[k:]), "rans: the unused half of the last size is not 0")
    z = z[:k]
    need(max(z) <= 12, "rans: the size of a frequency exceeds the limit")
    need(z[0] and z[-1], "rans: first or last does not occur")
    end = lower_at + -(-sum(max(size - 1, 0) for size in z) // 8)
    need(end <= len(stream), "rans: the stream ends within the frequencies")
    bits = int.from_bytes(stream[lower_at:end].tobytes(), "little")
    frequencies = []
    for size in z:
        highest = 1 << size >> 1
        frequencies.append(highest | bits & max(highest - 1, 0))
        bits >>= max(size - 1, 0)
    need(bits == 0, "rans: the unused bits of the frequencies are not 0")
    need(sum(frequencies) == 4096, "rans: the frequencies do not add up")
    return frequencies, end


def decode_rans_chunk(chunk: U8, m: int, first: int, frequencies: list[int]) -> U8:
    """Section 3: m symbols."""
    need(len(chunk) >= 128 and len(chunk) % 2 == 0, "rans: the size of a chunk is odd or too small")
    states = chunk[:128].view("<u4").tolist()
    words = chunk[128:].view("<u2").tolist()
    need(min(states) >= 65536, "rans: a state is too small")
    below = [0, *itertools.accumulate(frequencies)]
    index_of = [index for index, f in enumerate(frequencies) for _ in range(f)]
    read = 0
    out = bytearray()
    for i in range(m):
        x = states[i % 32]
        slot = x % 4096
        index = index_of[slot]
        x = frequencies[index] * (x // 4096) + slot - below[index]
        if x < 65536:
            need(read < len(words), "rans: a word is needed and there is none")
            x = 65536 * x + words[read]
            read += 1
        states[i % 32] = x
        out.append(first + index)
    need(states == [65536] * 32, "rans: a state does not end at the lower bound")
    need(read == len(words), "rans: a word is left")
    return np.frombuffer(out, np.uint8)


class Codec(NamedTuple):
    """A page of codecs/."""

    max_expansion: int
    decode: Callable[[U8, int], U8]


CODECS = {
    "raw": Codec(1, decode_raw),
    "zstd": Codec(65536, decode_zstd),
    "bitpack": Codec(8, decode_bitpack),
    "huffman": Codec(8, decode_huffman),
    "rans": Codec(8192, decode_rans),
}


# encodings/plain.md


def decode_node(node: Node, spec: Spec) -> U8:
    """The bytes of a tensor; a leaf is the encoding plain."""
    if spec.nbytes > MAX_IN_MEMORY:
        raise Unsupported(f"{spec.nbytes} bytes in one tensor: more than this decoder holds in memory")
    if node.codec:
        if node.codec not in CODECS:
            raise Unsupported(f"unknown codec {node.codec!r}")
        return CODECS[node.codec].decode(node.stream, spec.nbytes)
    if node.encoding not in ENCODINGS:
        raise Unsupported(f"unknown encoding {node.encoding!r}")
    encoding = ENCODINGS[node.encoding]
    specs = encoding.parts(node.params, spec)
    parts = {name: decode_node(part, specs[name]) for name, part in node.parts.items()}
    return encoding.decode(node.params, spec, parts)


def check_params(params: dict[str, Any], **types: type) -> list[Any]:
    """Container.md, section 3.2: exactly the parameters of the page, each of its type."""
    found = {name: type(value) for name, value in params.items()}
    need(found == types, f"the parameters are not {list(types)}")
    return [params[name] for name in types]


def elements(data: U8, spec: Spec) -> NDArray[np.uint64]:
    """The bits of each element."""
    return data.view(f"<u{DTYPES[spec.dtype].nbits // 8}").astype(np.uint64)


def to_bytes(bits: NDArray[np.uint64], spec: Spec) -> U8:
    """Undo `elements`."""
    return bits.astype(f"<u{DTYPES[spec.dtype].nbits // 8}").view(np.uint8)


# encodings/alias.md


def check_alias(node: Node, spec: Spec, earlier: dict[str, Tensor]) -> None:
    """Everything that the page asks."""
    target, tied = check_params(node.params, target=str, tied=int)
    need(not node.parts, "alias: it has no parts")
    need(tied in (0, 1), "alias: tied is neither 0 nor 1")
    need(target in earlier, f"alias: {target!r} is no earlier tensor")
    need(earlier[target].data.encoding != "alias", f"alias: {target!r} is itself an alias")
    need(earlier[target].spec == spec, f"alias: {target!r} has another dtype or shape")


# encodings/float_split.md

SPLIT = ("F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F16", "BF16", "F32", "F64")


def float_split_parts(params: dict[str, Any], spec: Spec) -> dict[str, Spec]:
    """The first two sections of the page."""
    need(spec.dtype in SPLIT, f"float_split: not for {spec.dtype}")
    dtype = DTYPES[spec.dtype]
    b, x, k = check_params(params, base=int, exceptions=int, mantissa_bits=int)
    need(0 <= k <= dtype.mantissa, "float_split: mantissa_bits is out of range")
    h = dtype.exponent + k
    need(h <= 16, "float_split: more than sixteen upper bits")
    need(0 <= b <= max(0, 2**h - 256), "float_split: base is out of range")
    need(0 <= x <= spec.n, "float_split: exceptions is out of range")
    r = dtype.nbits - h
    parts = {"high": Spec("U8", (spec.n,))}
    parts |= {f"rest{j}": Spec("U8", (spec.n,)) for j in range(-(-r // 8))}
    if x > 0:
        parts |= {"exception_index": Spec("U64", (x,)), "exception_high": Spec("U16", (x,))}
    return parts


def decode_float_split(params: dict[str, Any], spec: Spec, parts: dict[str, U8]) -> U8:
    """Decoding."""
    dtype = DTYPES[spec.dtype]
    k = params["mantissa_bits"]
    h = parts["high"].astype(np.uint64) + params["base"]
    if params["exceptions"]:
        index = parts["exception_index"].view("<u8")
        need((index[1:] > index[:-1]).all(), "float_split: exception_index is not strictly ascending")
        need(index[-1] < spec.n, "float_split: an exception's index is beyond the tensor")
        h[index.astype(np.int64)] = parts["exception_high"].view("<u2")
    need((h < 2 ** (dtype.exponent + k)).all(), "float_split: upper bits are out of range")
    q = np.zeros(spec.n, np.uint64)
    for j in range(sum(name.startswith("rest") for name in parts)):
        q |= parts[f"rest{j}"].astype(np.uint64) << 8 * j
    lower_nbits = dtype.mantissa - k
    need((q < 2 ** (1 + lower_nbits)).all(), "float_split: sign and lower bits are out of range")
    sign = q >> lower_nbits
    lower = q % 2**lower_nbits
    return to_bytes(sign << dtype.nbits - 1 | h << lower_nbits | lower, spec)


# encodings/narrow.md

NARROWER = {"F32": ("F16", "BF16"), "F64": ("F16", "BF16", "F32")}


def narrow_parts(params: dict[str, Any], spec: Spec) -> dict[str, Spec]:
    """The tables of the page."""
    (dtype,) = check_params(params, dtype=str)
    need(dtype in NARROWER.get(spec.dtype, ()), f"narrow: not from {spec.dtype} to {dtype!r}")
    return {"values": Spec(dtype, spec.shape)}


def decode_narrow(params: dict[str, Any], spec: Spec, parts: dict[str, U8]) -> U8:
    """Widen each number exactly."""
    narrow, wide = DTYPES[params["dtype"]], DTYPES[spec.dtype]
    bits = elements(parts["values"], Spec(params["dtype"], spec.shape))
    sign = bits >> narrow.nbits - 1
    exponent = (bits >> narrow.mantissa) % 2**narrow.exponent
    mantissa = bits % 2**narrow.mantissa
    wider = wide.mantissa - narrow.mantissa
    # Exponents are stored with 2^(E - 1) - 1 added, so that a normal number's grows by the difference.
    rebias = 2 ** (wide.exponent - 1) - 2 ** (narrow.exponent - 1)
    wide_exponent = exponent + rebias
    wide_mantissa = mantissa << wider
    special = exponent == 2**narrow.exponent - 1
    wide_exponent[special] = 2**wide.exponent - 1
    wide_exponent[(exponent == 0) & (mantissa == 0)] = 0
    subnormal = (exponent == 0) & (mantissa != 0)
    if rebias == 0:
        wide_exponent[subnormal] = 0
    else:
        # Its leading one, worth 2^p in units of the last place, becomes the implicit one.
        p = np.frexp(mantissa[subnormal].astype(np.float64))[1].astype(np.uint64) - 1
        wide_exponent[subnormal] = rebias + 1 + p - narrow.mantissa
        wide_mantissa[subnormal] = (mantissa[subnormal] << wide.mantissa - p) % 2**wide.mantissa
    return to_bytes(sign << wide.nbits - 1 | wide_exponent << wide.mantissa | wide_mantissa, spec)


# encodings/row_groups.md


def row_groups_parts(params: dict[str, Any], spec: Spec) -> dict[str, Spec]:
    """The tables of the page."""
    (rows,) = check_params(params, rows=list)
    need(len(spec.shape) >= 1, "row_groups: a tensor without dimensions")
    need(1 <= len(rows) <= 32, "row_groups: the number of groups is out of range")
    need(min(rows) >= 1, "row_groups: a group without rows")
    need(spec.shape[0] <= 4294967295, "row_groups: too many rows")
    need(sum(rows) == spec.shape[0], "row_groups: the groups do not add up to the rows")
    need(spec.nbits // spec.shape[0] % 8 == 0, "row_groups: a row is not a whole number of bytes")
    groups = {str(g): Spec(spec.dtype, (rows[g], *spec.shape[1:])) for g in range(len(rows))}
    return {"group": Spec("U8", spec.shape[:1])} | groups


def decode_row_groups(params: dict[str, Any], spec: Spec, parts: dict[str, U8]) -> U8:
    """Put every row where it was."""
    group = parts["group"]
    out = np.empty((spec.shape[0], spec.nbytes // spec.shape[0]), np.uint8)
    need(group.max() < len(params["rows"]), "row_groups: a row of a group that is not there")
    for g, n_rows in enumerate(params["rows"]):
        need(np.count_nonzero(group == g) == n_rows, "row_groups: a group has not as many rows as promised")
        out[group == g] = parts[str(g)].reshape(n_rows, out.shape[1])
    return out.reshape(-1)


# encodings/codebook.md


def codebook_parts(params: dict[str, Any], spec: Spec) -> dict[str, Spec]:
    """The tables of the page."""
    for name, default in (("group_rows", 0), ("vector", 1)):
        need(params.get(name) != default, f"codebook: {name} has its default and stands there")
    k, g, v = check_params({"size": params.get("size"), "group_rows": 0, "vector": 1} | params,
                           size=int, group_rows=int, vector=int)  # fmt: skip
    need(v in (0, 1, 2, 4, 8), "codebook: vector is out of range")
    need(1 <= k <= (256 if v == 1 else 4294967296), "codebook: size is out of range")
    need(0 <= g <= 2**48, "codebook: group_rows is out of range")
    need(g == 0 or v > 0, "codebook: groups of rows, and a code for each row")
    need(spec.shape or (v == 1 and g == 0), "codebook: a tensor without dimensions")
    need(v < 2 or spec.shape[-1] % v == 0, "codebook: the last dimension is not a multiple of vector")
    need(DTYPES[spec.dtype].nbits in (8, 16, 32, 64), f"codebook: not for {spec.dtype}")
    codes, one = (spec.shape, spec.shape[:0]) if v else (spec.shape[:1], spec.shape[1:])
    if v > 1:
        codes, one = (*spec.shape[:-1], spec.shape[-1] // v), (v,)
    books = (-(-spec.shape[0] // g),) if g else ()
    centroids = Spec(spec.dtype, (*books, k, *one))
    need(centroids.nbytes <= MAX_TENSOR_NBYTES, "codebook: the centroids are too large")
    dtype = "U8" if k <= 2**8 else "U16" if k <= 2**16 else "U32"
    return {"codes": Spec(dtype, codes), "centroids": centroids}


def decode_codebook(params: dict[str, Any], spec: Spec, parts: dict[str, U8]) -> U8:
    """Look each element, vector or row up."""
    specs = codebook_parts(params, spec)
    codes = elements(parts["codes"], specs["codes"]).astype(np.int64)
    k, g = params["size"], params.get("group_rows", 0)
    need((codes < k).all(), "codebook: a code is not in the codebook")
    if g and codes.size:
        row = np.arange(codes.size) // (codes.size // spec.shape[0])
        codes += row // g * k
    n_centroids = math.prod(specs["centroids"].shape[: 2 if g else 1])
    if not n_centroids or not parts["centroids"].size:
        return np.zeros(0, np.uint8)
    return parts["centroids"].reshape(n_centroids, -1)[codes].reshape(-1)


# encodings/affine.md

MAX_CODE = 16777216
SCALES = ("F32", "F16", "BF16", "F8_E8M0")


def affine_slices(params: dict[str, Any], spec: Spec) -> tuple[int, Callable[[int], int]]:
    """Parts: S, and which scale an element has."""
    need(-1 <= params["axis"] < len(spec.shape), "affine: axis is not a dimension")
    need(0 <= params["group_size"] <= 1 << 48, "affine: group_size is out of range")
    a, g = params["axis"], params["group_size"]
    if g == 0 and a == -1:
        return 1, lambda i: 0
    if g == 0:
        behind = max(1, math.prod(spec.shape[a + 1 :]))
        return spec.shape[a], lambda i: i // behind % spec.shape[a]
    need(a == -1 and spec.shape, "affine: groups of a tensor with an axis, or without dimensions")
    last = spec.shape[-1]
    if last == 0:
        return 0, lambda i: 0
    groups = -(-last // g)
    return spec.n // last * groups, lambda i: i // last * groups + i % last // g


def affine_parts(params: dict[str, Any], spec: Spec) -> dict[str, Spec]:
    """The tables of the page."""
    need(spec.dtype in SPLIT, f"affine: not for {spec.dtype}")
    _, x, _, o, dtype, z = check_params(
        params, axis=int, exceptions=int, group_size=int, offset=int, scale_dtype=str, zero_point=int
    )
    need(0 <= x <= spec.n, "affine: exceptions is out of range")
    need(-MAX_CODE <= o <= MAX_CODE, "affine: offset is out of range")
    need(dtype in SCALES, f"affine: {dtype!r} is no dtype of scales")
    need(z in (0, 1), "affine: zero_point is neither 0 nor 1")
    s, _ = affine_slices(params, spec)
    parts = {"qdata": Spec("U8", (spec.n,))}
    if x > 0:
        parts |= {"exception_index": Spec("U64", (x,)), "exception_code": Spec("I32", (x,))}
    parts["scale"] = Spec(dtype, (s,))
    return parts | ({"zero_point": Spec("I32", (s,))} if z else {})


def to_float32(data: U8, dtype: str) -> NDArray[np.float32]:
    """Numbers of a narrower type, exactly."""
    if dtype == "F8_E8M0":
        return np.ldexp(np.float32(1), data.astype(np.int32) - 127).astype(np.float32)
    if dtype == "BF16":
        return (data.view("<u2").astype("<u4") << 16).view("<f4")
    return data.view({"F16": "<f2", "F32": "<f4"}[dtype]).astype(np.float32)


def magnitudes(dtype: str) -> list[float]:
    """The finite numbers of a type of 8 bits that are not negative, in the order of their bits."""
    exponent, mantissa = DTYPES[dtype].exponent, DTYPES[dtype].mantissa
    bias = 2 ** (exponent - 1) - (0 if dtype.endswith("FNUZ") else 1)
    n_finite = {"F8_E4M3": 127, "F8_E5M2": 124, "F8_E4M3FNUZ": 128, "F8_E5M2FNUZ": 128}[dtype]
    found = []
    for bits in range(n_finite):
        e, m = divmod(bits, 2**mantissa)
        found.append(math.ldexp(m + (2**mantissa if e else 0), max(e, 1) - bias - mantissa))
    return found


def to_dtype(values: NDArray[np.float32], spec: Spec) -> U8:
    """Round numbers that are no NaN to the nearest of a type."""
    dtype = spec.dtype
    if dtype in ("F16", "F32", "F64"):
        with np.errstate(over="ignore"):
            return values.astype(f"<f{DTYPES[dtype].nbits // 8}").view(np.uint8)
    bits = values.view("<u4").astype(np.uint64)
    if dtype == "BF16":
        # Carries go into the exponent, up to that of infinity.
        return to_bytes((bits + 0x7FFF + (bits >> 16) % 2 >> 16).astype(np.uint64), spec)
    finite = magnitudes(dtype)
    # The number that would follow the largest, were the exponents to go on.
    grid = np.array([*finite, 2 * finite[-1] - finite[-2]])
    magnitude = np.minimum(np.abs(values.astype(np.float64)), grid[-1])
    above = np.maximum(np.searchsorted(grid, magnitude), 1)
    below = above - 1
    to_below, to_above = magnitude - grid[below], grid[above] - magnitude
    takes_above = (to_above < to_below) | (to_above == to_below) & (above % 2 == 0)
    # The number that follows the largest is infinity, or there is none.
    top = len(finite) if dtype == "F8_E5M2" else len(finite) - 1
    code = np.minimum(np.where(takes_above, above, below), top).astype(np.uint64)
    sign = bits >> 31
    if dtype.endswith("FNUZ"):
        sign[code == 0] = 0
    return to_bytes(sign << 7 | code, spec)


def read_scales(params: dict[str, Any], parts: dict[str, U8]) -> NDArray[np.float32]:
    """float32(s) of all scales."""
    data, dtype = parts["scale"], params["scale_dtype"]
    need(dtype != "F8_E8M0" or (data < 255).all(), "a scale is not finite")
    scale = to_float32(data, dtype)
    need(np.isfinite(scale).all(), "a scale is not finite")
    return scale


def decode_affine(params: dict[str, Any], spec: Spec, parts: dict[str, U8]) -> U8:
    """Decoding."""
    n_scales, slice_of = affine_slices(params, spec)
    scale = read_scales(params, parts)
    zero = np.zeros(n_scales, np.int64)
    if params["zero_point"]:
        zero = parts["zero_point"].view("<i4").astype(np.int64)
    lowest = params["offset"] - zero
    need((lowest >= -MAX_CODE).all() and (lowest + 255 <= MAX_CODE).all(), "affine: codes are out of range")
    code = parts["qdata"].astype(np.int64) + params["offset"]
    if params["exceptions"]:
        index = parts["exception_index"].view("<u8")
        need((index[1:] > index[:-1]).all(), "affine: exception_index is not strictly ascending")
        need(index[-1] < spec.n, "affine: an exception's index is beyond the tensor")
        code[index.astype(np.int64)] = parts["exception_code"].view("<i4")
    which = np.array([slice_of(i) for i in range(spec.n)], np.int64)
    distance = code - zero[which]
    need((np.abs(distance) <= MAX_CODE).all(), "affine: the code of an exception is out of range")
    with np.errstate(over="ignore", under="ignore"):
        return to_dtype(distance.astype(np.float32) * scale[which], spec)


# encodings/bitmask.md


def check_fill(name: str, fill: int, spec: Spec) -> None:
    """A value that is left out is the bits of an element."""
    nbits = DTYPES[spec.dtype].nbits
    need(nbits in (8, 16, 32, 64), f"{name}: not for {spec.dtype}")
    need(0 <= fill < min(2**nbits, 2**63), f"{name}: fill is out of range")


def bitmask_parts(params: dict[str, Any], spec: Spec) -> dict[str, Spec]:
    """The tables of the page."""
    count, fill, stride = check_params(params, count=int, fill=int, stride=int)
    check_fill("bitmask", fill, spec)
    need(0 <= count <= spec.n, "bitmask: count is out of range")
    need(1 <= stride <= 2**48, "bitmask: stride is out of range")
    return {"mask": Spec("U8", (-(-spec.n // 8),)), "values": Spec(spec.dtype, (count,))}


def decode_bitmask(params: dict[str, Any], spec: Spec, parts: dict[str, U8]) -> U8:
    """Decoding."""
    bits = np.unpackbits(parts["mask"], bitorder="little")
    need(not bits[spec.n :].any(), "bitmask: a bit is set that stands for no element")
    s = params["stride"]
    blocks = spec.n // (8 * s)
    in_order = bits[: spec.n]
    if blocks:
        # Byte by byte in the mask, bit by bit among the elements.
        mixed = bits[: 8 * s * blocks].reshape(blocks, s, 8).swapaxes(1, 2).reshape(-1)
        in_order = np.concatenate([mixed, in_order[mixed.size :]])
    is_value = in_order != 0
    need(np.count_nonzero(is_value) == params["count"], "bitmask: other than count bits are set")
    out = np.full(spec.n, params["fill"], np.uint64)
    out[is_value] = elements(parts["values"], spec)
    return to_bytes(out, spec)


# encodings/gap_index.md


def gap_index_parts(params: dict[str, Any], spec: Spec) -> dict[str, Spec]:
    """The tables of the page."""
    count, fill, gaps, max_gap = check_params(params, count=int, fill=int, gaps=int, max_gap=int)
    check_fill("gap_index", fill, spec)
    need(0 <= count <= spec.n, "gap_index: count is out of range")
    need(count <= gaps <= spec.n, "gap_index: gaps is out of range")
    need(1 <= max_gap <= 255, "gap_index: max_gap is out of range")
    return {"gaps": Spec("U8", (gaps,)), "values": Spec(spec.dtype, (count,))}


def decode_gap_index(params: dict[str, Any], spec: Spec, parts: dict[str, U8]) -> U8:
    """Decoding."""
    out = np.full(spec.n, params["fill"], np.uint64)
    values = elements(parts["values"], spec)
    at = taken = 0
    for gap in parts["gaps"].tolist():
        need(gap <= params["max_gap"], "gap_index: a gap exceeds max_gap")
        at += gap
        if gap < params["max_gap"]:
            need(at < spec.n, "gap_index: a value stands beyond the tensor")
            need(taken < params["count"], "gap_index: more gaps than values")
            out[at] = values[taken]
            taken += 1
            at += 1
        need(at <= spec.n, "gap_index: the gaps reach beyond the tensor")
    need(taken == params["count"], "gap_index: fewer gaps than values")
    return to_bytes(out, spec)


# encodings/cast.md


def cast_parts(params: dict[str, Any], spec: Spec) -> dict[str, Spec]:
    """The tables of the page."""
    _, narrow, _, dtype = check_params(params, axis=int, dtype=str, group_size=int, scale_dtype=str)
    need(spec.dtype in ("F16", "BF16", "F32", "F64"), f"cast: not for {spec.dtype}")
    need(narrow in ("F8_E4M3", "F8_E5M2"), f"cast: not to {narrow!r}")
    need(dtype in SCALES, f"cast: {dtype!r} is no dtype of scales")
    return {"values": Spec(narrow, spec.shape), "scale": Spec(dtype, (affine_slices(params, spec)[0],))}


def decode_cast(params: dict[str, Any], spec: Spec, parts: dict[str, U8]) -> U8:
    """Decoding."""
    _, slice_of = affine_slices(params, spec)
    scale = read_scales(params, parts)
    finite = magnitudes(params["dtype"])
    infinities = [math.inf] if params["dtype"] == "F8_E5M2" else []
    positive = finite + infinities + [math.nan] * (128 - len(finite) - len(infinities))
    numbers = np.array(positive + [-number for number in positive], np.float32)
    which = np.array([slice_of(i) for i in range(spec.n)], np.int64)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        product = numbers[parts["values"]] * scale[which]
    return with_nan(product, spec)


def with_nan(values: NDArray[np.float32], spec: Spec) -> U8:
    """Round numbers of which some are NaN, all of which become the same."""
    is_nan = np.isnan(values)
    element = to_dtype(np.where(is_nan, np.float32(0), values), spec).reshape(
        spec.n, DTYPES[spec.dtype].nbits // 8
    )
    quiet = {"F16": 0x7E00, "BF16": 0x7FC0, "F32": 0x7FC00000, "F64": 0x7FF8 << 48}[spec.dtype]
    element[is_nan] = np.frombuffer(quiet.to_bytes(element.shape[1], "little"), np.uint8)
    return element.reshape(-1)


# encodings/product.md


def product_parts(params: dict[str, Any], spec: Spec) -> dict[str, Spec]:
    """The tables of the page."""
    need(spec.dtype in ("F16", "BF16", "F32", "F64"), f"product: not for {spec.dtype}")
    dtype, r = check_params(params, dtype=str, rank=int)
    need(dtype in ("F32", "F16", "BF16"), "product: dtype is none of those allowed")
    need(1 <= r <= 4096, "product: rank is out of range")
    need(len(spec.shape) >= 2, "product: a tensor of less than two dimensions")
    left = Spec(dtype, (spec.shape[0], r))
    right = Spec(dtype, (r, math.prod(spec.shape[1:])))
    need(max(left.nbytes, right.nbytes) <= MAX_TENSOR_NBYTES, "product: a matrix is too large")
    return {"left": left, "right": right}


def decode_product(params: dict[str, Any], spec: Spec, parts: dict[str, U8]) -> U8:
    """Decoding."""
    r = params["rank"]
    left = to_float32(parts["left"], params["dtype"]).reshape(spec.shape[0], r)
    right = to_float32(parts["right"], params["dtype"]).reshape(r, math.prod(spec.shape[1:]))
    s = np.zeros((left.shape[0], right.shape[1]), np.float32)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        for k in range(r):
            s = s + left[:, k, None] * right[None, k]
    return with_nan(s.reshape(-1), spec)


class Encoding(NamedTuple):
    """A page of encodings/ whose tensor has parts."""

    parts: Callable[[dict[str, Any], Spec], dict[str, Spec]]
    decode: Callable[[dict[str, Any], Spec, dict[str, U8]], U8]


ENCODINGS = {
    "float_split": Encoding(float_split_parts, decode_float_split),
    "narrow": Encoding(narrow_parts, decode_narrow),
    "row_groups": Encoding(row_groups_parts, decode_row_groups),
    "codebook": Encoding(codebook_parts, decode_codebook),
    "affine": Encoding(affine_parts, decode_affine),
    "bitmask": Encoding(bitmask_parts, decode_bitmask),
    "gap_index": Encoding(gap_index_parts, decode_gap_index),
    "product": Encoding(product_parts, decode_product),
    "cast": Encoding(cast_parts, decode_cast),
}


# container.md, section 6: reading safely


class Archive:
    """A file whose structure has been checked: everything but what its streams hold.

    Raises
    ------
    Corrupt
        If the file breaks a rule; so do the methods.
    Unsupported
        If its version, or for the methods a codec or encoding, has no page here.
    """

    def __init__(self, data: bytes) -> None:
        manifest, manifest_offset = read_container(data)
        self.tensors, self.files = read_manifest(manifest)
        self.leaves = place_streams(data, self.tensors, self.files, manifest_offset)
        self._by_name = {tensor.name: tensor for tensor in self.tensors}

    def tensor(self, name: str) -> bytes:
        """The bytes of a tensor, checked against their digests."""
        tensor = self._by_name[name]
        if tensor.data.encoding == "alias":
            return self.tensor(tensor.data.params["target"])
        data = decode_checked(tensor.data, tensor.spec).tobytes()
        if "BLAKE3" not in UNCHECKED:
            need(blake3(data).hexdigest() == tensor.blake3, f"tensor {name!r} does not match its BLAKE3")
        return data

    def file(self, path: str) -> Iterator[bytes]:
        """A file put together again, piece by piece; its SHA-256 is checked behind the last."""
        (file,) = (file for file in self.files if file.path == path)
        if file.nbytes > MAX_FILE:
            raise Unsupported(f"file {path!r} has {file.nbytes} bytes: more than this decoder puts together")
        literal = np.zeros(0, np.uint8)
        if file.literal is not None:
            literal = decode_checked(file.literal, Spec("U8", (file.literal_nbytes,)))
        sha256 = hashlib.sha256()
        at = 0
        for run, first, count in file.segments:
            tensors = (self.tensor(tensor.name) for tensor in self.tensors[first : first + count])
            for piece in [literal[at : at + run].tobytes()] if run else tensors:
                sha256.update(piece)
                yield piece
            at += run
        need(
            not file.sha256 or sha256.hexdigest() == file.sha256, f"file {path!r} does not match its SHA-256"
        )

    def validate(self) -> None:
        """Check everything that the specification asks for."""
        for leaf in self.leaves:
            check_xxh3(leaf)
        for tensor in self.tensors:
            if tensor.data.encoding != "alias":
                self.tensor(tensor.name)
        for file in self.files:
            for _ in self.file(file.path):
                pass


def decode_checked(node: Node, spec: Spec) -> U8:
    """Decode streams that match their digests."""
    for leaf in node.leaves():
        check_xxh3(leaf)
    return decode_node(node, spec)


def check_xxh3(leaf: Node) -> None:
    """The digest of a stream, before it is decoded."""
    if "XXH3" not in UNCHECKED:
        digest = xxh3_64_hexdigest(leaf.stream.tobytes())
        need(digest == leaf.xxh3, f"a {leaf.codec} stream does not match its XXH3")


def extract(archive: Archive, folder: Path) -> None:
    """Write the files of an archive below a folder; none may be there already."""
    for file in archive.files:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as out:
            out.writelines(archive.file(file.path))


def main() -> int:
    """Say what a file holds, and whether it is valid."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--extract", type=Path, metavar="DIR", help="write the packed files there")
    options = parser.parse_args()
    say = sys.stdout.write
    try:
        archive = Archive(options.file.read_bytes())
        for tensor in archive.tensors:
            dtype, shape = tensor.spec
            say(f"{tensor.name!r} {dtype} {list(shape)} {tensor.data.encoding or 'plain'}\n")
        for file in archive.files:
            say(f"file {file.path!r} of {file.nbytes} bytes\n")
        archive.validate()
        if options.extract:
            extract(archive, options.extract)
    except Corrupt as error:
        say(f"corrupt: {error}\n")
        return 1
    except Unsupported as error:
        say(f"unsupported: {error}\n")
        return 2
    say("valid\n")
    if UNCHECKED:
        say(f"but for the digests {' and '.join(UNCHECKED)}: their packages are not installed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
