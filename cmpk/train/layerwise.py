"""Quantize and prune by layer: each step where it costs the least score for what it saves, then recover."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from cmpk.errors import PassError
from cmpk.sources import PathLike
from cmpk.train.fake_quantize import quantize
from cmpk.train.masks import Mask, kept_shares, prune
from cmpk.train.parametrized import parametrizations_of, trained_state, weight_names
from cmpk.train.resumable import Attempt, Epoch, Result, Resumable, chosen_of, is_over
from cmpk.train.saving import packed

__all__ = ["ByLayer", "Step", "compress_by_layer"]


@dataclass(frozen=True, slots=True)
class ByLayer:
    """What a step does to a layer.

    Attributes
    ----------
    share : float
        Of the weights that the layer has left, so many are pruned; below 1, and 0 to quantize alone.
    bits : sequence of int
        Width of the weights after a layer's first step, its second, and so on; the last one stays. Empty to
        prune alone.
    recovery_epochs : int
        That are trained after each step.
    names : sequence of str, optional
        The tensors that steps are taken on, by default the weights of linear layers and convolutions.
    prune : mapping
        Further options of `cmpk.train.prune`: ``{"structure": "row"}`` for whole neurons and channels, which
        stay in the module as rows of zeros.
    quantize : mapping
        Further options of `cmpk.train.quantize`, such as ``per``.
    seed : int
    """

    share: float = 0.3
    bits: Sequence[int] = (8, 6, 4)
    recovery_epochs: int = 1
    names: Sequence[str] | None = None
    prune: Mapping[str, object] = field(default_factory=dict)
    quantize: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0

    def bits_after(self, n_steps: int) -> int | None:
        """Width of a layer's weights after so many steps on it; None if they are not quantized."""
        return self.bits[min(n_steps, len(self.bits)) - 1] if self.bits and n_steps else None


@dataclass(frozen=True, slots=True)
class Step(Attempt):
    """What one step came to; a line of the log. See `cmpk.train.resumable.Attempt` for what is not here.

    Attributes
    ----------
    layer : str
        Name of the tensor that was pruned and quantized.
    bits : int or None
        Width of its weights.
    n_parameters : int
        That the model keeps: all but those that are masked.
    costs : dict of str to float
        What a step on each of the layers would have cost: score lost before recovery, for each parameter, or
        byte, that it saves.
    """

    layer: str
    bits: int | None
    n_parameters: int
    costs: dict[str, float]


