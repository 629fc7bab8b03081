"""``cmpk verify``: whether an archive is whole."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import click

from cmpk.cli.text import bytes_text, plain, rate_text, seconds_text, things_text
from cmpk.errors import CmpkError

if TYPE_CHECKING:
    from cmpk.archive import Archive

__all__ = ["verify"]


@click.command(short_help="Check that a .cmpk file is whole.")
@click.argument("file", type=click.Path())
@click.option("--deep", is_flag=True, help="Also decode everything and check it against its digests.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="Threads. [default: all cores]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and no progress.")
def verify(file: str, deep: bool, jobs: int | None, as_json: bool) -> None:
    """Check FILE: its structure and the digest of every stream; with --deep, everything in it.

    Without --deep nothing is decoded, so that no plugin is needed; that finds any accidental damage.
    Exits with 1 and one line on standard error if anything is wrong.

    With --json the output is an object with "ok", "path", "deep"; "error" if it is not whole; else
    what was checked and the seconds it took.
    """
    from cmpk.archive import open_archive
    from cmpk.cli.console import progress_bar
    from cmpk.indexing import default_threads

    started = time.perf_counter()
    try:
        with open_archive(file) as archive, progress_bar("verifying", quiet=as_json) as progress:
            archive.verify(deep=deep, threads=jobs or default_threads(), progress=progress)
            checked = _checked(archive, deep)
    except CmpkError as error:
        if as_json:
            click.echo(json.dumps({"ok": False, "path": file, "deep": deep, "error": str(error)}, indent=2))
        raise
    seconds = time.perf_counter() - started
    if as_json:
        document = {"ok": True, "path": file, "deep": deep, **checked, "seconds": seconds}
        click.echo(json.dumps(document, indent=2))
        return
    nbytes = max(checked["streams_nbytes"], checked["tensors_nbytes"])
    click.echo(f"{plain(file)} is whole")
    for line in _lines(checked):
        click.echo(f"  {line}")
    click.echo(f"  in {seconds_text(seconds)}, {rate_text(nbytes, seconds)}")
    if not deep:
        click.echo("  nothing was decoded; --deep does that too")


def _checked(archive: Archive, deep: bool) -> dict[str, int]:
    """What a verification that succeeded has looked at; sizes of what is decoded count decoded bytes."""
    from cmpk.cli.figures import figures_of

    figures = figures_of(archive)
    files = [file for file in archive.manifest.files if file.sha256] if deep else []
    return {
        "n_streams": len(figures.streams),
        "streams_nbytes": sum(stream.tally.stored_nbytes for stream in figures.streams),
        "n_tensors": len(figures.tensors) if deep else 0,
        "tensors_nbytes": archive.decoded_nbytes if deep else 0,
        "n_files": len(files),
        "files_nbytes": sum(file.nbytes for file in files),
    }


def _lines(checked: dict[str, int]) -> list[str]:
    kinds = (("stream", "XXH3"), ("tensor", "BLAKE3"), ("file", "SHA-256"))
    return [
        f"{things_text(checked[f'n_{kind}s'], kind)}, {bytes_text(checked[f'{kind}s_nbytes'])}, by {digest}"
        for kind, digest in kinds
        if checked[f"n_{kind}s"]
    ]
