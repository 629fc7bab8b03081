from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

from cmpk.calibration import Calibration, TensorStatistics, calibrate, load_calibration
from cmpk.errors import DestinationError, SourceError


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def moment_of(rows: torch.Tensor) -> np.ndarray[Any, Any]:
    return (rows.T @ rows / len(rows)).numpy()


class Conv1D(nn.Module):
    """As in transformers: a linear layer whose weight is (in, out)."""

    def __init__(self, n_out: int, n_in: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(seeded(n_in, n_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight


def test_a_linear_layer_keeps_the_second_moment_of_its_input() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    batches = [seeded(3, 5, 6), seeded(2, 5, 6, seed=1)]
    found = calibrate(model, batches)
    x = torch.cat([batch.reshape(-1, 6) for batch in batches])
    with torch.no_grad():
        hidden = model[1](model[0](x))
    assert sorted(found.tensors) == ["0.weight", "2.weight"]
    for name, rows in (("0.weight", x), ("2.weight", hidden)):
        seen = found.tensors[name]
        assert (seen.kind, seen.count, seen.gradient_squares) == ("linear", 25, None)
        np.testing.assert_allclose(seen.second_moment, moment_of(rows), rtol=1e-5, atol=1e-6)


def test_a_linear_layer_keeps_the_ranges_of_its_input() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    batches = [seeded(3, 5, 6), seeded(2, 5, 6, seed=1)]
    found = calibrate(model, batches).tensors
    x = torch.cat([batch.reshape(-1) for batch in batches])
    first, last = found["0.weight"].input_ranges, found["2.weight"].input_ranges
    assert first is not None
    assert last is not None
    assert first[0].tolist() == [float(x.min()), float(x.max())]
    assert last[:, 0].tolist() == [0, 0, 0]
    assert calibrate(nn.Embedding(5, 3), [torch.tensor([1])]).tensors["weight"].input_ranges is None


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "circular"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda **how: nn.Conv1d(6, 4, 3, padding=2, dilation=2, **how), (2, 6, 11)),
        (lambda **how: nn.Conv2d(6, 4, (3, 2), stride=2, padding=1, **how), (2, 6, 7, 8)),
        (lambda **how: nn.Conv2d(6, 4, 3, groups=2, padding="same", **how), (2, 6, 5, 5)),
        (lambda **how: nn.Conv3d(6, 4, 2, groups=2, padding=1, **how), (2, 6, 3, 4, 5)),
    ],
    ids=["dilated", "strided", "grouped", "volume"],
)
def test_a_convolution_keeps_the_second_moment_of_what_its_kernel_meets(
    make: Callable[..., Any], shape: tuple[int, ...], padding_mode: str
) -> None:
    layer = make(padding_mode=padding_mode, bias=False)
    x = seeded(*shape)
    seen = calibrate(layer, [x]).tensors["weight"]
    weight = layer.weight.detach().reshape(4, -1)
    with torch.no_grad():
        output = layer(x).movedim(1, 0).reshape(4, -1)
    # Mean squares of all outputs together are those of the kernels in the mean over the groups, where
    # all groups have the same kernels.
    assert seen.kind == "conv"
    assert seen.second_moment.shape == (weight.shape[1], weight.shape[1])
    if layer.groups == 1:
        energy = np.einsum("oi,ij,oj->o", weight.numpy(), seen.second_moment, weight.numpy())
        np.testing.assert_allclose(energy, output.square().mean(1).numpy(), rtol=1e-4)
    else:
        with torch.no_grad():
            layer.weight[2:] = layer.weight[:2]
            both = layer(x).movedim(1, 0).reshape(2, 2, -1).square().mean((0, 2)).numpy()
        energy = np.einsum("oi,ij,oj->o", weight[:2].numpy(), seen.second_moment, weight[:2].numpy())
        np.testing.assert_allclose(energy, both, rtol=1e-4)


