"""The bars that cmpk was built to clear, each with the figure that was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import NamedTuple

from .results import Case, Cold, Results

__all__ = ["Bar", "bars", "case_of", "fastest"]


class Bar(NamedTuple):
    """One bar.

    Attributes
    ----------
    what : str
    figure, limit : float
    at_most : bool
        Whether the figure must not exceed the limit, or must reach it.
    unit : str
        A format for the figure and the limit.
    """

    what: str
    figure: float
    limit: float
    at_most: bool
    unit: str

    @property
    def cleared(self) -> bool:
        """Whether the figure is on the right side of the limit."""
        return self.figure <= self.limit if self.at_most else self.figure >= self.limit


def bars(results: Results) -> list[Bar]:
    """All bars whose section was measured."""
    found: list[Bar] = []
    if results.cases:
        found += [*_ratios(results.cases), *_speeds(results.cases)]
    if results.cold is not None:
        found += _cold(results.cold)
    for model, limit in (("lenet", 1200), ("thousand", 120)):
        if model in results.overhead:
            found.append(_overhead(results, model, limit))
    if results.memory is not None:
        what = f"peak memory of packing {results.memory.source_nbytes / 1e9:.1f} GB"
        found.append(Bar(what, results.memory.peak_nbytes / 1e6, 600, True, "{:.0f} MB"))
    return found


def case_of(cases: list[Case], tool: str, dtype: str, threads: int) -> Case:
    """The case of exactly this tool."""
    return next(case for case in cases if (case.tool, case.dtype, case.threads) == (tool, dtype, threads))


def fastest(cases: list[Case], tool: str, dtype: str, threads: int, operation: str) -> float:
    """Median seconds of a tool's fastest way to ``load`` or ``pack``."""
    same = [case for case in cases if (case.dtype, case.threads) == (dtype, threads)]
    ways = [case for case in same if case.tool.startswith(tool)]
    return min((case.load if operation == "load" else case.pack).median for case in ways)


def _ratios(cases: list[Case]) -> Iterator[Bar]:
    for dtype, recipe, limit in (
        ("bf16", "lossless", 0.6640),
        ("bf16", "lossless-max", 0.6600),
        ("fp16", "lossless-max", 0.8469),
        ("fp32", "lossless", 0.8200),
        ("fp32", "lossless-max", 0.8180),
    ):
        ratio = case_of(cases, f"cmpk {recipe}", dtype, 1).ratio
        yield Bar(f"{dtype} ratio, {recipe}", ratio, limit, True, "{:.4f}")


def _speeds(cases: list[Case]) -> Iterator[Bar]:
    own = "cmpk lossless"
    for dtype, limit in (("bf16", 1.5), ("fp32", 1.3)):
        gain = fastest(cases, "zipnn", dtype, 1, "load") / case_of(cases, own, dtype, 1).load.median
        yield Bar(f"{dtype} load, one thread, against zipnn's fastest", gain, limit, False, "{:.2f}x")
    for dtype in ("bf16", "fp16", "fp32"):
        gain = fastest(cases, "zipnn", dtype, 1, "pack") / case_of(cases, own, dtype, 1).pack.median
        yield Bar(f"{dtype} pack, one thread, against zipnn's fastest", gain, 1.0, False, "{:.2f}x")
    smallest = [case for case in cases if (case.tool, case.threads) == ("cmpk lossless-max", 1)]
    rate = min(case.rate(case.load) for case in smallest) / 1e9
    yield Bar("slowest load, one thread, lossless-max", rate, 1.0, False, "{:.2f} GB/s")
    cores = max(case.threads for case in cases)
    if cores == 1:
        return
    copying = case_of(cases, "safetensors", "bf16", cores).load.median
    time = case_of(cases, own, "bf16", cores).load.median / copying
    yield Bar("bf16 load, all cores, time against safetensors' load and copy", time, 1.5, True, "{:.2f}x")


def _cold(cold: Cold) -> Iterator[Bar]:
    # Neighbours in time, so that what else the machine did at that moment is in both.
    pairs = zip(cold.load_small.seconds, cold.import_torch.seconds, strict=True)
    beyond = statistics.median(load - baseline for load, baseline in pairs)
    yield Bar("process that loads a small file, beyond import torch", beyond, 0.1, True, "{:.3f} s")
    yield Bar("cmpk inspect, whole process", cold.inspect.median, 0.25, True, "{:.3f} s")
    yield Bar("torch imported by cmpk inspect", float(cold.inspect_imports_torch), 0, True, "{:.0f} times")


def _overhead(results: Results, model: str, limit: int) -> Bar:
    found = results.overhead[model]
    what = f"bytes beyond the streams, {found.n_tensors} tensors"
    if model == "lenet":
        return Bar(what, found.nbytes, limit, True, "{:.0f}")
    return Bar(f"{what}, each", found.nbytes / found.n_tensors, limit, True, "{:.1f}")
