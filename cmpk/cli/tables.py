"""How ``cmpk inspect`` shows its figures. Imports rich."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rich.cells import cell_len, chop_cells
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from cmpk.archive import Archive
from cmpk.cli.console import table
from cmpk.cli.figures import ArchiveFigures, StreamFigures, Tally, TensorFigures, tally_of
from cmpk.cli.text import (
    NONE,
    bytes_text,
    count_text,
    decimal_text,
    error_text,
    plain,
    quality_text,
    shape_text,
    things_text,
)
from cmpk.encodings.base import Leaf, Stored
from cmpk.format import FileEntry, TensorEntry

__all__ = ["show_archive", "show_quality", "show_streams", "show_tensor", "show_tensors"]

_MAX_FILES = 8
_MAX_VALUE_LENGTH = 160
_MIN_TREE_WIDTH = 36
"""Where a column that tells how a tensor is stored would be narrower, that goes below the name instead."""
_MIN_NAME_WIDTH = 16
_STAGES = ("pruned", "quantized", "coded")
_GUIDE_WIDTH = 4
"""What rich.tree indents by."""


def show_archive(out: Console, path: str, archive: Archive, figures: ArchiveFigures) -> None:
    """What the archive is; what its bytes are for; then by dtype, by encoding and by codec."""
    out.print(Text(plain(path), "bold"))
    out.print(_facts(archive, figures))
    out.print()
    out.print(_totals(archive, figures))
    tables = (
        ("dtype", "tensors", figures.by_dtype),
        ("encoding", "uses", figures.by_encoding),
        ("codec", "streams", figures.by_codec),
    )
    for kind, things, tallies in tables:
        if tallies:
            out.print()
            out.print(_tallies(kind, things, tallies))


def show_tensors(out: Console, tensors: Sequence[TensorFigures]) -> None:
    """A row for each tensor; where the terminal is narrow, how it is stored goes below its name."""
    if not tensors:
        return
    out.print()
    # Lines instead of a rich.table: models have thousands of tensors, and it takes half a millisecond a row.
    names = [plain(tensor.name) for tensor in tensors]
    types = [_type_text(tensor.dtype, tensor.shape) for tensor in tensors]
    trees = [f"{plain(tensor.encoding)}  {' '.join(tensor.codecs)}" for tensor in tensors]
    sizes = _aligned(">>>>", [("size", "stored", "ratio", "bits"), *(_sizes(t.tally, 3, 1) for t in tensors)])
    name_width = max(_MIN_NAME_WIDTH, out.width - len(sizes[0]) - 2)
    heads = _aligned("<<<", zip(["tensor", *names], ["type", *types], sizes, strict=True))
    room = out.width - cell_len(heads[0]) - 2
    if room >= min(_MIN_TREE_WIDTH, max(map(len, trees))):
        out.print(Text(f"{heads[0]}  stored as", "bold"))
        indent = " " * (cell_len(heads[0]) + 2)
        for head, tree in zip(heads[1:], trees, strict=True):
            first, *rest = textwrap.wrap(tree, room, break_on_hyphens=False)
            out.print(
                Text("\n".join((f"{head}  {first}", *(indent + line for line in rest)))), soft_wrap=True
            )
        return
    folded = [chop_cells(name, name_width) or [""] for name in names]
    heads = _aligned("<<", zip(["tensor", *(lines[0] for lines in folded)], sizes, strict=True))
    out.print(Text(heads[0], "bold"))
    for head, (_, *rest), kind, tree in zip(heads[1:], folded, types, trees, strict=True):
        width = max(_MIN_NAME_WIDTH, out.width - 2)
        below = textwrap.indent(textwrap.fill(f"{kind}  {tree}", width, break_on_hyphens=False), "  ")
        out.print(Text.assemble("\n".join((head, *rest, "")), (below, "dim")), soft_wrap=True)


def show_quality(out: Console, tensors: Sequence[TensorFigures]) -> None:
    """A row for each lossy tensor: how far it is from its source, and its bits after each stage."""
    heading = ("error", "SQNR dB", "cosine", "zeros", *_STAGES, "tensor")
    cells = [
        (
            error_text(quality.error),
            decimal_text(quality.sqnr, 1),
            decimal_text(quality.cosine, 6),
            f"{quality.zeros / (tensor.tally.numel or 1):.1%}",
            *(decimal_text(quality.bits.get(stage), 2) for stage in _STAGES),
            plain(tensor.name),
        )
        for tensor in tensors
        for quality in [tensor.quality]
        if quality is not None
    ]
    if not cells:
        return
    first, *lines = _aligned(">>>>>>><", [heading, *cells])
    out.print()
    out.print(Text("lossy tensors, and bits an element after each stage", "bold"))
    out.print(Text(first.rstrip(), "bold"), soft_wrap=True)
    for line in lines:
        out.print(Text(line.rstrip()), soft_wrap=True)


def show_streams(out: Console, streams: Sequence[StreamFigures]) -> None:
    """Every stream in file order: below its tensor's name on a terminal, beside it otherwise."""
    heading = ("offset", "codec", "size", "stored", "bits", "xxh3")
    cells = [
        (
            f"{stream.offset}",
            stream.codec,
            bytes_text(stream.tally.nbytes),
            bytes_text(stream.tally.stored_nbytes),
            decimal_text(stream.tally.bits, 2),
            stream.xxh3,
        )
        for stream in streams
    ]
    first, *lines = _aligned("><>>><", [heading, *cells])
    out.print()
    out.print(Text(f"{first}  {'part' if out.is_terminal else 'stream'}", "bold"), soft_wrap=True)
    for (owner, _), run in itertools.groupby(
        zip(streams, lines, strict=True), key=lambda pair: (pair[0].owner, pair[0].is_file)
    ):
        if out.is_terminal:
            out.print(Text(plain(owner), "bold"))
        for stream, line in run:
            where = plain(stream.part) if out.is_terminal else plain(f"{stream.owner} {stream.part}")
            out.print(Text(f"{line}  {where}".rstrip()), soft_wrap=True)


