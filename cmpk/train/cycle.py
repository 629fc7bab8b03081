"""The whole cycle under a budget: prune, recover, share, pack, measure, and again."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final

from torch import nn

from cmpk.errors import PassError
from cmpk.sources import PathLike
from cmpk.train.masks import kept_shares, prune
from cmpk.train.parametrized import trained_state, weight_names
from cmpk.train.resumable import Attempt, Epoch, Result, Resumable, chosen_of, is_over
from cmpk.train.saving import packed
from cmpk.train.schedules import cubic
from cmpk.train.sharing import freeze, reassign, share

__all__ = ["Cycle", "Trial", "compress_to"]

KEPT: Final = tuple(round(0.2 * 0.7**k, 4) for k in range(10))
"""Shares of the weights that are kept, where nobody says which: each rung 30% fewer than the last."""


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
class Trial(Attempt):
    """What one rung came to; a line of the log. See `cmpk.train.resumable.Attempt` for what is not here.

    Attributes
    ----------
    pruned_score : float
        Before values were shared.
    pruned_nbytes : int
        Of a file of the pruned model alone.
    """

    pruned_score: float
    pruned_nbytes: int


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
) -> Result[Trial]:
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
        If the checkpoint in the folder is of another run.
    """
    cycle = cycle or Cycle()
    if not cycle.kept or list(cycle.kept) != sorted(set(cycle.kept), reverse=True) or cycle.kept[0] > 1:
        raise PassError(f"rungs are shares of the weights, descending, not {list(cycle.kept)}")
    if min(cycle.prune_epochs + cycle.recovery_epochs, cycle.first) < 1:
        raise PassError("a rung needs an epoch at least in which weights are pruned")
    work = _Work(model, train_epoch, evaluate, Path(folder), cycle, progress or (lambda _: None))
    within = None if budget is None else lambda trial: trial.nbytes <= budget
    work.resume()
    trials = work.trials
    for rung in range(len(trials), len(cycle.kept)):
        if trials and is_over(trials[-1], within, floor):
            break
        work.run_rung(rung)
    return chosen_of(trials, within, floor, Path(folder))


class _Work(Resumable[Trial]):
    """A cycle under way.

    The trunk is pruned from rung to rung; the branch is its copy with shared values, of one rung.
    """

    unit: ClassVar[str] = "rung"

    def __init__(
        self,
        model: nn.Module,
        train_epoch: Callable[[nn.Module, Epoch], object],
        evaluate: Callable[[nn.Module], float],
        folder: Path,
        cycle: Cycle,
        say: Callable[[str], object],
    ) -> None:
        super().__init__(Trial, train_epoch, evaluate, folder, cycle.seed, say)
        self._cycle, self._names = cycle, weight_names(model)
        self._trunk = copy.deepcopy(model)
        prune(self._trunk, names=self._names, ratio=0.0)
        self._branch: nn.Module | None = None
        self._pruned_score = 0.0

    def run_rung(self, rung: int) -> None:
        """Prune, recover, share and pack; from where the checkpoint has left it."""
        cycle = self._cycle
        before = 1.0 if rung == 0 else cycle.kept[rung - 1]
        factor = cycle.first if rung == 0 else 1
        on_trunk = factor * (cycle.prune_epochs + cycle.recovery_epochs)
        n_prunings = max(factor * cycle.prune_epochs, 1)
        for index in range(self.done, on_trunk):
            if index < n_prunings:
                kept = cubic(index + 1, 0, n_prunings, before, cycle.kept[rung])
                options: dict[str, Any] = {"seed": cycle.seed, **cycle.prune, "ratio": 1 - kept}
                prune(self._trunk, names=self._names, **options)
            self.train(self._trunk, Epoch("prune", index, on_trunk, self.number, self.state))
        if self._branch is None:
            self._pruned_score = self.score(self._trunk)
            self._branch = self._shared_copy()
            self.state = {}
        for index in range(self.done - on_trunk, cycle.share_epochs):
            # The last epoch is for the values alone: codes that are chosen as late as that are not trained.
            if index == cycle.share_epochs - 1:
                freeze(self._branch)
            elif index:
                reassign(self._branch, rate=cycle.rate)
            self.train(self._branch, Epoch("share", index, cycle.share_epochs, self.number, self.state))
        self._end_rung(rung)

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
        trial = Trial(
            kept=self._cycle.kept[rung],
            pruned_score=self._pruned_score,
            score=self.score(self._branch),
            pruned_nbytes=packed(self._trunk)[1].nbytes,
            nbytes=len(data),
            file=self.next_file,
            by_tensor=kept_shares(self._trunk, self._names),
        )
        self._branch = None
        self.end(trial, data)

    def identity(self) -> str:
        """See `Resumable`."""
        shapes = {name: list(value.shape) for name, value in trained_state(self._trunk).items()}
        return json.dumps([asdict(self._cycle), shapes], sort_keys=True, default=list)

    def models(self) -> dict[str, Any]:
        """See `Resumable`."""
        return {
            "trunk": self._trunk.state_dict(),
            "branch": None if self._branch is None else self._branch.state_dict(),
            "pruned_score": self._pruned_score,
        }

    def restore(self, found: dict[str, Any]) -> None:
        """See `Resumable`."""
        self._trunk.load_state_dict(found["trunk"])
        self._pruned_score = found["pruned_score"]
        if found["branch"] is not None:
            self._branch = self._shared_copy()
            self._branch.load_state_dict(found["branch"])
