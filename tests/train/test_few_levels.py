"""Weights of two and three levels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import cmpk.torch
from cmpk import train
from cmpk.encodings import Affine
from cmpk.errors import PassError
from cmpk.passes.scales import Slices
from cmpk.train import Binary, Ternary


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 12)).to(dtype)


def test_binary_weights_are_signs_times_the_mean_magnitude_of_their_row() -> None:
    weight = torch.randn(5, 2, 3, 3)
    weight[0, 0, 0, 0] = 0
    made = Binary(Slices((5, 2, 3, 3), 0, 0))(weight)
    mean = weight.abs().mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(made, torch.where(weight < 0, -mean, mean))
    ones = Binary(Slices((5, 2, 3, 3), 0, 0), scaled=False)(weight)
    assert torch.equal(ones, torch.where(weight < 0, -1.0, 1.0))


def test_ternary_weights_keep_what_exceeds_the_threshold() -> None:
    weight = torch.randn(5, 40)
    made = Ternary(Slices((5, 40), 0, 0))(weight)
    for row, levels in zip(weight, made, strict=True):
        kept = row.abs() > 0.7 * row.abs().mean()
        torch.testing.assert_close(levels, torch.where(kept, row.sign() * row[kept].abs().mean(), 0.0))


@pytest.mark.parametrize("kind", [Binary, Ternary])
def test_gradients_go_straight_through_but_push_no_weight_beyond_the_clip(
    kind: type[Binary | Ternary],
) -> None:
    weight = torch.tensor([[0.5, 1.0, 1.5, -1.2, -1.2, 0.1]], requires_grad=True)
    gradient = torch.tensor([[3.0, -1.0, 2.0, 1.0, -1.0, -4.0]])
    kind(Slices((1, 6), 0, 0), 1.0)(weight).backward(gradient)
    assert weight.grad is not None
    # A step goes against the gradient: the second and the fourth would leave −1 .. 1 further behind.
    assert weight.grad.tolist() == [[3.0, 0.0, 2.0, 0.0, -1.0, -4.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("few", [train.binarize, train.ternarize])
def test_packing_takes_a_bit_or_two_and_changes_no_value(few: object, dtype: torch.dtype) -> None:
    assert callable(few)
    model = network(dtype)
    few(model)
    model(torch.randn(3, 2, 6, 6, dtype=dtype)).sum().backward()
    data, _ = train.packed(model)
    found = cmpk.torch.load(data)
    for name, tensor in train.trained_state(model).items():
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name
    with cmpk.open(data) as archive:
        assert archive.entry("2.weight").data.encoding == Affine.id
    assert len(data) < 1600


def test_masked_weights_are_zero_among_binary_ones_if_the_mask_comes_later() -> None:
    model = network()
    train.binarize(model)
    train.attach(model, "2.weight", train.Mask(torch.rand(12, 128) < 0.5))
    data, _ = train.packed(model)
    assert torch.equal(cmpk.torch.load(data)["2.weight"], model[2].weight)
    with cmpk.open(data) as archive:
        assert archive.entry("2.weight").data.encoding == Affine.id


def test_training_changes_signs() -> None:
    model = network()
    train.binarize(model)
    before = model[2].weight.detach() < 0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    inputs = torch.randn(64, 2, 6, 6)
    losses = []
    for _ in range(30):
        loss = nn.functional.cross_entropy(model(inputs), torch.arange(64) % 12)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert ((model[2].weight < 0) != before).float().mean() > 0.02
    assert losses[-1] < 0.8 * losses[0]


def test_few_levels_are_made_once() -> None:
    model = network()
    train.ternarize(model)
    with pytest.raises(PassError, match="few levels already"):
        train.binarize(model)
    with pytest.raises(PassError, match="per group"):
        train.binarize(network(), per="group")
