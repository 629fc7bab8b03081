"""The command ``cmpk`` itself: finds its subcommands and turns errors into exit codes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from cmpk.cli.process import exit_code_of

__all__ = ["COMMANDS", "CommandLine", "cli"]

COMMANDS: Final = (
    "pack",
    "unpack",
    "inspect",
    "verify",
    "diff",
    "recipes",
    "calibrate",
    "plugins",
    "completion",
)
"""Subcommands of cmpk itself; each is a function of this name in the module of this name."""


class CommandLine(click.Group):
    """Imports a subcommand when it is called, and asks plugins only for a name that is not cmpk's own."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the subcommands, those of plugins last."""
        from cmpk.cli.plugins import plugin_commands

        return [*COMMANDS, *sorted(plugin_commands().usable)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The subcommand of a name, or None."""
        if cmd_name in COMMANDS:
            command: click.Command = getattr(importlib.import_module(f"cmpk.cli.{cmd_name}"), cmd_name)
            return command
        from cmpk.cli.plugins import plugin_commands

        return plugin_commands().usable.get(cmd_name)

    def invoke(self, ctx: click.Context) -> None:
        """Run the subcommand. What it returns is no exit code, and is dropped."""
        super().invoke(ctx)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; in standalone mode report errors, and exit."""

        def run() -> Any:
            return super(CommandLine, self).main(
                args, prog_name, complete_var, standalone_mode=False, **extra
            )

        return sys.exit(exit_code_of(run)) if standalone_mode else run()


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    from cmpk.config import config

    found = config()
    click.echo(f"cmpk {found['cmpk']}\nkernels: {found['kernels']}")
    ctx.exit()


@click.group(
    cls=CommandLine,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and which kernels are in use.",
)
def cli() -> None:
    """Pack trained models: small, checked, bit-exact, quick to load.

    \b
    cmpk pack model/ -o model.cmpk       a directory, a .safetensors file, a torch checkpoint
    cmpk inspect model.cmpk              what is in it and how it is stored
    cmpk verify model.cmpk --deep        whether every bit is still right
    cmpk unpack model.cmpk -o model/     the files that were packed, byte for byte
    cmpk diff model/ model.cmpk          what is different, and by how much
    cmpk recipes                         other ways to pack, lossy ones among them

    Exit codes: 0 success, 1 an error (one line on stderr), 2 wrong usage, 130 and 143 stopped by a signal.
    """  # noqa: D301  # \b keeps click from rewrapping
