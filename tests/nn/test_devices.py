"""Compressed models on devices other than the CPU; "meta" stands for one, as far as shapes and places go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import cmpk.nn
from cmpk.errors import CmpkError, DeviceError
from cmpk.nn import CompressedLayer, weights
from cmpk.nn.integer import IntegerWeights
from cmpk.torch import load_model
from tests.nn.models import Image, Text, inputs, packed, seeded

META = torch.device("meta")


def layers(model: nn.Module) -> list[CompressedLayer]:
    return [module for module in model.modules() if isinstance(module, CompressedLayer)]


@pytest.mark.parametrize("resident", ["packed", "quantized"])
def test_a_model_runs_where_it_was_loaded_to(tmp_path: Path, resident: str) -> None:
    path = packed(tmp_path, seeded(Image), "int8")
    model = load_model(Image, path, device="meta", resident=resident).eval()
    assert layers(model)
    assert {value.device for value in model.parameters()} == {META}
    with torch.inference_mode():
        found = model(inputs(Image).to("meta"))
        expected = load_model(Image, path).eval()(inputs(Image))
    assert (found.device, found.shape) == (META, expected.shape)
    assert {value.device for value in model.state_dict().values()} == {META}
    assert model.to("meta") is model
    with pytest.raises(CmpkError, match=r"stay torch\.float32 on meta: .*resident='dense'"):
        model.half()
    cmpk.nn.close(model)


def test_codes_of_linear_layers_are_on_the_device_and_dequantized_there(tmp_path: Path) -> None:
    path = packed(tmp_path, seeded(Text), "int8")
    model = load_model(Text, path, device="meta", resident="quantized").eval()
    for layer in (model.first, model.second):
        held = layer._compressed_weights
        assert isinstance(held, IntegerWeights)
        assert type(layer).forward is not cmpk.nn.IntegerLinear.forward
        codes = held.stored(layer._compressed_names["weight"]).codes
        assert (codes.device, codes.dtype) == (META, torch.int8)
        assert (layer.weight.device, layer.weight.dtype) == (META, torch.float32)
    assert not isinstance(model.embed._compressed_weights, IntegerWeights)


@pytest.mark.parametrize("resident", ["packed", "quantized"])
def test_what_is_decoded_is_what_is_copied(
    tmp_path: Path, resident: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[Any] = []

    def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        copied.append(device)
        return tensor.clone()

    monkeypatch.setattr(weights, "to_device", to_device)
    model = load_model(Text, packed(tmp_path, seeded(Text), "int4"), resident=resident).eval()
    dense = load_model(Text, tmp_path / "int4.cmpk").eval()
    with torch.inference_mode():
        for _ in range(2):
            assert torch.equal(model(inputs(Text)), dense(inputs(Text)))
    assert set(copied) == {torch.device("cpu")}
    assert len(copied) >= 2 * len(layers(model))


def test_what_can_not_work_there_is_refused(tmp_path: Path) -> None:
    path = packed(tmp_path, seeded(Text), "int8")
    with pytest.raises(DeviceError, match="integers are multiplied on the CPU"):
        load_model(Text, path, device="meta", resident="quantized", activations="int8")
    model = load_model(Text, path, device="meta", resident="packed").eval()
    with pytest.raises(DeviceError, match=r"'embed\.weight': rows are looked up on the CPU"):
        model(inputs(Text).to("meta"))