def test_an_unbatched_image_counts_as_one_sample() -> None:
    layer = nn.Conv2d(3, 2, 3)
    image = seeded(3, 6, 6)
    one, batch = calibrate(layer, [image]), calibrate(layer, [image[None]])
    assert one.sha256 == batch.sha256


def test_a_transposed_linear_layer_is_watched_too() -> None:
    x = seeded(7, 5)
    seen = calibrate(Conv1D(3, 5), [x]).tensors["weight"]
    assert seen.kind == "conv1d"
    np.testing.assert_allclose(seen.second_moment, moment_of(x), rtol=1e-5, atol=1e-6)


def heads_of(layer: nn.MultiheadAttention, *inputs: torch.Tensor) -> torch.Tensor:
    """What all heads of unmasked attention without biases together give, by the formula."""
    if layer.in_proj_weight is None:
        weights = [layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight]
    else:
        weights = list(layer.in_proj_weight.chunk(3))
    with torch.no_grad():
        projected = [x @ weight.T for x, weight in zip(inputs, weights, strict=True)]
        q, k, v = (x.unflatten(-1, (layer.num_heads, -1)).movedim(-2, 1) for x in projected)
        shares = (q @ k.mT / layer.head_dim**0.5).softmax(-1)
        return (shares @ v).movedim(1, -2).flatten(-2)


@pytest.mark.parametrize("by_name", [False, True], ids=["by position", "by name"])
@pytest.mark.parametrize("widths", [{}, {"kdim": 6, "vdim": 10}], ids=["one weight", "three weights"])
def test_attention_keeps_the_second_moments_of_its_inputs_and_of_its_heads(
    widths: dict[str, int], by_name: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, bias=False, batch_first=True, **widths)
    inputs = seeded(3, 4, 8), seeded(3, 5, layer.kdim, seed=1), seeded(3, 5, layer.vdim, seed=2)
    batch: Any = dict(zip(("query", "key", "value"), inputs, strict=True)) if by_name else inputs
    found = calibrate(layer, [batch])
    query, key, value = (x.flatten(0, 1) for x in inputs)
    expected = {"out_proj.weight": heads_of(layer, *inputs).flatten(0, 1)}
    if widths:
        expected |= {"q_proj_weight": query, "k_proj_weight": key, "v_proj_weight": value}
    else:
        expected |= {"in_proj_weight": torch.cat([query, key, value])}
    assert sorted(found.tensors) == sorted(expected)
    for name, rows in expected.items():
        seen = found.tensors[name]
        assert (seen.kind, seen.count) == ("linear", len(rows))
        np.testing.assert_allclose(seen.second_moment, moment_of(rows), rtol=1e-5, atol=1e-6)


