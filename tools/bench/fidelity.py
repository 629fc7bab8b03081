"""How small a model gets, and how well it still works: ``python -m tools.bench.fidelity``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click
import msgspec
from rich.console import Console

from . import fidelity_plot, report
from .process import ROOT, BenchError

README = ROOT / "README.md"
RECORDED = Path(__file__).with_name("fidelity.json")
PLOT = ROOT / "docs" / "fidelity.svg"

BEGIN = "<!-- python -m tools.bench.fidelity --record: begin -->"
END = "<!-- python -m tools.bench.fidelity --record: end -->"

CURVES = ("cmpk", "cmpk, calibrated")


class Bar(msgspec.Struct, frozen=True):
    """What must be reached: a mean cosine in at most so many bytes."""

    family: str
    nbytes: int
    cosine: float


BARS = (
    Bar("cmpk", 20_750_000, 0.9997),
    Bar("cmpk", 12_370_000, 0.9875),
    Bar("cmpk, calibrated", 12_370_000, 0.9932),
    Bar("cmpk, calibrated", 9_720_000, 0.9735),
)


class Case(msgspec.Struct, frozen=True):
    """One measurement."""

    family: str
    name: str
    nbytes: int
    seconds: float
    mean: float
    least: float
    neighbours: float


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--only", multiple=True, help="Measure families or names that contain this; may be repeated.")
@click.option("--calibration", type=click.Path(path_type=Path, exists=True), help="Take this, make none.")
@click.option(
    "--nncodec", type=click.Path(exists=True), help="The Python of an environment that has nncodec."
)
@click.option(
    "--from",
    "from_paths",
    multiple=True,
    type=click.Path(path_type=Path, exists=True),
    help="Show --json files, one after another, and measure nothing.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write what was measured.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@click.option("--record", is_flag=True, help="Keep the run, draw it, and write the table into the README.")
def main(
    only: tuple[str, ...],
    calibration: Path | None,
    nncodec: str | None,
    from_paths: tuple[Path, ...],
    json_path: Path | None,
    markdown: bool,
    record: bool,
) -> None:
    """Measure sizes and cosines of sentence embeddings, of cmpk and of its peers, on all-MiniLM-L6-v2."""
    if from_paths:
        runs = [msgspec.json.decode(path.read_bytes(), type=list[Case]) for path in from_paths]
        cases = [case for run in runs for case in run]
    else:
        cases = measured(only, calibration, None if nncodec is None else Path(nncodec).absolute())
    content = msgspec.json.format(msgspec.json.encode(cases)) + b"\n"
    if json_path is not None:
        json_path.write_bytes(content)
    if record:
        if only:
            raise click.UsageError("only a whole run can be recorded")
        RECORDED.write_bytes(content)
        write_plot(cases, PLOT)
        text = README.read_text(encoding="utf-8")
        README.write_text(with_table(text, cases), encoding="utf-8")
    found = table(cases)
    if markdown:
        click.echo(report.to_markdown(found))
    else:
        report.show_table(found, Console() if sys.stdout.isatty() else Console(width=120))
    for bar in BARS:
        reached = best(cases, bar)
        if reached is not None:
            word = "reached" if reached >= bar.cosine else "MISSED"
            click.echo(f"{bar.family}, {bar.nbytes / 1e6:g} MB, {bar.cosine}: {word}, {reached:.6f}")


def measured(only: tuple[str, ...], calibration: Path | None, nncodec: Path | None) -> list[Case]:
    """Run all tools, or those whose family or name contains one of some words."""
    from . import lossy_tools, minilm

    progress = Console(stderr=True)
    cases = []
    with tempfile.TemporaryDirectory() as text, progress.status("") as status:
        folder = Path(text)
        saved = calibration or folder / "calibration"
        chosen = [
            tool
            for tool in lossy_tools.tools(saved) + lossy_tools.peers(nncodec)
            if not only or any(word in f"{tool.family}: {tool.name}" for word in only)
        ]
        if calibration is None and any(tool.family == "cmpk, calibrated" for tool in chosen):
            status.update("calibrating")
            minilm.calibration(gradients=True).save(saved)
        for tool in chosen:
            status.update(f"{tool.family}: {tool.name}")
            try:
                made = tool.make(folder)
            except ImportError as error:
                progress.print(f"left out {tool.family}: {error}")
                continue
            except BenchError as error:
                raise click.ClickException(str(error)) from error
            found = minilm.quality(made.tensors)
            cases.append(Case(tool.family, tool.name, made.nbytes, made.seconds, *found))
            progress.print(f"{tool.family}: {tool.name}  {made.nbytes:,} bytes  {found.mean:.6f}")
    return cases


def best(cases: list[Case], bar: Bar) -> float | None:
    """The best mean cosine of a bar's family in its bytes; None if none was measured."""
    found = [case.mean for case in cases if case.family == bar.family and case.nbytes <= bar.nbytes]
    return max(found, default=None)


def table(cases: list[Case]) -> report.Table:
    """Everything that was measured, by family and size."""
    rows = [
        [
            case.family,
            case.name,
            f"{case.nbytes / 1e6:.2f}",
            f"{case.mean:.6f}",
            f"{case.least:.6f}",
            f"{case.neighbours:.3f}",
            f"{case.seconds:.1f}",
        ]
        for case in cases
    ]
    columns = ["", "", "MB", "cosine, mean", "cosine, least", "same neighbour", "seconds to make"]
    return report.Table("Fidelity of all-MiniLM-L6-v2 (fp32, 90.87 MB)", columns, rows, 2)


def write_plot(cases: list[Case], path: Path) -> None:
    """Draw the cases; recipes that lose nearly everything would only squeeze the others."""
    families: dict[str, list[fidelity_plot.Point]] = {}
    for case in cases:
        if case.mean > 0.5:
            families.setdefault(case.family, []).append(fidelity_plot.Point(case.nbytes / 1e6, case.mean))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(fidelity_plot.svg(families, CURVES), encoding="utf-8")


def with_table(text: str, cases: list[Case]) -> str:
    """The README with the text between its marks replaced by the table.

    Raises
    ------
    ValueError
        If it does not have each mark once, in order.
    """
    return report.with_section(text, report.to_markdown(table(cases)), BEGIN, END)


if __name__ == "__main__":
    main()
