"""``cmpk plugins``: everything that is registered, and what was left out."""

from __future__ import annotations

import functools
import json
from typing import NamedTuple

import click

__all__ = ["PluginCommands", "plugin_commands", "plugins"]


class PluginCommands(NamedTuple):
    """Subcommands that plugins offer, and those offers that can't be used: package and reason."""

    usable: dict[str, click.Command]
    problems: list[tuple[str, str]]


@functools.cache
def plugin_commands() -> PluginCommands:
    """Subcommands of plugins by name; a name of cmpk's own stays with cmpk."""
    from cmpk.cli.app import COMMANDS
    from cmpk.registry import registry

    found = PluginCommands({}, [])
    for name, registered in registry().commands.items():
        if name in COMMANDS:
            found.problems.append((str(registered.origin), f"commands: {name!r} belongs to cmpk itself"))
        else:
            found.usable[name] = registered.item
    return found


@click.command(short_help="List what is registered, by cmpk itself and by plugins.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plugins(as_json: bool) -> None:
    """List all codecs, encodings, passes, importers, kernels and commands, and who provides them.

    Plugins that are broken, or that offer what another one offers, are left out and listed as problems.

    With --json the output is an object with a member for each kind, an array of objects with "id",
    "package" and "version", and the member "problems", an array of objects with "package" and "reason".
    """
    from cmpk.offers import KINDS
    from cmpk.registry import registry

    # Asking for every kind is also what finds every problem.
    offers = {kind: getattr(registry(), kind) for kind in KINDS}
    offers["commands"] = {
        name: registered
        for name, registered in offers["commands"].items()
        if name in plugin_commands().usable
    }
    problems = [(str(problem.origin), problem.reason) for problem in registry().problems]
    problems += plugin_commands().problems
    listed = {
        kind: [
            {"id": item_id, "package": registered.origin.name, "version": registered.origin.version}
            for item_id, registered in found.items()
        ]
        for kind, found in offers.items()
    }
    if as_json:
        reasons = [{"package": package, "reason": reason} for package, reason in problems]
        click.echo(json.dumps({**listed, "problems": reasons}, indent=2))
    else:
        _show(listed, problems)


def _show(listed: dict[str, list[dict[str, str]]], problems: list[tuple[str, str]]) -> None:
    from rich.text import Text

    from cmpk.cli.console import output, table
    from cmpk.cli.text import NONE, plain

    rows = table("kind", "id", "package", "version")
    for kind, items in listed.items():
        for index, item in enumerate(items or [{"id": NONE, "package": "", "version": ""}]):
            rows.add_row("" if index else kind, *map(plain, item.values()))
    with output() as out:
        out.print(rows)
        if problems:
            out.print()
            out.print(Text("problems", "bold red"))
            for package, reason in problems:
                out.print(Text(plain(f"{package}: {reason}")))
