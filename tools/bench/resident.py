"""What models that stay compressed take: ``python -m tools.bench.resident``.

Three archives of all-MiniLM-L6-v2: bf16 packed losslessly, 8-bit codes, and 4.4 bits a weight.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console

import cmpk

from . import minilm, models, report
from .bars import Bar
from .process import ROOT, BenchError, run
from .results import Machine, this_machine

__all__ = ["Case", "Run", "bars", "tables"]

README = ROOT / "README.md"
RECORDED = Path(__file__).with_name("resident.json")
WORKER = (sys.executable, "-m", "tools.bench.resident_worker")

BEGIN = "<!-- python -m tools.bench.resident --record: begin -->"
END = "<!-- python -m tools.bench.resident --record: end -->"

LARGE, SMALL = (32, 128), (1, 16)
TURNS = {LARGE: 5, SMALL: 40}
DYNAMIC = "quantized int8"
STATIC = tuple(f"quantized int8-{method}" for method in ("minmax", "percentile", "mse"))
WAYS = {
    "bf16": ["dense", "packed"],
    "int8": ["dense", "packed", "quantized", DYNAMIC, STATIC[-1]],
    "4.4 bits": ["dense", "packed", "quantized"],
}
"""What the weights of each archive may be in memory."""

SECTIONS = ("times", "memory", "cosines")


class Case(msgspec.Struct):
    """One archive.

    Attributes
    ----------
    nbytes : int
    times : dict
        Seconds of each turn, by the batch and by what the weights are in memory.
    memory : dict
        Figures of `tools.bench.resident_worker.memory`, by what the weights are in memory.
    cosines : dict
        Mean and least cosine of sentences' embeddings to those of the dense model.
    """

    nbytes: int
    times: dict[str, dict[str, list[float]]] = {}
    memory: dict[str, dict[str, int]] = {}
    cosines: dict[str, list[float]] = {}

    def seconds(self, batch: tuple[int, int], way: str) -> float:
        """Median time of a forward."""
        return statistics.median(self.times[_name(batch)][way])

    def over_dense(self, batch: tuple[int, int], way: str) -> float:
        """Median of its time over that of the dense model in the same turn."""
        found = self.times[_name(batch)]
        return statistics.median(a / b for a, b in zip(found[way], found["dense"], strict=True))


class Run(msgspec.Struct):
    """What was measured."""

    machine: Machine
    threads: int
    cases: dict[str, Case] = {}


@click.command()
@click.argument("sections", nargs=-1, type=click.Choice(SECTIONS))
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / ".bench", help="For the archives.")
@click.option("--threads", default=os.cpu_count() or 1, show_default=True)
@click.option("--only", type=click.Choice(list(WAYS)), multiple=True, help="Measure these archives.")
@click.option("--calibration", type=click.Path(path_type=Path, exists=True), help="Take this, make none.")
@click.option("--from", "from_path", type=click.Path(path_type=Path, exists=True), help="Go on with this.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write what was measured.")
@click.option("--record", is_flag=True, help="Keep the run, and write its tables into the README.")
def main(
    sections: tuple[str, ...],
    folder: Path,
    threads: int,
    only: tuple[str, ...],
    calibration: Path | None,
    from_path: Path | None,
    json_path: Path | None,
    record: bool,
) -> None:
    """Measure time, memory and accuracy; SECTIONS limits what is measured."""
    if from_path is None:
        found = Run(this_machine(), threads)
    else:
        found = msgspec.json.decode(from_path.read_bytes(), type=Run)
    try:
        if from_path is None or sections:
            measure(found, folder, sections or SECTIONS, only or tuple(WAYS), calibration)
    except BenchError as error:
        raise click.ClickException(str(error)) from error
    content = msgspec.json.format(msgspec.json.encode(found)) + b"\n"
    if json_path is not None:
        json_path.write_bytes(content)
    if record:
        RECORDED.write_bytes(content)
        measured_on = f"Measured on {found.machine}; {found.threads} threads."
        blocks = [measured_on, *map(report.to_markdown, tables(found))]
        text = README.read_text(encoding="utf-8")
        README.write_text(report.with_section(text, "\n\n".join(blocks), BEGIN, END), encoding="utf-8")
    for table in tables(found):
        report.show_table(table, Console() if sys.stdout.isatty() else Console(width=120))


def measure(
    found: Run, folder: Path, sections: tuple[str, ...], only: tuple[str, ...], calibration: Path | None
) -> None:
    """Add sections to a run; archives that are there are not packed again."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in only:
        path = archive(folder, name, calibration)
        case = found.cases.setdefault(name, Case(path.stat().st_size))
        ways = WAYS[name]
        if "times" in sections:
            for batch, turns in TURNS.items():
                case.times[_name(batch)] = _worker(found, "times", str(path), ways, batch, turns)
        if "memory" in sections:
            for way in ways:
                case.memory[way] = _worker(found, "memory", str(path), way, LARGE)
        if "cosines" in sections and name == "int8":
            original = str(archive(folder, "original", None))
            case.cosines = _worker(found, "cosines", str(path), ["dense", DYNAMIC, *STATIC], original)


