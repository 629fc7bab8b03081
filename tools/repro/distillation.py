"""Distillation: a student of a tenth of its teacher's size, taught and untaught, then compressed.

    python -m tools.repro.distillation

The teacher is LeNet-5 as trained on the labels. Two students begin with the same weights and see the same
images in the same order: one learns from the labels, one also from the teacher's softened predictions
(Hinton, Vinyals and Dean 2015). The second is then pruned and trained with weights of 4 bits, by the same
teacher, and packed. Ratios are those of the whole file and the teacher's parameters in single precision.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from cmpk import train
from tools.repro.classifier import error_of, fit, logits_of, train_epoch
from tools.repro.data import Images
from tools.repro.models import lenet_5, n_parameters
from tools.repro.report import Run, say
from tools.repro.stages import main, packed, trained

__all__ = ["Plan", "run_seed", "small_lenet"]

_TEMPERATURE: Final = 4.0
_LABEL_SHARE: Final = 0.3
"""Of the labels in the loss of those that are taught."""

_LEARNING_RATES: Final = {"teacher": 1e-3, "student": 3e-3, "compressed": 1e-3}
_KEPT: Final = 0.3
"""Of the student's weights, in the archive."""


class Plan(NamedTuple):
    """How much is trained.

    Attributes
    ----------
    teacher, student, compressed : int
        Epochs of the teacher, of each student, and of the compressed one.
    batch : int
    n_images : int
        The students see the first so many; the teacher has seen all.
    """

    teacher: int = 8
    student: int = 20
    compressed: int = 12
    batch: int = 256
    n_images: int = 60_000


def small_lenet() -> nn.Sequential:
    """LeNet-5 with 8 and 20 channels and 110 units: 40,648 parameters."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 8, 5),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 20, 5),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(320, 110),
            relu1=nn.ReLU(),
            fc2=nn.Linear(110, 10),
        )
    )


def run_seed(seed: int, folder: Path, images: Images, plan: Plan | None = None) -> tuple[Run, dict[str, Any]]:
    """Train teacher and students, compress one; goes on where it was ended.

    Parameters
    ----------
    seed : int
    folder : path
        Where models and the file are kept.
    images : Images
    plan : Plan, optional

    Returns
    -------
    Run
        The teacher, and the file.
    dict
        Errors of the students in percent: ``alone_error``, ``student_error``; and by how much one has
        gained.
    """
    plan = plan or Plan()
    torch.manual_seed(seed)
    teacher = trained(
        folder / "teacher.pt",
        lenet_5(),
        lambda model: fit(model, images, plan.teacher, _LEARNING_RATES["teacher"], seed, plan.batch),
    )
    baseline_error = error_of(teacher, images)
    say(f"seed {seed}: teacher {baseline_error:.2f}%")
    images = images._replace(
        train=images.train[: plan.n_images], train_labels=images.train_labels[: plan.n_images]
    )
    wanted = logits_of(teacher, images.train)
    alone, student = (
        _student(seed, folder / f"{kind}.pt", images, plan, given)
        for kind, given in (("alone", None), ("student", wanted))
    )
    alone_error, student_error = error_of(alone, images), error_of(student, images)
    say(f"seed {seed}: student alone {alone_error:.2f}%, with its teacher {student_error:.2f}%")

    train.prune(student, ratio=1 - _KEPT, scope="global")
    train.quantize(student, bits=4)
    trained(
        folder / "compressed.pt",
        student,
        lambda model: _learn(model, images, "compressed", plan, seed, wanted),
    )
    file = packed(folder / "student.cmpk", student, images, small_lenet)
    ratio = 4 * n_parameters(teacher) / file.nbytes
    say(f"seed {seed}: compressed {file.error:.2f}%, {file.nbytes:,} bytes, {ratio:.0f} times smaller")
    errors = {
        "alone_error": round(alone_error, 4),
        "student_error": round(student_error, 4),
        "gain": round(alone_error - student_error, 4),
        "student_ratio": n_parameters(teacher) / n_parameters(small_lenet()),
    }
    return Run(seed, round(baseline_error, 4), round(file.error, 4), file.nbytes, ratio), errors


def _student(seed: int, path: Path, images: Images, plan: Plan, teacher: torch.Tensor | None) -> nn.Module:
    torch.manual_seed(seed + 1000)
    return trained(path, small_lenet(), lambda model: _learn(model, images, "student", plan, seed, teacher))


def _learn(
    model: nn.Module, images: Images, stage: str, plan: Plan, seed: int, teacher: torch.Tensor | None
) -> None:
    state: dict[str, Any] = {}
    epochs = plan.student if stage == "student" else plan.compressed
    for index in range(epochs):
        torch.manual_seed((seed << 20) + index)
        train_epoch(
            model,
            images,
            learning_rate=_LEARNING_RATES[stage],
            index=index,
            count=epochs,
            state=state,
            teacher=teacher,
            temperature=_TEMPERATURE,
            label_share=_LABEL_SHARE,
            batch=plan.batch,
        )


def run(arguments: Sequence[str] | None = None) -> int:
    """Run all seeds."""
    return main("distillation", run_seed, arguments, __doc__ or "")


if __name__ == "__main__":
    # By its name as a module, for the processes that are started.
    from tools.repro import distillation

    sys.exit(distillation.run())