def test_attention_to_itself_and_to_others_weighs_each_input_alike() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    x, memory = seeded(3, 4, 8), seeded(3, 5, 8, seed=1)
    seen = calibrate(layer, [(x, x, x), (x, memory, memory)]).tensors["in_proj_weight"]
    rows = torch.cat([each.flatten(0, 1) for each in (x, x, x, x, memory, memory)])
    assert seen.count == len(rows)
    np.testing.assert_allclose(seen.second_moment, moment_of(rows), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("enabled", [True, False])
def test_an_encoder_is_watched_where_torch_would_fuse_it(enabled: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2).eval()
    x = seeded(2, 5, 8)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        found = calibrate(model, [(x, None, padding)])
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    weights = ("linear1.weight", "linear2.weight", "self_attn.in_proj_weight", "self_attn.out_proj.weight")
    assert sorted(found.tensors) == [f"layers.{i}.{name}" for i in range(2) for name in weights]
    seen = found.tensors["layers.0.self_attn.in_proj_weight"]
    np.testing.assert_allclose(seen.second_moment, moment_of(x.flatten(0, 1)), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        heads: Any = model.layers[0].self_attn
        projected = heads(x, x, x, key_padding_mask=padding, need_weights=False)[0] - heads.out_proj.bias
    rows = torch.linalg.solve(heads.out_proj.weight.detach(), projected.flatten(0, 1).T).T
    seen = found.tensors["layers.0.self_attn.out_proj.weight"]
    np.testing.assert_allclose(seen.second_moment, moment_of(rows), rtol=1e-3, atol=1e-5)


def test_attention_has_gradients_and_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    x, last = seeded(3, 4, 8), layer.out_proj
    found = calibrate(layer, [(x, x, x)], loss=lambda output, batch: output[0].square().sum())
    (gradient,) = torch.autograd.grad(layer(x, x, x)[0].square().sum(), [layer.in_proj_weight])
    squares = found.tensors["in_proj_weight"].gradient_squares
    np.testing.assert_allclose(squares, gradient.square().numpy(), rtol=1e-4)
    assert layer.out_proj is last
    assert not layer._forward_hooks


def test_input_that_is_given_by_name_is_seen() -> None:
    x = seeded(3, 4)
    by_name, by_position = (calibrate(nn.Linear(4, 2), [batch]) for batch in ({"input": x}, x))
    assert by_name.sha256 == by_position.sha256


def test_an_embedding_keeps_how_often_each_row_was_looked_up() -> None:
    seen = calibrate(nn.Embedding(5, 3), [torch.tensor([[0, 1, 1]]), torch.tensor([[4]])]).tensors["weight"]
    assert (seen.kind, seen.count) == ("embedding", 4)
    assert seen.second_moment.tolist() == [0.25, 0.5, 0, 0, 0.25]


def test_gradients_of_the_loss_are_squared_and_averaged() -> None:
    model = nn.Linear(4, 3)
    batches = [(seeded(5, 4, seed=seed),) for seed in range(3)]
    found = calibrate(model, batches, loss=lambda output, batch: output.sum()).tensors["weight"]
    expected = np.mean([(x.sum(0) ** 2).numpy() for (x,) in batches], axis=0)
    assert found.gradient_squares is not None
    np.testing.assert_allclose(found.gradient_squares, np.broadcast_to(expected, (3, 4)), rtol=1e-5)


def test_the_loss_sees_the_output_and_the_batch() -> None:
    seen: list[tuple[Any, Any]] = []

    def loss(output: Any, batch: Any) -> torch.Tensor:
        seen.append((output, batch))
        total: torch.Tensor = output.sum()
        return total

    batch = {"input": seeded(2, 4)}
    calibrate(nn.Sequential(nn.Linear(4, 3)), [batch], loss=loss)
    assert seen[0][1] is batch
    assert seen[0][0].shape == (2, 3)


def test_batches_may_be_tensors_tuples_lists_or_mappings() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.inner(x)
            return out

    torch.manual_seed(0)
    model, x = Model(), seeded(2, 4)
    digests = {calibrate(model, [batch]).sha256 for batch in (x, (x,), [x], {"x": x})}
    assert len(digests) == 1


@pytest.mark.parametrize("with_loss", [False, True])
def test_the_model_is_left_as_it_was(with_loss: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 2)).train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    calibrate(model, [seeded(3, 4)], loss=(lambda output, batch: output.sum()) if with_loss else None)
    assert [module.training for module in model] == [True, False, True]
    assert [model[0].weight.requires_grad, model[2].weight.requires_grad] == [False, True]
    assert model[2].weight.grad is None
    assert not model[0]._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_failing_model_is_left_as_it_was() -> None:
    model = nn.Linear(4, 2).train()
    with pytest.raises(RuntimeError):
        calibrate(model, [seeded(3, 5)])
    assert model.training
    assert not model._forward_hooks


def test_wide_inputs_keep_the_diagonal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cmpk.observers.MAX_FEATURES", 3)
    x = seeded(6, 4)
    seen = calibrate(nn.Linear(4, 2), [x]).tensors["weight"]
    np.testing.assert_allclose(seen.second_moment, x.square().mean(0).numpy(), rtol=1e-6)


def test_layers_that_no_batch_reaches_have_no_statistics() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.used(x)
            return out

    found = calibrate(Model(), [seeded(3, 2)], loss=lambda output, batch: output.sum())
    assert list(found.tensors) == ["used.weight"]
    assert found.get("unused.weight") is None


@pytest.mark.parametrize("batches", [[], [torch.zeros(0, 4)]], ids=["none", "empty"])
def test_nothing_seen_is_an_error(batches: list[torch.Tensor]) -> None:
    with pytest.raises(SourceError, match="reach no linear layer"):
        calibrate(nn.Linear(4, 2), batches)


def test_a_calibration_comes_back_from_its_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 2))
    saved = calibrate(model, [torch.tensor([[1, 2, 6]])], loss=lambda output, batch: output.sum())
    saved.save(tmp_path / "a")
    loaded = load_calibration(tmp_path / "a")
    assert loaded.sha256 == saved.sha256
    for name, seen in saved.tensors.items():
        back = loaded.tensors[name]
        assert (back.kind, back.count) == (seen.kind, seen.count)
        assert back.second_moment.tobytes() == seen.second_moment.tobytes()
        assert back.gradient_squares is not None
        assert seen.gradient_squares is not None
        assert back.gradient_squares.tobytes() == seen.gradient_squares.tobytes()
        assert np.array_equal(back.input_ranges, seen.input_ranges)  # type: ignore[arg-type]


