"""Weights on a grid whose steps are trained."""

from __future__ import annotations

import io
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import cmpk.torch
from cmpk import train
from cmpk.encodings import Affine, RowGroups
from cmpk.errors import PassError, RecipeError, SourceError
from cmpk.passes.clipping import Grid, grid_of
from cmpk.passes.scales import Slices
from cmpk.train import Quantized

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 10)).to(dtype)


def train_a_little(model: nn.Module, steps: int = 5) -> None:
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        inputs = torch.randn(32, 40, generator=generator).to(dtype)
        nn.functional.cross_entropy(model(inputs), inputs[:, :10].argmax(1)).backward()
        optimizer.step()


def grid(scale: float, low: int, high: int) -> Grid:
    return Grid(np.array([scale], np.float32), None, low, high, "F32")


@given(st.integers(0, 1000), st.integers(2, 8), st.floats(0.01, 2.0))
def test_gradients_are_those_of_the_paper_on_learned_step_sizes(seed: int, bits: int, step: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, 7, generator=generator).requires_grad_()
    gradient = torch.randn(6, 7, generator=generator)
    limit = 2 ** (bits - 1) - 1
    quantized = Quantized(grid(step, -limit, limit), Slices((6, 7), -1, 0))
    quantized(weight).backward(gradient)
    expected, passed = 0.0, torch.zeros(6, 7)
    scale = np.float32(step)
    for w, g, into in zip(
        weight.flatten().tolist(), gradient.flatten().tolist(), passed.view(-1), strict=True
    ):
        ratio = float(np.float32(w) / scale)  # equation 3 and 5
        inside = -limit <= ratio <= limit
        slope = round(ratio) - ratio if inside else math.copysign(limit, ratio)
        expected += g * slope
        into.fill_(g if inside else 0)
    found = quantized.scale.grad
    assert found is not None
    torch.testing.assert_close(found, torch.tensor([expected / math.sqrt(limit * 42)]), rtol=1e-4, atol=1e-5)
    assert weight.grad is not None
    assert torch.equal(weight.grad, passed)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"bits": 4},
        {"bits": 3, "per": "tensor", "clip": "absmax"},
        {"bits": 8, "symmetric": False},
        {"bits": 4, "per": "group", "group_size": 12, "scale_dtype": "F16"},
        {"bits": 2, "learn": False, "scale_dtype": "BF16", "clip": "percentile", "percentile": 0.99},
    ],
    ids=str,
)
def test_packing_changes_no_value_and_stores_codes(dtype: torch.dtype, options: dict[str, object]) -> None:
    model = network(dtype)
    train.prune(model, ratio=0.3)
    train.quantize(model, **options)  # type: ignore[arg-type]
    train_a_little(model)
    data, _ = train.packed(model)
    with cmpk.open(data) as archive:
        assert archive.entry("0.weight").data.encoding in (Affine.id, RowGroups.id)
    found = cmpk.torch.load(data)
    for name, tensor in train.trained_state(model).items():
        assert torch.equal(found[name].view(torch.uint8), tensor.view(torch.uint8)), name
    model.eval()
    assert torch.equal(model[0].weight, found["0.weight"])
    assert not torch.signbit(model[0].weight[model[0].weight == 0]).any()


