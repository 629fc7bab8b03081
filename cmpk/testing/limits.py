"""Running code that hostile bytes may lead astray: within a time, within a memory, with known errors."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable
from typing import Final, NoReturn

import numpy as np
from hypothesis import HealthCheck, settings

from cmpk.errors import CorruptStreamError
from cmpk.kernels.interface import U8

__all__ = ["Hang", "Outcome", "active_settings", "fail", "filled", "outcome_of"]

TIME_LIMIT: Final = 20.0
"""Seconds after which a call on a few kilobytes counts as a hang."""

MEMORY_SLACK: Final = 64 << 20
MEMORY_FACTOR: Final = 64
"""A call may hold this many bytes for each that goes in or comes out, and the slack."""

_GUARD: Final = 64

Outcome = bytes | CorruptStreamError
"""What became of a decode: the bytes, or the one error that is allowed."""


class Hang(BaseException):
    """A call that did not return. No Exception, so that Hypothesis does not try to hang it with less."""


def active_settings() -> settings:
    """Those of the active profile, but for what depends on the speed of the code that is checked."""
    return settings(
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def fail(what: str) -> NoReturn:
    """Raise AssertionError."""
    raise AssertionError(what)


def filled(nbytes: int, decode: Callable[[U8], None], runs: int = 1) -> bytes:
    """What a decode writes into an output, with a watch on what is around it.

    Parameters
    ----------
    nbytes : int
        Size of the output.
    decode : function
        Takes the output.
    runs : int
        With 2, what was in the output before must make no difference.

    Raises
    ------
    AssertionError
        If a byte outside the output is changed, or the runs differ.
    """
    results = set()
    for content in (0xA5, 0x5A)[:runs]:
        frame = np.full(nbytes + 2 * _GUARD, content, np.uint8)
        decode(frame[_GUARD : _GUARD + nbytes])
        if (frame[:_GUARD] != content).any() or (frame[_GUARD + nbytes :] != content).any():
            fail("bytes outside the output were changed")
        results.add(frame[_GUARD : _GUARD + nbytes].tobytes())
    if len(results) > 1:
        fail("part of the output was not written, or two runs gave different bytes")
    return results.pop()


def outcome_of(call: Callable[[], bytes], nbytes: int, what: str) -> Outcome:
    """Run a decode of damaged bytes.

    Parameters
    ----------
    call : function
    nbytes : int
        That go in and come out; what memory it may take follows from it.
    what : str
        For messages: what was decoded.

    Raises
    ------
    AssertionError
        If it raises another error than CorruptStreamError, or takes too much memory.
    Hang
        If it takes too long.
    """
    outcome: list[bytes | BaseException] = []

    def run() -> None:
        try:
            outcome.append(call())
        except BaseException as error:  # noqa: BLE001  # told to the caller, whatever it is
            outcome.append(error)

    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start()
    tracemalloc.reset_peak()
    # A thread, as nothing else ends the wait for a loop that never looks up; it dies with the process.
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIME_LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    if not was_tracing:
        tracemalloc.stop()
    if thread.is_alive():
        raise Hang(f"{what}: no end after {TIME_LIMIT:.0f} seconds")
    (found,) = outcome
    if peak > MEMORY_SLACK + MEMORY_FACTOR * nbytes:
        fail(f"{what}: took {peak} bytes of memory for {nbytes}; check sizes before allocating")
    if isinstance(found, AssertionError):
        raise AssertionError(f"{what}: {found}") from found
    if isinstance(found, BaseException) and not isinstance(found, CorruptStreamError):
        raise AssertionError(f"{what}: {type(found).__name__} instead of CorruptStreamError") from found
    return found
