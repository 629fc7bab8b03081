"""The terminal: consoles that print text as it is, tables, progress bars. Imports rich."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

import click
from rich.console import Console
from rich.table import Table

__all__ = ["Progress", "output", "progress_bar", "table"]

Progress = Callable[[int, int], None]
"""Called with the bytes done and in all."""

_UNLIMITED: Final = 1 << 20


@contextlib.contextmanager
def output() -> Iterator[Console]:
    """Standard output; into a pipe or a file, one whole line a row, for grep and awk."""
    out = _console()
    if out.is_terminal:
        yield out
        return
    if "COLUMNS" not in os.environ:
        out.width = _UNLIMITED
    with out.capture() as captured:
        yield out
    click.echo("\n".join(line.rstrip() for line in captured.get().split("\n")), nl=False)


def table(*columns: str, title: str = "") -> Table:
    """A table without lines.

    Parameters
    ----------
    columns : str
        The headings; ``>`` before one aligns its column to the right.
    title : str
        Stands above it.
    """
    made = Table(
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
        header_style="bold",
        title=title or None,
        title_justify="left",
        title_style="bold",
        show_header=any(columns),
    )
    for heading in columns:
        made.add_column(
            heading.removeprefix(">"), justify="right" if heading.startswith(">") else "left", overflow="fold"
        )
    return made


@contextlib.contextmanager
def progress_bar(what: str, *, quiet: bool = False) -> Iterator[Progress | None]:
    """A bar on stderr with bytes done, rate and time left; None where nobody would see it.

    Parameters
    ----------
    what : str
        What is going on, in a word.
    quiet : bool
        Show none even on a terminal.
    """
    where = _console(stderr=True)
    if quiet or not where.is_terminal:
        yield None
        return
    from rich import progress

    columns = (
        progress.TextColumn(what),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=where, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _console(*, stderr: bool = False) -> Console:
    # What a file says is no markup, no emoji and no number to colour.
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)
