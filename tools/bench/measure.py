"""The sections of the benchmarks; each fills its part of the results."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cmpk.indexing import default_threads

from .models import DTYPES
from .process import WORKER, Ended, Worker, run
from .results import Case, Cold, FreshProcess, Memory, Overhead, Results, Timing

__all__ = ["SECTIONS", "Plan"]

TOOLS: Final = (
    "cmpk lossless",
    "cmpk lossless-max",
    "safetensors",
    "zstd -3",
    "zipnn, tensors",
    "zipnn, torch",
    "zipnn, whole",
    "pcodec -8",
)
_LOADS_A_TURN: Final = 3

_IMPORT_TORCH: Final = "import torch"
_LOAD: Final = "import sys, cmpk; cmpk.torch.load_file(sys.argv[1])"
_SAVE_SMALL: Final = """
import sys, cmpk, torch
cmpk.torch.save_file({"weight": torch.randn(256, 256)}, sys.argv[1])
"""
# What the console script does; its last word is whether torch came with it.
_INSPECT: Final = """
import atexit, sys
atexit.register(lambda: print("torch" in sys.modules))
from cmpk.cli import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes
    ----------
    folder : Path
        For files that are made on the way.
    quick : bool
        Small models and few repetitions: to see that everything runs, not to learn figures.
    turns : int
        How often each tool has its turn.
    note : function
        Told what is being measured.
    """

    folder: Path
    quick: bool
    turns: int
    note: Callable[[str], None]

    def source(self, dtype: str) -> Path:
        """The reference model as a safetensors file."""
        quick = "quick" if self.quick else ""
        return Path(_worker("cast", self.folder, dtype, quick).output.strip())


def peers(plan: Plan, results: Results) -> None:
    """Every tool on the same files, with one thread and with all cores."""
    dtypes, counts = tuple(DTYPES), sorted({1, default_threads()})
    if plan.quick:
        dtypes, counts = dtypes[:1], counts[:1]
    for dtype in dtypes:
        source = plan.source(dtype)
        for threads in counts:
            plan.note(f"{dtype}, {threads} threads")
            results.cases += _cases(plan, dtype, threads, source)


def _cases(plan: Plan, dtype: str, threads: int, source: Path) -> Iterator[Case]:
    with contextlib.ExitStack() as stack:
        workers = {
            tool: stack.enter_context(Worker(tool, dtype, threads, source, plan.folder)) for tool in TOOLS
        }
        loads: dict[str, list[tuple[float, float]]] = {tool: [] for tool in TOOLS}
        for _ in range(plan.turns):
            for tool, worker in workers.items():
                # The caches still hold what the tool before had in them.
                worker.time("load")
                loads[tool] += [worker.time("load") for _ in range(_LOADS_A_TURN)]
        packs = _in_turn(plan, workers, "pack")
        own = {tool: worker for tool, worker in workers.items() if tool.startswith("cmpk")}
        files = _in_turn(plan, own, "pack_file")
        for tool, worker in workers.items():
            yield Case(
                tool=tool,
                dtype=dtype,
                threads=threads,
                tensor_nbytes=worker.tensor_nbytes,
                source_nbytes=worker.source_nbytes,
                nbytes=worker.nbytes,
                load=Timing.of(loads[tool]),
                pack=packs[tool],
                pack_file=files.get(tool),
            )


def _in_turn(plan: Plan, workers: dict[str, Worker], operation: str) -> dict[str, Timing]:
    times: dict[str, list[tuple[float, float]]] = {tool: [] for tool in workers}
    for _ in range(plan.turns):
        for tool, worker in workers.items():
            times[tool].append(worker.time(operation))
    return {tool: Timing.of(found) for tool, found in times.items()}


def fresh(plan: Plan, results: Results) -> None:
    """Whole processes that load the reference model, and the peak memory of loading and packing."""
    dtype, threads = "bf16", default_threads()
    source = plan.source(dtype)
    pack_peaks = {}
    for tool in TOOLS:
        plan.note(f"peak memory: {tool}")
        packed = plan.folder / f"fresh {tool}"
        pack_peaks[tool] = _worker("pack", tool, dtype, str(threads), source, packed).peak_nbytes
    plan.note("fresh processes")
    runs: dict[str, list[Ended]] = {tool: [] for tool in TOOLS}
    baseline = []
    for _ in range(plan.turns):
        baseline.append(_python(_IMPORT_TORCH))
        for tool, ended in runs.items():
            ended.append(_worker("load", tool, dtype, str(threads), plan.folder / f"fresh {tool}"))
    results.import_torch = _timing(baseline)
    for tool, ended in runs.items():
        results.fresh.append(
            FreshProcess(
                tool=tool,
                whole=_timing(ended),
                first_load=Timing.of([json.loads(one.output) for one in ended]),
                load_peak_nbytes=max(one.peak_nbytes for one in ended),
                pack_peak_nbytes=pack_peaks[tool],
            )
        )


def cold(plan: Plan, results: Results) -> None:
    """What a process pays for cmpk beyond torch, and a whole ``cmpk inspect``."""
    plan.note("cold processes")
    small = plan.folder / "small.cmpk"
    _python(_SAVE_SMALL, small)
    imports, loads, inspections = [], [], []
    for _ in range(2 * plan.turns):
        imports.append(_python(_IMPORT_TORCH))
        loads.append(_python(_LOAD, small))
        inspections.append(_python(_INSPECT, "inspect", small))
    results.cold = Cold(
        import_torch=_timing(imports),
        load_small=_timing(loads),
        inspect=_timing(inspections),
        inspect_imports_torch=any(ended.output.split()[-1] != "False" for ended in inspections),
    )


def _worker(*arguments: str | Path) -> Ended:
    return run((*WORKER, *arguments), default_threads())


def _timing(processes: list[Ended]) -> Timing:
    return Timing.of([(ended.seconds, ended.cpu_seconds) for ended in processes])


def _python(code: str, *arguments: str | Path) -> Ended:
    return run((sys.executable, "-c", code, *arguments), default_threads())


def overhead(plan: Plan, results: Results) -> None:
    """Bytes beyond the stream payloads, of a small and of a wide model."""
    for model in ("lenet",) if plan.quick else ("lenet", "thousand"):
        plan.note(f"container: {model}")
        found = json.loads(_worker("overhead", model).output)
        results.overhead[model] = Overhead(**found)


def memory(plan: Plan, results: Results) -> None:
    """Packing 4 GB of tensors of 64 MB each, on all cores."""
    n_tensors, tensor_nbytes = (4, 1 << 20) if plan.quick else (64, 64 << 20)
    source, packed = plan.folder / "large.safetensors", plan.folder / "large.cmpk"
    plan.note("peak memory: writing a large file")
    _worker("large", source, str(n_tensors), str(tensor_nbytes))
    plan.note("peak memory: packing a large file")
    try:
        ended = _python("import sys, cmpk; cmpk.pack(sys.argv[1], sys.argv[2], force=True)", source, packed)
        results.memory = Memory(source.stat().st_size, tensor_nbytes, ended.seconds, ended.peak_nbytes)
    finally:
        source.unlink()
        packed.unlink(missing_ok=True)


SECTIONS: Final[dict[str, Callable[[Plan, Results], None]]] = {
    "peers": peers,
    "fresh": fresh,
    "cold": cold,
    "container": overhead,
    "memory": memory,
}