def archive(folder: Path, name: str, calibration: Path | None) -> Path:
    """Pack one of the archives, or the original, unless it is there."""
    path = folder / f"resident-{name.replace(' ', '-')}.cmpk"
    if path.exists():
        return path
    if name == "bf16":
        cmpk.pack(models.write_reference(folder, "bf16"), path)
    elif name == "int8":
        # With the ranges of the layers' inputs.
        seen = calibration or minilm.calibration(gradients=False)
        cmpk.pack(models.write_reference(folder, "fp32"), path, recipe="int8", calibration=seen)
    else:
        bits = None if name == "original" else 4.4
        cmpk.pack(models.write_reference(folder, "fp32"), path, target_bpw=bits)
    return path


def bars(found: Run) -> list[Bar]:
    """What must be shown, of all that was measured."""
    bars = []
    for name, case in found.cases.items():
        if case.times:
            what = f"{name}: packed, time against dense"
            bars.append(Bar(what, case.over_dense(LARGE, "packed"), 1.6, True, "{:.2f}x"))
        if case.memory:
            packed, dense = case.memory["packed"], case.memory["dense"]
            limit = 1.15 * packed["archive"] + packed["largest_layer"] + dense["beyond_loaded"]
            what = f"{name}: packed, memory while running"
            bars.append(Bar(what, packed["running"] / 1e6, limit / 1e6, True, "{:.1f} MB"))
            what = f"{name}: load_model, peak memory"
            bars.append(Bar(what, dense["loading"] / 1e6, dense["model"] / 1e6 + 64, True, "{:.1f} MB"))
        if name == "int8" and case.times:
            what = "int8: 8-bit activations, time against dense"
            bars.append(Bar(what, case.over_dense(LARGE, DYNAMIC), 1.0, True, "{:.2f}x"))
        if case.cosines:
            what = "int8: 8-bit activations, mean cosine"
            bars.append(Bar(what, case.cosines[DYNAMIC][0], 0.998, False, "{:.4f}"))
    return bars


def tables(found: Run) -> list[report.Table]:
    """Times, memory and cosines, and the bars."""
    times, memory, cosines = [], [], []
    for name, case in found.cases.items():
        for way in case.times.get(_name(LARGE), {}):
            ratios = [f"{case.over_dense(batch, way):.2f}x" for batch in TURNS]
            seconds = [f"{case.seconds(batch, way) * 1e3:.1f} ms" for batch in TURNS]
            times.append([name, way, seconds[0], ratios[0], seconds[1], ratios[1]])
        for way, figures in case.memory.items():
            sizes = (figures[what] for what in ("archive", "loading", "running", "beyond_loaded"))
            memory.append([name, way, *(f"{nbytes / 1e6:.1f}" for nbytes in sizes)])
        cosines += [[way, f"{mean:.6f}", f"{least:.6f}"] for way, (mean, least) in case.cosines.items()]
    large, small = (f"{n} x {tokens} tokens" for n, tokens in TURNS)
    found_tables = [
        report.Table("Time of a forward", ["archive", "weights", large, "", small, ""], times, 2),
        report.Table(
            "Memory beyond torch's own, MB",
            ["archive", "weights", "file", "peak while loading", "peak while running", "of it activations"],
            memory,
            2,
        ),
        report.Table("8-bit activations, cosine to the dense fp32 model", ["", "mean", "least"], cosines),
        report.bars_table(bars(found)),
    ]
    return [table for table in found_tables if table.rows]


def _worker(found: Run, work: str, *arguments: Any) -> Any:
    command = [*WORKER, work, *map(json.dumps, (found.threads, *arguments))]
    # Else glibc keeps more or less, from run to run, of the memory that activations have freed.
    more = {"MALLOC_MMAP_THRESHOLD_": "1000000"} if work == "memory" else {}
    return json.loads(run(command, found.threads, **more).output)


def _name(batch: tuple[int, int]) -> str:
    return f"{batch[0]} x {batch[1]}"


if __name__ == "__main__":
    main()