def show_tensor(out: Console, archive: Archive, entry: TensorEntry) -> None:
    """One tensor and its whole tree."""
    root = archive.stored(entry.name)
    tally = tally_of(root)
    target = archive.target_of(entry.name)
    facts = _facts_table()
    facts.add_row("type", f"{_type_text(entry.dtype, entry.shape)}, {tally.numel:,} elements")
    facts.add_row("size", f"{tally.nbytes:,} bytes, stored in {tally.stored_nbytes:,}")
    facts.add_row("ratio", f"{decimal_text(tally.ratio, 4)}, {decimal_text(tally.bits, 2)} bits per element")
    facts.add_row("blake3", archive.entry(target).blake3)
    quality = entry.quality or archive.entry(target).quality
    if quality is not None:
        bits = ", ".join(f"{stage} {count:.2f}" for stage, count in quality.bits.items())
        facts.add_row(
            "error", f"{error_text(quality.error)}, {quality.sqnr:.1f} dB, cosine {quality.cosine:.6f}"
        )
        facts.add_row("zeros", f"{quality.zeros:,}")
        facts.add_row("stages", f"{bits} bits per element")
    if entry.input is not None:
        ranges = (f"{name} {low:.4g} .. {high:.4g}" for name, (low, high) in entry.input.to_json().items())
        facts.add_row("input", ", ".join(ranges))
    if target != entry.name:
        relation = (
            "merged with" if entry.quality else "tied to" if archive.is_tied(entry.name) else "equal to"
        )
        facts.add_row(relation, plain(target))
    out.print(Text(plain(entry.name), "bold"))
    out.print(facts)
    out.print()
    for line in _tree(out, list(_tree_rows(root, "tensor"))):
        out.print(line)


class _TreeRow(NamedTuple):
    depth: int
    part: str
    type: str
    sizes: tuple[str, ...]
    stored_as: Text


def _tree_rows(stored: Stored, part: str, depth: int = 0) -> Iterator[_TreeRow]:
    kind = _type_text(stored.spec.dtype, stored.spec.shape) if stored.spec else "?"
    tally = tally_of(stored)
    sizes = (bytes_text(tally.nbytes), bytes_text(tally.stored_nbytes), decimal_text(tally.bits, 2))
    if isinstance(stored, Leaf):
        text = Text.assemble(
            f"{stored.node.codec:<7}", (f"  at {stored.offset}  xxh3 {stored.node.xxh3}", "dim")
        )
        yield _TreeRow(depth, plain(part), kind, sizes, text)
        return
    params = " ".join(f"{name}={value}" for name, value in stored.node.params.items())
    yield _TreeRow(
        depth, plain(part), kind, sizes, Text.assemble(stored.node.encoding, (f"  {plain(params)}", "dim"))
    )
    for name, below in stored.parts.items():
        yield from _tree_rows(below, name, depth + 1)


