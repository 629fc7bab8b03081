"""Distillation: a model learns from what another, or several, make of the same inputs.

Losses of plain tensors, for any training loop. The student may be pruned, shared or quantized meanwhile: its
parametrizations see gradients like any others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from cmpk.errors import PassError, SourceError
from cmpk.train.parametrized import latent_tensors, trained_state

__all__ = [
    "Ensemble",
    "attention_loss",
    "copy_layers",
    "hidden_loss",
    "logit_loss",
    "soft_loss",
    "spaced_layers",
]


def soft_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 4.0) -> torch.Tensor:
    """How far the student's classes are from the teacher's, both softened by a temperature T.

    T² times the Kullback–Leibler divergence of ``softmax(student / T)`` from ``softmax(teacher / T)``, mean
    over the batch: gradients have the size of those of a cross entropy, whatever T is.

    Parameters
    ----------
    student, teacher : float tensor, shape (..., classes)
        Logits; no gradient goes to the teacher's.
    temperature : float
        Above 0.

    References
    ----------
    Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015, section 2.
    """
    n_classes = student.shape[-1]
    found = functional.log_softmax(student.reshape(-1, n_classes) / temperature, dim=-1)
    wanted = functional.log_softmax(teacher.detach().reshape(-1, n_classes) / temperature, dim=-1)
    divergence = functional.kl_div(found, wanted, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def logit_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The mean squared error of logits, less the mean of each sample's, which no class depends on.

    Parameters
    ----------
    student, teacher : float tensor, shape (..., classes)
        No gradient goes to the teacher's.

    References
    ----------
    Ba and Caruana, "Do deep nets really need to be deep?", NeurIPS 2014, section 2.2.
    """
    difference = student - teacher.detach()
    return (difference - difference.mean(-1, keepdim=True)).square().mean()


def hidden_loss(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """The mean squared error of hidden states, in units of the teacher's mean square.

    Parameters
    ----------
    student, teacher : float tensor, shape (batch, tokens, width), or the same for both
        No gradient goes to the teacher's. Where the widths differ, `Hints` has a projection between them.
    mask : bool tensor, shape (batch, tokens), optional
        False where there is nothing to compare.

    References
    ----------
    Romero et al., "FitNets: hints for thin deep nets", 2015, equation 3; Jiao et al., "TinyBERT", 2020,
    equation 8.
    """
    wanted = teacher.detach()
    if mask is not None:
        student, wanted = student[mask], wanted[mask]
    return (student - wanted).square().mean() / wanted.square().mean().clamp_min(1e-12)


def attention_loss(
    student: tuple[torch.Tensor, torch.Tensor],
    teacher: tuple[torch.Tensor, torch.Tensor],
    heads: tuple[int, int],
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """How far the student's attention is from the teacher's, mean over heads and tokens.

    The Kullback–Leibler divergence between the rows of ``softmax(query keyᵀ / sqrt(width of a head))``. With
    different numbers of heads, between the means over all heads.

    Parameters
    ----------
    student, teacher : pair of float tensors, shape (batch, tokens, width)
        Queries and keys; no gradient goes to the teacher's.
    heads : pair of int
        Of the student and of the teacher.
    mask : bool tensor, shape (batch, tokens), optional
        False for tokens that are none.

    References
    ----------
    Jiao et al., "TinyBERT", 2020, equation 7, and for the divergence Wang et al., "MiniLM", NeurIPS 2020,
    equation 3.
    """
    found = _attention(*student, heads[0], mask)
    wanted = _attention(teacher[0].detach(), teacher[1].detach(), heads[1], mask)
    if heads[0] != heads[1]:
        found, wanted = found.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
    # Where the teacher pays no attention there is nothing to lose.
    divergence = (torch.xlogy(wanted, wanted) - wanted * found.clamp_min(1e-12).log()).sum(-1)
    if mask is not None:
        divergence = divergence.transpose(1, 2)[mask]
    return divergence.mean()


def _attention(query: torch.Tensor, key: torch.Tensor, heads: int, mask: torch.Tensor | None) -> torch.Tensor:
    """Shape (batch, heads, tokens, tokens)."""
    query, key = (each.reshape(*each.shape[:2], heads, -1).transpose(1, 2) for each in (query, key))
    scores: torch.Tensor = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], -torch.inf)
    return scores.softmax(-1)


class Ensemble(nn.Module):
    """Several teachers as one.

    Parameters
    ----------
    teachers : sequence of torch.nn.Module
        Each gives logits for the same classes. They are set to evaluation.
    mean : str
        ``geometric``: of their predictions, that is the mean of their logits; ``arithmetic``: the logarithm
        of their mean predictions.

    References
    ----------
    Hinton, Vinyals and Dean, 2015, section 1: either mean of an ensemble's predictions will do as a target.
    """

    def __init__(
        self, teachers: Sequence[nn.Module], mean: Literal["geometric", "arithmetic"] = "geometric"
    ) -> None:
        super().__init__()
        if not teachers or mean not in ("geometric", "arithmetic"):
            raise PassError(f"an ensemble has teachers and a geometric or arithmetic mean, not {mean!r}")
        self.teachers, self.mean = nn.ModuleList(teachers), mean
        self.eval()

    @torch.no_grad()
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Their common logits; no gradients are kept."""
        logits = torch.stack([teacher(*inputs) for teacher in self.teachers])
        if self.mean == "geometric":
            return logits.mean(0)
        return logits.log_softmax(-1).logsumexp(0) - torch.tensor(float(len(logits))).log()


def spaced_layers(n_student: int, n_teacher: int) -> list[int]:
    """For each layer of a student the one of its teacher, counted from 0: evenly spaced, the last included.

    Jiao et al., "TinyBERT", 2020, section 4.1: layer m of the student learns from layer m · N / M.
    """
    if not 1 <= n_student <= n_teacher:
        raise PassError(f"a student of {n_student} layers has no layers of a teacher of {n_teacher}")
    return [(index + 1) * n_teacher // n_student - 1 for index in range(n_student)]


@torch.no_grad()
def copy_layers(student: nn.Module, teacher: nn.Module, layers: Mapping[str, str]) -> list[str]:
    """Parameter distillation: start a student with layers of its teacher.

    Parameters
    ----------
    student : torch.nn.Module
        Changed in place. Of a tensor with parametrizations, what they work on is set.
    teacher : torch.nn.Module
    layers : mapping of str to str
        Modules of the student, by name, and those of the teacher that they start as; ``""`` is all of it.

    Returns
    -------
    list of str
        The tensors of the student that were set.

    Raises
    ------
    PassError
        If a layer of the teacher has other tensors or shapes than that of the student.
    SourceError
        If there is no such layer.
    """
    done = []
    for own_name, name in layers.items():
        targets = latent_tensors(_layer(student, own_name))
        values = trained_state(_layer(teacher, name))
        if targets.keys() != values.keys() or any(
            targets[key].shape != value.shape for key, value in values.items()
        ):
            raise PassError(f"layer {own_name!r} of the student can't start as the teacher's {name!r}")
        for key, value in values.items():
            targets[key].copy_(value)
            done.append(f"{own_name}.{key}" if own_name else key)
    return done


def _layer(model: nn.Module, name: str) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError:
        raise SourceError(f"the model has no module {name!r}") from None
