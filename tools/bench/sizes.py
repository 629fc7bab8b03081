"""The reviewed sizes of packed models: a change of one byte is seen, and has to be meant."""

from __future__ import annotations

import io
import tempfile
import tomllib
from pathlib import Path
from typing import Final

import cmpk

from .models import DTYPES, write_reference

__all__ = ["RECIPES", "SIZES", "measure", "reviewed", "to_toml"]

SIZES: Final = Path(__file__).with_name("sizes.toml")
RECIPES: Final = ("lossless", "lossless-max")

_HEAD: Final = """\
# Bytes of the reference model's archives, by recipe and dtype. `python -m tools.bench --update-sizes`
# writes this file; a smaller number is welcome, a larger one needs a reason in the commit.
"""


def measure(recipe: str) -> dict[str, int]:
    """Pack the reference model in every dtype.

    Returns
    -------
    dict of str to int
        Bytes of the archive, by dtype.
    """
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for dtype in DTYPES:
            source = write_reference(Path(folder), dtype)
            found[dtype] = cmpk.pack(source, io.BytesIO(), recipe=recipe).nbytes
    return found


def reviewed() -> dict[str, dict[str, int]]:
    """The table: bytes by recipe and dtype."""
    table: dict[str, dict[str, int]] = tomllib.loads(SIZES.read_text(encoding="utf-8"))
    return table


def to_toml(sizes: dict[str, dict[str, int]]) -> str:
    """The table as it is kept."""
    blocks = [_HEAD]
    for recipe, by_dtype in sizes.items():
        lines = [f"{dtype} = {size}" for dtype, size in by_dtype.items()]
        blocks.append("\n".join([f"[{recipe}]", *lines, ""]))
    return "\n".join(blocks)
