"""Results as tables, for a terminal and for the README."""

from __future__ import annotations

from typing import NamedTuple

from rich.console import Console
from rich.table import Table as RichTable

from .bars import Bar, bars, case_of, fastest
from .results import Case, Results, Timing

__all__ = ["Table", "bars_table", "markdown", "show", "show_table", "tables", "to_markdown", "with_section"]

BEGIN = "<!-- python -m tools.bench --record: begin -->"
END = "<!-- python -m tools.bench --record: end -->"

_BUSY_CORES = 0.3
"""A load average above this share of the cores means that something else is running."""


class Table(NamedTuple):
    """Cells of text; the first ``n_labels`` columns are no figures."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    n_labels: int = 1


def tables(results: Results) -> list[Table]:
    """What was measured, the comparison first."""
    found = []
    if results.cases:
        found += [_comparison(results.cases), _tools(results.cases)]
    if results.fresh and results.import_torch is not None:
        found.append(_fresh(results, results.import_torch))
    if not results.quick:
        found.append(bars_table(bars(results)))
    return found


def show(results: Results, console: Console) -> None:
    """Print the tables."""
    console.print(f"{results.machine} ({results.machine.kernels} kernels)", style="dim")
    if _was_busy(results):
        console.print(_busy(results), style="yellow")
    if results.quick:
        console.print("A quick run: these figures say nothing.", style="yellow")
    for table in tables(results):
        show_table(table, console)


def show_table(table: Table, console: Console) -> None:
    """Print one table."""
    rich = RichTable(title=table.title, title_justify="left", title_style="bold")
    for index, column in enumerate(table.columns):
        rich.add_column(column, justify="left" if index < table.n_labels else "right")
    for row in table.rows:
        rich.add_row(*row, style="red" if "short" in row else None)
    console.print(rich)


def markdown(results: Results) -> str:
    """The tables for the README."""
    blocks = [f"Measured by `make bench` on {results.machine}."]
    if _was_busy(results):
        blocks.append(_busy(results))
    blocks += map(to_markdown, tables(results))
    return "\n\n".join(blocks)


def to_markdown(table: Table) -> str:
    """One table for the README."""
    align = [":---" if index < table.n_labels else "---:" for index in range(len(table.columns))]
    return "\n".join([f"**{table.title}**", "", _line(table.columns), _line(align), *map(_line, table.rows)])


def with_section(readme: str, section: str, start: str = BEGIN, stop: str = END) -> str:
    """A README with the text between two markers replaced.

    Raises
    ------
    ValueError
        If it does not have each marker once, in order.
    """
    before, begin, rest = readme.partition(start)
    _, end, after = rest.partition(stop)
    if not begin or not end or start in rest or stop in after:
        raise ValueError(f"the README needs one line {start!r}, and after it one line {stop!r}")
    return f"{before}{start}\n\n{section}\n\n{stop}{after}"


def _was_busy(results: Results) -> bool:
    return results.machine.load_average > _BUSY_CORES * results.machine.cores


def _busy(results: Results) -> str:
    return (
        f"The machine was busy with other work, a load average of {results.machine.load_average:.1f} when "
        "this began: take the speeds as ratios to each other."
    )


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _comparison(cases: list[Case]) -> Table:
    title = "Speed of cmpk over that of zipnn's fastest way, and of safetensors' load and copy"
    columns = ["recipe", "dtype", "threads", "load ÷ zipnn", "load ÷ safetensors", "pack ÷ zipnn", "ratio"]
    rows = []
    for case in cases:
        if case.tool.startswith("cmpk"):
            same = (case.dtype, case.threads)
            gains = (
                fastest(cases, "zipnn", *same, "load") / case.load.median,
                case_of(cases, "safetensors", *same).load.median / case.load.median,
                fastest(cases, "zipnn", *same, "pack") / case.pack.median,
            )
            labels = [case.tool.removeprefix("cmpk "), case.dtype, str(case.threads)]
            rows.append([*labels, *(f"{gain:.2f}x" for gain in gains), f"{case.ratio:.4f}"])
    return Table(title, columns, rows, n_labels=2)


def _tools(cases: list[Case]) -> Table:
    title = "Every tool, GB/s of tensors (median, and half the interquartile range)"
    columns = ["dtype", "tool", "threads", "ratio", "load", "pack in memory", "file to file"]
    rows = []
    for case in cases:
        speeds = (case.load, case.pack, case.pack_file)
        cells = ["-" if timing is None else _rate(case, timing) for timing in speeds]
        rows.append([case.dtype, case.tool, str(case.threads), f"{case.ratio:.4f}", *cells])
    return Table(title, columns, rows, n_labels=2)


def _rate(case: Case, timing: Timing) -> str:
    return f"{case.rate(timing) / 1e9:.2f} ±{timing.spread:.0%}"


def _fresh(results: Results, import_torch: Timing) -> Table:
    title = f"Fresh processes, bf16, all cores (import torch alone: {import_torch.median:.2f} s)"
    columns = ["tool", "import, load, exit", "first load", "peak memory, load", "peak memory, pack"]
    rows = [
        [
            one.tool,
            f"{one.whole.median:.2f} s ±{one.whole.spread:.0%}",
            f"{one.first_load.median * 1e3:.0f} ms",
            f"{one.load_peak_nbytes / 1e6:.0f} MB",
            f"{one.pack_peak_nbytes / 1e6:.0f} MB",
        ]
        for one in results.fresh
    ]
    return Table(title, columns, rows)


def bars_table(found: list[Bar]) -> Table:
    """Bars, and whether they are cleared."""
    rows = []
    for bar in found:
        limit = f"{'≤' if bar.at_most else '≥'} {bar.unit.format(bar.limit)}"
        rows.append([bar.what, limit, bar.unit.format(bar.figure), "PASS" if bar.cleared else "short"])
    return Table("What it must show", ["bar", "limit", "measured", "verdict"], rows)
