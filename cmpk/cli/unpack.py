"""``cmpk unpack``: the files that were packed, byte for byte."""

from __future__ import annotations

import time

import click

from cmpk.cli.text import bytes_text, plain, rate_text, seconds_text, things_text

__all__ = ["unpack"]


@click.command(short_help="Restore the files that were packed, byte for byte.")
@click.argument("file", type=click.Path())
@click.option(
    "-o", "--output", required=True, type=click.Path(), help="The folder to restore into, or the file."
)
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="Threads. [default: all cores]")
@click.option("--force", is_flag=True, help="Overwrite files that exist.")
def unpack(file: str, output: str, jobs: int | None, force: bool) -> None:
    """Restore the files in FILE, byte for byte, and check each against its SHA-256.

    A file whose tensors were packed with a loss can't be what it was: it is put together from what
    they decode to, each checked against its BLAKE3, and named as such.

    Where FILE holds a single file, the output may be that file instead of a folder. Nothing is ever
    written outside the output, and a file appears under its name only when it is complete.
    """
    from cmpk.archive import open_archive
    from cmpk.cli.console import progress_bar
    from cmpk.unpacking import unpack as unpack_archive

    started = time.perf_counter()
    with open_archive(file) as archive, progress_bar("unpacking") as progress:
        paths = unpack_archive(archive, output, jobs=jobs, force=force, progress=progress)
        # Without files in it, the archive was made from tensors.
        is_original = [bool(entry.sha256) for entry in archive.manifest.files] or [False]
    seconds = time.perf_counter() - started
    sizes = [path.stat().st_size for path in paths]
    for path, nbytes, original in zip(paths, sizes, is_original, strict=True):
        note = "" if original else "  (decoded, not the original)"
        click.echo(f"{bytes_text(nbytes):>7}  {plain(str(path))}{note}")
    total = sum(sizes)
    # Right below the sizes of the files, where a sum belongs.
    click.echo(
        f"{bytes_text(total):>7}  {things_text(len(paths), 'file')} in {seconds_text(seconds)}, "
        f"{rate_text(total, seconds)}"
    )
