"""A small CNN, quantized and pruned by layer to a tenth of its parameters.

    python -m tools.repro.layerwise

Each step prunes three tenths of the weights that a layer has left and gives it fewer bits, on the layer
where that costs the least loss for each parameter; the model then recovers for an epoch, from the baseline's
predictions. Steps are compared and scored on training images alone; those that score are held out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import nn
from torch.nn import functional

from cmpk.train import ByLayer, Epoch, compress_by_layer
from tools.repro.classifier import error_of, logits_of, train_epoch
from tools.repro.data import Images
from tools.repro.models import n_parameters, small_cnn
from tools.repro.report import Run, say
from tools.repro.stages import checked, main
from tools.repro.teachers import baseline

__all__ = ["Plan", "run_seed"]

_LEARNING_RATE: Final = 1e-3


class Plan(NamedTuple):
    """How it is trained and compressed.

    Attributes
    ----------
    baseline : int
        Epochs.
    kept : float
        Share of the parameters, biases and all.
    ratio : float, optional
        Of the single-precision parameters to the whole file, at least; steps go on until it is reached.
    steps : ByLayer
        What a step does.
    held_out, measured : int
        Training images that files are scored on, and that steps are compared by.
    batch : int
    """

    baseline: int = 12
    kept: float = 0.1
    ratio: float | None = None
    steps: ByLayer = ByLayer(share=0.3, bits=(8, 6, 4))
    held_out: int = 5000
    measured: int = 5000
    batch: int = 256


def run_seed(seed: int, folder: Path, images: Images, plan: Plan | None = None) -> tuple[Run, dict[str, Any]]:
    """Train a baseline and compress it; goes on where it was ended.

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
        The baseline, and the file.
    dict
        ``parameters`` that are kept, ``parameters_ratio`` and the number of ``steps``.
    """
    plan = plan or Plan()
    held = images._replace(
        test=images.train[-plan.held_out :], test_labels=images.train_labels[-plan.held_out :]
    )
    held = held._replace(
        train=images.train[: -plan.held_out], train_labels=images.train_labels[: -plan.held_out]
    )
    folder = folder / f"seed-{seed}"
    original = baseline(folder, small_cnn, held, epochs=plan.baseline, seed=seed, batch=plan.batch)
    baseline_error = error_of(original, images)
    say(f"seed {seed}: baseline {baseline_error:.2f}%")
    teacher = logits_of(original, held.train)
    predictions = folder / "predictions.pt"

    def train(model: nn.Module, epoch: Epoch) -> None:
        train_epoch(
            model,
            held,
            learning_rate=_LEARNING_RATE,
            index=epoch.index,
            count=epoch.count,
            state=epoch.state,
            teacher=teacher,
            batch=plan.batch,
        )

    def evaluate(model: nn.Module) -> float:
        # For the last time of the model that is in the last file.
        torch.save(logits_of(model, images.test).argmax(1), predictions)
        return 100 - error_of(model, held)

    def measure(model: nn.Module) -> float:
        logits = logits_of(model, held.train[: plan.measured])
        return -float(functional.cross_entropy(logits, held.train_labels[: plan.measured]))

    n_before = n_parameters(original)
    result = compress_by_layer(
        original,
        train,
        evaluate,
        folder / "steps",
        parameters=int(plan.kept * n_before),
        nbytes=None if plan.ratio is None else int(4 * n_before / plan.ratio),
        measure=measure,
        plan=plan.steps,
        progress=lambda line: say(f"seed {seed}: {line}"),
    )
    if result.chosen is None or result.path is None:
        raise RuntimeError(f"no step has met the budget of {plan}")
    step = result.chosen
    file = checked(result.path, torch.load(predictions, weights_only=True), images, small_cnn)
    ratio = 4 * n_before / file.nbytes
    kept = ", ".join(f"{name} {share:.1%}" for name, share in step.by_tensor.items())
    say(f"seed {seed}: {file.error:.2f}%, {step.n_parameters:,} parameters, {ratio:.1f}x; {kept}")
    others = {
        "parameters": step.n_parameters,
        "parameters_ratio": n_before / step.n_parameters,
        "steps": len(result.trials),
    }
    return Run(seed, round(baseline_error, 4), round(file.error, 4), file.nbytes, ratio), others


def run(arguments: Sequence[str] | None = None) -> int:
    """Run all seeds."""
    return main("layerwise", run_seed, arguments, __doc__ or "")


if __name__ == "__main__":
    # By its name as a module, for the processes that are started.
    from tools.repro import layerwise

    sys.exit(layerwise.run())
