"""Built-in lossy recipes on a small model: sizes and errors they stand for, and what they leave alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import cmpk.numpy
from cmpk.archive import Archive
from cmpk.recipe import builtin_names

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(0)

MODEL: dict[str, Array] = {
    "embeddings.weight": RNG.standard_normal((500, 96)).astype(np.float32) * np.float32(0.05),
    "layer.weight": RNG.standard_normal((256, 384)).astype(np.float32) * np.float32(0.02),
    "half.weight": (RNG.standard_normal((128, 256)) * 0.02).astype(np.float16),
    "conv.weight": RNG.standard_normal((32, 16, 3, 3)).astype(np.float32) * np.float32(0.1),
    "layer.bias": RNG.standard_normal(256).astype(np.float32),
    "norm.weight": 1 + RNG.standard_normal(96).astype(np.float32) * np.float32(0.01),
    "position_ids": np.arange(512).reshape(1, 512),
    "table": RNG.integers(0, 9, (20, 30)),
}
WEIGHTS = [name for name, values in MODEL.items() if values.ndim > 1 and values.dtype.kind == "f"]
N_WEIGHTS = sum(MODEL[name].size for name in WEIGHTS)

BOUNDS = {
    "balanced": (6.6, 0.016),
    "int8": (7.8, 0.01),
    "int4": (4.6, 0.12),
    "fp8": (7.2, 0.03),
    "nf4": (4.4, 0.1),
    "ternary": (5.5, 0.6),
    "deep-compression": (5.2, 0.15),
}
"""For each recipe, bits per weight, and the relative error of a tensor of normal numbers."""

LOSSY = sorted(set(builtin_names()) - {"lossless", "lossless-max"})


def saved(recipe: str, **options: Any) -> bytes:
    return bytes(cmpk.numpy.save(MODEL, recipe=recipe, **options))


@pytest.fixture(scope="module", params=LOSSY)
def recipe(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_lossy_recipe_has_bounds() -> None:
    assert sorted(BOUNDS) == LOSSY


def test_weights_take_few_bits_and_come_back_within_the_error(recipe: str) -> None:
    bits, error = BOUNDS[recipe]
    packed = saved(recipe)
    others = saved_without_weights(recipe)
    assert (len(packed) - others) * 8 / N_WEIGHTS < bits
    for name, values in cmpk.numpy.load(packed).items():
        before, after = MODEL[name].astype(np.float64), values.astype(np.float64)
        assert values.dtype == MODEL[name].dtype
        assert values.shape == MODEL[name].shape
        if name in WEIGHTS:
            assert 0 < np.linalg.norm(after - before) < error * np.linalg.norm(before)
        else:
            assert values.tobytes() == MODEL[name].tobytes()


def saved_without_weights(recipe: str) -> int:
    rest = {name: values for name, values in MODEL.items() if name not in WEIGHTS}
    return len(bytes(cmpk.numpy.save(rest, recipe=recipe)))


def test_the_file_is_sound_and_says_what_was_lost(recipe: str) -> None:
    with Archive(saved(recipe)) as archive:
        archive.verify(deep=True)
        lossy = [entry.name for entry in archive.manifest.tensors if entry.quality is not None]
        assert lossy == WEIGHTS


def test_the_file_is_the_same_with_any_number_of_threads(recipe: str) -> None:
    assert saved(recipe, jobs=1) == saved(recipe, jobs=4)
