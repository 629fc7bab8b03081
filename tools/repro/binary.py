"""LeNet-5 with binary weights (BinaryConnect, Courbariaux et al. 2015) and ternary ones (Li et al. 2016).

    python -m tools.repro.binary

Both begin with the baseline's weights and learn from what it and those of other seeds say together; all
layers are binary, or ternary, with one magnitude for each row, and biases in single precision.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from torch import nn

from cmpk import train
from tools.repro.classifier import error_of, fit, logits_of
from tools.repro.data import Images
from tools.repro.models import lenet_5, n_parameters
from tools.repro.report import Run, say
from tools.repro.stages import Packed, main, packed, trained
from tools.repro.teachers import baseline, teacher_seeds

__all__ = ["Plan", "run_seed"]

_LEARNING_RATE: Final = 1e-3


class Plan(NamedTuple):
    """How much is trained.

    Attributes
    ----------
    teachers : int
        Models that are learned from: the baseline, and those of other seeds.
    baseline, few_levels : int
        Epochs of each baseline, and of each model of few levels.
    batch : int
    """

    teachers: int = 3
    baseline: int = 8
    few_levels: int = 8
    batch: int = 256


def run_seed(seed: int, folder: Path, images: Images, plan: Plan | None = None) -> tuple[Run, dict[str, Any]]:
    """Train a baseline, then a binary and a ternary model; goes on where it was ended.

    Parameters
    ----------
    seed : int
    folder : path
        Of all seeds: where models and files are kept.
    images : Images
    plan : Plan, optional

    Returns
    -------
    Run
        The baseline, and the binary file.
    dict
        The ternary one: ``ternary_error`` in percent, ``ternary_nbytes`` and ``ternary_ratio``.
    """
    plan = plan or Plan()
    original, *others = (_baseline(each, folder, images, plan) for each in teacher_seeds(seed, plan.teachers))
    folder = folder / f"seed-{seed}"
    baseline_error = error_of(original, images)
    say(f"seed {seed}: baseline {baseline_error:.2f}%")
    wanted = logits_of(train.Ensemble([original, *others], "arithmetic"), images.train)
    dense = 4 * n_parameters(original)
    options: dict[str, Any] = {
        "epochs": plan.few_levels,
        "learning_rate": _LEARNING_RATE,
        "seed": seed,
        "teacher": wanted,
        "batch": plan.batch,
    }

    def made(kind: str, few: Callable[[nn.Module], None]) -> Packed:
        model = lenet_5()
        model.load_state_dict(original.state_dict())
        few(model)
        trained(folder / f"{kind}.pt", model, lambda each: fit(each, images, **options))
        file = packed(folder / f"{kind}.cmpk", model, images, lenet_5)
        say(f"seed {seed}: {kind} {file.error:.2f}%, {file.nbytes:,} bytes, {dense / file.nbytes:.1f}x")
        return file

    binary, ternary = made("binary", train.binarize), made("ternary", train.ternarize)
    of_ternary = {
        "ternary_error": round(ternary.error, 4),
        "ternary_nbytes": ternary.nbytes,
        "ternary_ratio": dense / ternary.nbytes,
    }
    ratio = dense / binary.nbytes
    return Run(seed, round(baseline_error, 4), round(binary.error, 4), binary.nbytes, ratio), of_ternary


def _baseline(seed: int, folder: Path, images: Images, plan: Plan) -> nn.Sequential:
    return baseline(folder, lenet_5, images, epochs=plan.baseline, seed=seed, batch=plan.batch)


def _train_baseline(seed: int, folder: Path, images: Images) -> None:
    _baseline(seed, folder, images, Plan())


def run(arguments: Sequence[str] | None = None) -> int:
    """Run all seeds."""
    return main("binary", run_seed, arguments, __doc__ or "", first=_train_baseline)


if __name__ == "__main__":
    # By its name as a module, for the processes that are started.
    from tools.repro import binary

    sys.exit(binary.run())
