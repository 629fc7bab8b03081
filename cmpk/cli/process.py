"""How the process ends: errors as one line on stderr, exit codes, signals, broken pipes."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

import click

from cmpk.cli.text import plain
from cmpk.errors import CmpkError

__all__ = ["FAILURE", "INTERRUPTED", "exit_code_of", "run_to_exit"]

FAILURE: Final = 1
INTERRUPTED: Final = 128 + signal.SIGINT


def exit_code_of(work: Callable[[], object]) -> int:
    """Run a command and report what went wrong.

    Parameters
    ----------
    work : function
        ``click.Command.main`` without its standalone mode.

    Returns
    -------
    int
        The exit code. Exceptions that are bugs pass through.
    """
    try:
        code = work()
        if sys.stdout is not None:  # None where the shell closed it
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted", INTERRUPTED)
    except CmpkError as error:
        return _fail(str(error), error.__cause__)
    except MemoryError as error:
        return _fail("not enough memory", error)
    except OSError as error:
        where = f": {error.filename!r}" if error.filename is not None else ""
        return _fail(f"{error.strerror or error}{where}", error)


def run_to_exit(work: Callable[[], object]) -> NoReturn:
    """Run ``work``, which ends with ``SystemExit``, and end the process.

    SIGTERM and SIGHUP unwind the stack like an interrupt, so that temporary files are removed.
    """
    for stopping in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(stopping) == signal.SIG_DFL:  # nohup ignores SIGHUP; it stays so
            signal.signal(stopping, _stop)
    if hasattr(sys.stdout, "reconfigure"):
        # A name that the terminal's encoding lacks is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        work()
    except SystemExit as error:
        if isinstance(error.code, int) and error.code > 128:
            # Threads may still be at work on something that nobody wants any more: don't wait for them.
            os._exit(error.code)
        raise
    sys.exit(0)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def _fail(message: str, cause: BaseException | None) -> int:
    _settle_stdout()
    if isinstance(cause, OSError) and cause.errno == errno.EPIPE:
        return FAILURE  # whoever read the pipe has seen enough; there is nobody left to tell
    return _say(f"error: {message}", FAILURE)


def _say(message: str, code: int) -> int:
    # Messages may quote what a hostile file says.
    click.echo(f"cmpk: {plain(message)}", err=True)
    return code


def _settle_stdout() -> None:
    """Write what is still buffered, or drop it: at exit, Python could only complain of it once more."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
