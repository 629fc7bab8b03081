"""Packages as pip would leave them, and a plugin without fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Install = Callable[..., None]
RunPython = Callable[..., Any]

FLIP = """
import numpy as np
from cmpk.codecs import Codec
from cmpk.hookspecs import hookimpl

class Flip(Codec):
    "The runs of a byte, each as the byte and its length; with every bit flipped."
    id = "flip"
    max_expansion = 128

    def encode(self, data, threads=1):
        starts = np.flatnonzero(np.diff(data, prepend=~data[:1]))
        lengths = np.diff(starts, append=len(data))
        if len(data) == 0 or lengths.max() > 255:
            return None
        return np.stack([~data[starts], lengths.astype(np.uint8)], axis=1).tobytes()

    def decode_range(self, stream, n, start, out, threads=1):
        stored = np.frombuffer(stream, np.uint8)
        if len(stored) % 2 or stored[1::2].sum() != n:
            raise self.corrupt("the runs do not add up")
        out[:] = np.repeat(~stored[0::2], stored[1::2])[start : start + len(out)]

@hookimpl
def cmpk_codecs():
    return [Flip()]
"""
"""A plugin without fault."""

NIBBLES = """
from cmpk.dtypes import TensorSpec
from cmpk.encodings import Encoded, Encoding, Part
from cmpk.encodings.base import check_params
from cmpk.errors import FormatError
from cmpk.hookspecs import hookimpl
from cmpk.passes import Pass
from cmpk.passes.base import branch

class Nibbles(Encoding):
    "The upper and the lower half of each byte."
    id = "nibbles"

    def part_specs(self, spec, params):
        check_params(params, ())
        if spec.dtype != "U8":
            raise FormatError("only bytes have halves")
        return {"lower": spec, "upper": spec}

    def decode_range(self, stored, start, stop, out, decoder):
        out[:] = decoder.decode(stored.parts["upper"], start, stop) << 4
        out |= decoder.decode(stored.parts["lower"], start, stop)

class Halve(Pass):
    id = "halve"

    def apply(self, name, part, options):
        if part.spec.dtype != "U8":
            return None
        parts = {"lower": Part(part.spec, part.data & 15), "upper": Part(part.spec, part.data >> 4)}
        return branch(Nibbles.id, part.spec, Encoded({}, parts))

@hookimpl
def cmpk_encodings():
    return [Nibbles()]

@hookimpl
def cmpk_passes():
    return [Halve()]
"""
"""An encoding without fault, and a pass that chooses it."""


def write_package(folder: Path, name: str, code: str, version: str = "1.0", entry_points: str = "") -> None:
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(code, "utf-8")
    info = folder / f"{module}-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8")
    (info / "entry_points.txt").write_text(entry_points or f"[cmpk]\nplugin = {module}\n", "utf-8")
