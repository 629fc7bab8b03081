"""What ``cmpk inspect`` tells of an archive: its figures, from the manifest alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cmpk.archive import Archive
from cmpk.encodings.base import Leaf, Stored
from cmpk.format.layout import FOOTER_NBYTES, PREAMBLE_NBYTES
from cmpk.format.manifest import Node, leaves
from cmpk.format.quality import Quality, QualitySummary, summary_of

__all__ = [
    "ArchiveFigures",
    "Missing",
    "Overhead",
    "StreamFigures",
    "Tally",
    "TensorFigures",
    "codecs_of",
    "describe",
    "figures_of",
    "tally_of",
]


@dataclass(frozen=True, slots=True)
class Tally:
    """So many things, and what they were and have become.

    Attributes
    ----------
    count : int
    numel : int
        Their elements.
    nbytes : int or None
        Their size decoded; None where an encoding is not installed.
    stored_nbytes : int
        What their streams take in the file.
    """

    count: int = 0
    numel: int | None = 0
    nbytes: int | None = 0
    stored_nbytes: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.count + other.count,
            _sum(self.numel, other.numel),
            _sum(self.nbytes, other.nbytes),
            self.stored_nbytes + other.stored_nbytes,
        )

    @property
    def ratio(self) -> float | None:
        """Stored bytes per byte."""
        return self.stored_nbytes / self.nbytes if self.nbytes else None

    @property
    def bits(self) -> float | None:
        """Stored bits per element."""
        return self.stored_nbytes * 8 / self.numel if self.numel else None

    def to_json(self) -> dict[str, Any]:
        """As ``inspect --json`` gives it."""
        return {
            "count": self.count,
            "numel": self.numel,
            "nbytes": self.nbytes,
            "stored_nbytes": self.stored_nbytes,
            "ratio": _rounded(self.ratio),
            "bits_per_element": _rounded(self.bits),
        }


@dataclass(frozen=True, slots=True)
class TensorFigures:
    """One tensor, and how it is stored in a few words."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    tally: Tally
    encoding: str
    codecs: list[str]
    quality: Quality | None = None


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """One stream of the file.

    Attributes
    ----------
    owner : str
        Name of the tensor, or path of the file.
    is_file : bool
        Which of the two.
    part : str
        The parts that lead to it from the tensor's root, divided by points.
    offset : int
    codec, xxh3 : str
    tally : Tally
    """

    owner: str
    is_file: bool
    part: str
    offset: int
    codec: str
    xxh3: str
    tally: Tally

    def to_json(self) -> dict[str, Any]:
        """As ``inspect --json --streams`` gives it."""
        return {
            "file" if self.is_file else "tensor": self.owner,
            "part": self.part,
            "offset": self.offset,
            "codec": self.codec,
            "stored_nbytes": self.tally.stored_nbytes,
            "nbytes": self.tally.nbytes,
            "xxh3": self.xxh3,
        }


