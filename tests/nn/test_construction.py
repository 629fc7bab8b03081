"""Models made for a file: no parameter has memory before the file's tensor takes its place."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import cmpk
from cmpk.errors import SourceError
from cmpk.nn.construction import construct
from cmpk.torch import load_model
from tests.nn.models import Image, Text, inputs, packed, seeded

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", [Text, Image])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_factory_gives_a_model_that_runs_like_the_one_that_was_saved(
    tmp_path: Path, kind: type[nn.Module], dtype: torch.dtype
) -> None:
    model = seeded(kind, dtype)
    loaded = load_model(kind, packed(tmp_path, model)).eval()
    assert {value.dtype for value in loaded.parameters()} == {dtype}
    with torch.inference_mode():
        assert torch.equal(loaded(inputs(kind, dtype)), model(inputs(kind, dtype)))


def test_tied_parameters_stay_tied_and_trainable(tmp_path: Path) -> None:
    loaded = load_model(Text, packed(tmp_path, seeded(Text)))
    assert loaded.head.weight is loaded.embed.weight
    assert all(value.requires_grad for value in loaded.parameters())
    loaded(inputs(Text)).sum().backward()


def test_a_name_that_only_the_model_ties_may_be_missing_in_the_file(tmp_path: Path) -> None:
    model = seeded(Text)
    state = {name: value for name, value in model.state_dict().items() if name != "head.weight"}
    cmpk.torch.save_file(state, tmp_path / "m.cmpk")
    loaded = load_model(Text, tmp_path / "m.cmpk")
    assert loaded.head.weight is loaded.embed.weight
    assert torch.equal(loaded.head.weight, model.head.weight)


def test_names_that_only_the_file_ties_become_one_parameter(tmp_path: Path) -> None:
    weight = torch.randn(5, 5)
    cmpk.torch.save_file({"0.weight": weight, "1.weight": weight}, tmp_path / "m.cmpk")
    loaded = load_model(
        lambda: nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False)), tmp_path / "m.cmpk"
    )
    assert loaded[0].weight is loaded[1].weight


def test_one_parameter_that_two_layers_take_is_one_on_the_meta_device_too() -> None:
    def factory() -> nn.Module:
        shared = nn.Parameter(torch.randn(3, 3))
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[0].weight = shared
        model[1].weight = shared
        return model

    made = construct(factory)
    assert made[0].weight is made[1].weight
    assert {value.device.type for value in made.parameters()} == {"meta"}


def test_other_threads_construct_models_as_ever() -> None:
    found = []

    def factory() -> nn.Module:
        thread = threading.Thread(target=lambda: found.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
        return nn.Linear(2, 2)

    assert construct(factory).weight.is_meta
    assert not found[0].weight.is_meta
    assert not nn.Linear(2, 2).weight.is_meta


def test_names_and_shapes_that_differ_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path, seeded(Image))
    with pytest.raises(SourceError, match=r"does not fit the model: missing \['weight', 'bias'\]"):
        load_model(lambda: nn.Linear(3, 3), path)
    with pytest.raises(SourceError, match=r"no values for \['weight', 'bias'\]"):
        load_model(lambda: nn.Linear(3, 3), path, strict=False)
    cmpk.torch.save_file({"weight": torch.ones(3, 4), "bias": torch.ones(3)}, tmp_path / "other.cmpk")
    with pytest.raises(SourceError, match=r"'weight' is \[3, 4\], the model's is \[3, 3\]"):
        load_model(lambda: nn.Linear(3, 3), tmp_path / "other.cmpk")


def test_what_is_left_over_is_not_asked_for_when_not_strict(tmp_path: Path) -> None:
    cmpk.torch.save_file({"weight": torch.ones(3, 3), "extra": torch.ones(2)}, tmp_path / "m.cmpk")
    assert (
        load_model(lambda: nn.Linear(3, 3, bias=False), tmp_path / "m.cmpk", strict=False).weight.sum() == 9
    )


def test_a_factory_of_something_else_and_unknown_residences_are_refused(tmp_path: Path) -> None:
    path = packed(tmp_path, seeded(Image))
    with pytest.raises(SourceError, match="gave a 'str'"):
        load_model(lambda: "model", path)  # type: ignore[arg-type,return-value]
    with pytest.raises(SourceError, match="'sparse'; give one of 'dense', 'quantized', 'packed'"):
        load_model(Image, path, resident="sparse")


MEASURE = """
import json, sys, torch, cmpk.torch, cmpk.nn
from pathlib import Path
def resident(field):
    text = Path("/proc/self/status").read_text()
    return int(text.split(field + ":")[1].split()[0]) * 1024
torch.set_num_threads(2)
torch.ones(300, 300) @ torch.ones(300, 300)
before = resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
def factory():
    return torch.nn.Sequential(*(torch.nn.Linear(2048, 2048, bias=False) for _ in range(12)))
model = cmpk.torch.load_model(factory, sys.argv[1], jobs=2)
print(json.dumps([sum(p.nbytes for p in model.parameters()), resident("VmHWM") - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux to tell peak memory")
def test_loading_takes_the_model_and_little_more(tmp_path: Path) -> None:
    state = {f"{at}.weight": torch.randn(2048, 2048) for at in range(12)}
    cmpk.torch.save_file(state, tmp_path / "m.cmpk")
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "m.cmpk")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    model_nbytes, peak = json.loads(done.stdout)
    # What is read of the file is mapped, and counted although the system may drop it at any time.
    assert peak - (tmp_path / "m.cmpk").stat().st_size <= model_nbytes + (64 << 20)
