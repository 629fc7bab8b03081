"""Runs models that stay compressed, in processes of their own: ``python -m tools.bench.resident_worker``."""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import cmpk
from cmpk.torch import load_model

from .minilm import MiniLM, embeddings_of, token_ids

_STATUS = Path("/proc/self/status")


def times(threads: int, path: str, ways: list[str], batch: list[int], turns: int) -> dict[str, list[float]]:
    """Seconds of one forward in each way, by turns; the first turn is not counted."""
    torch.set_num_threads(threads)
    models = {way: _model(path, way) for way in ways}
    inputs = _inputs(batch)
    found: dict[str, list[float]] = {way: [] for way in ways}
    with torch.inference_mode():
        for turn in range(turns + 1):
            for way, model in models.items():
                started = time.perf_counter()
                model(*inputs)
                if turn:
                    found[way].append(time.perf_counter() - started)
    return found


def memory(threads: int, path: str, way: str, batch: list[int]) -> dict[str, int]:
    """Bytes beyond what torch itself takes: the peak of loading, and, running, of all and of activations."""
    torch.set_num_threads(threads)
    _run_something_small()
    before = _resident("VmRSS")
    _forget_peak()
    model = _model(path, way)
    loading = _resident("VmHWM") - before
    inputs = _inputs(batch)
    gc.collect()
    loaded = _resident("VmRSS")
    _forget_peak()
    with torch.inference_mode():
        for _ in range(3):
            model(*inputs)
    peak = _resident("VmHWM")
    layers = [module.weight.nbytes for module in model.modules() if isinstance(module, torch.nn.Linear)]
    return {
        "archive": os.path.getsize(path),
        "model": sum(value.nbytes for value in model.state_dict().values()),
        "loading": loading,
        "running": peak - before,
        "beyond_loaded": peak - loaded,
        "largest_layer": max(layers),
    }


def cosines(threads: int, path: str, ways: list[str], expected: str) -> dict[str, list[float]]:
    """Mean and least cosine between embeddings and those of the dense model of another file."""
    torch.set_num_threads(threads)
    ids = token_ids("evaluation")
    reference = embeddings_of(_model(expected, "dense"), ids).double()
    found = {}
    for way in ways:
        each = (reference * embeddings_of(_model(path, way), ids).double()).sum(1)
        found[way] = [float(each.mean()), float(each.min())]
    return found


def _model(path: str, way: str) -> torch.nn.Module:
    resident, _, activations = way.partition(" ")
    model = load_model(MiniLM, path, strict=False, resident=resident, activations=activations or "float")
    return model.eval()


def _inputs(batch: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 30000, batch, generator=generator), torch.ones(batch, dtype=torch.bool)


def _run_something_small() -> None:
    """What any model needs once: threads, and buffers of torch's own libraries."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        path = Path(folder, "small.cmpk")
        cmpk.torch.save_file({"weight": torch.randn(384, 384), "bias": torch.zeros(384)}, path)
        layer = load_model(lambda: torch.nn.Linear(384, 384), path, resident="packed")
        layer(torch.randn(64, 384))
        torch.nn.functional.linear(torch.ones(64, 384).bfloat16(), torch.ones(384, 384).bfloat16())
        torch.nn.functional.gelu(torch.ones(100))


def _resident(field: str) -> int:
    return int(_STATUS.read_text().split(f"{field}:")[1].split()[0]) * 1024


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Do what the first argument names, with the others, which are JSON."""
    work: Any = {"times": times, "memory": memory, "cosines": cosines}[sys.argv[1]]
    print(json.dumps(work(*map(json.loads, sys.argv[2:]))))


if __name__ == "__main__":
    main()
