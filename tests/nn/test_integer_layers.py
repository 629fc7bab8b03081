"""Linear layers that multiply integers: near to dense ones, by a bound that is stated."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cmpk
import cmpk.nn
from cmpk.dtypes import TensorSpec
from cmpk.encodings import Affine
from cmpk.errors import CmpkError, SourceError
from cmpk.nn import IntegerLinear
from cmpk.recipe import PassUse, Recipe, Rule
from cmpk.torch import load_model
from tests.builders import archive, branch_of, tensor
from tests.nn.models import Image, Text, inputs, packed, seeded


def layers(tmp_path: Path, model: nn.Linear, **options: Any) -> tuple[nn.Linear, nn.Linear]:
    """A linear layer of 8-bit codes, dense and integer."""
    rules = (Rule((PassUse("round_int", {"bits": 8, **options}),), min_rank=2),)
    cmpk.torch.save_model(model, tmp_path / "m.cmpk", recipe=Recipe("codes", rules=rules))

    def factory() -> nn.Linear:
        return nn.Linear(model.in_features, model.out_features, model.bias is not None)

    dense = load_model(factory, tmp_path / "m.cmpk")
    integer = load_model(factory, tmp_path / "m.cmpk", resident="quantized", activations="int8")
    return dense, integer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("per", ["row", "tensor"])
@pytest.mark.parametrize("shape", [(1200, 300), (2, 3, 300), (300,), (0, 300)])
def test_outputs_are_off_by_no_more_than_the_rounding_of_tokens(
    tmp_path: Path, dtype: torch.dtype, bias: bool, per: str, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(1)
    dense, integer = layers(tmp_path, nn.Linear(300, 200, bias).to(dtype), per=per)
    assert isinstance(integer, IntegerLinear)
    assert torch.equal(integer.weight, dense.weight)
    x = (torch.randn(shape) * 3 + 1).to(dtype)
    exact = copy.deepcopy(dense).double().requires_grad_(False)
    found, expected = integer(x), exact(x.double())
    assert (found.shape, found.dtype) == (expected.shape, dtype)
    if not x.numel():
        return
    step = (x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True)).double() / 255
    bound = step / 2 * exact.weight.abs().sum(1)
    rounding = expected.abs() * 2 ** (-7 if dtype is torch.bfloat16 else -18)
    assert ((found.double() - expected).abs() <= bound * 1.01 + rounding + 1e-4).all()


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 1e30, 1e-40])
def test_tokens_of_one_value_are_exact(tmp_path: Path, value: float) -> None:
    dense, integer = layers(tmp_path, nn.Linear(300, 200, bias=False))
    x = torch.full((3, 300), value)
    with torch.inference_mode():
        torch.testing.assert_close(
            integer(x).double(), dense.double()(x.double()), rtol=1e-4, atol=abs(value) * 1e-4
        )


def test_zero_points_and_codes_of_any_offset_are_taken_into_account(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(0, 256, (200, 100), generator=generator, dtype=torch.int32)
    encoded = Affine().encode(
        codes.numpy(),
        TensorSpec("F32", (200, 100)),
        (torch.rand(200, generator=generator) + 0.1).numpy(),
        torch.randint(0, 256, (200,), generator=generator, dtype=torch.int32).numpy(),
        axis=0,
    )
    (tmp_path / "m.cmpk").write_bytes(
        archive([tensor("weight", "F32", [200, 100], branch_of("affine", encoded))])
    )
    dense = load_model(lambda: nn.Linear(100, 200, bias=False), tmp_path / "m.cmpk")
    integer = load_model(
        lambda: nn.Linear(100, 200, bias=False), tmp_path / "m.cmpk", resident="quantized", activations="int8"
    )
    assert isinstance(integer, IntegerLinear)
    assert torch.equal(integer.weight, dense.weight)
    x = torch.randn(50, 100, generator=generator)
    with torch.inference_mode():
        expected = dense(x)
        assert float((integer(x) - expected).norm() / expected.norm()) < 0.01


def test_only_linear_layers_whose_codes_are_bytes_multiply_integers(tmp_path: Path) -> None:
    model = load_model(
        Text, packed(tmp_path, seeded(Text), "int8"), resident="quantized", activations="int8"
    ).eval()
    found = {name for name, module in model.named_modules() if isinstance(module, IntegerLinear)}
    assert found == {"first", "second"}  # the head is the embedding, and attention reads its weights itself
    with torch.inference_mode():
        expected = load_model(Text, tmp_path / "int8.cmpk").eval()(inputs(Text))
        assert float((model(inputs(Text)) - expected).norm() / expected.norm()) < 0.02
    groups = load_model(
        Text, packed(tmp_path, seeded(Text), "int4"), resident="quantized", activations="int8"
    )
    assert not any(isinstance(module, IntegerLinear) for module in groups.modules())


RANGES = ["minmax", "percentile", "mse"]


def calibrated(tmp_path: Path, model: nn.Module, batches: list[torch.Tensor]) -> Path:
    """A file of 8-bit codes, and of the ranges of what linear layers were given."""
    recipe = Recipe("codes", rules=(Rule((PassUse("round_int", {"bits": 8}),), min_rank=2),))
    calibration = cmpk.calibrate(model, batches)
    cmpk.pack(model.state_dict(), tmp_path / "m.cmpk", recipe=recipe, calibration=calibration, force=True)
    return tmp_path / "m.cmpk"


@pytest.mark.parametrize("method", RANGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_ranges_of_calibration_bound_the_error_of_what_lies_within_and_clip_the_rest(
    tmp_path: Path, method: str, dtype: torch.dtype, bias: bool
) -> None:
    torch.manual_seed(2)
    x = (torch.randn(700, 300) * 3 + 1).to(dtype)
    path = calibrated(tmp_path, nn.Linear(300, 200, bias).to(dtype), [x])
    with cmpk.open(path) as archive:
        ranges = archive.entry("weight").input
        assert ranges is not None
        low, high = ranges.range(method)
    if method == "minmax":
        assert (low, high) == (float(x.min()), float(x.max()))
    dense = load_model(lambda: nn.Linear(300, 200, bias), path)
    integer = load_model(
        lambda: nn.Linear(300, 200, bias), path, resident="quantized", activations=f"int8-{method}"
    )
    exact = copy.deepcopy(dense).double().requires_grad_(False)
    with torch.inference_mode():
        for given in (x, x * 2, x[0], x[:0], x.reshape(7, 100, 300)):
            expected = exact(given.double().clamp(low, high))
            found = integer(given)
            assert (found.shape, found.dtype) == (expected.shape, dtype)
            bound = (high - low) / 510 * exact.weight.abs().sum(1) * 1.01
            rounding = expected.abs() * 2 ** (-7 if dtype is torch.bfloat16 else -18)
            assert ((found.double() - expected).abs() <= bound + rounding + 1e-4).all()


def test_layers_without_ranges_take_those_of_each_token(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 100))

    def factory() -> nn.Module:
        return nn.Sequential(nn.Linear(300, 200), nn.Linear(200, 100))

    # Only the first is calibrated, so that the second is as if the file had been packed without.
    first = nn.Sequential(model[0])
    recipe = Recipe("codes", rules=(Rule((PassUse("round_int", {"bits": 8}),), min_rank=2),))
    calibration = cmpk.calibrate(first, [torch.randn(50, 300)])
    cmpk.pack(model.state_dict(), tmp_path / "m.cmpk", recipe=recipe, calibration=calibration)
    static, dynamic = (
        load_model(factory, tmp_path / "m.cmpk", resident="quantized", activations=activations)
        for activations in ("int8-minmax", "int8")
    )
    x, y = torch.randn(50, 300), torch.randn(50, 200)
    with torch.inference_mode():
        assert not torch.equal(static[0](x), dynamic[0](x))
        assert torch.equal(static[1](y), dynamic[1](y))


class Twice(nn.Module):
    """Two layers that share a weight, and one after them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(128, 128, bias=False) for _ in range(3))
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.c(self.b(self.a(x) * 100))
        return out


