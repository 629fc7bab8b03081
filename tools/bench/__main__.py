"""The command line: ``python -m tools.bench``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import msgspec
from rich.console import Console

from . import report
from .measure import SECTIONS, Plan
from .process import ROOT, BenchError
from .results import Results, by_cpu_time, this_machine

README = ROOT / "README.md"
RECORDED = Path(__file__).with_name("results.json")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("sections", nargs=-1, type=click.Choice(list(SECTIONS)))
@click.option("--quick", is_flag=True, help="See in seconds that everything runs; the figures say nothing.")
@click.option("--turns", type=click.IntRange(1), default=7, show_default=True, help="Turns each tool gets.")
@click.option("--scratch", type=click.Path(path_type=Path), default=ROOT / ".bench", help="For large files.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all timings to this file.")
@click.option("--from", "from_path", type=click.Path(path_type=Path, exists=True), help="Show a --json file.")
@click.option("--cpu-time", is_flag=True, help="Show processor time: for a machine that is busy otherwise.")
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@click.option("--record", is_flag=True, help="Keep the run, and write its tables into the README.")
@click.option("--update-sizes", is_flag=True, help="Measure tools/bench/sizes.toml anew, for review.")
def main(
    sections: tuple[str, ...],
    quick: bool,
    turns: int,
    scratch: Path,
    json_path: Path | None,
    from_path: Path | None,
    cpu_time: bool,
    markdown: bool,
    record: bool,
    update_sizes: bool,
) -> None:
    """Measure cmpk against its peers and its bars; SECTIONS limits what is measured."""
    console = Console() if sys.stdout.isatty() else Console(width=120)
    if update_sizes:
        write_sizes(console)
        return
    if from_path is not None:
        results = msgspec.json.decode(from_path.read_bytes(), type=Results)
    else:
        results = measured(sections or tuple(SECTIONS), quick, turns, scratch)
    if json_path is not None:
        save(results, json_path)
    if record:
        if results.quick or not results.is_whole:
            raise click.UsageError("only a whole run can be recorded")
        save(results, RECORDED)
        text = README.read_text(encoding="utf-8")
        README.write_text(report.with_section(text, report.markdown(results)), encoding="utf-8")
    if cpu_time:
        results = by_cpu_time(results)
    if markdown:
        click.echo(report.markdown(results))
    else:
        report.show(results, console)


def measured(sections: tuple[str, ...], quick: bool, turns: int, scratch: Path) -> Results:
    """Run sections, in the order in which they are listed."""
    results = Results(this_machine(), quick)
    scratch.mkdir(parents=True, exist_ok=True)
    progress = Console(stderr=True)
    with tempfile.TemporaryDirectory(dir=scratch.resolve()) as folder, progress.status("") as status:
        plan = Plan(Path(folder), quick, 1 if quick else turns, status.update)
        for name, measure in SECTIONS.items():
            if name in sections:
                try:
                    measure(plan, results)
                except BenchError as error:
                    raise click.ClickException(f"{name}: {error}") from error
    return results


def save(results: Results, path: Path) -> None:
    """Write all timings as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results)) + b"\n")


def write_sizes(console: Console) -> None:
    """Measure the reviewed sizes and show what changed."""
    from . import sizes

    before = sizes.reviewed() if sizes.SIZES.exists() else {}
    now = {recipe: sizes.measure(recipe) for recipe in sizes.RECIPES}
    sizes.SIZES.write_text(sizes.to_toml(now), encoding="utf-8")
    for recipe, by_dtype in now.items():
        for dtype, size in by_dtype.items():
            change = size - before.get(recipe, {}).get(dtype, 0)
            console.print(f"{recipe:<14}{dtype}  {size:>11,}  {change:+,}")


if __name__ == "__main__":
    main()
