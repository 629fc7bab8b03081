"""The loop of a fuzz target that is written in Python: a corpus, and what becomes of it.

``python -m tools.fuzz.<target> [--seconds S] [--runs R] [--seed N] [--input FILE] [--native FILE] [FILE]``

Seconds are those of the processor, so that a busy machine does no less, and calls nothing a hang.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib.util
import mmap
import signal
import sys
import time
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from random import Random
from typing import Protocol

__all__ = ["Target", "main", "use_native"]

_INPUT_SECONDS = 20
"""An input that computes for longer is a hang: SIGPROF ends the process, with a traceback of where it was."""

_DEADLOCK_SECONDS = 600
"""And so is an input that waits for longer."""

_MAX_INPUT = 1 << 22
_MAX_KEPT = 2000


class Target(Protocol):
    """What is fuzzed."""

    def seeds(self) -> Iterable[bytes]:
        """Inputs to begin with, besides the corpus."""

    def mutate(self, data: bytes, random: Random) -> bytes:
        """Another input, made from one."""

    def run(self, data: bytes) -> Hashable:
        """Run an input; what came of it. Raises where that must not be."""


def main(make_target: Callable[[], Target]) -> None:
    """Parse the command line and run.

    ``--input`` names a file that always holds the input that is being run, eight bytes of size before
    it: it is there in whatever way the process ends. ``--native`` names the extension module to take in
    place of the installed native kernels.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--native", type=Path)
    parser.add_argument("corpus", nargs="*", type=Path)
    options = parser.parse_args()
    if options.native:
        use_native(options.native)
    current = _current_input(options.input)
    faulthandler.register(signal.SIGPROF, all_threads=True, chain=True)
    target = make_target()
    outcomes: set[Hashable] = set()
    kept: list[bytes] = []
    n_runs = 0

    def run(data: bytes) -> bool:
        nonlocal n_runs
        n_runs += 1
        if current is not None:
            current[:8] = len(data).to_bytes(8, "little")
            current[8 : 8 + len(data)] = data
        signal.setitimer(signal.ITIMER_PROF, _INPUT_SECONDS)
        faulthandler.dump_traceback_later(_DEADLOCK_SECONDS, exit=True)
        outcome = target.run(data)
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        is_new = outcome not in outcomes
        outcomes.add(outcome)
        return is_new

    for path in options.corpus:
        kept.append(path.read_bytes())
        run(kept[-1])
    random = Random(options.seed)
    begin = time.process_time()
    if options.runs or options.seconds:
        for data in target.seeds():
            run(data)
            kept.append(data)
    n_mutated = 0
    while n_mutated < options.runs or time.process_time() - begin < options.seconds:
        n_mutated += 1
        # The smaller of two: it is run more quickly.
        data = target.mutate(min(random.choice(kept), random.choice(kept), key=len), random)[:_MAX_INPUT]
        if run(data) and len(kept) < _MAX_KEPT:
            kept.append(data)
    seconds = time.process_time() - begin
    print(f"runs {n_runs} seconds {seconds:.1f} kept {len(kept)} outcomes {len(outcomes)}")


def use_native(path: Path) -> None:
    """Take this build of the native kernels, wherever they are asked for."""
    import cmpk.errors  # noqa: F401  # the module looks its exceptions up when it is loaded

    spec = importlib.util.spec_from_file_location("cmpk.kernels._native", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} is no extension module")
    module = importlib.util.module_from_spec(spec)
    sys.modules["cmpk.kernels._native"] = module
    spec.loader.exec_module(module)


def _current_input(path: Path | None) -> mmap.mmap | None:
    if path is None:
        return None
    with path.open("w+b") as file:
        file.truncate(8 + _MAX_INPUT)
        return mmap.mmap(file.fileno(), 8 + _MAX_INPUT)
