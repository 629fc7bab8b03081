"""``cmpk inspect``: what is in an archive and how it is stored, without decoding anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cmpk.errors import CmpkError

if TYPE_CHECKING:
    from cmpk.archive import Archive
    from cmpk.cli.figures import ArchiveFigures, StreamFigures, TensorFigures
    from cmpk.encodings.base import Stored

__all__ = ["inspect"]


def _complete_tensor(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from cmpk.archive import open_archive

    try:
        with open_archive(ctx.params["file"]) as archive:
            return [name for name in archive if name.startswith(incomplete) and name.isprintable()]
    except (CmpkError, OSError):
        return []


@click.command(short_help="Show what is in a .cmpk file and how it is stored.")
@click.argument("file", type=click.Path())
@click.argument("tensor", required=False, shell_complete=_complete_tensor)
@click.option(
    "--sort",
    type=click.Choice(["size", "ratio", "name"]),
    help="Order of the tensors: largest, worst ratio or name first. [default: as in the file]",
)
@click.option("--streams", is_flag=True, help="List every stream in file order instead of the tensors.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print JSON: the manifest, and the figures of the archive."
)
def inspect(file: str, tensor: str | None, sort: str | None, streams: bool, as_json: bool) -> None:
    """Show what is in FILE and how it is stored; with TENSOR, the whole tree of that tensor.

    Nothing is decoded, and codecs or encodings that are not installed are no hindrance. Ratios are
    stored bytes by original bytes; bits are stored bits per element.

    With --json the output is an object with the members "archive" (path, sizes in bytes, counts, and
    figures by dtype, encoding and codec) and "manifest" (as in the file). With TENSOR, "tensor"
    stands in place of "manifest"; --streams adds "streams".
    """
    from cmpk.archive import open_archive
    from cmpk.cli.figures import figures_of

    with open_archive(file) as archive:
        if tensor is not None:
            archive.entry(tensor)
        figures = figures_of(archive)
        if as_json:
            _print_json(file, archive, figures, tensor, streams)
            return
        from cmpk.cli import tables
        from cmpk.cli.console import output

        with output() as out:
            if tensor is None:
                tables.show_archive(out, file, archive, figures)
            else:
                tables.show_tensor(out, archive, archive.entry(tensor))
            if streams:
                tables.show_streams(out, _streams_of(figures, tensor))
            elif tensor is None:
                tables.show_tensors(out, _sorted(figures.tensors, sort))
                tables.show_quality(out, _sorted(figures.tensors, sort))


def _streams_of(figures: ArchiveFigures, tensor: str | None) -> list[StreamFigures]:
    return [
        stream
        for stream in figures.streams
        if tensor is None or (stream.owner == tensor and not stream.is_file)
    ]


def _sorted(tensors: list[TensorFigures], order: str | None) -> list[TensorFigures]:
    if order == "size":
        return sorted(tensors, key=lambda tensor: -(tensor.tally.nbytes or 0))
    if order == "ratio":
        return sorted(tensors, key=lambda tensor: -(tensor.tally.ratio or 0))
    return sorted(tensors, key=lambda tensor: tensor.name) if order == "name" else tensors


def _print_json(
    path: str, archive: Archive, figures: ArchiveFigures, tensor: str | None, streams: bool
) -> None:
    import msgspec

    from cmpk.cli.text import json_text

    document: dict[str, Any] = {"archive": _archive_json(path, archive, figures)}
    if tensor is None:
        document["manifest"] = msgspec.Raw(archive.manifest_json)
    else:
        document["tensor"] = _tensor_json(archive, tensor)
    if streams:
        document["streams"] = [stream.to_json() for stream in _streams_of(figures, tensor)]
    click.echo(json_text(msgspec.json.encode(document)))


def _archive_json(path: str, archive: Archive, figures: ArchiveFigures) -> dict[str, Any]:
    overhead = figures.overhead
    return {
        "path": path,
        "nbytes": archive.nbytes,
        "sha256": archive.sha256,
        "n_tensors": len(figures.tensors),
        "n_streams": len(figures.streams),
        "n_files": len(archive.manifest.files),
        "total": figures.total.to_json(),
        "tensors": figures.all_tensors.to_json(),
        "literals": figures.all_literals.to_json(),
        "overhead": {
            "nbytes": overhead.total,
            "manifest_nbytes": overhead.manifest,
            "padding_nbytes": overhead.padding,
            "frame_nbytes": overhead.frame,
        },
        "dtypes": {name: tally.to_json() for name, tally in figures.by_dtype.items()},
        "encodings": {name: tally.to_json() for name, tally in figures.by_encoding.items()},
        "codecs": {name: tally.to_json() for name, tally in figures.by_codec.items()},
        "quality": figures.quality.to_json() if figures.quality else None,
        "missing": [{"kind": m.kind, "id": m.id, "provider": m.provider} for m in figures.missing],
    }


def _tensor_json(archive: Archive, name: str) -> dict[str, Any]:
    entry, holder = archive.entry(name), archive.entry(archive.target_of(name))
    quality = entry.quality or holder.quality
    return {
        "name": name,
        "dtype": entry.dtype,
        "shape": entry.shape,
        "blake3": holder.blake3,
        "quality": quality.to_json() if quality else None,
        "input": entry.input.to_json() if entry.input else None,
        "data": _node_json(archive.stored(name)),
    }


def _node_json(stored: Stored) -> dict[str, Any]:
    from cmpk.cli.figures import tally_of
    from cmpk.encodings.base import Leaf

    tally = tally_of(stored)
    node: dict[str, Any] = {
        "dtype": stored.spec.dtype if stored.spec else None,
        "shape": stored.spec.shape if stored.spec else None,
        "nbytes": tally.nbytes,
        "stored_nbytes": tally.stored_nbytes,
        "bits_per_element": tally.to_json()["bits_per_element"],
    }
    if isinstance(stored, Leaf):
        return node | {"codec": stored.node.codec, "offset": stored.offset, "xxh3": stored.node.xxh3}
    parts = {part: _node_json(below) for part, below in stored.parts.items()}
    return node | {"encoding": stored.node.encoding, "params": stored.node.params, "parts": parts}