def compress_by_layer(
    model: nn.Module,
    train_epoch: Callable[[nn.Module, Epoch], object],
    evaluate: Callable[[nn.Module], float],
    folder: PathLike,
    *,
    parameters: int | None = None,
    nbytes: int | None = None,
    floor: float | None = None,
    measure: Callable[[nn.Module], float] | None = None,
    plan: ByLayer | None = None,
    progress: Callable[[str], object] | None = None,
) -> Result[Step]:
    """Prune and quantize a trained model, layer by layer, until it is small enough.

    Each step is tried on a copy for every layer; it is taken where it costs the least score for what it
    saves, and then the whole model is trained to recover. What is saved are parameters, until their budget
    is met, and then bytes of the whole file. Every step makes a file. After every epoch there is a
    checkpoint: a run that was killed goes on when it is called again with the same arguments, and comes to
    the same files if training is deterministic. ``folder`` gets the files, ``log.jsonl`` with a line for
    each epoch and each step, and ``plot.svg``, score against size.

    Parameters
    ----------
    model : torch.nn.Module
        Trained; left as it is.
    train_epoch : function
        Trains a module for an epoch, in place, in any way; see `Epoch`.
    evaluate : function
        The score of a module, the larger the better.
    folder : path
        Made if it does not exist.
    parameters : int, optional
        How many the model may keep, biases and all; single weights are pruned to exactly so many.
    nbytes : int, optional
        Of the whole file.
    floor : float, optional
        Steps end when the score after recovery is below.
    measure : function, optional
        Another score, that steps are compared by: a loss on a few inputs is quicker than ``evaluate`` and
        tells layers apart that cost no right answers yet.
    plan : ByLayer, optional
    progress : function, optional
        Called with a line of text, now and then.

    Returns
    -------
    Result
        One step at least; ``chosen`` is None if the floor or the last possible step came before the budget.

    Raises
    ------
    PassError
        If there is no budget and no floor, the plan's share is none, or a tensor can't be pruned so.
    SourceError
        If the checkpoint in the folder is of another run, or the model has no tensor that the plan names.
    """
    plan = plan or ByLayer()
    if parameters is nbytes is floor is None:
        raise PassError("give a budget, of parameters or nbytes, or a floor: else steps would not end")
    if not 0 <= plan.share < 1:
        raise PassError(f"a step prunes a share of 0 to below 1, not {plan.share}")

    def within(step: Step) -> bool:
        few = parameters is None or step.n_parameters <= parameters
        return few and (nbytes is None or step.nbytes <= nbytes)

    has_budget = parameters is not None or nbytes is not None
    work = _Work(
        model, train_epoch, evaluate, Path(folder), plan, progress or (lambda _: None), parameters, measure
    )
    work.resume()
    while not (work.trials and is_over(work.trials[-1], within if has_budget else None, floor)):
        if not work.run_step():
            break
    return chosen_of(work.trials, within if has_budget else None, floor, Path(folder))


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The step that is being recovered from."""

    layer: str
    costs: dict[str, float]


class _Work(Resumable[Step]):
    """Steps under way."""

    unit: ClassVar[str] = "step"

    def __init__(
        self,
        model: nn.Module,
        train_epoch: Callable[[nn.Module, Epoch], object],
        evaluate: Callable[[nn.Module], float],
        folder: Path,
        plan: ByLayer,
        say: Callable[[str], object],
        parameters: int | None,
        measure: Callable[[nn.Module], float] | None,
    ) -> None:
        super().__init__(Step, train_epoch, evaluate, folder, plan.seed, say)
        self._plan, self._parameters, self._measure = plan, parameters, measure
        self._names = weight_names(model) if plan.names is None else list(plan.names)
        self._n_parameters = sum(parameter.numel() for parameter in model.parameters())
        self._model = copy.deepcopy(model)
        prune(self._model, names=self._names, ratio=0.0)
        self._chosen: _Chosen | None = None

    def run_step(self) -> bool:
        """Choose a layer, prune, quantize, recover and pack; False if no step would save anything."""
        if self._chosen is None:
            self._choose()
        if self._chosen is None:
            return False
        count, score = self._plan.recovery_epochs, None
        for index in range(self.done, count):
            score = self.train(self._model, Epoch("recover", index, count, self.number, self.state))
        data, _ = packed(self._model)
        step = Step(
            kept=self._n_kept(self._model) / self._n_parameters,
            score=self.score(self._model) if score is None else score,
            nbytes=len(data),
            file=self.next_file,
            by_tensor=kept_shares(self._model, self._names),
            layer=self._chosen.layer,
            bits=self._plan.bits_after(self._n_steps(self._chosen.layer) + 1),
            n_parameters=self._n_kept(self._model),
            costs=self._chosen.costs,
        )
        self._chosen = None
        self.end(step, data)
        return True

    def _choose(self) -> None:
        """Try a step on each layer, and take the one that costs least; of equal ones what saves most."""
        counted = self._parameters is not None and self._n_kept(self._model) > self._parameters
        size = self._n_kept if counted else _packed_nbytes
        before, full = self.score(self._model, self._measure), size(self._model)
        costs: dict[str, float] = {}
        best: tuple[tuple[float, int], str, nn.Module] | None = None
        for name in self._names:
            tried = copy.deepcopy(self._model)
            self._take(tried, name)
            saved = full - size(tried)
            lost = before - self.score(tried, self._measure) if saved > 0 else math.nan
            if math.isnan(lost):
                continue
            costs[name] = max(lost, 0.0) / saved
            if best is None or (costs[name], -saved) < best[0]:
                best = (costs[name], -saved), name, tried
        if best is not None:
            self._model, self._chosen = best[2], _Chosen(best[1], costs)

    def _take(self, model: nn.Module, name: str) -> None:
        """A step on a layer, without recovery."""
        plan, n_steps = self._plan, self._n_steps(name)
        mask = parametrizations_of(model, name, Mask)[0].mask
        kept = int(mask.sum())
        gone = int(plan.share * kept)
        over = 0 if self._parameters is None else self._n_kept(model) - self._parameters
        if over > 0 and plan.prune.get("structure", "element") == "element":
            gone = min(gone, over)
        if gone:
            # Half a weight more, since the share is rounded down.
            ratio = (mask.numel() - kept + gone + 0.5) / mask.numel()
            options: dict[str, Any] = {"seed": plan.seed, **plan.prune, "ratio": ratio}
            prune(model, names=[name], **options)
        if plan.bits_after(n_steps + 1) != plan.bits_after(n_steps):
            self._quantize(model, name, n_steps + 1)

    def _quantize(self, model: nn.Module, name: str, n_steps: int) -> None:
        options: dict[str, Any] = {**self._plan.quantize, "bits": self._plan.bits_after(n_steps)}
        quantize(model, names=[name], **options)

    def _n_steps(self, name: str) -> int:
        return sum(step.layer == name for step in self.trials)

    def _n_kept(self, model: nn.Module) -> int:
        masks = [parametrizations_of(model, name, Mask)[0].mask for name in self._names]
        return self._n_parameters - sum(int((~mask).sum()) for mask in masks)

    def identity(self) -> str:
        """See `Resumable`."""
        shapes = {name: list(value.shape) for name, value in trained_state(self._model).items()}
        return json.dumps(["by layer", asdict(self._plan), shapes], sort_keys=True, default=list)

    def models(self) -> dict[str, Any]:
        """See `Resumable`."""
        return {
            "model": self._model.state_dict(),
            "chosen": None if self._chosen is None else asdict(self._chosen),
        }

    def restore(self, found: dict[str, Any]) -> None:
        """See `Resumable`."""
        self._chosen = None if found["chosen"] is None else _Chosen(**found["chosen"])
        touched = {step.layer for step in self.trials} | ({self._chosen.layer} if self._chosen else set())
        for name in self._names:
            if self._plan.bits and name in touched:
                self._quantize(self._model, name, 1)
        self._model.load_state_dict(found["model"])


def _packed_nbytes(model: nn.Module) -> int:
    return packed(model)[1].nbytes
