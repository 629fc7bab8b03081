"""Training and testing of image classifiers: the whole data set in memory, no loader."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from cmpk.train import soft_loss
from tools.repro.data import Images

__all__ = ["error_of", "fit", "logits_of", "train_epoch"]

TEMPERATURE = 1.0
"""At which a teacher's predictions are compared. A model of few weights, or of weights of few bits, can't say
all that its teacher does: it is to agree where classes meet. Higher ones were measured to be worse."""

_TEST_BATCH = 1000
_SHARE_OF_CENTROIDS = 0.1
"""Of the learning rate: a shared value moves all of its weights at once, and in the same direction."""


def train_epoch(
    model: nn.Module,
    images: Images,
    *,
    learning_rate: float,
    index: int,
    count: int,
    state: dict[str, Any],
    teacher: torch.Tensor | None = None,
    batch: int = 256,
    after_step: Callable[[float], object] | None = None,
) -> None:
    """One epoch of Adam, the learning rate falling by a cosine over several.

    Parameters
    ----------
    model : torch.nn.Module
    images : Images
    learning_rate : float
        At the first step of the first epoch.
    index, count : int
        Which of how many epochs.
    state : dict
        Kept from epoch to epoch: the optimizer's state.
    teacher : float tensor, shape (images, classes), optional
        Logits to learn from in place of the labels (Hinton et al. 2015).
    batch : int
    after_step : function, optional
        Called with the share of all epochs that is done.
    """
    groups: list[list[nn.Parameter]] = [[], []]
    for name, parameter in model.named_parameters():
        groups[name.endswith(".centroids")].append(parameter)
    optimizer = torch.optim.Adam([{"params": group, "share": 1.0} for group in groups if group], lr=1.0)
    if groups[1]:
        optimizer.param_groups[1]["share"] = _SHARE_OF_CENTROIDS
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
    order = torch.randperm(len(images.train))
    n_steps = len(order) // batch
    model.train()
    for step in range(n_steps):
        done = (index + step / n_steps) / count
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate * (1 + math.cos(math.pi * done)) / 2
        chosen = order[step * batch : (step + 1) * batch]
        outputs = model(_laid_out(images.train[chosen]))
        if teacher is None:
            loss = functional.cross_entropy(outputs, images.train_labels[chosen])
        else:
            loss = soft_loss(outputs, teacher[chosen], TEMPERATURE)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        optimizer.step()
        if after_step is not None:
            after_step(done)
    state["optimizer"] = optimizer.state_dict()


def fit(
    model: nn.Module,
    images: Images,
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    teacher: torch.Tensor | None = None,
    batch: int = 256,
) -> None:
    """Train for several epochs, on the labels or on a teacher's logits; see `train_epoch`."""
    state: dict[str, Any] = {}
    for index in range(epochs):
        torch.manual_seed((seed << 20) + index)
        train_epoch(
            model,
            images,
            learning_rate=learning_rate,
            index=index,
            count=epochs,
            state=state,
            teacher=teacher,
            batch=batch,
        )


def logits_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What a model says of images, in evaluation; shape (images, classes)."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = torch.cat([model(_laid_out(batch)) for batch in torch.split(images, _TEST_BATCH)])
    model.train(was_training)
    return logits


def error_of(model: nn.Module, images: Images) -> float:
    """Percent of the test images that a model takes for something else."""
    wrong = logits_of(model, images.test).argmax(1) != images.test_labels
    return 100 * float(wrong.double().mean())


def _laid_out(images: torch.Tensor) -> torch.Tensor:
    """The same, in the layout in which torch's convolutions of few channels take a third less time."""
    return images.to(memory_format=torch.channels_last)
