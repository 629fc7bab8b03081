"""``cmpk pack``: a model to a ``.cmpk`` file."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from cmpk.cli.recipes import complete_recipe
from cmpk.cli.text import bytes_text, decimal_text, plain, quality_text, rate_text, seconds_text, things_text

if TYPE_CHECKING:
    from cmpk.packing import PackReport

__all__ = ["SIZE", "pack"]


class _Size(click.ParamType[int]):
    """Bytes, with a unit if one is given: ``12MB``, ``1.5 GiB``, ``4096``."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+\.?\d*)\s*([kKMGT]?)(i?)[bB]?", str(value).strip())
        if found is None or (found[3] and not found[2]):
            self.fail(f"{value!r} is no size; give bytes, or a number with a unit like 12MB or 1.5GiB", param)
        unit = 1024 if found[3] else 1000
        return int(float(found[1]) * unit ** " KMGT".index(found[2].upper() or " "))


SIZE: Final = _Size()


@click.command(short_help="Pack a model into a .cmpk file.")
@click.argument("src", type=click.Path())
@click.option(
    "-o", "--output", required=True, type=click.Path(), help="The file to write; - writes to a pipe."
)
@click.option(
    "--recipe",
    shell_complete=complete_recipe,
    help="A name that `cmpk recipes` lists, or a .toml file. [default: lossless; balanced with a target]",
)
@click.option("--target-size", type=SIZE, help="Lossy, at most this large: 12MB, 1.5GiB.")
@click.option("--target-bpw", type=float, help="Lossy, at most so many bits of file a weight: 4.4.")
@click.option("--max-error", type=float, help="Lossy, no tensor's relative error above this: 0.02.")
@click.option("--calibration", type=click.Path(), help="What `cmpk calibrate` wrote: which errors matter.")
@click.option(
    "--evaluate",
    metavar="MODULE:FUNCTION",
    help="Find the smallest file whose score, by this function of its tensors, is at least --min-score.",
)
@click.option("--min-score", type=float, help="The least score that --evaluate may give.")
@click.option("-j", "--jobs", type=click.IntRange(min=1), help="Threads. [default: all cores]")
@click.option("--force", is_flag=True, help="Overwrite the output if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON, and no progress.")
def pack(src: str, output: str, force: bool, as_json: bool, **options: Any) -> None:
    """Pack SRC: a model directory, a .safetensors file, or a torch checkpoint.

    The output appears under its name only when it is complete. With -o - the archive goes to standard
    output, and the summary to standard error.

    Packing is bit-exact unless a lossy recipe or a target is given. With a target, each tensor gets the
    step with which the whole file, header to footer, is at most 1% smaller than the target and never
    larger, at the least total error.
    """
    from cmpk.cli.console import progress_bar
    from cmpk.packing import pack as pack_model

    to_pipe = output == "-"
    if to_pipe and sys.stdout.isatty():
        raise click.UsageError("an archive is not for a terminal; name a file, or pipe the output")
    with progress_bar("packing", quiet=as_json) as progress:
        if to_pipe:
            pipe = sys.stdout.buffer
            report = pack_model(src, pipe, progress=progress, **options)
            pipe.flush()
        else:
            report = pack_model(src, output, progress=progress, force=force, **options)
    for note in report.notes:
        click.echo(f"cmpk: note: {plain(note)}", err=True)
    ratio = report.nbytes / report.source_nbytes if report.source_nbytes else None
    if as_json:
        quality = report.quality.to_json() if report.quality else None
        figures = dataclasses.asdict(report) | {"quality": quality}
        text = json.dumps({"path": output, "recipe": report.recipe, "ratio": ratio} | figures, indent=2)
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
