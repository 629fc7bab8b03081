"""Tensors that the tests of lossy passes work on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cmpk.archive import Archive
from cmpk.dtypes import TensorSpec
from cmpk.encodings.base import Part
from cmpk.passes.base import Planned, Split
from cmpk.values import from_float32, to_float32
from tests.builders import Node, archive, branch, leaf, tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Calibrated:
    """Statistics made by hand."""

    kind: str = "linear"
    count: int = 1
    second_moment: Array | None = None
    gradient_squares: Array | None = None


def part_of(values: Any, dtype: str = "F32") -> Part:
    numbers = np.asarray(values, np.float32)
    return Part(TensorSpec(dtype, numbers.shape), from_float32(numbers, dtype))


def numbers_of(part: object) -> Array:
    assert isinstance(part, Part)
    return to_float32(part)


def normal(*shape: int, seed: int = 0, scale: float = 0.02) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


NOT_WEIGHTS = {
    "integers": Part(TensorSpec("I32", (4, 4)), np.arange(64, dtype=np.uint8)),
    "bytes": Part(TensorSpec("U8", (4, 4)), np.arange(16, dtype=np.uint8)),
    "booleans": Part(TensorSpec("BOOL", (4, 4)), np.ones(16, np.uint8)),
    "complex": Part(TensorSpec("C64", (2, 2)), np.zeros(32, np.uint8)),
    "four bits": Part(TensorSpec("F4", (4, 4)), np.zeros(8, np.uint8)),
    "exponents": Part(TensorSpec("F8_E8M0", (4, 4)), np.zeros(16, np.uint8)),
    "empty": Part(TensorSpec("F32", (0, 4)), np.zeros(0, np.uint8)),
    "nan": part_of(np.full((4, 4), np.nan)),
    "one nan": part_of([[0.0, 1.0], [np.nan, 3.0]]),
    "infinite": part_of([[0.0, 1.0], [-np.inf, 3.0]], "BF16"),
    "too large": Part(TensorSpec("F64", (2, 2)), np.float64([1, 2, 3, 1e300]).view(np.uint8)),
}
"""Tensors that no lossy pass may touch."""


def decoded(planned: object) -> Array:
    """The numbers that a tensor comes back as, in its shape, by way of a whole archive."""
    assert isinstance(planned, Split)
    spec = planned.spec
    found = Archive(archive([tensor("a", spec.dtype, spec.shape, _node(planned))])).read("a")
    return to_float32(Part(spec, np.ascontiguousarray(found).reshape(-1).view(np.uint8)))


def _node(planned: Planned) -> Node:
    if isinstance(planned, Part):
        return leaf(planned.data.tobytes())
    parts = {name: _node(part) for name, part in planned.parts.items()}
    return branch(planned.encoding, planned.params, **parts)
