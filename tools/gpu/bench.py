"""Measure the kernels and loading on a CUDA device: ``python -m tools.gpu.bench``; `make gpu` runs it.

Kernels are timed alone, with device events, on all tensors of a model in one batch; rates are bytes of
decoded tensors a second, beside the bytes that a copy within the device moves. Loads are timed from the
call to the last byte on the device, from files in the page cache. Forwards are those of a stack of linear
layers, dense and packed, with device events.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import safetensors.torch
import torch
import triton
from triton.testing import do_bench

import cmpk
import cmpk.load
from cmpk.archive import Archive
from cmpk.config import config
from cmpk.device.arena import Arena
from cmpk.device.batch import GPU, Batch, Shape, fill
from cmpk.device.launch import launch, launch_decode, launch_step, launch_tables
from cmpk.device.preparing import task_of
from cmpk.device.ring import copy_to_host_half
from cmpk.device.tasks import Range
from tools.gpu.peers import nvcomp_rates

__all__ = ["copy_rate", "forwards", "kernels", "loads", "stack", "weights"]

RECORDED: Final = Path(__file__).with_name("results.json")

WAYS: Final = ("dense", "packed")

Figures = dict[str, Any]


@click.command()
@click.option("--model", type=click.Path(path_type=Path), help="An archive to measure with, besides noise.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
@click.option("--turns", default=9, show_default=True, help="How often each load is timed.")
def main(model: Path | None, json_path: Path | None, turns: int) -> None:
    """Measure on this machine's first CUDA device."""
    if not torch.cuda.is_available():
        click.echo("NOT MEASURED: torch finds no CUDA device here")
        return
    figures: Figures = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "kernels on the CPU": config()["kernels"],
        "threads": config()["threads"],
        "copy within the device, GB/s read and written": copy_rate(),
        "copy of pinned memory to the device, GB/s": pinned_rate(),
        "forwards": {},
        "models": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        archives = {} if model is None else {model.stem: model}
        for dtype, n in ((torch.bfloat16, 1 << 28), (torch.float16, 1 << 27), (torch.float32, 1 << 27)):
            path = Path(folder) / f"noise, {str(dtype).removeprefix('torch.')}.cmpk"
            cmpk.torch.save_file(weights(dtype, n), path)
            archives[path.stem] = path
        for recipe in ("int8", "lossless-max"):
            path = Path(folder) / f"noise, bfloat16, {recipe}.cmpk"
            cmpk.torch.save_file(weights(torch.bfloat16, 1 << 27), path, recipe=recipe)
            archives[path.stem] = path
        for recipe in ("lossless", "int8"):
            found = forwards(Path(folder), recipe)
            figures["forwards"][recipe] = found
            click.echo(f"forwards, {recipe}: {json.dumps(found)}")
        for name, path in archives.items():
            found = {**kernels(path), **loads(path, Path(folder), turns)}
            figures["models"][name] = found
            click.echo(f"{name}: {json.dumps(found)}")
    alone = {name: value for name, value in figures.items() if name not in ("forwards", "models")}
    click.echo(json.dumps(alone))
    if json_path is not None:
        json_path.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def weights(dtype: torch.dtype, n: int) -> dict[str, torch.Tensor]:
    """Normal noise of the spread of weights, ``n`` elements in eight tensors."""
    torch.manual_seed(0)
    return {
        f"layer {number}": (torch.randn(n >> 16, 1 << 13, device="cuda") * 0.02).to(dtype).cpu()
        for number in range(8)
    }


def copy_rate(nbytes: int = 1 << 30) -> float:
    """Bytes that a copy within the device reads and writes, GB/s."""
    source = torch.empty(nbytes, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return _rate(2 * nbytes, _milliseconds(lambda: target.copy_(source)))


def pinned_rate(nbytes: int = 1 << 28) -> float:
    """What the bus gives, GB/s."""
    source = torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)
    target = torch.empty(nbytes, dtype=torch.uint8, device="cuda")
    return _rate(nbytes, _milliseconds(lambda: target.copy_(source, non_blocking=True)))


def kernels(path: Path, shape: Shape = GPU) -> Figures:
    """Rates of the kernels on all tensors of an archive at once; checks what they give first."""
    with Archive(path) as archive:
        nbytes = sum(archive.spec(name).nbytes for name in archive)
        batch, outs, _kept = _batch(archive, shape)
        launch(batch, shape)
        for name, out in outs.items():
            if out.cpu().numpy().tobytes() != archive.read(name, 8).tobytes():
                raise click.ClickException(f"{path}: {name!r} is not what the CPU decodes")
        peer = nvcomp_rates(cmpk.torch.load_file(path, device="cuda"), _milliseconds)
    times = {
        "tables": _milliseconds(lambda: launch_tables(batch, shape)),
        "decode": _milliseconds(lambda: launch_decode(batch, shape)),
        "merge": sum(_milliseconds(partial(launch_step, step, shape)) for step in batch.steps),
    }
    rates = {f"{name}, GB/s": _rate(nbytes, time) for name, time in times.items() if name != "tables"}
    return {
        "decoded bytes": nbytes,
        "file bytes": path.stat().st_size,
        **{f"{name}, us": round(1000 * time, 1) for name, time in times.items()},
        **rates,
        "all kernels, GB/s": _rate(nbytes, sum(times.values())),
        **peer,
    }


