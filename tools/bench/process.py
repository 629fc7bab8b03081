"""Starts processes with a given number of threads, and tells how long they took and what they held."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

__all__ = ["ROOT", "WORKER", "BenchError", "Ended", "Worker", "run"]

ROOT: Final = Path(__file__).resolve().parents[2]
WORKER: Final = (sys.executable, "-m", "tools.bench.worker")

_MAXRSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024


class BenchError(Exception):
    """Something could not be measured."""


class Ended(NamedTuple):
    """A process that ended well.

    Attributes
    ----------
    seconds : float
        From before it was started until it was gone.
    cpu_seconds : float
        What processors spent on it.
    peak_nbytes : int
        The most memory that it had resident.
    output : str
    """

    seconds: float
    cpu_seconds: float
    peak_nbytes: int
    output: str


def run(command: Sequence[str | Path], threads: int, **environment: str) -> Ended:
    """Run a command from the root of the repository, with some variables more in its environment.

    Raises
    ------
    BenchError
        If it fails; what it wrote to stderr has been shown.
    """
    started = time.perf_counter()
    process = _start(command, threads, subprocess.DEVNULL, environment)
    assert process.stdout is not None  # a pipe
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode:
        raise BenchError(f"{_shown(command)} ended with {process.returncode}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Ended(seconds, cpu_seconds, usage.ru_maxrss * _MAXRSS_UNIT, output)


class Worker:
    """A process that serves one tool; see `tools.bench.worker.serve`.

    Attributes
    ----------
    tensor_nbytes, source_nbytes, nbytes : int
        Size of the model's tensors, of its safetensors file, and of the packed model.
    """

    def __init__(self, tool: str, dtype: str, threads: int, source: Path, folder: Path) -> None:
        self._command = (*WORKER, "serve", tool, dtype, str(threads), source, folder)
        self._process = _start(self._command, threads, subprocess.PIPE)
        try:
            sizes: dict[str, int] = self._reply()
        except BaseException:
            self.close()
            raise
        self.tensor_nbytes = sizes["tensor_nbytes"]
        self.source_nbytes = sizes["source_nbytes"]
        self.nbytes = sizes["nbytes"]

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def time(self, operation: str) -> tuple[float, float]:
        """Seconds that one ``load``, ``pack`` or ``pack_file`` takes, on the wall and of processors."""
        assert self._process.stdin is not None  # a pipe
        self._process.stdin.write(f"{operation}\n")
        self._process.stdin.flush()
        wall, cpu = self._reply()
        return wall, cpu

    def _reply(self) -> Any:
        assert self._process.stdout is not None  # a pipe
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{_shown(self._command)} ended early; it says why above")
        return json.loads(line)


def _start(
    command: Sequence[str | Path], threads: int, stdin: int, more: Mapping[str, str] | None = None
) -> subprocess.Popen[str]:
    libraries = ("OMP", "MKL", "OPENBLAS", "RAYON")
    limits = {f"{library}_NUM_THREADS": str(threads) for library in libraries}
    # Threads that wait by spinning would take the cores from those that are measured.
    environment = {**os.environ, **limits, "OMP_WAIT_POLICY": "PASSIVE", **(more or {})}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=stdin, stdout=pipe, text=True)


def _shown(command: Sequence[str | Path]) -> str:
    return " ".join(map(str, command[2:] if command[1] == "-m" else command))
