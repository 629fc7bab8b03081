"""Deep Compression (Han, Mao and Dally 2015) of the LeNets: prune, retrain, share values, entropy code.

    python -m tools.repro.deep_compression lenet-300-100

What it does beyond the paper: masks grow with training, by a cubic schedule; the pruned model learns from
what its baseline and those of other seeds say together; weights may change their shared values while
these are trained.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import torch
from torch import nn

import cmpk.torch
from cmpk.train import Cycle, Ensemble, Epoch, Result, Trial, compress_to, freeze, reassign, trained_state
from tools.repro.classifier import error_of, logits_of, train_epoch
from tools.repro.data import WORK, DataError, Images, load_images
from tools.repro.models import lenet_5, lenet_300_100, n_parameters
from tools.repro.paper import print_table
from tools.repro.report import Run, final_line, say, summary
from tools.repro.stages import in_processes
from tools.repro.teachers import baseline, teacher_seeds

__all__ = ["EXPERIMENTS", "Experiment", "SeedResult", "run_seed"]

_STEPS_BETWEEN_CODES: Final = 10
"""Few: until its code is chosen anew, a weight that moves does not feel it, and goes too far."""

_CODES_UNTIL: Final = 0.8
"""Of the epochs with shared values; after that codes stay."""


@dataclass(frozen=True)
class Experiment:
    """A model and how it is trained and compressed.

    Attributes
    ----------
    name : str
    make : function
    baseline_epochs : int
    cycle : Cycle
    chosen : float
        The rung whose file is the result, settled before anything was tested.
    teachers : int
        Models that the compressed one learns from: the baseline, and those of other seeds.
    batch : int
    """

    name: str
    make: Callable[[], nn.Sequential]
    baseline_epochs: int
    cycle: Cycle
    chosen: float
    teachers: int = 1
    batch: int = 256


@dataclass(frozen=True)
class SeedResult:
    """What one seed came to.

    Attributes
    ----------
    run : Run
        The chosen file.
    curve : list of (float, int, float)
        Of every file the share of the weights that it keeps, its bytes, and its error.
    pruned_error, pruned_nbytes : float, int
        Of the chosen rung before values were shared.
    same_predictions : bool
        Whether a process that has only the file gets the tensors and the predictions of training.
    path : str
        The chosen file.
    """

    run: Run
    curve: list[tuple[float, int, float]]
    pruned_error: float
    pruned_nbytes: int
    same_predictions: bool
    path: str


EXPERIMENTS: Final = {
    "lenet-300-100": Experiment(
        "lenet-300-100",
        lenet_300_100,
        20,
        Cycle(
            kept=(0.08, 0.06, 0.05, 0.04, 0.03), prune_epochs=11, recovery_epochs=9, share_epochs=8, first=3
        ),
        0.06,
        teachers=3,
    ),
    "lenet-5": Experiment(
        "lenet-5",
        lenet_5,
        8,
        Cycle(kept=(0.06, 0.04, 0.025), prune_epochs=2, recovery_epochs=2, share_epochs=2, first=4),
        0.06,
        teachers=3,
    ),
}

_LEARNING_RATES: Final = {"prune": 2e-3, "share": 2e-4}


def run_seed(experiment: Experiment, seed: int, folder: Path, images: Images) -> SeedResult:
    """Train a baseline and compress it; goes on where it was when it was killed.

    Parameters
    ----------
    experiment : Experiment
    seed : int
    folder : path
        Of all seeds: where baselines, checkpoints and files go.
    images : Images
    """
    model, *others = (_baseline(experiment, each, folder, images) for each in _teachers(experiment, seed))
    folder = folder / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    baseline_error = error_of(model, images)
    say(f"seed {seed}: baseline error {baseline_error:.2f}%")
    teacher = logits_of(Ensemble([model, *others], "arithmetic"), images.train)
    seen = folder / "predictions.jsonl"

    def train(student: nn.Module, epoch: Epoch) -> None:
        steps = itertools.count(1)

        def after_step(done: float) -> None:
            if epoch.phase == "share" and done >= _CODES_UNTIL:
                freeze(student)
            elif epoch.phase == "share" and next(steps) % _STEPS_BETWEEN_CODES == 0:
                reassign(student, rate=experiment.cycle.rate)

        train_epoch(
            student,
            images,
            learning_rate=_LEARNING_RATES[epoch.phase],
            index=epoch.index,
            count=epoch.count,
            state=epoch.state,
            teacher=teacher,
            batch=experiment.batch,
            after_step=after_step,
        )

    def evaluate(student: nn.Module) -> float:
        predictions = logits_of(student, images.test).argmax(1)
        with seen.open("a") as file:
            file.write(json.dumps(_digests(student, predictions)) + "\n")
        return -100 * float((predictions != images.test_labels).double().mean())

    result = compress_to(
        model,
        None,
        train,
        evaluate,
        folder / "cycle",
        cycle=experiment.cycle,
        progress=lambda line: say(f"seed {seed}: {line}"),
    )
    return _result(experiment, seed, folder, images, baseline_error, result)


def _teachers(experiment: Experiment, seed: int) -> list[int]:
    return teacher_seeds(seed, experiment.teachers)


def _baseline(experiment: Experiment, seed: int, folder: Path, images: Images) -> nn.Sequential:
    epochs, batch = experiment.baseline_epochs, experiment.batch
    return baseline(folder, experiment.make, images, epochs=epochs, seed=seed, batch=batch)


def _result(
    experiment: Experiment,
    seed: int,
    folder: Path,
    images: Images,
    baseline_error: float,
    result: Result[Trial],
) -> SeedResult:
    trial = next(trial for trial in result.trials if trial.kept == experiment.chosen)
    path = folder / "cycle" / trial.file
    run = Run(
        seed=seed,
        baseline_error=round(baseline_error, 4),
        error=round(-trial.score, 4),
        nbytes=trial.nbytes,
        ratio=4 * n_parameters(experiment.make()) / trial.nbytes,
    )
    # In a process that has only the file: the tensors that were trained, and what they say of each image.
    command = [sys.executable, "-m", "tools.repro.deep_compression", experiment.name, "--test", str(path)]
    command += ["--images", str(len(images.test))]
    loaded = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    seen = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    return SeedResult(
        run=run,
        curve=[(trial.kept, trial.nbytes, round(-trial.score, 4)) for trial in result.trials],
        pruned_error=round(-trial.pruned_score, 4),
        pruned_nbytes=trial.pruned_nbytes,
        same_predictions=loaded in seen,
        path=str(path),
    )


def _digests(model: nn.Module, predictions: torch.Tensor) -> dict[str, str]:
    """Digests of a model's values and of what it says of each test image."""
    values = hashlib.sha256()
    for name, value in sorted(trained_state(model).items()):
        values.update(name.encode() + value.contiguous().numpy().tobytes())
    said = hashlib.sha256(predictions.numpy().tobytes())
    return {"values": values.hexdigest(), "predictions": said.hexdigest()}


