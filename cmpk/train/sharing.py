"""Trained sharing: few values for many weights, and the values are what is trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from cmpk.errors import PassError
from cmpk.passes.kmeans import Nearest, cluster, points_of
from cmpk.passes.uniform import code_nbits
from cmpk.train.parametrized import attach, input_of, parametrizations_of, trained_state, weight_names

__all__ = ["Shared", "freeze", "reassign", "share"]

_MAX_ROUNDS: Final = 20
_MAX_VALUES: Final = 256
_CHUNK: Final = 1 << 18


class Shared(nn.Module):
    """A parametrization that gives each weight one of a few trained values.

    The gradient of a value is the sum of those of the weights that share it (Han et al., "Deep
    Compression", 2015). The weights themselves are not part of the result; with ``latent`` they get the
    gradient as if they were, so that `reassign` can give them to other values (Bengio et al. 2013 call
    that straight-through).

    Parameters
    ----------
    weight : float tensor
        What is clustered: the weight as the parametrizations before this one make it.
    n_values : int
        1 to 256.
    init : str
        One of `cmpk.passes.kmeans.INITS`.
    keep_zeros : bool
        Make one of the values zero, for good, and give the weights that are zero now to it.
    latent : bool
        Whether weights keep on moving below their values.
    rate : float
        See `reassign`.
    seed : int
        For ``init = "random"``.

    Attributes
    ----------
    centroids : float Parameter, shape (at most n_values,)
        Ascending at first; without the zero of ``keep_zeros``.
    codes : uint8 buffer, shape of the weight
        Index of each weight's value, 0 for the zero of ``keep_zeros``, whose values count from 1.
    """

    codes: torch.Tensor

    def __init__(
        self,
        weight: torch.Tensor,
        n_values: int,
        *,
        init: str = "optimal",
        keep_zeros: bool = True,
        latent: bool = False,
        rate: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        values = _numbers(weight)
        keep_zeros = keep_zeros and not values.all()
        if not 1 + keep_zeros <= n_values <= _MAX_VALUES or not np.isfinite(values).all() or not values.size:
            raise PassError(
                f"{values.size} weights can't share {n_values} values: they must be finite, and 1 to 256"
            )
        found = cluster(points_of([(values, None)], values.size), n_values, init, seed, keep_zeros)
        self.keep_zeros, self.latent = keep_zeros, latent
        self.centroids = nn.Parameter(torch.from_numpy(found[found != 0] if keep_zeros else found).to(weight))
        self.register_buffer("codes", torch.zeros(weight.shape, dtype=torch.uint8, device=weight.device))
        self.reassign(weight, rate)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The values that the weights share."""
        looked_up: torch.Tensor = _Lookup.apply(  # type: ignore[no-untyped-call]  # torch's
            weight if self.latent else None, self._table(), self.codes
        )
        return looked_up

    @torch.no_grad()
    def reassign(self, weight: torch.Tensor, rate: float = 0.0) -> int:
        """Give each weight the value of least squared error plus bits.

        Parameters
        ----------
        weight : float tensor
            The weights as they are now, in the shape of ``codes``.
        rate : float
            What a bit is worth, as a share of the weights' mean square: 0 for the nearest value. Bits are
            those of an ideal code for the values as they are used, zero included, so that weights go to
            what is frequent (entropy-constrained quantization, Chou et al. 1989).

        Returns
        -------
        int
            How many weights have got another value.
        """
        given, table = _numbers(weight), _numbers(self._table()).astype(np.float64)
        order = np.argsort(table, kind="stable")
        codes = order.astype(np.uint8)[Nearest(table[order], given.size)(given)]
        values = given.astype(np.float64) if rate else np.empty(0)
        price = rate * float(np.square(values).mean()) if rate else 0.0
        for _ in range(_MAX_ROUNDS if price else 0):
            used = np.bincount(codes, minlength=len(table))
            low, nbits = code_nbits(codes.astype(np.int32))
            lengths = np.full(len(table), nbits.max())
            lengths[low : low + len(nbits)] = nbits
            better = _assigned(values, table, np.where(used, price * lengths, np.inf))
            if np.array_equal(better, codes):
                break
            codes = better
        before = self.codes.reshape(-1).cpu().numpy()
        moved = int(np.count_nonzero(codes != before))
        self.codes.copy_(torch.from_numpy(codes).reshape(self.codes.shape))
        return moved

    def _table(self) -> torch.Tensor:
        if not self.keep_zeros:
            return self.centroids
        return torch.cat([self.centroids.new_zeros(1), self.centroids])


class _Lookup(torch.autograd.Function):
    """Values by their codes; gradients summed by code, and handed on as they are."""

    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor | None, table: torch.Tensor, codes: torch.Tensor
    ) -> torch.Tensor:
        """Look up; see the class."""
        ctx.save_for_backward(codes)
        ctx.size = len(table)
        return table[codes.int()]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None]:
        """Sum by code; see the class."""
        (codes,) = ctx.saved_tensors
        summed = None
        if ctx.needs_input_grad[1]:
            # In order, so that a run can be repeated; index_add_ on several threads is not.
            summed = torch.bincount(codes.reshape(-1), gradient.reshape(-1).float(), ctx.size).to(gradient)
        return gradient if ctx.needs_input_grad[0] else None, summed, None


def share(
    model: nn.Module,
    n_values: int,
    *,
    names: Iterable[str] | None = None,
    init: str = "optimal",
    keep_zeros: bool = True,
    latent: bool = False,
    rate: float = 0.0,
    seed: int = 0,
) -> None:
    """Let the weights of each tensor share values from now on.

    Parameters
    ----------
    model : torch.nn.Module
        Changed in place. The values are new parameters: make the optimizer afterwards.
    n_values, init, keep_zeros, latent, rate, seed
        See `Shared`. Tensors with fewer distinct values share as many as they have.
    names : iterable of str, optional
        By default the weights of linear layers and convolutions.

    Raises
    ------
    PassError
        If a tensor shares values already, or can't.
    SourceError
        If the model has no such tensor.
    """
    state = trained_state(model)
    for name in weight_names(model) if names is None else names:
        if parametrizations_of(model, name, Shared):
            raise PassError(f"{name!r} shares its values already")
        attach(
            model,
            name,
            Shared(
                state[name],
                n_values,
                init=init,
                keep_zeros=keep_zeros,
                latent=latent,
                rate=rate,
                seed=seed,
            ),
        )


def reassign(model: nn.Module, *, rate: float = 0.0) -> int:
    """Give all weights that share values, and have moved below them, the best ones anew.

    Parameters
    ----------
    model : torch.nn.Module
    rate : float
        See `Shared.reassign`.

    Returns
    -------
    int
        How many weights have got another value.
    """
    moved = 0
    for name in trained_state(model):
        for shared in parametrizations_of(model, name, Shared):
            if shared.latent:
                moved += shared.reassign(input_of(model, name, shared), rate)
    return moved


def freeze(model: nn.Module) -> None:
    """Let all weights stay with the values that they have; only the values are trained from now on.

    Below values that are about to settle weights still move, and would be given to others.
    """
    for module in model.modules():
        if isinstance(module, Shared):
            module.latent = False


def _numbers(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().reshape(-1).float().cpu().numpy()


def _assigned(
    values: NDArray[np.float64], table: NDArray[np.float64], costs: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """For each value the entry of least squared distance plus cost; the first of several."""
    codes = np.empty(len(values), np.uint8)
    for start in range(0, len(values), _CHUNK):
        distance = np.square(values[start : start + _CHUNK, None] - table) + costs
        codes[start : start + _CHUNK] = distance.argmin(1)
    return codes
