"""``cmpk pack``: a model to a ``.cmpk`` file."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import TYPE_CHECKING

import click

from cmpk.cli.recipes import complete_recipe
from cmpk.cli.text import bytes_text, decimal_text, plain, quality_text, rate_text, seconds_text, things_text

if TYPE_CHECKING:
    from cmpk.packing import PackReport

__all__ = ["pack"]


@click.command(short_help="Pack a model into a .cmpk file.")
@click.argument("src", type=click.Path())
@click.option(
    "-o", "--output", required=True, type=click.Path(), help="The file to write; - writes to a pipe."
)
@click.option(
    "--recipe",
    default="lossless",
    show_default=True,
    shell_complete=complete_recipe,
    help="A name that `cmpk recipes` lists, or a .toml file.",
)
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="Threads. [default: all cores]")
@click.option("--force", is_flag=True, help="Overwrite the output if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, and no progress.")
def pack(src: str, output: str, recipe: str, jobs: int | None, force: bool, as_json: bool) -> None:
    """Pack SRC: a model directory, a .safetensors file, or a torch checkpoint.

    The output appears under its name only when it is complete. With -o - the archive goes to standard
    output, and the summary to standard error.
    """
    from cmpk.cli.console import progress_bar
    from cmpk.packing import pack as pack_model

    to_pipe = output == "-"
    if to_pipe and sys.stdout.isatty():
        raise click.UsageError("an archive is not for a terminal; name a file, or pipe the output")
    with progress_bar("packing", quiet=as_json) as progress:
        if to_pipe:
            pipe = sys.stdout.buffer
            report = pack_model(src, pipe, recipe=recipe, jobs=jobs, progress=progress)
            pipe.flush()
        else:
            report = pack_model(src, output, recipe=recipe, jobs=jobs, progress=progress, force=force)
    for note in report.notes:
        click.echo(f"cmpk: note: {plain(note)}", err=True)
    ratio = report.nbytes / report.source_nbytes if report.source_nbytes else None
    if as_json:
        quality = report.quality.to_json() if report.quality else None
        figures = dataclasses.asdict(report) | {"quality": quality}
        text = json.dumps({"path": output, "recipe": recipe, "ratio": ratio} | figures, indent=2)
    else:
        text = _summary(report, output, ratio)
    click.echo(text, err=to_pipe)


def _summary(report: PackReport, output: str, ratio: float | None) -> str:
    contents = f"{things_text(report.n_tensors, 'tensor')}, {things_text(report.n_files, 'file')}"
    lines = [
        f"source   {bytes_text(report.source_nbytes):<8} {contents}",
        f"archive  {bytes_text(report.nbytes):<8} ratio {decimal_text(ratio, 4)}",
        f"time     {seconds_text(report.seconds):<8} {rate_text(report.source_nbytes, report.seconds)}",
        f"sha256   {report.sha256}",
    ]
    if report.quality is not None:
        lines.insert(2, f"quality  {quality_text(report.quality)}")
    return "\n".join(lines if output == "-" else [f"packed   {plain(output)}", *lines])
