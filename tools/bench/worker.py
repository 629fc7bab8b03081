"""What runs in processes of its own: ``python -m tools.bench.worker COMMAND ARGUMENTS``.

The process that measures stays small and without torch, because the peak memory that the system
reports of a process includes what its parent held when it was started.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from . import models

if TYPE_CHECKING:
    from .contenders import Contender, Tensors

_CPU_SLACK = 0.2


def serve(replies: TextIO, name: str, dtype: str, threads: str, source: str, folder: str) -> None:
    """Prove that a tool gives every bit back, then time what is asked for, a line each on stdin."""
    import safetensors.torch

    tool = _contender(name, dtype, threads)
    tensors = safetensors.torch.load_file(source)
    from_file, from_memory = Path(folder) / f"{name}-file", Path(folder) / f"{name}-memory"
    tool.pack_file(Path(source), from_file)
    tool.write(tool.pack(tool.prepare(tensors)), from_memory)
    for path in (from_file, from_memory):
        _check_same_bits(tensors, tool.tensors(tool.open(path)), name)
    opened = tool.open(from_file)
    reply = {
        "tensor_nbytes": sum(tensor.nbytes for tensor in tensors.values()),
        "source_nbytes": Path(source).stat().st_size,
        "nbytes": tool.stored_nbytes(from_file),
    }
    print(json.dumps(reply), file=replies, flush=True)
    for line in sys.stdin:
        taken = _timed(tool, line.strip(), tensors, opened, Path(source), from_memory)
        print(json.dumps(taken), file=replies, flush=True)


def load(replies: TextIO, name: str, dtype: str, threads: str, path: str) -> None:
    """Load a packed model once, as the first thing that a process does."""
    tool = _contender(name, dtype, threads)
    cpu, started = time.process_time(), time.perf_counter()
    kept = tool.load(tool.open(Path(path)))
    print(json.dumps([time.perf_counter() - started, time.process_time() - cpu]), file=replies)
    del kept


def pack(replies: TextIO, name: str, dtype: str, threads: str, source: str, path: str) -> None:
    """Pack a model once."""
    _contender(name, dtype, threads).pack_file(Path(source), Path(path))


def cast(replies: TextIO, folder: str, dtype: str, quick: str) -> None:
    """Write the reference model in one dtype; replies with its path."""
    print(models.write_reference(Path(folder), dtype, quick=bool(quick)), file=replies)


def large(replies: TextIO, path: str, n_tensors: str, tensor_nbytes: str) -> None:
    """Write a large safetensors file of random weights."""
    models.large(Path(path), int(n_tensors), int(tensor_nbytes))


def overhead(replies: TextIO, model: str) -> None:
    """Pack a generated model; replies with its number of tensors and the bytes that are no stream of one."""
    import cmpk.torch
    from cmpk.archive import Archive, leaves_of

    tensors = {"lenet": models.lenet, "thousand": models.thousand}[model]()
    with Archive(cmpk.torch.save(tensors)) as archive:
        payload = sum(leaf.node.nbytes for name in archive for leaf in leaves_of(archive.stored(name)))
        reply = {"n_tensors": len(tensors), "nbytes": archive.nbytes - payload}
    print(json.dumps(reply), file=replies)


def _contender(name: str, dtype: str, threads: str) -> Contender:
    import torch

    from .contenders import CONTENDERS

    torch.set_num_threads(int(threads))
    return CONTENDERS[name](dtype, int(threads))


def _timed(
    tool: Contender, operation: str, tensors: Tensors, opened: Any, source: Path, path: Path
) -> tuple[float, float]:
    prepared = tool.prepare(tensors) if operation == "pack" else None
    cpu, started = time.process_time(), time.perf_counter()
    # Held until the clock has stopped, and let go before the next run, as between two uses in an app.
    if operation == "pack":
        kept = tool.pack(prepared)
    elif operation == "load":
        kept = tool.load(opened)
    else:
        kept = None
        tool.pack_file(source, path)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    del kept
    if cpu > (tool.threads + _CPU_SLACK) * seconds:
        raise SystemExit(f"{tool.name}: {operation} kept {cpu / seconds:.1f} cores busy, not {tool.threads}")
    return seconds, cpu


def _check_same_bits(expected: Tensors, found: Tensors, name: str) -> None:
    import torch

    if expected.keys() != found.keys():
        raise SystemExit(f"{name} gave other tensors back than it was given")
    for key, tensor in expected.items():
        back = found[key]
        same = (back.dtype, back.shape) == (tensor.dtype, tensor.shape) and torch.equal(
            back.contiguous().reshape(-1).view(torch.uint8), tensor.contiguous().reshape(-1).view(torch.uint8)
        )
        if not same:
            raise SystemExit(f"{name} changed tensor {key!r}")


def main() -> None:
    """Run one command; its replies are all that reaches stdout, whatever the tools print."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    commands = {function.__name__: function for function in (serve, load, pack, cast, large, overhead)}
    with replies:
        commands[sys.argv[1]](replies, *sys.argv[2:])


if __name__ == "__main__":
    main()