def test_a_weight_of_several_layers_has_no_range_of_one_of_them(tmp_path: Path) -> None:
    torch.manual_seed(2)
    path = calibrated(tmp_path, Twice(), [torch.randn(50, 128)])
    static, dynamic = (
        load_model(Twice, path, resident="quantized", activations=activations)
        for activations in ("int8-mse", "int8")
    )
    x = torch.randn(50, 128) * 100
    with torch.inference_mode():
        assert torch.equal(static.b(x), dynamic.b(x))
        assert not torch.equal(static.c(x), dynamic.c(x))


def test_a_file_without_ranges_says_what_to_do(tmp_path: Path) -> None:
    path = packed(tmp_path, seeded(Text), "int8")
    with pytest.raises(SourceError, match="no ranges of the inputs of its linear layers; pack with a calib"):
        load_model(Text, path, resident="quantized", activations="int8-mse")


def test_it_refuses_and_allows_what_other_compressed_layers_do(tmp_path: Path) -> None:
    dense, integer = layers(tmp_path, nn.Linear(300, 200))
    assert torch.equal(integer.state_dict()["weight"], dense.weight)
    x = torch.randn(2, 300)
    assert torch.equal(copy.deepcopy(integer)(x), integer(x))
    with pytest.raises(CmpkError, match="no gradients flow through IntegerLinear"):
        integer(x.clone().requires_grad_())
    with pytest.raises(CmpkError, match="can't be pickled"):
        pickle.dumps(integer)
    with pytest.raises(CmpkError, match=r"stay torch\.float32"):
        integer.half()
    cmpk.nn.close(integer)
    with pytest.raises(CmpkError, match="has been closed"):
        integer(x)


@pytest.mark.parametrize(
    "options",
    [
        {"activations": "int4", "resident": "quantized"},
        {"activations": "int8"},
        {"activations": "int8-mse", "resident": "packed"},
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, options: dict[str, str]) -> None:
    path = packed(tmp_path, seeded(Image), "int8")
    for model in (Image, Image()):
        with pytest.raises(SourceError, match=r"or one of 'int8', .* with resident='quantized'"):
            load_model(model, path, **options)