def loads(path: Path, folder: Path, turns: int) -> Figures:
    """Milliseconds of whole loads: median and best of some turns, the contenders in turn."""
    plain = folder / f"{path.stem}.safetensors"
    safetensors.torch.save_file(cmpk.torch.load_file(path), plain)
    contenders: dict[str, Callable[[], object]] = {
        "cmpk": lambda: cmpk.torch.load_file(path, device="cuda"),
        "cmpk, decoded on the CPU": lambda: _decoded_on_the_cpu(path),
        "safetensors": lambda: safetensors.torch.load_file(plain, device="cuda"),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns + 1):
        for name, load in contenders.items():
            torch.cuda.synchronize()
            start = time.perf_counter()
            load()
            torch.cuda.synchronize()
            if turn:
                times[name].append(1000 * (time.perf_counter() - start))
    plain.unlink()
    return {
        f"load with {name}, ms": [round(statistics.median(found), 2), round(min(found), 2)]
        for name, found in times.items()
    }


def stack() -> torch.nn.Module:
    """Linear layers of 32 MiB each as bf16."""
    return torch.nn.Sequential(*(torch.nn.Linear(4096, 4096, bias=False) for _ in range(8)))


def forwards(folder: Path, recipe: str) -> Figures:
    """Milliseconds of forwards of a model of bf16 that stays packed, and of the dense one."""
    torch.manual_seed(0)
    path = folder / f"stack, {recipe}.cmpk"
    cmpk.torch.save_model(stack().bfloat16(), path, recipe=recipe)
    models = {way: cmpk.torch.load_model(stack, path, device="cuda", resident=way) for way in WAYS}
    found: Figures = {"file bytes": path.stat().st_size}
    for n_tokens in (16, 4096):
        x = torch.randn(n_tokens, 4096, device="cuda", dtype=torch.bfloat16)
        with torch.inference_mode():
            outputs = [model(x) for model in models.values()]
            if not torch.equal(*(output.view(torch.int16) for output in outputs)):
                raise click.ClickException(f"{path}: packed is not what the dense model gives")
            times = {way: _milliseconds(partial(model, x)) for way, model in models.items()}
        found |= {f"{n_tokens} tokens, {way}, ms": round(time, 3) for way, time in times.items()}
        found[f"{n_tokens} tokens, packed over dense"] = round(times["packed"] / times["dense"], 2)
    path.unlink()
    return found


def _decoded_on_the_cpu(path: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.to("cuda") for name, tensor in cmpk.torch.load_file(path).items()}


def _batch(archive: Archive, shape: Shape) -> tuple[Batch, dict[str, torch.Tensor], list[torch.Tensor]]:
    """All of an archive as one batch, on the device; and what must stay alive for it."""
    outs = {
        name: torch.zeros(archive.spec(name).nbytes, dtype=torch.uint8, device="cuda") for name in archive
    }
    errors = torch.zeros(1, dtype=torch.int32, device="cuda")
    tasks = [
        task_of(name, job, out.data_ptr(), errors.data_ptr(), 8)
        for name, out in outs.items()
        for job in archive.jobs(name, 8)
    ]
    staged = sum(task.staged_nbytes(0, task.where.stop) for task in tasks)
    host = torch.empty(staged, dtype=torch.uint8, pin_memory=True)
    device = torch.empty(staged, dtype=torch.uint8, device="cuda")
    scratch = torch.empty(
        sum(task.scratch_nbytes(0, task.where.stop) for task in tasks), dtype=torch.uint8, device="cuda"
    )
    arena = Arena(device.data_ptr(), staged, host.numpy())
    ranges = [Range(task, 0, task.where.stop) for task in tasks]
    batch = fill(ranges, arena, Arena(scratch.data_ptr(), scratch.numel()), shape)
    copy_to_host_half(arena)
    device.copy_(host)
    return batch, outs, [errors, host, device, scratch]


def _milliseconds(run: Callable[[], object]) -> float:
    return float(do_bench(run, warmup=10, rep=60, return_mode="median"))


def _rate(nbytes: int, milliseconds: float) -> float:
    return round(nbytes / milliseconds / 1e6, 1)


if __name__ == "__main__":
    main()
