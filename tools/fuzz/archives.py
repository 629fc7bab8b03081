"""Archives taken apart, changed and put together again, digests and all."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import struct
from collections.abc import Iterator
from random import Random
from typing import Any

import blake3
import zstandard

from cmpk.archive import Archive
from cmpk.errors import CmpkError
from tools.vectors.assemble import Leaf, Object, branch, build, leaf, leaves

__all__ = ["Archives", "seal", "take_apart", "with_right_digests"]

Path = tuple[Any, ...]

_FOOTER = struct.Struct("<QQQ32sQ8s")
_MAX_COPIES = 4
_MAX_BUILT = 1 << 20

_INTEGERS = [0, 1, 2, 3, 7, 8, 16, 31, 32, 33, 63, 64, 65, 127, 128, 255, 256, 1023, 1024, 1025, 4095, 4096]
_INTEGERS += [4097, 65535, 65536, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 32, 1 << 47, 1 << 48, (1 << 48) + 1]
_INTEGERS += [
    1 << 51,
    (1 << 63) - 1,
    1 << 63,
    1 << 64,
    1 << 200,
    -1,
    -2,
    -256,
    -(1 << 31),
    -(1 << 63),
    -(1 << 63) - 1,
]
# The last is nobody's: the decoder of the specification knows no plugins, and one may be installed here.
_CODECS = ["raw", "zstd", "huffman", "rans", "bitpack", "no_such_codec"]
_ENCODINGS = ["float_split", "narrow", "row_groups", "codebook", "alias", "plain", "affine", "cast"]
_ENCODINGS += ["bitmask", "gap_index", "product"]
_DTYPES = [
    "BOOL",
    "U8",
    "I8",
    "U16",
    "I32",
    "U64",
    "F4",
    "F6_E2M3",
    "F8_E4M3",
    "F8_E5M2",
    "F8_E8M0",
    "F16",
    "BF16",
]
_DTYPES += ["F32", "F64", "C64"]
_PARTS = ["high", "rest0", "rest1", "exception_index", "exception_high", "values", "group", "0", "1", "codes"]
_PARTS += ["centroids", "qdata", "scale", "zero_point", "exception_code"]
_PARTS += ["mask", "gaps", "left", "right"]
_MEMBERS = [
    "producer",
    "recipe",
    "calibration",
    "metadata",
    "providers",
    "tensors",
    "files",
    "name",
    "dtype",
    "shape",
    "blake3",
    "quality",
    "input",
]
_MEMBERS += [
    "data",
    "codec",
    "nbytes",
    "xxh3",
    "encoding",
    "params",
    "parts",
    "path",
    "sha256",
    "segments",
    "literal",
]
_MEMBERS += ["error_ppb", "cosine_ppb", "zeros", "coded_millibits", "minmax", "percentile", "mse"]
_MEMBERS += ["first", "count", "base", "exceptions", "mantissa_bits", "rows", "size", "target", "tied"]
_MEMBERS += ["fill", "stride", "max_gap", "vector", "group_rows", "dtype", "rank"]
_PATHS = [
    "..",
    "../a",
    "/a",
    "a/../../b",
    "a//b",
    "C:a",
    "a\\b",
    ".",
    "a/.",
    "a\0b",
    "a\nb",
    "x" * 300,
    "é",
    "__metadata__",
]
_STRINGS = [
    "",
    "a",
    "0" * 16,
    "0" * 64,
    "\x1b[31m",
    "[red]x[/red]",
    "\u202e",
    "\U0001f600",
    "a" * 5000,
    "\x7f",
    "-rf x",
]


def take_apart(data: bytes) -> Object | None:
    """The manifest of a valid archive, with its streams in its leaves; None if it can't be read."""
    offset, stored_nbytes, nbytes, *_ = _FOOTER.unpack(data[-_FOOTER.size :])
    stored = data[offset : offset + stored_nbytes]
    try:
        text = stored if stored_nbytes == nbytes else zstandard.ZstdDecompressor().decompress(stored)
        content: Object = json.loads(text)
        content = _with_leaves(content)
    except (ValueError, RecursionError, zstandard.ZstdError):
        return None
    end = 16
    for stream in leaves(content):
        size = stream.get("nbytes", 0)
        if not isinstance(size, int):
            return None
        end += -end % 64 if stream["codec"] == "raw" and size >= 4096 else 0
        stream.stream = data[end : end + size]
        end += size
    return content


def seal(stored: Leaf) -> None:
    """Have a leaf say the right size and digest of its stream."""
    said = leaf(stored.get("codec", ""), stored.stream)
    stored.clear()
    stored.update(said)


def with_right_digests(data: bytes) -> bytes:
    """An archive whose tensors and files have the digests of what they decode to, if they do.

    So much may be wrong with what a change has made of an archive; without the digests that were
    computed before, its deep verification has to notice what else is.
    """
    content = take_apart(data)
    if content is None:
        return data
    with Archive(data) as archive:
        for tensor in content.get("tensors", []):
            with contextlib.suppress(CmpkError):
                if tensor.get("blake3"):
                    tensor["blake3"] = blake3.blake3(archive.read(tensor["name"]).data).hexdigest()
        for said, file in zip(content.get("files", []), archive.manifest.files, strict=True):
            digest = hashlib.sha256()
            with contextlib.suppress(CmpkError):
                for chunk in archive.file_chunks(file):
                    digest.update(chunk.data)
            # The last that the chunks do is to miss the digest that they were changed from.
            if file.sha256:
                said["sha256"] = digest.hexdigest()
    return build(content)


