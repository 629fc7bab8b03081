"""What was measured, as it is kept in JSON."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import statistics
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import msgspec

from cmpk import kernels
from cmpk.indexing import default_threads
from cmpk.version import __version__

__all__ = [
    "Case",
    "Cold",
    "FreshProcess",
    "Machine",
    "Memory",
    "Overhead",
    "Results",
    "Timing",
    "by_cpu_time",
    "this_machine",
]

_VERSIONS_OF = ("torch", "numpy", "safetensors", "zstandard", "zipnn", "pcodec")


class Timing(msgspec.Struct, frozen=True):
    """Repeated runs of one thing.

    Attributes
    ----------
    seconds, cpu_seconds : list of float
        By the clock on the wall, and by the time that processors spent on it.
    """

    seconds: list[float]
    cpu_seconds: list[float]

    @classmethod
    def of(cls, runs: Sequence[tuple[float, float]]) -> Timing:
        """From pairs of wall and processor time."""
        return cls([wall for wall, _ in runs], [cpu for _, cpu in runs])

    @property
    def median(self) -> float:
        """Median, in seconds."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the range that the middle half of the runs lies in, as a share of the median."""
        if len(self.seconds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return (high - low) / 2 / self.median


class Case(msgspec.Struct, frozen=True):
    """One tool, dtype and number of threads, on the reference model."""

    tool: str
    dtype: str
    threads: int
    tensor_nbytes: int
    source_nbytes: int
    nbytes: int
    load: Timing
    pack: Timing
    pack_file: Timing | None = None

    @property
    def ratio(self) -> float:
        """Packed size as a share of the source's."""
        return self.nbytes / self.source_nbytes

    def rate(self, timing: Timing) -> float:
        """Bytes of tensors a second."""
        return self.tensor_nbytes / timing.median


class FreshProcess(msgspec.Struct, frozen=True):
    """A process that imports a tool, loads the reference model in bf16 and ends; on all cores."""

    tool: str
    whole: Timing
    first_load: Timing
    load_peak_nbytes: int
    pack_peak_nbytes: int


class Cold(msgspec.Struct, frozen=True):
    """Whole processes, in turn: what importing torch takes, and what cmpk adds to it."""

    import_torch: Timing
    load_small: Timing
    inspect: Timing
    inspect_imports_torch: bool


class Overhead(msgspec.Struct, frozen=True):
    """Bytes of an archive that are no stream of a tensor."""

    n_tensors: int
    nbytes: int


class Memory(msgspec.Struct, frozen=True):
    """Packing a large file."""

    source_nbytes: int
    tensor_nbytes: int
    seconds: float
    peak_nbytes: int


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured; ``load_average`` is what else ran there when it began."""

    date: str
    cpu: str
    cores: int
    load_average: float
    system: str
    kernels: str
    versions: dict[str, str]

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"{self.cpu}, {self.cores} cores, {self.system}; {versions}; {self.date}"


class Results(msgspec.Struct):
    """One run of the benchmarks; a section that was left out is empty."""

    machine: Machine
    quick: bool = False
    cases: list[Case] = []
    fresh: list[FreshProcess] = []
    import_torch: Timing | None = None
    cold: Cold | None = None
    overhead: dict[str, Overhead] = {}
    memory: Memory | None = None

    @property
    def is_whole(self) -> bool:
        """Whether no section was left out."""
        return bool(self.cases and self.fresh and self.cold and self.overhead and self.memory)


def by_cpu_time(results: Results) -> Results:
    """The same runs by processor time, where that says something: with one thread, and of whole processes.

    On a machine that is busy with other work, this is the better comparison.
    """

    def swapped(timing: Timing) -> Timing:
        return Timing(timing.cpu_seconds, timing.seconds)

    replace = msgspec.structs.replace
    cases = [
        replace(
            case,
            load=swapped(case.load),
            pack=swapped(case.pack),
            pack_file=None if case.pack_file is None else swapped(case.pack_file),
        )
        for case in results.cases
        if case.threads == 1
    ]
    cold = results.cold
    if cold is not None:
        cold = replace(
            cold,
            import_torch=swapped(cold.import_torch),
            load_small=swapped(cold.load_small),
            inspect=swapped(cold.inspect),
        )
    fresh = [
        replace(one, whole=swapped(one.whole), first_load=swapped(one.first_load)) for one in results.fresh
    ]
    import_torch = None if results.import_torch is None else swapped(results.import_torch)
    return replace(results, cases=cases, fresh=fresh, import_torch=import_torch, cold=cold)


def this_machine() -> Machine:
    """Describe this machine and what is installed on it."""
    versions = {"cmpk": __version__, "Python": platform.python_version()}
    for name in _VERSIONS_OF:
        with contextlib.suppress(metadata.PackageNotFoundError):  # a peer that this run does without
            versions[name] = metadata.version(name)
    return Machine(
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        cpu=_cpu(),
        cores=default_threads(),
        load_average=os.getloadavg()[0],
        system=f"{platform.system()} {os.uname().machine}",
        kernels=kernels.active_name(),
        versions=versions,
    )


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
