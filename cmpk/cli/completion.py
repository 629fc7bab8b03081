"""``cmpk completion``: the script that completes commands, options and tensor names in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]


@click.command(short_help="Print a shell completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands, options, files and tensor names in SHELL.

    \b
    bash   add to ~/.bashrc:   eval "$(cmpk completion bash)"
    zsh    add to ~/.zshrc:    eval "$(cmpk completion zsh)"
    fish   run once:           cmpk completion fish > ~/.config/fish/completions/cmpk.fish
    """  # noqa: D301  # \b keeps click from rewrapping
    completer = get_completion_class(shell)
    if completer is None:
        raise click.UsageError(f"click knows no completion for {shell}")
    root = ctx.find_root()
    click.echo(completer(root.command, {}, "cmpk", "_CMPK_COMPLETE").source())
