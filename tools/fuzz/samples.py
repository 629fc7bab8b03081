"""Valid archives to begin with: the vectors of the specification, and what cmpk packs."""

from __future__ import annotations

import io
import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cmpk.numpy import save
from cmpk.packing import pack

__all__ = ["packed_samples", "vectors"]

_VECTORS = Path(__file__).parents[2] / "spec" / "vectors"
_MAX_VECTOR = 1 << 16
_MAX_MANIFEST = 1 << 18
"""Vectors of a million of anything take seconds each, and their changes are no different."""


def vectors(kind: str) -> list[bytes]:
    """The smaller files of ``spec/vectors``; kind ``valid`` or ``invalid``."""
    found = [path.read_bytes() for path in sorted(_VECTORS.joinpath(kind).glob("*.cmpk"))]
    return [data for data in found if len(data) <= _MAX_VECTOR and _manifest_nbytes(data) <= _MAX_MANIFEST]


def _manifest_nbytes(data: bytes) -> int:
    """What the footer says of it."""
    return int.from_bytes(data[-56:-48], "little")


def packed_samples() -> list[bytes]:
    """What the recipes make of weights of many kinds."""
    generator = np.random.default_rng(1)
    packed = []
    for recipe in ("lossless", "lossless-max"):
        packed += [save(_arrays(generator), {"format": "pt"}, recipe), _packed_files(generator, recipe)]
        packed += [save({name: array}, None, recipe) for name, array in _arrays(generator).items()]
    for recipe in ("int8", "int4", "fp8", "nf4", "ternary"):
        packed += [save(_arrays(generator), None, recipe), _packed_files(generator, recipe)]
    return packed


def _arrays(generator: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    weights = generator.normal(0, 0.05, (40, 50)).astype(np.float32)
    rows = np.exp(generator.normal(0, 4, (40, 1)))
    return {
        "f32": weights,
        "f16": weights.astype(np.float16),
        "f64": weights.astype(np.float64) * np.pi,
        "f32 from f16": weights.astype(np.float16).astype(np.float32),
        "rows of different size": (weights * rows).astype(np.float32),
        "some rows from f16": np.where(rows > 1, weights, weights.astype(np.float16)).astype(np.float32),
        "few values": np.sign(weights) * (np.abs(weights) > 0.05),
        "one value": np.zeros((7, 300), np.float32),
        "small numbers": generator.integers(0, 9, 5000, np.uint8),
        "positions": np.arange(600, dtype=np.int64),
        "exceptions": np.where(generator.random(5000) < 0.01, generator.normal(0, 1e30, 5000), 1.5).astype(
            np.float32
        ),
        "scalar": np.array(3.0),
        "empty": np.zeros((0, 3), np.float16),
    }


def _packed_files(generator: np.random.Generator, recipe: str) -> bytes:
    """A model directory of a safetensors file, with types that NumPy does not have, and an attachment."""
    bf16 = (generator.normal(0, 0.05, 3000).astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    tensors = {"b": ("BF16", [60, 50], bf16), "c": ("BF16", [60, 50], bf16), "e": ("F8_E4M3", [6000], bf16)}
    header: dict[str, Any] = {}
    data = b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
        Path(folder, "config.json").write_text('{"hidden_size": 384}')
        packed = io.BytesIO()
        pack(folder, packed, recipe=recipe)
    return packed.getvalue()
