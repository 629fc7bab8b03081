"""Hints: hidden states and attention of a teacher, that a student is to have as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from cmpk.errors import PassError, SourceError
from cmpk.train.distillation import attention_loss, hidden_loss

__all__ = ["AttentionHint", "HiddenHint", "Hints"]


@dataclass(frozen=True, slots=True)
class HiddenHint:
    """The output of a module of the student is to be that of one of the teacher.

    Attributes
    ----------
    student, teacher : str
        Names of modules.
    weight : float
        In the loss.
    """

    student: str
    teacher: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class AttentionHint:
    """The student is to pay attention to the same tokens as the teacher.

    Attributes
    ----------
    student, teacher : pair of str
        Names of the modules that make queries and keys.
    heads : pair of int
        Of the student and of the teacher.
    weight : float
        In the loss.
    """

    student: tuple[str, str]
    teacher: tuple[str, str]
    heads: tuple[int, int]
    weight: float = 1.0


class Hints(nn.Module):
    """Watches a student and its teacher, and tells how far their insides are from each other.

    In a ``with`` statement it keeps what the named modules put out; after a step of both, `loss` compares.

    Hidden states of other widths go through a trained projection of the student's: linear, for images a
    convolution of 1 × 1 (Romero et al., "FitNets", 2015). Projections are parameters of this module and no
    part of the student. Images of other sizes are averaged to the smaller of both.

    Parameters
    ----------
    student, teacher : torch.nn.Module
    hints : sequence of HiddenHint and AttentionHint
    *inputs
        What both take, to find out the widths.

    Raises
    ------
    PassError
        If two hidden states have nothing in common.
    SourceError
        If a model has no such module.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        hints: Sequence[HiddenHint | AttentionHint],
        *inputs: torch.Tensor,
    ) -> None:
        super().__init__()
        self._hints = tuple(hints)
        # In a tuple, so that they do not become modules of this one.
        self._models = (student, teacher)
        self._seen: tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]] = ({}, {})
        self._handles: list[RemovableHandle] = []
        self.projections = nn.ModuleDict()
        with self, torch.no_grad():
            student(*inputs)
            teacher(*inputs)
            for index, hint in enumerate(self._hints):
                if isinstance(hint, HiddenHint):
                    projection = _projection(hint, *self._pair(hint))
                    if projection is not None:
                        self.projections[str(index)] = projection

    def __enter__(self) -> Hints:
        for side, model in enumerate(self._models):
            for name in self._names(side):
                try:
                    module = model.get_submodule(name)
                except AttributeError:
                    self._stop()
                    raise SourceError(f"the model has no module {name!r}") from None
                self._handles.append(module.register_forward_hook(self._keeping(side, name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def loss(self, mask: torch.Tensor | None = None) -> torch.Tensor:
        """The sum of all hints' losses times their weights, of what both models did last.

        Parameters
        ----------
        mask : bool tensor, shape (batch, tokens), optional
            False for tokens that are none.

        Raises
        ------
        PassError
            If one of them has done nothing since the ``with`` began.
        """
        losses = []
        for index, hint in enumerate(self._hints):
            if isinstance(hint, AttentionHint):
                own, others = (
                    (self._output(side, query), self._output(side, key))
                    for side, (query, key) in enumerate((hint.student, hint.teacher))
                )
                losses.append(hint.weight * attention_loss(own, others, hint.heads, mask))
            else:
                found, wanted = self._pair(hint)
                if str(index) in self.projections:
                    found = self.projections[str(index)](found)
                losses.append(hint.weight * hidden_loss(*_same_size(found, wanted), mask))
        return torch.stack(losses).sum()

    def _names(self, side: int) -> list[str]:
        names: list[str] = []
        for hint in self._hints:
            chosen = (hint.student, hint.teacher)[side]
            names += [chosen] if isinstance(chosen, str) else chosen
        return list(dict.fromkeys(names))

    def _keeping(self, side: int, name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._seen[side][name] = output[0] if isinstance(output, tuple) else output

        return keep

    def _pair(self, hint: HiddenHint) -> tuple[torch.Tensor, torch.Tensor]:
        return self._output(0, hint.student), self._output(1, hint.teacher)

    def _output(self, side: int, name: str) -> torch.Tensor:
        try:
            return self._seen[side][name]
        except KeyError:
            who = ("student", "teacher")[side]
            raise PassError(
                f"module {name!r} of the {who} has put out nothing while it was watched"
            ) from None

    def _stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for seen in self._seen:
            seen.clear()


def _projection(hint: HiddenHint, found: torch.Tensor, wanted: torch.Tensor) -> nn.Module | None:
    """What makes the student's hidden state as wide as the teacher's; None if it is."""
    is_image = found.dim() == 4
    axis = 1 if is_image else -1
    if found.dim() != wanted.dim() or (not is_image and found.shape[:-1] != wanted.shape[:-1]):
        raise PassError(
            f"{hint.student!r} puts out {tuple(found.shape)}, {hint.teacher!r} {tuple(wanted.shape)}: "
            "they can differ in width, and images in size"
        )
    width, wanted_width = found.shape[axis], wanted.shape[axis]
    if width == wanted_width:
        return None
    made = nn.Conv2d(width, wanted_width, 1) if is_image else nn.Linear(width, wanted_width)
    return made.to(found)


def _same_size(found: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if found.dim() != 4 or found.shape[2:] == wanted.shape[2:]:
        return found, wanted
    size = (min(found.shape[2], wanted.shape[2]), min(found.shape[3], wanted.shape[3]))
    return functional.adaptive_avg_pool2d(found, size), functional.adaptive_avg_pool2d(wanted, size)
