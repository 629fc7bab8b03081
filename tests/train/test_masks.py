"""Weights that are pruned, and stay so while the others are trained."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import cmpk
from cmpk import train
from cmpk.errors import PassError, RecipeError, SourceError
from cmpk.passes.importance import METHODS
from cmpk.train import Mask

NAMES = ["0.weight", "2.weight"]


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))


def steps(model: nn.Module, n: int = 5) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    for _ in range(n):
        optimizer.zero_grad()
        model(torch.randn(16, 12)).square().mean().backward()
        optimizer.step()


def zeros(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: train.trained_state(model)[name] == 0 for name in NAMES}


def test_pruned_weights_stay_zero_through_optimizer_steps_and_the_others_move() -> None:
    model = network()
    train.prune(model, ratio=0.75)
    before, pruned = train.trained_state(model), zeros(model)
    steps(model)
    after = train.trained_state(model)
    for name in NAMES:
        assert torch.equal(pruned[name], zeros(model)[name])
        assert (after[name] != before[name])[~pruned[name]].all()
        assert not torch.signbit(after[name][pruned[name]]).any()


def test_an_optimizer_made_before_pruning_goes_on_with_it() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train.prune(model, ratio=0.5)
    before = train.trained_state(model)["0.weight"]
    model(torch.randn(4, 12)).sum().backward()
    optimizer.step()
    assert not torch.equal(before, train.trained_state(model)["0.weight"])


def test_a_ratio_is_met_exactly_in_every_tensor_or_over_all_of_them() -> None:
    model = network()
    shares = train.prune(model, ratio=0.75)
    assert shares == {"0.weight": 0.25, "2.weight": 0.25}
    model = network()
    with torch.no_grad():
        model[2].weight.mul_(100)
    assert train.prune(model, ratio=0.75, scope="global") == {"0.weight": 0.0, "2.weight": 1.0}


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_what_was_pruned_is_never_taken_back(scope: str) -> None:
    model = network()
    gone: dict[str, torch.Tensor] = {}
    for ratio in (0.2, 0.5, 0.5, 0.8, 0.9):
        train.prune(model, ratio=ratio, scope=scope)
        now = zeros(model)
        for name, mask in gone.items():
            assert now[name][mask].all()
        gone = now
        assert 128 * ratio - 2 < sum(int(mask.sum()) for mask in gone.values()) <= 128 * ratio
        steps(model, 2)


def test_each_run_of_neighbours_keeps_n_of_m() -> None:
    model = network()
    train.prune(model, n_of_m=[2, 4])
    for name in NAMES:
        runs = (train.trained_state(model)[name] != 0).reshape(-1, 4)
        assert (runs.sum(1) == 2).all()


def test_whole_rows_go_together() -> None:
    model = network()
    train.prune(model, ratio=0.5, structure="row", names=["0.weight"])
    rows = (train.trained_state(model)["0.weight"] != 0).double().mean(1)
    assert sorted(rows.tolist()) == [0.0] * 4 + [1.0] * 4


@pytest.mark.parametrize("method", METHODS)
def test_every_criterion_prunes_the_share_that_it_is_told_to(method: str) -> None:
    model = network()
    batches = [(torch.randn(8, 12),) for _ in range(3)]
    calibration = cmpk.calibrate(model, batches, loss=lambda output, _: output.square().mean())
    shares = train.prune(model, ratio=0.75, method=method, calibration=calibration)
    assert shares == {"0.weight": 0.25, "2.weight": 0.25}


def test_criteria_that_need_a_calibration_say_so() -> None:
    with pytest.raises(PassError, match="needs a calibration"):
        train.prune(network(), ratio=0.5, method="taylor")


def test_what_can_not_be_pruned_so_is_refused() -> None:
    with pytest.raises(PassError, match="can't be pruned"):
        train.prune(network(), n_of_m=[2, 5])
    with pytest.raises(RecipeError, match="give one of"):
        train.prune(network())
    with pytest.raises(PassError, match="goes with"):
        train.prune(network(), threshold=0.1, scope="global")
    with pytest.raises(SourceError, match="no tensor"):
        train.prune(network(), ratio=0.5, names=["3.weight"])


def test_of_quantized_weights_those_go_that_were_smallest_before_rounding() -> None:
    model = network()
    before = model[0].weight.detach().clone()
    train.prune(model, ratio=0.25, names=["0.weight"])
    train.quantize(model, names=["0.weight"], bits=2)
    assert (model[0].weight == 0).sum() > 24  # those that are masked, and more
    assert train.prune(model, ratio=0.5, names=["0.weight"]) == {"0.weight": 0.5}
    (mask,) = train.parametrizations_of(model, "0.weight", Mask)
    assert before[mask.mask].abs().min() > before[~mask.mask].abs().max()


def test_masks_are_part_of_the_state_dict() -> None:
    model, other = network(), network(1)
    train.prune(model, ratio=0.75)
    train.prune(other, ratio=0.0)
    other.load_state_dict(model.state_dict())
    for name, value in train.trained_state(model).items():
        assert value.numpy().tobytes() == train.trained_state(other)[name].numpy().tobytes()


def test_a_mask_makes_positive_zeros_of_whatever_it_hides() -> None:
    hidden = torch.tensor([-1.0, math.nan, math.inf, 2.0])
    made = Mask(torch.tensor([False, False, False, True]))(hidden)
    assert made.numpy().tobytes() == np.array([0, 0, 0, 2], "<f4").tobytes()


class TestSurgeon:
    @staticmethod
    def model_and_inputs() -> tuple[nn.Sequential, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(24, 10), nn.ReLU(), nn.Linear(10, 4))
        return model, torch.randn(400, 24) @ torch.randn(24, 24)

    def test_what_is_left_makes_up_for_what_is_gone(self) -> None:
        model, inputs = self.model_and_inputs()
        calibration = cmpk.calibrate(model, [inputs])
        errors = {}
        for method in ("magnitude", "activation", "surgeon"):
            pruned = copy.deepcopy(model)
            shares = train.prune(
                pruned, names=["0.weight"], ratio=0.5, method=method, calibration=calibration
            )
            assert shares == {"0.weight": 0.5}
            errors[method] = float((pruned[0](inputs) - model[0](inputs)).detach().square().mean())
        assert errors["surgeon"] < 0.5 * min(errors["magnitude"], errors["activation"])

    def test_further_pruning_starts_from_what_was_left(self) -> None:
        model, inputs = self.model_and_inputs()
        calibration = cmpk.calibrate(model, [inputs])
        at_once, by_steps = copy.deepcopy(model), copy.deepcopy(model)
        train.prune(at_once, ratio=0.5, method="surgeon", calibration=calibration)
        for ratio in (0.2, 0.4, 0.5):
            train.prune(by_steps, ratio=ratio, method="surgeon", calibration=calibration)
        assert (at_once[0].weight == 0).equal(by_steps[0].weight == 0)
        assert torch.allclose(at_once[0].weight, by_steps[0].weight, rtol=1e-3, atol=1e-5)

    def test_weights_that_share_values_cannot_make_up_for_others(self) -> None:
        model, inputs = self.model_and_inputs()
        calibration = cmpk.calibrate(model, [inputs])
        train.share(model, 8)
        with pytest.raises(PassError, match="prune before they are shared"):
            train.prune(model, ratio=0.5, method="surgeon", calibration=calibration)
