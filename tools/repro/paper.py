"""The tables of Han, Mao and Dally, "Deep Compression", 2015, and the same of a file of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import cmpk
from cmpk.format.manifest import Node
from tools.repro.report import Run, say

__all__ = ["Layer", "layers_of", "print_table"]


class Layer(NamedTuple):
    """A row of the paper's tables 2 and 3.

    Attributes
    ----------
    name : str
    kept : float
        Percent of the weights.
    weight_bits, coded_weight_bits : float
        Of each kept weight, at a fixed width and entropy coded.
    index_bits, coded_index_bits : float
        Of each kept weight, to tell where it stands. NaN where places and values are coded together.
    ratio : float
        Percent of the layer's single-precision bytes that it takes.
    """

    name: str
    kept: float
    weight_bits: float
    coded_weight_bits: float
    index_bits: float
    coded_index_bits: float
    ratio: float


PAPER: Final = {
    "lenet-300-100": [
        Layer("fc1", 8, 6, 4.4, 5, 3.7, 2.32),
        Layer("fc2", 9, 6, 4.4, 5, 4.3, 3.04),
        Layer("fc3", 26, 6, 4.3, 5, 3.2, 12.70),
        Layer("total", 8, 6, 5.1, 5, 3.7, 2.49),
    ],
    "lenet-5": [
        Layer("conv1", 66, 8, 7.2, 5, 1.5, 67.45),
        Layer("conv2", 12, 8, 7.2, 5, 3.9, 5.28),
        Layer("fc1", 8, 5, 4.5, 5, 4.5, 2.45),
        Layer("fc2", 19, 5, 5.2, 5, 3.7, 6.13),
        Layer("total", 8, 5.3, 4.1, 5, 4.4, 2.55),
    ],
}
"""On MNIST."""

PAPER_TOTALS: Final = {
    "lenet-300-100": "1,070 kB to 27 kB (40x), error 1.64% to 1.58%",
    "lenet-5": "1,720 kB to 44 kB (39x), error 0.80% to 0.74%",
}


_NONE: Final = float("nan")


def layers_of(path: Path) -> list[Layer]:
    """The rows of a file, and their total with everything that the file holds."""
    import numpy as np

    from cmpk.numpy import load_file

    arrays = load_file(path)
    rows: list[Layer] = []
    n_kept = n_weights = 0
    with cmpk.open(path) as archive:
        for name, array in arrays.items():
            if not name.endswith(".weight"):
                continue
            kept = int(np.count_nonzero(array))
            n_kept, n_weights = n_kept + kept, n_weights + array.size
            streams = dict(_streams(archive.entry(name).data))
            places = sum(nbytes for part, nbytes in streams.items() if part in ("gaps", "mask"))
            values = sum(nbytes for part, nbytes in streams.items() if part in ("values", "codes"))
            table = sum(streams.values()) - places - values
            n_values = len(np.unique(array[array != 0]))
            rows.append(
                Layer(
                    name.removesuffix(".weight"),
                    100 * kept / array.size,
                    float(np.ceil(np.log2(n_values))) if n_values > 1 else 1.0,
                    8 * (values + table) / kept,
                    array.size / kept if "mask" in streams else 6.0 if places else _NONE,
                    8 * places / kept if places else _NONE,
                    100 * sum(streams.values()) / array.nbytes,
                )
            )
    share = 100 * path.stat().st_size / sum(array.nbytes for array in arrays.values())
    rows.append(Layer("total", 100 * n_kept / n_weights, _NONE, _NONE, _NONE, _NONE, share))
    return rows


def print_table(name: str, path: Path, run: Run) -> None:
    """Print the paper's table beside that of a file."""
    say("\nOf each kept weight: bits of its value, entropy coded, bits of its place, entropy coded")
    for title, rows in (("the paper", PAPER[name]), (f"here, seed {run.seed}", layers_of(path))):
        say(f"\n{title:<16} kept   value  coded  place  coded  of single precision")
        for row in rows:
            bits = " ".join(
                f"{value:6.1f}" if value == value else "     –"  # not a number
                for value in row[2:6]
            )
            say(f"  {row.name:<12} {row.kept:5.1f}% {bits}  {row.ratio:6.2f}%")
    say(f"\nthe paper, on MNIST: {PAPER_TOTALS[name]}")
    say(
        f"here: {run.nbytes * run.ratio / 1000:,.0f} kB to {run.nbytes / 1000:.1f} kB ({run.ratio:.1f}x), "
        f"error {run.baseline_error:.2f}% to {run.error:.2f}%"
    )


def _streams(node: Node, part: str = "") -> Iterator[tuple[str, int]]:
    """The bytes of each stream, by the part that it is; of nested parts the outermost but codes."""
    if not node.parts:
        yield part, node.nbytes
    for name, inner in node.parts.items():
        yield from _streams(inner, name)
