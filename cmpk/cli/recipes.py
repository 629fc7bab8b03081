"""``cmpk recipes``: the recipes that come with cmpk."""

from __future__ import annotations

import json

import click

__all__ = ["complete_recipe", "recipes"]


def complete_recipe(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names for a shell to complete."""
    from cmpk.recipe import builtin_names

    return [name for name in builtin_names() if name.startswith(incomplete)]


@click.command(short_help="List the recipes, or show one.")
@click.argument("name", required=False, shell_complete=complete_recipe)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def recipes(name: str | None, as_json: bool) -> None:
    """List the recipes that come with cmpk; with NAME, show that one as a file to start from.

    `cmpk pack --recipe` takes a name or a .toml file: `cmpk recipes int8 > mine.toml`, change it, and
    pack with --recipe mine.toml.

    With --json the output is a list of objects with "name" and "summary"; with NAME such an object and
    "toml", its text.
    """
    from cmpk.recipe import builtin_names, builtin_text, load_recipe

    if name is not None:
        text = builtin_text(name)
        if as_json:
            summary = load_recipe(name).summary
            text = json.dumps({"name": name, "summary": summary, "toml": text}, indent=2) + "\n"
        click.echo(text, nl=False)
        return
    summaries = {found: load_recipe(found).summary for found in builtin_names()}
    if as_json:
        listed = [{"name": found, "summary": summary} for found, summary in summaries.items()]
        click.echo(json.dumps(listed, indent=2))
        return
    width = max(map(len, summaries))
    for found, summary in summaries.items():
        click.echo(f"{found.ljust(width)}  {summary}".rstrip())