def _tree(out: Console, rows: list[_TreeRow]) -> tuple[Text, Tree]:
    """Headings and the tree below them; how a part is stored goes to a line of its own where it must."""
    width = max(len(row.part) + _GUIDE_WIDTH * row.depth for row in rows)
    heading = ("part".ljust(width), "type", "size", "stored", "bits")
    cells = [(row.part.ljust(width - _GUIDE_WIDTH * row.depth), row.type, *row.sizes) for row in rows]
    # The first column narrows with depth, by as much as the guides take.
    columns = _aligned("<>>>", [cell[1:] for cell in (heading, *cells)])
    lines = [f"{cell[0]}  {rest}" for cell, rest in zip((heading, *cells), columns, strict=True)]
    fits = len(lines[0]) + 2 + max(len(row.stored_as) for row in rows) <= out.width
    branches: list[Tree] = []
    for row, line in zip(rows, lines[1:], strict=True):
        label = Text.assemble(line, "  " if fits else "\n  ", row.stored_as)
        branch = branches[row.depth - 1].add(label) if row.depth else Tree(label, guide_style="dim")
        branches[row.depth :] = [branch]
    return Text(f"{lines[0]}{'  stored as' if fits else ''}", "bold"), branches[0]


def _facts_table() -> Table:
    facts = table("", "")
    facts.columns[0].style = "dim"
    return facts


def _facts(archive: Archive, figures: ArchiveFigures) -> Table:
    manifest = archive.manifest
    facts = _facts_table()
    facts.add_row("producer", plain(manifest.producer))
    if manifest.recipe:
        facts.add_row("recipe", plain(manifest.recipe))
    if manifest.calibration:
        facts.add_row("calibration", manifest.calibration)
    facts.add_row("sha256", archive.sha256)
    if figures.quality is not None:
        facts.add_row("quality", quality_text(figures.quality))
    for index, (key, value) in enumerate(manifest.metadata.items()):
        shown = f"{key} = {value}"
        if len(shown) > _MAX_VALUE_LENGTH:
            shown = f"{shown[:_MAX_VALUE_LENGTH]}… ({len(value):,} characters)"
        facts.add_row("" if index else "metadata", plain(shown))
    for index, text in enumerate(_file_texts(manifest.files)):
        facts.add_row("" if index else "files", text)
    missing = {item.id: item.provider for item in figures.missing}
    for index, (item_id, provider) in enumerate((manifest.providers | missing).items()):
        need = Text(f"{item_id} from {plain(provider) or 'an unknown package'}")
        if item_id in missing:
            need.append(", not installed", "yellow")
        facts.add_row("" if index else "needs", need)
    return facts


def _file_texts(files: Sequence[FileEntry]) -> Iterator[str]:
    for file in files[:_MAX_FILES]:
        yield f"{bytes_text(file.nbytes):>7}  {plain(file.path)}"
    if len(files) > _MAX_FILES:
        rest = files[_MAX_FILES:]
        yield f"{bytes_text(sum(file.nbytes for file in rest)):>7}  in {len(rest):,} more"


def _totals(archive: Archive, figures: ArchiveFigures) -> Table:
    """What the bytes of the file are for; the rows add up to its size."""
    overhead = figures.overhead
    rows = table("", ">size", ">stored", ">ratio", ">bits", "")
    numel = count_text(figures.all_tensors.numel or 0)
    tensors = f"{things_text(figures.all_tensors.count, 'tensor')}, {numel} elements"
    rows.add_row("tensors", *_sizes(figures.all_tensors), tensors)
    if figures.all_literals.count:
        rows.add_row("other", *_sizes(figures.all_literals)[:3], NONE, "headers and attachments")
    for part, nbytes, what in (
        ("manifest", overhead.manifest, ""),
        ("padding", overhead.padding, ""),
        ("frame", overhead.frame, "preamble and footer"),
    ):
        rows.add_row(part, NONE, bytes_text(nbytes), NONE, NONE, what)
    exactly = f"{archive.nbytes:,} bytes, {overhead.total:,} overhead"
    rows.add_row("file", *_sizes(figures.total), exactly, style="bold")
    return rows


def _tallies(kind: str, things: str, tallies: Mapping[str, Tally]) -> Table:
    rows = table(kind, f">{things}", ">size", ">stored", ">ratio", ">bits")
    for name, tally in tallies.items():
        rows.add_row(name, f"{tally.count:,}", *_sizes(tally))
    return rows


def _sizes(tally: Tally, ratio_digits: int = 4, bits_digits: int = 2) -> tuple[str, str, str, str]:
    return (
        bytes_text(tally.nbytes),
        bytes_text(tally.stored_nbytes),
        decimal_text(tally.ratio, ratio_digits),
        decimal_text(tally.bits, bits_digits),
    )


def _type_text(dtype: str, shape: Sequence[int]) -> str:
    return f"{dtype} {shape_text(shape)}"


def _aligned(alignment: str, rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as lines whose columns stand below each other; a ``<`` or ``>`` for each column."""
    rows = list(rows)
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(_padded, row, alignment, widths)) for row in rows]


def _padded(cell: str, side: str, width: int) -> str:
    space = " " * (width - cell_len(cell))
    return space + cell if side == ">" else cell + space
