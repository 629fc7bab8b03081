"""Few values for many weights, trained."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cmpk import train
from cmpk.errors import PassError
from cmpk.passes.kmeans import INITS
from cmpk.train import Shared


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


@given(st.integers(0, 1000), st.integers(2, 9), st.booleans())
def test_the_gradient_of_a_value_is_the_sum_over_the_weights_that_share_it(
    seed: int, n_values: int, latent: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(7, 5, generator=generator) * (torch.rand(7, 5, generator=generator) < 0.6)
    gradient = torch.randn(7, 5, generator=generator)
    shared = Shared(weight, n_values, latent=latent)
    given = weight.clone().requires_grad_()
    shared(given).backward(gradient)
    offset = int(shared.keep_zeros)
    expected = [gradient[shared.codes == code + offset].sum() for code in range(len(shared.centroids))]
    torch.testing.assert_close(shared.centroids.grad, torch.stack(expected))
    assert (given.grad is None) == (not latent)
    if latent:
        assert given.grad is not None
        assert torch.equal(given.grad, gradient)


@pytest.mark.parametrize("init", INITS)
def test_every_start_gives_each_weight_its_nearest_value(init: str) -> None:
    weight = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    shared = Shared(weight, 8, init=init)
    made = shared(weight)
    nearest = (weight[..., None] - shared.centroids).abs().min(-1).values
    torch.testing.assert_close((weight - made).abs(), nearest)
    assert len(made.unique()) <= 8


def test_zeros_stay_zero_whatever_is_trained() -> None:
    model = network()
    train.prune(model, ratio=0.5)
    train.share(model, 4)
    pruned = train.trained_state(model)["0.weight"] == 0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(16, 12)).square().mean().backward()
        optimizer.step()
    weight = train.trained_state(model)["0.weight"]
    assert torch.equal(weight == 0, pruned)
    assert len(weight.unique()) <= 4


def test_frozen_codes_stay_and_latent_weights_are_given_to_other_values() -> None:
    for latent in (False, True):
        model = network()
        train.share(model, 4, latent=latent)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.shape == (8, 12):
                    parameter.copy_(parameter.flip(0))
        before = train.trained_state(model)["0.weight"]
        assert (train.reassign(model) > 0) == latent
        moved = train.trained_state(model)["0.weight"]
        assert torch.equal(before, moved) == (not latent)
        train.freeze(model)
        assert train.reassign(model) == 0


def test_a_price_on_bits_makes_codes_cheaper_and_costs_distance() -> None:
    weight = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    sizes, errors = [], []
    for rate in (0.0, 0.003, 0.03):
        shared = Shared(weight, 16, rate=rate)
        shares = shared.codes.reshape(-1).bincount().double() / weight.numel()
        sizes.append(float(-(shares * shares.clamp(min=1e-9).log2()).sum()))
        errors.append(float((shared(weight) - weight).square().mean().detach()))
    assert sizes[0] > sizes[1] > sizes[2]
    assert errors[0] < errors[1] < errors[2]


def test_shared_values_are_part_of_the_state_dict() -> None:
    model, other = network(), network()
    train.share(model, 4)
    train.share(other, 4, init="linear")
    other.load_state_dict(model.state_dict())
    for name, value in train.trained_state(model).items():
        assert torch.equal(value, train.trained_state(other)[name])


def test_what_can_not_be_shared_is_refused() -> None:
    model = network()
    with pytest.raises(PassError, match="can't share 257 values"):
        train.share(model, 257)
    train.share(model, 4)
    with pytest.raises(PassError, match="already"):
        train.share(model, 4)
    with pytest.raises(PassError, match="finite"):
        Shared(torch.tensor([1.0, float("nan")]), 2)
