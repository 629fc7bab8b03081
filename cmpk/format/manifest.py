"""The manifest: its members, canonical form and rules (spec/container.md, section 3)."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec

from cmpk.dtypes import DTYPES
from cmpk.errors import FormatError
from cmpk.format.inputs import InputRanges
from cmpk.format.layout import (
    MAX_DEPTH,
    MAX_FILES,
    MAX_NAME_NBYTES,
    MAX_PARTS,
    MAX_RANK,
    MAX_SEGMENTS,
    MAX_TENSOR_NBYTES,
    MAX_TENSORS,
)
from cmpk.format.quality import MOST, Quality

__all__ = [
    "FileEntry",
    "Manifest",
    "Node",
    "Params",
    "Segment",
    "TensorEntry",
    "check_file_path",
    "check_tensor",
    "from_json",
    "leaves",
    "to_json",
]

Params: TypeAlias = dict[str, int | str | list[int]]


class Node(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """How one tensor is stored: a leaf (a stream) or a branch (an encoding and its parts)."""

    codec: str = ""
    nbytes: int = 0
    xxh3: str = ""
    encoding: str = ""
    params: Params = {}
    parts: dict[str, Node] = {}


class TensorEntry(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One tensor: what it is and how it is stored."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    blake3: str = ""
    quality: Quality | None = None
    input: InputRanges | None = None
    data: Node


class Segment(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """A run of bytes of a file: ``literal`` bytes, or those of ``count`` tensors from ``first`` on."""

    literal: int = 0
    first: int = 0
    count: int = 0


class FileEntry(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """One packed file and what it is put together from."""

    path: str
    nbytes: int
    sha256: str = ""
    segments: list[Segment] = []
    literal: Node | None = None

    @property
    def literal_nbytes(self) -> int:
        """Decoded size of the literal."""
        return sum(segment.literal for segment in self.segments)


class Manifest(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """Everything in the file but the streams."""

    producer: str
    recipe: str = ""
    calibration: str = ""
    metadata: dict[str, str] = {}
    providers: dict[str, str] = {}
    tensors: list[TensorEntry] = []
    files: list[FileEntry] = []


_ID: Final = re.compile(r"[a-z0-9_-]{1,64}\Z")
_HEX_16: Final = re.compile(r"[0-9a-f]{16}\Z")
_HEX_64: Final = re.compile(r"[0-9a-f]{64}\Z")
_BAD_PATH_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f\\]")
_DRIVE: Final = re.compile(r"[A-Za-z]:")

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Manifest)


def to_json(manifest: Manifest) -> bytes:
    """The manifest in canonical form."""
    return _encoder.encode(manifest)


def from_json(data: bytes) -> Manifest:
    """Parse a manifest and check every rule that needs no codec or encoding.

    Raises
    ------
    FormatError
        If a rule is broken.
    """
    try:
        manifest = _decoder.decode(data)
        canonical = _encoder.encode(manifest) == data
    except (msgspec.MsgspecError, UnicodeError, RecursionError, OverflowError) as error:
        raise FormatError(f"the manifest can't be read: {error}") from error
    if not canonical:
        raise FormatError(
            "the manifest is not in canonical form; the file was not written by a correct packer"
        )
    if manifest.calibration and not _HEX_64.match(manifest.calibration):
        raise FormatError("calibration is not 64 hexadecimal digits")
    _check_tensors(manifest)
    _check_files(manifest)
    _check_ascending(manifest.providers, "providers")
    return manifest


def leaves(node: Node) -> Iterator[Node]:
    """The leaves below a node, in file order."""
    if node.codec:
        yield node
    for part in node.parts.values():
        yield from leaves(part)


def check_file_path(path: str) -> None:
    """Check that a path stays within the folder that it is unpacked to.

    Raises
    ------
    FormatError
        If it could leave the folder, or can't be a file name everywhere.
    """
    parts = path.split("/")
    if (
        not 0 < len(path.encode()) <= MAX_NAME_NBYTES
        or any(part in ("", ".", "..") for part in parts)
        or _BAD_PATH_CHARACTER.search(path)
        or _DRIVE.match(path)
    ):
        raise FormatError(f"the file path {path!r} is not a plain relative path")


def check_tensor(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    """Check that a file can hold a tensor of this name, type and shape.

    Raises
    ------
    FormatError
        If it is beyond the limits.
    """
    if len(name) * 4 > MAX_NAME_NBYTES and len(name.encode()) > MAX_NAME_NBYTES:
        raise FormatError(f"the tensor name {name[:40]!r}... exceeds {MAX_NAME_NBYTES} bytes")
    if dtype not in DTYPES:
        raise FormatError(f"tensor {name!r}: unknown dtype {dtype!r}")
    if len(shape) > MAX_RANK or any(not 0 <= size <= 1 << 48 for size in shape):
        raise FormatError(f"tensor {name!r}: the shape {list(shape)[:8]} is beyond the limits")
    nbits = math.prod(shape) * DTYPES[dtype].nbits
    if nbits % 8 or nbits > 8 * MAX_TENSOR_NBYTES:
        raise FormatError(f"tensor {name!r}: {nbits} bits are not whole bytes within the limit")


def _check_tensors(manifest: Manifest) -> None:
    if len(manifest.tensors) > MAX_TENSORS:
        raise FormatError(f"{len(manifest.tensors)} tensors exceed {MAX_TENSORS}")
    names: set[str] = set()
    for tensor in manifest.tensors:
        name = tensor.name
        if name in names:
            raise FormatError(f"two tensors are named {name!r}")
        names.add(name)
        check_tensor(name, tensor.dtype, tensor.shape)
        try:
            _check_node(tensor.data, 1)
            if tensor.data.encoding == "alias":
                if tensor.blake3 or tensor.input is not None:
                    raise FormatError("an alias has no blake3 and no input")
                if tensor.quality is not None and tensor.data.params.get("tied") == 1:
                    raise FormatError("a tensor that is tied has no quality of its own")
            elif not _HEX_64.match(tensor.blake3):
                raise FormatError("blake3 is not 64 hexadecimal digits")
            if tensor.quality is not None and not all(
                0 <= value <= MOST for value in msgspec.structs.astuple(tensor.quality)
            ):
                raise FormatError("quality holds a number that is not within 63 bits")
            if tensor.input is not None and not tensor.input.is_valid:
                raise FormatError("input holds a range that is not one of finite numbers, the lower first")
        except FormatError as error:
            raise FormatError(f"tensor {name!r}: {error}") from None


def _check_node(node: Node, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise FormatError(f"nodes are nested deeper than {MAX_DEPTH}")
    if bool(node.codec) == bool(node.encoding):
        raise FormatError("a node has either a codec or an encoding")
    if node.codec:
        if node.params or node.parts:
            raise FormatError("a leaf has no params and no parts")
        if not _ID.match(node.codec):
            raise FormatError(f"{node.codec!r} is not a codec id")
        if not 0 <= node.nbytes <= 1 << 48:
            raise FormatError(f"a stream of {node.nbytes} bytes is beyond the limits")
        if not _HEX_16.match(node.xxh3):
            raise FormatError("xxh3 is not 16 hexadecimal digits")
        return
    if node.nbytes or node.xxh3:
        raise FormatError("a branch has no nbytes and no xxh3")
    if not _ID.match(node.encoding) or node.encoding == "plain":
        raise FormatError(f"{node.encoding!r} is not an encoding id of a branch")
    if len(node.parts) > MAX_PARTS:
        raise FormatError(f"{len(node.parts)} parts exceed {MAX_PARTS}")
    _check_ascending(node.params, "params")
    for value in node.params.values():
        for number in value if isinstance(value, list) else (value,):
            if isinstance(number, int) and not -(1 << 63) <= number < 1 << 63:
                raise FormatError(f"the parameter {number} does not fit 64 bits")
    for part in node.parts.values():
        _check_node(part, depth + 1)


def _check_ascending(members: dict[str, object] | Params | dict[str, str], where: str) -> None:
    keys = list(members)
    if len(keys) > 1 and keys != sorted(keys):
        raise FormatError(f"the members of {where} are not in ascending order")


def _check_files(manifest: Manifest) -> None:
    if len(manifest.files) > MAX_FILES:
        raise FormatError(f"{len(manifest.files)} files exceed {MAX_FILES}")
    # ends[i]: bytes of the first i tensors, so that a long run of tensors costs one subtraction.
    ends = [0, *itertools.accumulate(_tensor_nbytes(tensor) for tensor in manifest.tensors)]
    lossy = {tensor.name for tensor in manifest.tensors if tensor.quality is not None}
    n_used = sum(segment.count for file in manifest.files for segment in file.segments)
    if n_used > len(manifest.tensors):
        raise FormatError(f"the files take {n_used} tensors; there are {len(manifest.tensors)}")
    for file in manifest.files:
        check_file_path(file.path)
        try:
            _check_file(file, ends)
            _check_sha256(file, manifest.tensors, lossy)
        except FormatError as error:
            raise FormatError(f"file {file.path!r}: {error}") from None
    # With the divider replaced by the smallest character, which no path holds, whatever is inside a
    # directory sorts right behind it.
    ordered = sorted(file.path.replace("/", "\0") for file in manifest.files)
    for path, following in itertools.pairwise(ordered):
        if path == following or following.startswith(path + "\0"):
            raise FormatError(f"the path {path.replace(chr(0), '/')!r} is taken twice")


def _tensor_nbytes(tensor: TensorEntry) -> int:
    return math.prod(tensor.shape) * DTYPES[tensor.dtype].nbits // 8


def _check_sha256(file: FileEntry, tensors: list[TensorEntry], lossy: set[str]) -> None:
    """Check that a file has a digest, or that it holds tensors which are not what they were."""
    is_lossy = bool(lossy) and any(
        tensor.name in lossy
        or (tensor.data.encoding == "alias" and tensor.data.params.get("target") in lossy)
        for segment in file.segments
        for tensor in tensors[segment.first : segment.first + segment.count]
    )
    if is_lossy and file.sha256:
        raise FormatError("a file of lossy tensors has no sha256")
    if not is_lossy and not _HEX_64.match(file.sha256):
        raise FormatError("sha256 is not 64 hexadecimal digits")


def _check_file(file: FileEntry, ends: list[int]) -> None:
    if len(file.segments) > MAX_SEGMENTS:
        raise FormatError(f"{len(file.segments)} segments exceed {MAX_SEGMENTS}")
    total = 0
    for segment in file.segments:
        is_literal = segment.literal > 0 and segment.first == 0 and segment.count == 0
        is_tensors = segment.literal == 0 and segment.first >= 0 and segment.count > 0
        if not is_literal and not is_tensors:
            raise FormatError("a segment is neither literal bytes nor tensors")
        if segment.first + segment.count >= len(ends):
            raise FormatError("a segment names tensors that the manifest does not have")
        total += segment.literal + ends[segment.first + segment.count] - ends[segment.first]
    if total != file.nbytes:
        raise FormatError(f"the segments add up to {total} bytes, not to {file.nbytes}")
    if (file.literal is None) != (file.literal_nbytes == 0):
        raise FormatError("the literal's stream and the literal segments do not belong together")
    if file.literal is not None:
        if not file.literal.codec:
            raise FormatError("the literal is not a leaf")
        _check_node(file.literal, 1)