class Archives:
    """Changes archives in ways that get past their digests, or break them.

    Parameters
    ----------
    donors : list of bytes
        Valid archives, from which subtrees are taken.
    """

    def __init__(self, donors: list[bytes]) -> None:
        self._donors = [content for content in map(take_apart, donors) if content is not None]

    def mutate(self, data: bytes, random: Random) -> bytes:
        """Another archive, valid in few cases only."""
        content = take_apart(data) if len(data) >= _FOOTER.size + 16 and random.random() < 0.95 else None
        if content is None:
            return _mutated_bytes(data, random) if random.random() < 0.8 else self._built({}, random)
        content = copy.deepcopy(content)
        for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
            random.choice(
                (self._mutate_tree, self._mutate_tree, self._mutate_stream, self._mutate_stream, self._nest)
            )(content, random)
        return self._built(content, random)

    def _built(self, content: Object, random: Random) -> bytes:
        how: dict[str, Any] = {}
        kind = random.randrange(32)
        if kind == 0:
            how["change"] = lambda text: _mutated_bytes(text, random)
        elif kind == 1:
            how["store"] = lambda text: zstandard.ZstdCompressor(level=random.choice((1, 19))).compress(text)
        elif kind == 2:
            how["store"] = lambda text: _mutated_bytes(zstandard.ZstdCompressor().compress(text), random)
        elif kind == 3:
            field = random.choice(("offset", "stored_nbytes", "nbytes", "reserved"))
            how[field] = random.choice(_INTEGERS) % (1 << 64)
        elif kind == 4:
            how["padding"] = b"\1"
        elif kind == 5:
            how["before_manifest"] = bytes(random.randrange(1, 65))
        try:
            return build(content, **how)
        except UnicodeEncodeError:  # a lone surrogate can't be written
            return build({})

    def _mutate_stream(self, content: Object, random: Random) -> None:
        stored = list(leaves(content))
        if not stored:
            return
        chosen = random.choice(stored)
        if random.random() < 0.1:
            chosen.stream = random.choice(stored).stream
        else:
            chosen.stream = _mutated_bytes(chosen.stream, random)
        if random.random() < 0.95:
            seal(chosen)

    def _nest(self, content: Object, random: Random) -> None:
        """Put an encoding around a node, or take one away."""
        nodes = [path for path in _paths(content) if path and _is_node(_get(content, path))]
        if not nodes:
            return
        path = random.choice(nodes)
        node = _get(content, path)
        parts = node.get("parts")
        if isinstance(parts, dict) and parts and random.random() < 0.5:
            inner = random.choice(list(parts.values()))
        else:
            inner = _around(node, random)
        _get(content, path[:-1])[path[-1]] = inner

    def _mutate_tree(self, content: Object, random: Random) -> None:
        paths = list(_paths(content))
        path = random.choice(paths)
        if not path:
            return
        parent, key = _get(content, path[:-1]), path[-1]
        kind = random.randrange(16)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, list):
            for _ in range(random.randrange(1, _MAX_COPIES)):
                parent.insert(key, copy.deepcopy(parent[key]))
        elif kind == 2 and isinstance(parent, list):
            random.shuffle(parent)
        elif kind == 3 and isinstance(parent, dict):
            _reorder(parent, sorted(parent, key=lambda _: random.random()))
        elif kind == 4 and isinstance(parent, dict):
            _rename(parent, key, random.choice(_PARTS + _MEMBERS))
        elif kind == 5:
            parent[key] = copy.deepcopy(_get(content, random.choice(paths)))
        elif kind in (6, 7) and self._donors:
            donor = random.choice(self._donors)
            like = [p for p in _paths(donor) if p and p[-1] == key] or [()]
            parent[key] = copy.deepcopy(_get(donor, random.choice(like)))
        else:
            parent[key] = _another(parent[key], random)
        if _nbytes(content) > _MAX_BUILT:
            content.clear()


def _with_leaves(value: Any) -> Any:
    """The same with each leaf as `Leaf`."""
    if isinstance(value, list):
        return [_with_leaves(item) for item in value]
    if not isinstance(value, dict):
        return value
    members = {name: _with_leaves(member) for name, member in value.items()}
    return Leaf(members) if isinstance(members.get("codec"), str) else members


