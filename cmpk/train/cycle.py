"""The whole cycle under a budget: prune, recover, share, pack, measure, and again."""

from __future__ import annotations

import copy
import io
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import torch
from torch import nn

from cmpk.errors import PassError, SourceError
from cmpk.format import atomic_file
from cmpk.sources import PathLike
from cmpk.train.masks import kept_shares, prune
from cmpk.train.parametrized import evaluating, trained_state, weight_names
from cmpk.train.plot import Mark, score_plot
from cmpk.train.saving import packed
from cmpk.train.schedules import cubic
from cmpk.train.sharing import freeze, reassign, share

__all__ = ["Cycle", "Epoch", "Result", "Trial", "compress_to"]

KEPT: Final = tuple(round(0.2 * 0.7**k, 4) for k in range(10))
"""Shares of the weights that are kept, where nobody says which: each rung 30% fewer than the last."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """What a training function is told of the epoch that it is to train.

    Attributes
    ----------
    phase : str
        ``prune``: masks grow before each epoch of the first part. ``share``: values are shared; weights are
        given to the best ones anew before each epoch but the last, in which these alone are trained.
    index, count : int
        Which of how many epochs of this phase it is: for a schedule of the learning rate.
    number : int
        Which epoch of the whole cycle. Torch's random numbers are seeded by it; seed others yourself.
    state : dict
        Empty at the start of a phase, then kept from epoch to epoch and in checkpoints: the place for the
        state of an optimizer, whose parameters change between phases.
    """

    phase: Literal["prune", "share"]
    index: int
    count: int
    number: int
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cycle:
    """How a model is compressed.

    Attributes
    ----------
    kept : sequence of float
        The rungs: shares of the weights that are kept, descending. Each begins with the weights and masks
        that the one before it ended with, before values were shared.
    prune_epochs, recovery_epochs, share_epochs : int
        Of each rung: while masks grow by a cubic schedule, afterwards, and with shared values.
    first : int
        How many times more epochs of pruning and recovery the first rung has, which has most to prune.
    n_values : int
        That the weights of a tensor share, zero included.
    bias_values : int
        That all other parameters of more elements share, 0 to leave them as they are.
    rate : float
        What a bit is worth when codes are chosen; see `cmpk.train.Shared.reassign`.
    prune : mapping
        Further options of `cmpk.train.prune`, such as ``scope`` and ``method``.
    seed : int
    """

    kept: Sequence[float] = KEPT
    prune_epochs: int = 6
    recovery_epochs: int = 4
    share_epochs: int = 4
    first: int = 1
    n_values: int = 8
    bias_values: int = 16
    rate: float = 0.0
    prune: Mapping[str, object] = field(default_factory=lambda: {"scope": "global"})
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """What one rung came to; a line of the log.

    Attributes
    ----------
    kept : float
        Share of the weights that are kept.
    pruned_score, score : float
        Before values were shared, and of what is in the file.
    pruned_nbytes, nbytes : int
        Of a file of the pruned model alone, and of the whole file that was made.
    file : str
        Its name in the folder.
    by_tensor : dict of str to float
        Share of its weights that each tensor keeps.
    """

    kept: float
    pruned_score: float
    score: float
    pruned_nbytes: int
    nbytes: int
    file: str
    by_tensor: dict[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    """What a cycle came to.

    Attributes
    ----------
    trials : list of Trial
        All rungs that were tried, in order.
    chosen : Trial or None
        The first within the budget, of those whose score is at the floor or above; without a budget the
        smallest of them. None if there is no such one.
    path : path or None
        Its file.
    """

    trials: list[Trial]
    chosen: Trial | None
    path: Path | None


def compress_to(
    model: nn.Module,
    budget: int | None,
    train_epoch: Callable[[nn.Module, Epoch], object],
    evaluate: Callable[[nn.Module], float],
    folder: PathLike,
    *,
    floor: float | None = None,
    cycle: Cycle | None = None,
    progress: Callable[[str], object] | None = None,
) -> Result:
    """Compress a trained model to a size, rung by rung, with training in between.

    Each rung prunes further, recovers, and then, on a copy, shares values, trains these, and packs: the
    size is that of the whole file. After every epoch there is a checkpoint, so that a cycle which was
    killed goes on where it was when it is called again with the same arguments, and comes to the same
    files if training is deterministic. ``folder`` gets the files, ``log.jsonl`` with a line for each
    epoch and each rung, and ``plot.svg``, score against size.

    Parameters
    ----------
    model : torch.nn.Module
        Trained; left as it is.
    budget : int or None
        Bytes of the whole file; the cycle ends when they are met. None: all rungs are tried.
    train_epoch : function
        Trains a module for an epoch, in place, in any way; see `Epoch`.
    evaluate : function
        The score of a module, the larger the better.
    folder : path
        Made if it does not exist.
    floor : float, optional
        The cycle ends when a rung's score is below.
    cycle : Cycle, optional
    progress : function, optional
        Called with a line of text, now and then.

    Returns
    -------
    Result

    Raises
    ------
    PassError
        If the rungs don't descend, or have no epochs.
    SourceError
        If the checkpoint in the folder is of another cycle.
    """
    cycle = cycle or Cycle()
    if not cycle.kept or list(cycle.kept) != sorted(set(cycle.kept), reverse=True) or cycle.kept[0] > 1:
        raise PassError(f"rungs are shares of the weights, descending, not {list(cycle.kept)}")
    if min(cycle.prune_epochs + cycle.recovery_epochs, cycle.first) < 1:
        raise PassError("a rung needs an epoch at least in which weights are pruned")
    work = _Work(model, train_epoch, evaluate, Path(folder), cycle, progress or (lambda _: None))
    work.resume()
    trials = work.trials
    for rung in range(len(trials), len(cycle.kept)):
        if trials and _is_over(trials[-1], budget, floor):
            break
        work.run_rung(rung)
    good = [trial for trial in trials if floor is None or trial.score >= floor]
    if budget is not None:
        good = [trial for trial in good if trial.nbytes <= budget]
    chosen = (
        min(good, key=lambda trial: trial.nbytes, default=None) if budget is None else next(iter(good), None)
    )
    return Result(trials, chosen, Path(folder) / chosen.file if chosen else None)


def _is_over(trial: Trial, budget: int | None, floor: float | None) -> bool:
    return (budget is not None and trial.nbytes <= budget) or (floor is not None and trial.score < floor)


class _Work:
    """A cycle under way.

    The trunk is pruned from rung to rung; the branch is its copy with shared values, of one rung.
    """

    def __init__(
        self,
        model: nn.Module,
        train_epoch: Callable[[nn.Module, Epoch], object],
        evaluate: Callable[[nn.Module], float],
        folder: Path,
        cycle: Cycle,
        say: Callable[[str], object],
    ) -> None:
        self._train_epoch, self._evaluate = train_epoch, evaluate
        self._folder, self._cycle, self._say = folder, cycle, say
        self._names = weight_names(model)
        self._trunk = copy.deepcopy(model)
        prune(self._trunk, names=self._names, ratio=0.0)
        self._branch: nn.Module | None = None
        self._done = 0  # epochs of the rung
        self._number = 0  # epochs of the cycle
        self._pruned_score = 0.0
        self._state: dict[str, Any] = {}
        self._log: list[dict[str, Any]] = []
        self.trials: list[Trial] = []

    def run_rung(self, rung: int) -> None:
        """Prune, recover, share and pack; from where the checkpoint has left it."""
        cycle = self._cycle
        before = 1.0 if rung == 0 else cycle.kept[rung - 1]
        factor = cycle.first if rung == 0 else 1
        on_trunk = factor * (cycle.prune_epochs + cycle.recovery_epochs)
        n_prunings = max(factor * cycle.prune_epochs, 1)
        for index in range(self._done, on_trunk):
            if index < n_prunings:
                kept = cubic(index + 1, 0, n_prunings, before, cycle.kept[rung])
                options: dict[str, Any] = {"seed": cycle.seed, **cycle.prune, "ratio": 1 - kept}
                prune(self._trunk, names=self._names, **options)
            self._train(self._trunk, rung, Epoch("prune", index, on_trunk, self._number, self._state))
        if self._branch is None:
            self._pruned_score = self._score(self._trunk)
            self._branch = self._shared_copy()
            self._state = {}
        for index in range(self._done - on_trunk, cycle.share_epochs):
            # The last epoch is for the values alone: codes that are chosen as late as that are not trained.
            if index == cycle.share_epochs - 1:
                freeze(self._branch)
            elif index:
                reassign(self._branch, rate=cycle.rate)
            self._train(
                self._branch, rung, Epoch("share", index, cycle.share_epochs, self._number, self._state)
            )
        self._end_rung(rung)

    def _train(self, model: nn.Module, rung: int, epoch: Epoch) -> None:
        torch.manual_seed((self._cycle.seed << 20) + epoch.number)
        model.train()
        self._train_epoch(model, epoch)
        self._done += 1
        self._number += 1
        score = self._score(model)
        line = {"epoch": epoch.number, "rung": rung, "phase": epoch.phase, "score": score}
        self._log.append(line)
        self._checkpoint()
        self._say(
            f"rung {rung + 1} of {len(self._cycle.kept)}, {epoch.phase} {epoch.index + 1} of {epoch.count}: "
            f"score {score:.6g}"
        )

    def _score(self, model: nn.Module) -> float:
        with evaluating(model), torch.no_grad():
            return float(self._evaluate(model))

    def _shared_copy(self) -> nn.Module:
        """The trunk with shared values; the same each time that it is called on the same trunk."""
        cycle = self._cycle
        branch = copy.deepcopy(self._trunk)
        share(branch, cycle.n_values, names=self._names, latent=True, rate=cycle.rate, seed=cycle.seed)
        if cycle.bias_values:
            others = [
                name
                for name, value in dict(self._trunk.named_parameters()).items()
                if name not in self._names and ".parametrizations." not in f".{name}"
                # Values of fewer bytes than there are in the tensor itself.
                if value.is_floating_point() and value.numel() > 2 * cycle.bias_values
            ]
            share(branch, cycle.bias_values, names=others, keep_zeros=False, latent=True, seed=cycle.seed)
        return branch

    def _end_rung(self, rung: int) -> None:
        assert self._branch is not None
        data, _ = packed(self._branch)
        kept = kept_shares(self._trunk, self._names)
        trial = Trial(
            kept=self._cycle.kept[rung],
            pruned_score=self._pruned_score,
            score=self._score(self._branch),
            pruned_nbytes=packed(self._trunk)[1].nbytes,
            nbytes=len(data),
            file=f"rung-{rung + 1}.cmpk",
            by_tensor=kept,
        )
        with atomic_file(self._folder / trial.file, overwrite=True) as file:
            file.write(memoryview(data))
        self.trials.append(trial)
        self._log.append({"rung": rung, **asdict(trial)})
        self._branch, self._done, self._state = None, 0, {}
        self._checkpoint()
        self._say(
            f"{trial.file}: {trial.kept:.3g} of the weights, {trial.nbytes} bytes, score {trial.score:.6g}"
        )

    def resume(self) -> None:
        """Take up what the checkpoint in the folder has, if there is one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / "checkpoint.pt"
        if not path.exists():
            return
        found = torch.load(path, weights_only=True)
        if found["cycle"] != self._identity():
            raise SourceError(
                f"{os.fspath(path)!r} is of another cycle or model: give another folder, or delete this one"
            )
        self._trunk.load_state_dict(found["trunk"])
        self._done, self._number, self._state = found["done"], found["number"], found["state"]
        self._log, self._pruned_score = found["log"], found["pruned_score"]
        self.trials += [Trial(**trial) for trial in found["trials"]]
        if found["branch"] is not None:
            self._branch = self._shared_copy()
            self._branch.load_state_dict(found["branch"])
        self._say(f"going on after epoch {self._number}")

    def _identity(self) -> str:
        cycle = asdict(self._cycle)
        shapes = {name: list(value.shape) for name, value in trained_state(self._trunk).items()}
        return json.dumps([cycle, shapes], sort_keys=True, default=list)

    def _checkpoint(self) -> None:
        """All or nothing: whoever is killed while it is written still has the one before it."""
        buffer = io.BytesIO()
        state = {
            "cycle": self._identity(),
            "trunk": self._trunk.state_dict(),
            "branch": None if self._branch is None else self._branch.state_dict(),
            "done": self._done,
            "number": self._number,
            "state": self._state,
            "pruned_score": self._pruned_score,
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
