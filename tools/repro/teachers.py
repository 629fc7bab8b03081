"""Models trained on the labels: baselines, and those that one of them learns from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from tools.repro.classifier import fit
from tools.repro.data import Images
from tools.repro.stages import trained

__all__ = ["baseline", "teacher_seeds"]

_LEARNING_RATE: Final = 1e-3


def baseline(
    folder: Path, make: Callable[[], nn.Sequential], images: Images, *, epochs: int, seed: int, batch: int
) -> nn.Sequential:
    """A model trained on the labels alone; kept in a folder, and trained there once."""
    torch.manual_seed(seed)
    model = make()
    path = folder / f"baseline-{images.name}-{epochs}-{seed}.pt"
    options: dict[str, Any] = {
        "epochs": epochs,
        "learning_rate": _LEARNING_RATE,
        "seed": seed,
        "batch": batch,
    }
    trained(path, model, lambda each: fit(each, images, **options))
    return model


def teacher_seeds(seed: int, count: int) -> list[int]:
    """The seeds of the models that one learns from: its own, and the lowest others.

    Of seeds 0, 1 and 2 with three teachers each, all have the same.
    """
    return [seed, *(other for other in range(count) if other != seed)][:count]
