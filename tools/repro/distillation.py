"""Distillation: a student of a tenth of its teacher's size, taught and untaught, then compressed.

    python -m tools.repro.distillation

The teachers are three LeNet-5 as trained on the labels, and what they say together (Hinton, Vinyals and Dean
2015). Two students begin with the same weights and see the same images in the same order: one learns from the
labels, one from the teachers. The second is then pruned and trained with weights of 4 bits, by the same
teachers, and packed. Ratios are those of the whole file, or the student, and one teacher in single precision.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import nn

from cmpk import train
from tools.repro.classifier import error_of, fit, logits_of
from tools.repro.data import Images
from tools.repro.models import lenet_5, n_parameters, small_lenet
from tools.repro.report import Run, say
from tools.repro.stages import main, packed, trained
from tools.repro.teachers import baseline, teacher_seeds

__all__ = ["Plan", "run_seed"]

_LEARNING_RATES: Final = {"student": 3e-3, "compressed": 1e-3}
_KEPT: Final = 0.3
"""Of the student's weights, in the archive."""


class Plan(NamedTuple):
    """How much is trained.

    Attributes
    ----------
    teachers : int
        Models that the student learns from: one trained with its seed, and those of other seeds.
    teacher, student, compressed : int
        Epochs of each teacher, of each student, and of the compressed one.
    batch : int
    n_images : int
        The students see the first so many; the teacher has seen all.
    """

    teachers: int = 3
    teacher: int = 8
    student: int = 20
    compressed: int = 12
    batch: int = 256
    n_images: int = 60_000


def run_seed(seed: int, folder: Path, images: Images, plan: Plan | None = None) -> tuple[Run, dict[str, Any]]:
    """Train teacher and students, compress one; goes on where it was ended.

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
        One teacher, and the file.
    dict
        Errors in percent: ``teacher_error`` of all teachers together, ``alone_error`` and ``student_error``;
        and the ``gain``, by how much the second is better.
    """
    plan = plan or Plan()
    teachers = [_teacher(each, folder, images, plan) for each in teacher_seeds(seed, plan.teachers)]
    folder = folder / f"seed-{seed}"
    baseline_error = error_of(teachers[0], images)
    together = train.Ensemble(teachers, "arithmetic")
    teacher_error = error_of(together, images)
    say(f"seed {seed}: a teacher alone {baseline_error:.2f}%, {plan.teachers} together {teacher_error:.2f}%")
    images = images._replace(
        train=images.train[: plan.n_images], train_labels=images.train_labels[: plan.n_images]
    )
    wanted = logits_of(together, images.train)
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
    ratio = 4 * n_parameters(teachers[0]) / file.nbytes
    say(f"seed {seed}: compressed {file.error:.2f}%, {file.nbytes:,} bytes, {ratio:.0f} times smaller")
    errors = {
        "teacher_error": round(teacher_error, 4),
        "alone_error": round(alone_error, 4),
        "student_error": round(student_error, 4),
        "gain": round(alone_error - student_error, 4),
        "student_ratio": n_parameters(teachers[0]) / n_parameters(small_lenet()),
    }
    return Run(seed, round(baseline_error, 4), round(file.error, 4), file.nbytes, ratio), errors


def _teacher(seed: int, folder: Path, images: Images, plan: Plan) -> nn.Sequential:
    return baseline(folder, lenet_5, images, epochs=plan.teacher, seed=seed, batch=plan.batch)


def _train_teacher(seed: int, folder: Path, images: Images) -> None:
    _teacher(seed, folder, images, Plan())


def _student(seed: int, path: Path, images: Images, plan: Plan, teacher: torch.Tensor | None) -> nn.Module:
    torch.manual_seed(seed + 1000)
    return trained(path, small_lenet(), lambda model: _learn(model, images, "student", plan, seed, teacher))


def _learn(
    model: nn.Module, images: Images, stage: str, plan: Plan, seed: int, teacher: torch.Tensor | None
) -> None:
    fit(
        model,
        images,
        epochs=plan.student if stage == "student" else plan.compressed,
        learning_rate=_LEARNING_RATES[stage],
        seed=seed,
        teacher=teacher,
        batch=plan.batch,
    )


def run(arguments: Sequence[str] | None = None) -> int:
    """Run all seeds."""
    return main("distillation", run_seed, arguments, __doc__ or "", first=_train_teacher)


if __name__ == "__main__":
    # By its name as a module, for the processes that are started.
    from tools.repro import distillation

    sys.exit(distillation.run())