def test_a_fresh_process_predicts_what_the_trained_model_does(tmp_path: Path) -> None:
    model = network()
    train.quantize(model, bits=3)
    train.quantize_inputs(model, bits=4, n_observed=2)
    train_a_little(model)
    train.save(model, tmp_path / "model.cmpk")
    model.eval()
    inputs = torch.randn(200, 40)
    np.save(tmp_path / "inputs.npy", inputs.numpy())
    program = f"""
import numpy as np, torch, cmpk.torch
from torch import nn
from cmpk import train
def network():
    model = nn.Sequential(nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 10))
    train.quantize_inputs(model, bits=4, n_observed=2)
    return model
model = cmpk.torch.load_model(network, {str(tmp_path / "model.cmpk")!r}).eval()
inputs = torch.from_numpy(np.load({str(tmp_path / "inputs.npy")!r}))
np.save({str(tmp_path / "outputs.npy")!r}, model(inputs).detach().numpy())
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert np.load(tmp_path / "outputs.npy").tobytes() == model(inputs).detach().numpy().tobytes()


def test_training_moves_weights_and_steps_and_lowers_the_loss() -> None:
    model = network()
    train.quantize(model, bits=2)
    inputs = torch.randn(256, 40, generator=torch.Generator().manual_seed(0))
    labels = inputs[:, :10].argmax(1)
    before = {name: value.clone() for name, value in model.state_dict().items() if "extra" not in name}
    losses = []
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    after = model.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert "0.parametrizations.weight.0.scale" in moved
    assert "0.parametrizations.weight.original" in moved


def test_what_is_pruned_stays_zero_on_every_grid() -> None:
    for symmetric in (True, False):
        model = network()
        train.prune(model, ratio=0.6)
        train.quantize(model, bits=4, symmetric=symmetric)
        pruned = train.kept_shares(model)
        train_a_little(model)
        state = train.trained_state(model)
        for name, share in pruned.items():
            assert (state[name] == 0).double().mean() >= 1 - share - 1e-9


def test_a_second_call_gives_new_grids_to_the_same_parameters() -> None:
    model = network()
    train.quantize(model, bits=8)
    parameters = list(model.parameters())
    latent = model[0].parametrizations.weight.original.clone()
    train.quantize(model, bits=2)
    assert [id(each) for each in model.parameters()] == [id(each) for each in parameters]
    assert len(model[0].weight[0].unique()) <= 3
    assert torch.equal(model[0].parametrizations.weight.original, latent)
    expected = grid_of(latent.detach().numpy(), Slices((30, 40), 0, 0), 2, clip="mse")
    found = train.parametrizations_of(model, "0.weight", Quantized)[0]
    assert np.array_equal(found.scale.detach().numpy(), expected.scale)
    with pytest.raises(PassError, match="quantized already"):
        train.quantize(model, bits=2, per="tensor")


def test_the_state_dict_holds_everything_that_was_trained() -> None:
    model = network()
    train.quantize(model, bits=3, symmetric=False)
    train_a_little(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other = network()
    train.quantize(other, bits=8, symmetric=False)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert train.packed(other)[0] == train.packed(model)[0]


def test_a_run_can_be_repeated_to_the_byte() -> None:
    archives = []
    for _ in range(2):
        model = network()
        train.quantize(model, bits=4)
        train_a_little(model)
        archives.append(train.packed(model)[0])
    assert archives[0] == archives[1]


def test_rows_of_zeros_can_be_trained() -> None:
    model = network()
    with torch.no_grad():
        model[0].weight[3] = 0
    train.quantize(model, bits=4)
    assert not model[0].weight[3].any()
    with torch.no_grad():
        model[0].parametrizations.weight.original[3] = 0.1
    assert model[0].weight[3].all()


def test_a_model_that_has_diverged_is_stored_as_it_is() -> None:
    model = network()
    train.quantize(model, bits=4)
    with torch.no_grad():
        model[0].parametrizations.weight[0].scale.fill_(math.nan)
    found = cmpk.torch.load(train.packed(model)[0])
    assert found["0.weight"].isnan().all()


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(RecipeError, match="bits"):
        train.quantize(network(), bits=9)
    with pytest.raises(RecipeError, match="clip"):
        train.quantize(network(), clip="nothing")
    with pytest.raises(SourceError, match="no tensor"):
        train.quantize(network(), names=["7.weight"])
    broken = network()
    with torch.no_grad():
        broken[0].weight.fill_(math.inf)
    with pytest.raises(PassError, match="not finite"):
        train.quantize(broken)
