"""Compile the Triton kernels ahead of time and tell what they take of a multiprocessor.

``python -m tools.gpu.resources`` prints the table that is kept in resources.toml, for review; it needs no
GPU. Registers and stack are of the machine code: a kernel without stack spills nothing.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cmpk.device.batch import GPU
from cmpk.device.codes import CodeKind, LookupKind
from cmpk.device.floats import MergeKind
from cmpk.device.tasks import Kind
from cmpk.kernels.triton.codes import dequantize, look_up
from cmpk.kernels.triton.huffman import build_tables, decode_intervals
from cmpk.kernels.triton.merge import merge
from cmpk.kernels.triton.rans import build_slots, decode_chunks

__all__ = ["RECORDED", "TARGETS", "measure", "to_toml"]

RECORDED: Final = Path(__file__).with_name("resources.toml")

TARGETS: Final = (80, 90, 100)
"""Compute capabilities: Ampere, Hopper, Blackwell."""

MERGES: Final[dict[str, Kind]] = {
    "bytes": MergeKind(0, 4, 3, 4, 3, 0, 0),
    "bf16": MergeKind(1, 8, 7, 8, 7, 0, 0),
    "bf16, packed, by rows": MergeKind(1, 8, 7, 8, 7, 0b10, 1),
    "f16": MergeKind(1, 5, 10, 5, 10, 0, 0),
    "f32": MergeKind(3, 8, 23, 8, 23, 0, 0),
    "f32 from f16": MergeKind(1, 5, 10, 8, 23, 0, 0),
    "f64": MergeKind(7, 11, 52, 11, 52, 0, 0),
}
"""Kinds that stand for all."""

DEQUANTIZATIONS: Final[dict[str, Kind]] = {
    "bf16": CodeKind(8, 7, 0x7F80, 0, 0, 0, 0, 0),
    "bf16, zero points, packed, by rows": CodeKind(8, 7, 0x7F80, 0, 1, 0, 1, 1),
    "f16 from numbers": CodeKind(5, 10, 0x7C00, 0, 0, 1, 0, 0),
    "f32": CodeKind(8, 23, 0x7F800000, 0, 0, 0, 0, 0),
    "f64 from numbers": CodeKind(11, 52, 0, 0, 0, 1, 0, 0),
    "f8 e4m3 fnuz": CodeKind(4, 3, 0x7F, 1, 0, 0, 0, 0),
}

LOOKUPS: Final[dict[str, Kind]] = {
    "2 bytes": LookupKind(2, 0, 0),
    "8 bytes, packed, by rows": LookupKind(8, 1, 1),
}

_TOOLS: Final = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"

Table = dict[str, dict[str, dict[str, int]]]


def measure(targets: tuple[int, ...] = TARGETS) -> Table:
    """Resources of every kernel, by kernel and target.

    Returns
    -------
    dict
        ``registers`` of a thread, ``stack`` in bytes, ``shared`` memory of a program in bytes, ``warps``.
    """
    table: Table = {
        "build_tables": _compiled(build_tables, (GPU.window_nbits,), 8, targets),
        "decode_intervals": _compiled(decode_intervals, (GPU.lanes, GPU.window_nbits), GPU.warps, targets),
    }
    table["build_slots"] = _compiled(build_slots, (), 8, targets)
    table["decode_chunks"] = _compiled(decode_chunks, (GPU.chunks,), 1, targets)
    for kernel, kinds in ((merge, MERGES), (dequantize, DEQUANTIZATIONS), (look_up, LOOKUPS)):
        for name, kind in kinds.items():
            constants = (*kind, GPU.n_blocks)
            table[f"{kernel.__name__} {name}"] = _compiled(kernel, constants, 4, targets)
    return table


def to_toml(table: Table) -> str:
    """The table as text, a line for each kernel and target."""
    lines = ["# python -m tools.gpu.resources > tools/gpu/resources.toml, and read what changed."]
    for kernel, by_target in table.items():
        lines += ["", f'["{kernel}"]']
        for target, found in by_target.items():
            values = ", ".join(f"{name} = {value}" for name, value in found.items())
            lines.append(f"{target} = {{ {values} }}")
    return "\n".join(lines) + "\n"


def _compiled(
    kernel: Any, constants: tuple[int, ...], warps: int, targets: tuple[int, ...]
) -> dict[str, dict[str, int]]:
    """A kernel whose last arguments are constants and whose others are addresses."""
    n_addresses = len(kernel.arg_names) - len(constants)
    signature = {
        name: "i64" if number < n_addresses else "constexpr" for number, name in enumerate(kernel.arg_names)
    }
    values = {(n_addresses + number,): value for number, value in enumerate(constants)}
    found = {}
    for target in targets:
        compiled = triton.compile(
            ASTSource(kernel, signature, constexprs=values),
            target=GPUTarget("cuda", target, 32),
            options={"num_warps": warps},
        )
        registers, stack = _usage(compiled.asm["cubin"])
        found[f"sm_{target}"] = {
            "registers": registers,
            "stack": stack,
            "shared": compiled.metadata.shared,
            "warps": warps,
        }
    return found


def _usage(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes of the one kernel in a file of machine code."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(_TOOLS / "cuobjdump"), "-res-usage", file.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"REG:(\d+) STACK:(\d+)", said)
    if match is None:
        raise RuntimeError(f"cuobjdump says nothing of registers: {said}")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    sys.stdout.write(to_toml(measure()))