def test_a_calibration_is_the_same_file_each_time(tmp_path: Path) -> None:
    import hashlib

    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    for name in "ab":
        calibrate(model, [seeded(5, 4)]).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    digest = hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
    assert load_calibration(tmp_path / "a").sha256 == digest


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a safetensors file",
        safetensors.numpy.save({"a": np.zeros(3, np.float32)}),
        safetensors.numpy.save({}, {"cmpk calibration 1": "[]"}),
        safetensors.numpy.save({}, {"cmpk calibration 1": "{"}),
        safetensors.numpy.save({}, {"cmpk calibration 1": "[" * 100_000}),
        safetensors.numpy.save({}, {"cmpk calibration 1": '{"a": {"kind": "linear", "count": 1}}'}),
        safetensors.numpy.save(
            {"a/second_moment": np.zeros((2, 3), np.float32)},
            {"cmpk calibration 1": '{"a": {"kind": "linear", "count": 1}}'},
        ),
        safetensors.numpy.save(
            {"a/second_moment": np.full(3, np.nan, np.float32)},
            {"cmpk calibration 1": '{"a": {"kind": "linear", "count": 1}}'},
        ),
        safetensors.numpy.save(
            {"a/second_moment": np.zeros(3, np.float32)},
            {"cmpk calibration 1": '{"a": {"kind": "magic", "count": 1}}'},
        ),
        safetensors.numpy.save(
            {"a/second_moment": np.zeros(3, np.float32)},
            {"cmpk calibration 1": '{"a": {"kind": "linear", "count": 0}}'},
        ),
        *(
            safetensors.numpy.save(
                {"a/second_moment": np.zeros(3, np.float32), "a/input_ranges": np.array(ranges, np.float32)},
                {"cmpk calibration 1": '{"a": {"kind": "linear", "count": 1}}'},
            )
            for ranges in ([[0, 1]], [[0, 1], [2, 1], [0, 1]], [[0, 1], [0, np.inf], [0, 1]])
        ),
    ],
    ids=[
        "empty",
        "noise",
        "bare",
        "list",
        "json",
        "deep",
        "gone",
        "oblong",
        "nan",
        "kind",
        "count",
        "few",
        "down",
        "inf",
    ],
)
def test_any_other_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(SourceError, match="a' is not a calibration"):
        load_calibration(tmp_path / "a")


def test_a_missing_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="can't read the calibration"):
        load_calibration(tmp_path / "missing")


def test_a_destination_that_can_not_be_written_is_an_error(tmp_path: Path) -> None:
    seen = TensorStatistics("linear", 1, np.ones(1, np.float32))
    with pytest.raises(DestinationError, match="can't write"):
        Calibration({"a": seen}).save(tmp_path)