def _paths(value: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    members = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, member in members:
        yield from _paths(member, (*path, key))


def _get(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def _is_node(value: Any) -> bool:
    return isinstance(value, Leaf) or (isinstance(value, dict) and "encoding" in value)


def _nbytes(content: Object) -> int:
    return sum(len(stored.stream) for stored in leaves(content))


def _reorder(members: Object, names: list[str]) -> None:
    items = [(name, members[name]) for name in names]
    members.clear()
    members.update(items)


def _rename(members: Object, old: str, new: str) -> None:
    items = [(new if name == old else name, value) for name, value in members.items()]
    members.clear()
    members.update(items)


def _around(node: Object, random: Random) -> Object:
    """An encoding whose one interesting part is the node; the others are small."""
    small = leaf("raw", random.randbytes(random.randrange(20)))
    kind = random.choice(("narrow", "row_groups", "codebook", "float_split", "affine", "cast", "sparse"))
    if kind == "sparse":
        return _around_places(node, small, random)
    if kind == "narrow":
        return branch("narrow", {"dtype": random.choice(("F16", "BF16", "F32"))}, values=node)
    if kind == "row_groups":
        return branch(
            "row_groups", {"rows": [random.randrange(1, 9)]}, **{"group": leaf("raw", bytes(8)), "0": node}
        )
    if kind == "codebook":
        layout = random.choice(({}, {"vector": random.choice((0, 2, 4))}, {"group_rows": 2}))
        book = dict(sorted(({"size": random.randrange(1, 9)} | layout).items()))
        return branch("codebook", book, codes=node, centroids=small)
    if kind in ("affine", "cast"):
        axis, group_size = random.randrange(-1, 2), random.choice((0, random.randrange(9)))
        dtype = random.choice(("F32", "F16", "BF16", "F8_E8M0"))
        if kind == "cast":
            params = {"axis": axis, "dtype": "F8_E4M3", "group_size": group_size, "scale_dtype": dtype}
            return branch("cast", params, values=node, scale=small)
        params = {
            "axis": axis,
            "exceptions": 0,
            "group_size": group_size,
            "offset": random.randrange(-256, 9),
        }
        params |= {"scale_dtype": dtype, "zero_point": 0}
        return branch("affine", params, qdata=node, scale=small)
    params = {"base": 0, "exceptions": 0, "mantissa_bits": random.randrange(8)}
    return branch("float_split", params, high=node, rest0=copy.deepcopy(small))


def _around_places(node: Object, small: Leaf, random: Random) -> Object:
    """A mask, gaps or a matrix, and the values that go with it."""
    count, kind = random.randrange(20), random.choice(("bitmask", "gap_index", "product"))
    if kind == "bitmask":
        params = {"count": count, "fill": random.randrange(3), "stride": random.choice((1, 2, 9))}
        return branch("bitmask", params, mask=random.choice((node, small)), values=node)
    if kind == "gap_index":
        max_gap = random.choice((1, 15, 255))
        params = {"count": count, "fill": 0, "gaps": count + random.randrange(9), "max_gap": max_gap}
        return branch("gap_index", params, gaps=small, values=node)
    dtype = random.choice(("F32", "F16", "BF16"))
    return branch("product", {"dtype": dtype, "rank": random.randrange(1, 5)}, left=small, right=node)


def _another(value: Any, random: Random) -> Any:
    """A value in place of another one, mostly of the same type."""
    if random.random() < 0.05:
        return random.choice([None, True, False, 1.5, -0.0, [], {}, "", 0, [1], {"a": 1}, [[]], 1e400])
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice(
            [value + 1, value - 1, value * 2, value // 2, -value, *random.choices(_INTEGERS, k=3)]
        )
    if isinstance(value, str):
        cut = random.randrange(len(value) + 1)
        changed = value[:cut] + random.choice(["", "0", "f", "F", "x", "/", "é", "\ud800"]) + value[cut + 1 :]
        return random.choice(
            [changed, *(random.choice(s) for s in (_CODECS, _ENCODINGS, _DTYPES, _PATHS, _STRINGS))]
        )
    if isinstance(value, list):
        return [*value, random.choice(_INTEGERS)] if random.random() < 0.5 else value[: len(value) // 2]
    if isinstance(value, dict):
        return {**value, random.choice(_MEMBERS + _PARTS): random.choice([0, 1, "a", [], {}])}
    return random.choice(_INTEGERS)


def _mutated_bytes(data: bytes, random: Random) -> bytes:
    """Bytes flipped, cut off, repeated, moved."""
    out = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        # The head of a stream is short, and most rules are about it.
        at = random.randrange(min(len(out), random.choice((8, 64, 512, 1 << 30))) + 1)
        length = random.choice((1, 2, 4, 8, 64, 1024))
        kind = random.randrange(8)
        if kind == 0:
            del out[at : at + length]
        elif kind == 1:
            out[at:at] = random.randbytes(length)
        elif kind == 2:
            del out[len(out) - length :]
        elif kind == 3:
            out += bytes(length)
        elif kind == 4:
            out[at : at + 4] = (random.choice(_INTEGERS) % (1 << 32)).to_bytes(4, "little")
        elif kind == 5:
            source = random.randrange(len(out) + 1)
            out[at : at + length] = out[source : source + length]
        elif at < len(out):
            out[at] = (
                out[at] ^ 1 << random.randrange(8) if kind == 6 else random.choice((0, 1, 127, 128, 255))
            )
    return bytes(out)
