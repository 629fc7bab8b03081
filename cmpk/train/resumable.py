"""Training epoch by epoch to smaller and smaller files, with a checkpoint from which a killed run goes on."""

from __future__ import annotations

import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import nn

from cmpk.errors import SourceError
from cmpk.format import atomic_file
from cmpk.train.parametrized import evaluating
from cmpk.train.plot import Mark, score_plot

__all__ = ["Attempt", "Epoch", "Result", "Resumable", "chosen_of", "is_over"]


@dataclass(frozen=True, slots=True)
class Epoch:
    """What a training function is told of the epoch that it is to train.

    Attributes
    ----------
    phase : str
        ``prune``: masks grow before each epoch of the first part. ``share``: values are shared; weights are
        given to the best ones anew before each epoch but the last, in which these alone are trained.
        ``recover``: a layer was pruned and quantized before the first epoch.
    index, count : int
        Which of how many epochs of this phase it is: for a schedule of the learning rate.
    number : int
        Which epoch of the whole run. Torch's random numbers are seeded by it; seed others yourself.
    state : dict
        Empty at the start of a phase, then kept from epoch to epoch and in checkpoints: the place for the
        state of an optimizer, whose parameters change between phases.
    """

    phase: Literal["prune", "share", "recover"]
    index: int
    count: int
    number: int
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """A file that was made on the way; a line of the log.

    Attributes
    ----------
    kept : float
        Share of the weights that are kept; by layer, of all parameters.
    score : float
        Of what is in the file.
    nbytes : int
        Of the whole file.
    file : str
        Its name in the folder.
    by_tensor : dict of str to float
        Share of its weights that each tensor keeps.
    """

    kept: float
    score: float
    nbytes: int
    file: str
    by_tensor: dict[str, float]


Made = TypeVar("Made", bound=Attempt)


@dataclass(frozen=True, slots=True)
class Result(Generic[Made]):
    """What a run came to.

    Attributes
    ----------
    trials : list
        All that was tried, in order.
    chosen : Trial, Step or None
        The first within the budget, of those whose score is at the floor or above; without a budget the
        smallest of them. None if there is no such one.
    path : path or None
        Its file.
    """

    trials: list[Made]
    chosen: Made | None
    path: Path | None


def chosen_of(
    trials: Sequence[Made], within: Callable[[Made], bool] | None, floor: float | None, folder: Path
) -> Result[Made]:
    """The result of a run; ``within`` tells whether a file meets the budget, if there is one."""
    good = [trial for trial in trials if floor is None or trial.score >= floor]
    if within is None:
        chosen = min(good, key=lambda trial: trial.nbytes, default=None)
    else:
        chosen = next(filter(within, good), None)
    return Result(list(trials), chosen, folder / chosen.file if chosen else None)


def is_over(trial: Made, within: Callable[[Made], bool] | None, floor: float | None) -> bool:
    """Whether a run ends with a file: within the budget, or with a score below the floor or no number."""
    return (within is not None and within(trial)) or (floor is not None and not trial.score >= floor)


class Resumable(ABC, Generic[Made]):
    """A run under way: its counters, its log and its checkpoint.

    Attributes
    ----------
    trials : list
        What was made so far.
    done, number : int
        Epochs since the last file, and of the whole run.
    state : dict
        See `Epoch`; whoever begins a phase empties it.
    """

    unit: ClassVar[str]
    """What makes a file, such as a rung: in the log and in the files' names."""

    def __init__(
        self,
        kind: type[Made],
        train_epoch: Callable[[nn.Module, Epoch], object],
        evaluate: Callable[[nn.Module], float],
        folder: Path,
        seed: int,
        say: Callable[[str], object],
    ) -> None:
        self._kind, self._train_epoch, self._evaluate = kind, train_epoch, evaluate
        self._folder, self._seed, self.say = folder, seed, say
        self._log: list[dict[str, Any]] = []
        self.trials: list[Made] = []
        self.done = 0
        self.number = 0
        self.state: dict[str, Any] = {}

    @abstractmethod
    def identity(self) -> str:
        """What a checkpoint must agree with to be of this run."""

    @abstractmethod
    def models(self) -> dict[str, Any]:
        """What a checkpoint holds besides the counters."""

    @abstractmethod
    def restore(self, found: dict[str, Any]) -> None:
        """Take up what `models` gave; counters and trials are restored already."""

    def score(self, model: nn.Module, function: Callable[[nn.Module], float] | None = None) -> float:
        """What ``evaluate``, or another function, says of a model as it is for use."""
        with evaluating(model), torch.no_grad():
            return float((function or self._evaluate)(model))

    def train(self, model: nn.Module, epoch: Epoch) -> float:
        """One epoch, and a checkpoint; the score after it."""
        torch.manual_seed((self._seed << 20) + epoch.number)
        model.train()
        self._train_epoch(model, epoch)
        self.done += 1
        self.number += 1
        score, index = self.score(model), len(self.trials)
        self._log.append({"epoch": epoch.number, self.unit: index, "phase": epoch.phase, "score": score})
        self._checkpoint()
        self.say(
            f"{self.unit} {index + 1}, {epoch.phase} {epoch.index + 1} of {epoch.count}: score {score:.6g}"
        )
        return score

    @property
    def next_file(self) -> str:
        """The name of the file that is made next."""
        return f"{self.unit}-{len(self.trials) + 1}.cmpk"

    def end(self, trial: Made, data: bytes) -> None:
        """Write a file, and a checkpoint from which the next one begins."""
        with atomic_file(self._folder / trial.file, overwrite=True) as file:
            file.write(memoryview(data))
        self._log.append({self.unit: len(self.trials), **asdict(trial)})
        self.trials.append(trial)
        self.done, self.state = 0, {}
        self._checkpoint()
        self.say(
            f"{trial.file}: {trial.kept:.3g} of the weights, {trial.nbytes} bytes, score {trial.score:.6g}"
        )

    def resume(self) -> None:
        """Take up what the checkpoint in the folder has, if there is one.

        Raises
        ------
        SourceError
            If it is of another run.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "checkpoint.pt"
        if not path.exists():
            return
        found = torch.load(path, weights_only=True)
        if found["cycle"] != self.identity():
            raise SourceError(
                f"{os.fspath(path)!r} is of another run or model: give another folder, or delete this one"
            )
        self.done, self.number, self.state = found["done"], found["number"], found["state"]
        self._log = found["log"]
        self.trials += [self._kind(**trial) for trial in found["trials"]]
        self.restore(found)
        self.say(f"going on after epoch {self.number}")

    def _checkpoint(self) -> None:
        """All or nothing: whoever is killed while it is written still has the one before it."""
        buffer = io.BytesIO()
        state = {
            **self.models(),
            "cycle": self.identity(),
            "done": self.done,
            "number": self.number,
            "state": self.state,
            "log": self._log,
            "trials": [asdict(trial) for trial in self.trials],
        }
        torch.save(state, buffer)
        log = "".join(json.dumps(line) + "\n" for line in self._log)
        marks = [Mark(trial.nbytes, trial.score, f"{trial.kept:.3g}") for trial in self.trials]
        texts = {"log.jsonl": log, **({"plot.svg": score_plot(marks)} if marks else {})}
        for name, data in {
            "checkpoint.pt": buffer.getvalue(),
            **{k: v.encode() for k, v in texts.items()},
        }.items():
            with atomic_file(self._folder / name, overwrite=True) as file:
                file.write(memoryview(data))
