from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from torch import nn

import cmpk

Invoke = Callable[..., Result]

MODULE = """
import torch
from torch import nn

def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), [torch.ones(2, 4)]

def with_loss():
    return (*plain(), lambda output, batch: output.sum())

def alone():
    return nn.Linear(4, 3)

number = 4
"""


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sample_for_calibrate.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)


def test_a_calibration_is_written_and_what_is_in_it_is_said(invoke: Invoke) -> None:
    done = invoke("calibrate", "sample_for_calibrate:plain", "-o", "seen")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "seen: 2 weights, in " in done.stdout
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    assert cmpk.load_calibration("seen").sha256 == cmpk.calibrate(model, [torch.ones(2, 4)]).sha256


def test_a_loss_gives_gradients(invoke: Invoke) -> None:
    done = invoke("calibrate", "sample_for_calibrate:with_loss", "-o", "seen")
    assert "2 weights, 2 with gradients" in done.stdout
    assert all(seen.gradient_squares is not None for seen in cmpk.load_calibration("seen").tensors.values())


def test_a_file_is_overwritten_only_when_asked(invoke: Invoke) -> None:
    Path("seen").write_bytes(b"mine")
    refused = invoke("calibrate", "sample_for_calibrate:plain", "-o", "seen")
    assert refused.exit_code == 1
    assert Path("seen").read_bytes() == b"mine"
    assert invoke("calibrate", "sample_for_calibrate:plain", "-o", "seen", "--force").exit_code == 0
    assert cmpk.load_calibration("seen").tensors


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("sample_for_calibrate:missing", "names no function as 'module:function'"),
        ("no_such_module:plain", "names no function as 'module:function'"),
        ("sample_for_calibrate", "names no function as 'module:function'"),
        ("sample_for_calibrate:number", "is not a function"),
        ("sample_for_calibrate:alone", "must return a model and batches"),
    ],
)
def test_what_is_no_such_function_is_an_error(invoke: Invoke, function: str, message: str) -> None:
    done = invoke("calibrate", function, "-o", "seen")
    assert done.exit_code == 1
    assert message in done.stderr
    assert not Path("seen").exists()