@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes of the file that belong to no stream."""

    manifest: int
    padding: int
    frame: int = PREAMBLE_NBYTES + FOOTER_NBYTES

    @property
    def total(self) -> int:
        """All of them."""
        return self.manifest + self.padding + self.frame


@dataclass(frozen=True, slots=True)
class Missing:
    """A codec or encoding that the file needs and this installation lacks."""

    kind: str
    id: str
    provider: str


@dataclass(frozen=True, slots=True)
class ArchiveFigures:
    """Everything that is shown of an archive.

    Attributes
    ----------
    total : Tally
        The whole file: tensors, literal bytes of files, overhead; its elements are those of the tensors.
    by_encoding : dict of str to Tally
        What was given to each encoding and what became of it. Where encodings nest, each counts the
        bytes that it was given, so the rows overlap; one that nests in itself counts once.
    """

    tensors: list[TensorFigures]
    streams: list[StreamFigures]
    overhead: Overhead
    total: Tally
    all_tensors: Tally
    all_literals: Tally
    by_dtype: dict[str, Tally]
    by_encoding: dict[str, Tally]
    by_codec: dict[str, Tally]
    missing: list[Missing]
    quality: QualitySummary | None = None


def figures_of(archive: Archive) -> ArchiveFigures:
    """The figures of an archive; decodes nothing."""
    tensors: list[TensorFigures] = []
    streams: list[StreamFigures] = []
    by_dtype: dict[str, Tally] = {}
    by_encoding: dict[str, Tally] = {}
    missing: dict[tuple[str, str], Missing] = {}
    all_tensors = all_literals = Tally()
    for entry in archive.manifest.tensors:
        spec, root = archive.spec(entry.name), archive.stored(entry.name)
        tally = tally_of(root)
        all_tensors += tally
        _count(by_dtype, entry.dtype, tally)
        tensors.append(
            TensorFigures(
                entry.name,
                spec.dtype,
                spec.shape,
                tally,
                describe(entry.data),
                codecs_of(entry.data),
                entry.quality,
            )
        )
        for encoding, stored in _outermost(root):
            _count(by_encoding, encoding, tally_of(stored))
        for part, stored in _nodes(root):
            _note_missing(missing, stored, archive)
            if isinstance(stored, Leaf):
                streams.append(_stream(entry.name, False, part, stored))
    for file in archive.manifest.files:
        literal = archive.stored_literal(file)
        if isinstance(literal, Leaf):
            _note_missing(missing, literal, archive)
            all_literals += tally_of(literal)
            streams.append(_stream(file.path, True, "", literal))
    by_codec: dict[str, Tally] = {}
    for stream in streams:
        _count(by_codec, stream.codec, stream.tally)
    overhead = _overhead(archive, streams)
    return ArchiveFigures(
        tensors=tensors,
        streams=streams,
        overhead=overhead,
        total=Tally(1, all_tensors.numel, _sum(all_tensors.nbytes, all_literals.nbytes), archive.nbytes),
        all_tensors=all_tensors,
        all_literals=all_literals,
        by_dtype=_by_size(by_dtype),
        by_encoding=_by_size(by_encoding),
        by_codec=_by_size(by_codec),
        missing=list(missing.values()),
        quality=summary_of((tensor.name, tensor.tally.numel or 0, tensor.quality) for tensor in tensors),
    )


def describe(node: Node) -> str:
    """The encodings of a tree in a few words: ``row_groups[2]{narrow{float_split}, float_split}``.

    Parts that are plain streams are left out, unless they are numbered like `row_groups`' groups.
    """
    if not node.encoding:
        return "plain"
    if node.encoding == "alias":
        return f"alias of {node.params.get('target', '')}"
    n_numbered = sum(name.isdigit() for name in node.parts)
    inner = [describe(part) for name, part in node.parts.items() if part.encoding or name.isdigit()]
    runs = [(text, len(list(run))) for text, run in itertools.groupby(inner)]
    if len(runs) == 1:
        texts = [runs[0][0]]
    else:
        texts = [f"{text} ×{length}" if length > 1 else text for text, length in runs]
    return (
        node.encoding
        + (f"[{n_numbered}]" if n_numbered else "")
        + (f"{{{', '.join(texts)}}}" if texts else "")
    )


def codecs_of(node: Node) -> list[str]:
    """The codecs of a tree's streams, the one that takes most bytes first."""
    nbytes: dict[str, int] = {}
    for leaf in leaves(node):
        nbytes[leaf.codec] = nbytes.get(leaf.codec, 0) + leaf.nbytes
    return sorted(nbytes, key=lambda codec: (-nbytes[codec], codec))


def tally_of(stored: Stored) -> Tally:
    """The figures of one tree."""
    stored_nbytes = sum(leaf.nbytes for leaf in leaves(stored.node))
    if stored.spec is None:
        return Tally(1, None, None, stored_nbytes)
    return Tally(1, stored.spec.numel, stored.spec.nbytes, stored_nbytes)


def _nodes(stored: Stored, part: str = "") -> Iterator[tuple[str, Stored]]:
    """Every node of a tree and the parts that lead to it."""
    yield part, stored
    if not isinstance(stored, Leaf):
        for name, below in stored.parts.items():
            yield from _nodes(below, f"{part}.{name}" if part else name)


def _outermost(root: Stored) -> Iterator[tuple[str, Stored]]:
    """Where each encoding is met first on the way down; ``plain`` is that of a tensor which is one stream."""
    if isinstance(root, Leaf):
        yield "plain", root
    below: list[tuple[Stored, frozenset[str]]] = [(root, frozenset())]
    while below:
        stored, met = below.pop()
        if isinstance(stored, Leaf):
            continue
        encoding = stored.node.encoding
        if encoding not in met:
            yield encoding, stored
        below.extend((part, met | {encoding}) for part in stored.parts.values())


def _stream(owner: str, is_file: bool, part: str, leaf: Leaf) -> StreamFigures:
    return StreamFigures(owner, is_file, part, leaf.offset, leaf.node.codec, leaf.node.xxh3, tally_of(leaf))


def _note_missing(missing: dict[tuple[str, str], Missing], stored: Stored, archive: Archive) -> None:
    if isinstance(stored, Leaf):
        kind, item_id, found = "codec", stored.node.codec, stored.codec is not None
    else:
        kind, item_id, found = "encoding", stored.node.encoding, stored.encoding is not None
    if not found:
        missing[kind, item_id] = Missing(kind, item_id, archive.manifest.providers.get(item_id, ""))


def _overhead(archive: Archive, streams: list[StreamFigures]) -> Overhead:
    end = PREAMBLE_NBYTES
    padding = 0
    for stream in streams:
        padding += stream.offset - end
        end = stream.offset + stream.tally.stored_nbytes
    return Overhead(manifest=archive.nbytes - FOOTER_NBYTES - end, padding=padding)


def _count(tallies: dict[str, Tally], key: str, tally: Tally) -> None:
    tallies[key] = tallies.get(key, Tally()) + tally


def _by_size(tallies: dict[str, Tally]) -> dict[str, Tally]:
    return dict(sorted(tallies.items(), key=lambda item: (-item[1].stored_nbytes, item[0])))


def _sum(left: int | None, right: int | None) -> int | None:
    return None if left is None or right is None else left + right


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