def _report(experiment: Experiment, results: Sequence[SeedResult], data: str, seconds: float) -> None:
    runs = [result.run for result in results]
    first = results[0]
    print_table(experiment.name, Path(first.path), first.run)
    dense = 4 * n_parameters(experiment.make())
    say(
        f"stages, seed {first.run.seed}: {dense / 1000:,.0f} kB, error {first.run.baseline_error:.2f}%; "
        f"pruned {first.pruned_nbytes / 1000:.1f} kB, {first.pruned_error:.2f}%; shared and entropy coded "
        f"{first.run.nbytes / 1000:.1f} kB, {first.run.error:.2f}%"
    )
    say("\nEvery rung, all seeds: weights kept, bytes of the file, ratio, points of error over the baseline")
    no_loss_ratio = None
    for points in zip(*(result.curve for result in results), strict=True):
        over = [point[2] - result.run.baseline_error for point, result in zip(points, results, strict=True)]
        nbytes = sum(point[1] for point in points) / len(points)
        say(
            f"{points[0][0]:6.1%} {nbytes:8.0f} {dense / nbytes:6.1f}x   mean {sum(over) / len(over):+.2f}, "
            f"worst {max(over):+.2f}"
        )
        if round(sum(over), 6) <= 0:
            no_loss_ratio = round(dense / nbytes, 2)
    say(f"smallest that errs no more than the baseline, mean of all seeds: {no_loss_ratio}x")
    no_loss = [_no_loss(result) for result in results]
    for run, nbytes in zip(runs, no_loss, strict=True):
        found = f"{nbytes} bytes, {dense / nbytes:.1f}x" if nbytes else "none of these"
        say(f"smallest file that errs no more than the baseline, seed {run.seed}: {found}")
    final_line(
        summary(
            f"deep-compression-{experiment.name}",
            runs,
            seconds,
            data=data,
            no_loss_ratio=no_loss_ratio,
            no_loss_nbytes=no_loss,
            same_predictions=all(result.same_predictions for result in results),
        )
    )


def _no_loss(result: SeedResult) -> int | None:
    return min(
        (nbytes for _, nbytes, error in result.curve if error <= result.run.baseline_error), default=None
    )


def _baseline_in_process(name: str, seed: int, folder: Path) -> None:
    _baseline(EXPERIMENTS[name], seed, folder, load_images())


def _seed_in_process(name: str, seed: int, folder: Path) -> SeedResult:
    return run_seed(EXPERIMENTS[name], seed, folder, load_images())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the seeds, one core each, and print what they came to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="seeds at a time")
    parser.add_argument("--test", type=Path, help="tell what a file says of the test images, and no more")
    parser.add_argument("--images", type=int, help="of how many test images, by default all")
    options = parser.parse_args(arguments)
    experiment = EXPERIMENTS[options.experiment]
    if options.test is not None:
        torch.set_num_threads(1)
        model = cmpk.torch.load_model(experiment.make, options.test)
        predictions = logits_of(model, load_images().test[: options.images]).argmax(1)
        print(json.dumps(_digests(model, predictions)))
        return 0
    started = time.perf_counter()
    try:
        data = load_images().name  # fetched once, before processes ask for it
    except DataError as error:
        parser.error(str(error))
    folder = WORK / experiment.name / data
    trained = sorted({each for seed in options.seeds for each in _teachers(experiment, seed)})
    in_processes(_baseline_in_process, [(experiment.name, seed, folder) for seed in trained], options.jobs)
    tasks = [(experiment.name, seed, folder) for seed in options.seeds]
    results = in_processes(_seed_in_process, tasks, options.jobs)
    seconds = time.perf_counter() - started
    (WORK / experiment.name / "results.json").write_text(
        json.dumps([asdict(result) | {"run": result.run._asdict()} for result in results], indent=1)
    )
    _report(experiment, results, data, seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
