"""The command line: ``cmpk``."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command line and end the process; the console script ``cmpk``."""
    from cmpk.cli.app import cli
    from cmpk.cli.process import run_to_exit

    run_to_exit(lambda: cli.main(prog_name="cmpk"))
